"""The hub: listings, tokens, refusals. How urls become addresses is in test_gopen.py."""

from __future__ import annotations

import json

import pytest

from servers import Page, serve
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import places
from webdataset.storage.options import StorageOptions


def test_listing_keeps_the_spelling(hub, monkeypatch):
    """Entries repeat the beginning of the url, revision and all; the revision goes into the path of the question."""
    hub.put("train/a.tar", b"x")
    pages = [{"type": "file", "path": "train/a.tar", "size": 1}, {"type": "directory", "path": "train", "size": 0}]
    with serve(lambda request: Page(json.dumps(pages).encode())) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        for begin, path in {
            "hf://datasets/o/n@refs/pr/3": "/api/datasets/o/n/tree/refs%2Fpr%2F3/train?recursive=true",
            "hf://o/n@v1": "/api/models/o/n/tree/v1/train?recursive=true",
            "HF://Spaces/o/n": "/api/spaces/o/n/tree/main/train?recursive=true",
        }.items():
            assert [entry.url for entry in places.entries(f"{begin}/train/")] == [f"{begin}/train/a.tar"]
            assert server.requests[-1].path == path


def test_the_token_stays_at_the_hub(hub, monkeypatch):
    """Pages of a listing are followed at the hub alone; the option anonymous sends no token."""
    hub.put("a.tar", b"x")
    with serve({}) as thief:
        link = {"Link": f'<{thief.url("/next")}>; rel="next"'}
        with serve(lambda request: Page(b"[]", headers=link)) as server:
            monkeypatch.setenv("HF_ENDPOINT", server.base)
            with pytest.raises(OpenError, match="the listing goes on at another server than the hub"):
                list(places.entries("hf://datasets/o/n/"))
            gopen("hf://datasets/o/n/a", anonymous=True).close()
            assert [request.headers.get("Authorization") for request in server.requests] == ["Bearer hf_secret", None]
        assert thief.requests == []


REFUSALS = {
    "RepoNotFound": (401, "there is no such repository, or it is private"),
    "GatedRepo": (403, "the repository asks for consent"),
    "RevisionNotFound": (404, "the repository has no such revision"),
    "EntryNotFound": (404, "the repository has no such file"),
    "": (401, "the hub wants a token; set HF_TOKEN"),
    "New": (403, "the hub says: Mind the gap"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals(hub, monkeypatch, code):
    """Each refusal of the hub is one line that says what to do, without the token."""
    status, meaning = REFUSALS[code]
    page = Page(status=status, headers={"X-Error-Code": code, "X-Error-Message": "Mind the gap"})
    with serve(lambda request: page) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        with pytest.raises(OpenError, match=f"HTTP {status} .*: {meaning}") as caught:
            gopen("hf://datasets/o/n/a.tar")
        assert isinstance(caught.value, NotFoundError) == (status == 404)
        if code == "EntryNotFound":
            assert list(places.entries("hf://datasets/o/n/a.tar")) == []
        else:
            with pytest.raises(OpenError, match=meaning):
                list(places.entries("hf://datasets/o/n/a.tar"))
    assert "hf_secret" not in str(caught.value)


def test_listings_that_are_none(hub, monkeypatch):
    """What is no listing of a hub is an error that names the variable."""
    with serve(lambda request: Page(b"<html>")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        with pytest.raises(OpenError, match="the listing is none of the hub's; check HF_ENDPOINT"):
            list(places.entries("hf://datasets/o/n/", StorageOptions()))
