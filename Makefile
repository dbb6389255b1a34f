# Everything that is done with this project, from a fresh clone on: `make help` lists it.
# Needed beforehand: Python 3.11 or later with venv, and make. Nothing is installed outside this folder.

PYTHON ?= python3
TORCH_INDEX ?=

VENV := .venv
PUBLISHED := .venv-published
WIDS := .venv-wids
ENERGON := .venv-energon
PLAIN := .venv-plain
SERVERS := .servers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PUBLISHED_PIP := $(PUBLISHED)/bin/python -m pip --quiet --disable-pip-version-check
PUBLISHED_PYTHON := $(abspath $(PUBLISHED)/bin/python)
WIDS_PIP := $(WIDS)/bin/python -m pip --quiet --disable-pip-version-check
ENERGON_PIP := $(ENERGON)/bin/python -m pip --quiet --disable-pip-version-check
SOURCES := src tests bench examples scripts

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo servers test test-without-torch check format bench clean

help: ## list the targets
	@echo "make TARGET [PYTHON=python3.12] [TORCH_INDEX=https://download.pytorch.org/whl/cpu]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## train on real images, streamed from shards that it writes first (2 minutes)
	$(BIN)/python examples/demo.py

servers: $(SERVERS)/.made ## install the object stores that tests start on loopback (npm is needed)

test: $(VENV)/.dev $(PUBLISHED)/.made $(ENERGON)/.made $(SERVERS)/.made ## run every test
	WDS_PUBLISHED_PYTHON=$(PUBLISHED_PYTHON) WDS_ENERGON_PYTHON=$(abspath $(ENERGON)/bin/python) $(BIN)/python -m pytest -n auto $(PYTEST)

test-without-torch: $(PLAIN)/.made $(PUBLISHED)/.made $(SERVERS)/.made ## run the tests that need no torch, where there is none
	WDS_PUBLISHED_PYTHON=$(PUBLISHED_PYTHON) $(PLAIN)/bin/python -m pytest -n auto $(PYTEST)

check: $(VENV)/.dev ## lint, formatting, types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.dev $(PUBLISHED)/.torch $(WIDS)/.made ## measure against the published packages; writes bench/RESULTS.md
	$(BIN)/python bench/run.py --published $(PUBLISHED_PYTHON) --wids $(abspath $(WIDS)/bin/python) --write $(BENCH)

clean: ## remove what these targets made, the environments too
	rm -rf $(VENV) $(PUBLISHED) $(WIDS) $(ENERGON) $(PLAIN) $(SERVERS) demo-data bench/data build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments. A stamp file is newer than what it was made from, so a second run installs nothing.
# The TORCH_INDEX build of torch comes without its dependencies, which then come from the usual index.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	$(if $(TORCH_INDEX),$(PIP) install --index-url $(TORCH_INDEX) --no-deps --constraint constraints.txt torch)
	$(PIP) install --constraint constraints.txt --editable . --group demo
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --constraint constraints.txt --group dev
	@touch $@

$(PLAIN)/.made: pyproject.toml
	$(PYTHON) -m venv $(PLAIN)
	$(PLAIN)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(PLAIN)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group plain
	@touch $@

$(PUBLISHED)/.made: constraints.txt
	$(PYTHON) -m venv $(PUBLISHED)
	$(PUBLISHED_PIP) install --upgrade "pip>=25.1"
	$(PUBLISHED_PIP) install webdataset==1.0.2 numpy pillow msgpack cbor
	@touch $@

$(PUBLISHED)/.torch: $(PUBLISHED)/.made
	$(if $(TORCH_INDEX),$(PUBLISHED_PIP) install --index-url $(TORCH_INDEX) --no-deps --constraint constraints.txt torch)
	$(PUBLISHED_PIP) install --constraint constraints.txt torch awscli
	@touch $@

# The last version that has wids, which needs torch, and streams of CBOR records.
$(WIDS)/.made: constraints.txt
	$(PYTHON) -m venv $(WIDS)
	$(WIDS_PIP) install --upgrade "pip>=25.1"
	$(if $(TORCH_INDEX),$(WIDS_PIP) install --index-url $(TORCH_INDEX) --no-deps --constraint constraints.txt torch)
	$(WIDS_PIP) install --constraint constraints.txt webdataset==0.2.100 numpy pillow torch cbor
	@touch $@

# Energon brings a webdataset of its own; nothing of this project is installed there.
$(ENERGON)/.made: constraints.txt
	$(PYTHON) -m venv $(ENERGON)
	$(ENERGON_PIP) install --upgrade "pip>=25.1"
	$(if $(TORCH_INDEX),$(ENERGON_PIP) install --index-url $(TORCH_INDEX) --no-deps --constraint constraints.txt torch)
	$(ENERGON_PIP) install --constraint constraints.txt megatron-energon==7.4.1
	@touch $@

$(SERVERS)/.made: Makefile
	@command -v npm >/dev/null || { echo "npm is needed (Debian: apt-get install nodejs npm)" >&2; exit 1; }
	npm install --prefix $(SERVERS) --no-audit --no-fund --loglevel error s3rver@3.7.1 azurite@3.35.0
	@touch $@
