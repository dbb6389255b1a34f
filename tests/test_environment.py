"""Environment variables: switches and numbers, what makes no sense, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import webdataset as wds
from webdataset import security
from webdataset._environment import number_of, switch_of
from webdataset.errors import SecurityError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("text", "value"), [(None, False), ("", False), ("0", False), ("1", True), ("2", True)])
def test_a_switch(text, value, monkeypatch):
    """0, nothing and an empty variable are off, other numbers are on."""
    if text is not None:
        monkeypatch.setenv("WDS_SWITCH", text)
    assert switch_of("WDS_SWITCH") is value
    assert number_of("WDS_NUMBER", 7) == 7


def test_a_switch_that_says_no_allows_no_commands(tmp_path, monkeypatch):
    """WDS_ALLOW_PIPE=no is an error that names the variable, and does not count as on."""
    (tmp_path / "list.txt").write_text("pipe:echo\n")
    monkeypatch.setenv("WDS_ALLOW_PIPE", "no")
    with pytest.raises(SecurityError, match="environment variable WDS_ALLOW_PIPE must be 0 or 1, got 'no'"):
        wds.WebDataset(f"@{tmp_path}/list.txt")


@pytest.mark.parametrize(
    "name", ["ALLOW_OBSOLETE", "WDS_CACHE_REVALIDATE", "WDS_SECURE", "WDS_SHOW_SEED", "WDS_VERBOSE_CACHE"]
)
def test_a_switch_that_makes_no_sense(name, tmp_path, monkeypatch):
    """Whatever reads a switch says which variable is no number."""
    uses = {
        "ALLOW_OBSOLETE": wds.utils.obsolete(lambda: None),
        "WDS_CACHE_REVALIDATE": lambda: wds.cache.FileCache(cache_dir=str(tmp_path)),
        "WDS_SECURE": security.security_enforced,
        "WDS_SHOW_SEED": lambda: iter(wds.ResampledShards(["a.tar"])),
        "WDS_VERBOSE_CACHE": lambda: wds.cache.FileCache(cache_dir=str(tmp_path)),
    }
    monkeypatch.setenv(name, "yes")
    with pytest.raises(ValueError, match=f"environment variable {name} must be 0 or 1, got 'yes'"):
        uses[name]()


def test_the_page_lists_what_is_read():
    """docs/environment.md names each variable that the source asks for by name."""
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    asked = re.compile(
        r'(?:environ(?:\.get)?[\[(]|given\(|switch_of\(|number_of\(|_pair\()"([A-Z_]+)"(?:, "([A-Z_]+)")?'
    )
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = {name for pair in asked.findall(text) for name in pair if name}
    assert {"RANK", "WDS_SEED", "WDS_CACHE", "WDS_ALLOW_PIPE"} <= names
    missing = {name for name in names if f"`{name}`" not in page}
    assert {name for name in missing if not name.startswith(("AWS_", "AZURE_"))} == set()
