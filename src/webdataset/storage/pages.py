"""Listings of object stores: pages of an answer to entries; what the XML of the stores says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator

from ..errors import OpenError
from .target import Entry

PAGE = 1000
"""Names that are asked for at a time."""

Page = Callable[[str | None], tuple[list[Entry], str | None]]
"""(mark of the page, None for the first) -> (its entries, mark of the next page or None)"""


def all_pages(url: str, page: Page) -> Iterator[Entry]:
    """The entries of all pages, sorted by url (not every server does), but for the empty ones that stand for folders.

    Raises:
        OpenError: the server names one page as the next one twice.
    """
    entries: list[Entry] = []
    mark: str | None = None
    seen = set()
    while True:
        found, mark = page(mark)
        entries += [entry for entry in found if not (entry.url.endswith("/") and not entry.size)]
        if not mark:
            yield from sorted(entries)
            return
        if mark in seen:
            raise OpenError("the server lists the same page again and again", url=url)
        seen.add(mark)


def xml_of(body: bytes) -> ElementTree.Element | None:
    """The root of an XML text, its names without their namespaces; None where it is no (whole) XML."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  expat refuses entities that grow
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def listing_of(body: bytes, url: str) -> ElementTree.Element:
    """The root of a listing.

    Raises:
        OpenError: it is no XML.
    """
    root = xml_of(body)
    if root is None:
        raise OpenError("the server's listing is no XML; is the endpoint that of an object store?", url=url)
    return root
