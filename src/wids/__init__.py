"""Indexed access to tar shards. Not there yet: this version streams (`import webdataset`)."""

__all__: list[str] = []
