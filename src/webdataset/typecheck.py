"""Importing this module makes typeguard, where it is installed, check the types of modules imported afterwards.

That is all it does, and the one import of this package that changes something elsewhere.
"""

from __future__ import annotations

from importlib import import_module

modules = [
    "tenbin",
    "autodecode",
    "cache",
    "cborsiterators",
    "compat",
    "extradatasets",
    "filters",
    "gopen",
    "handlers",
    "mix",
    "pipeline",
    "shardlists",
    "tariterators",
    "utils",
    "writer",
]
"""The modules that are checked, if nobody has imported them before."""

try:
    _typeguard = import_module("typeguard")
except ModuleNotFoundError:  # then nothing is checked, as published
    pass
else:
    _typeguard.install_import_hook([f"webdataset.{name}" for name in modules])

__all__ = ["modules"]
