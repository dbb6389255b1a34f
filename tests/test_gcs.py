"""Google Cloud Storage, against a fake of its XML reads and JSON listings: who asks, and what refusals mean."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from opener_contract import DATA
from servers import Page, serve
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import places
from webdataset.storage.options import StorageOptions


@pytest.fixture
def account(google, monkeypatch, tmp_path):
    """The fake wants a token, which a service account gets from it; not named as an emulator."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "account.json"
    told = {"type": "service_account", "client_email": "a@b", "private_key": key.decode(), "private_key_id": "1"}
    file.write_text(json.dumps({**told, "token_uri": google.server.url("/token"), "project_id": "p"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    google.tokens = {"none yet"}
    return StorageOptions(endpoint=google.server.base)


def test_tokens(google, account):
    """A token is had once and used for all that follows, listings too."""
    url = google.put("a.tar", DATA)
    assert places.open_read(url, account).read() == DATA
    assert places.stat(url, account).size == len(DATA)
    assert [entry.url for entry in places.entries(url, account)] == [url]
    assert google.given == 1


def test_tokens_are_renewed_before_they_run_out(google, account):
    """A token that is about to run out is replaced before the next request, in the middle of a read too."""
    google.lifetime = 1
    google.put("a.tar", DATA)
    cut = iter([len(DATA) // 3, None])

    def answer(request):
        page = google(request)
        if request.path.startswith("/bucket/"):
            page = Page(DATA, cut=next(cut), headers={"ETag": '"1"'}, status=page.status)
        return page

    with serve(answer) as server:
        options = StorageOptions(endpoint=server.base, backoff=0.01)
        assert places.open_read("gs://bucket/a.tar", options).read() == DATA
        used = [request.headers["Authorization"] for request in server.requests if request.method == "GET"]
    assert len(used) == len(set(used)) == 2


def test_a_token_that_is_not_accepted_is_replaced(google, account):
    """When a token is refused before its time, another one is asked for, once."""
    url = google.put("a.tar", DATA)
    assert places.open_read(url, account).read() == DATA
    google.tokens = {"another"}
    assert places.open_read(url, account).read() == DATA
    assert google.given == 2


def test_anonymous(google, account):
    """htgs: and the option anonymous send no token, and a refusal says so."""
    url = google.put("a.tar", DATA)
    for ask in (
        lambda: places.open_read(url.replace("gs:", "htgs:"), account),
        lambda: gopen(url, endpoint=google.server.base, anonymous=True),
    ):
        with pytest.raises(OpenError, match="HTTP 401 Unauthorized: no credentials were sent, as was asked"):
            ask()
    google.tokens = None
    assert places.open_read(url.replace("gs:", "htgs:"), account).read() == DATA
    assert [entry.url for entry in places.entries("htgs://bucket/", account)] == ["htgs://bucket/a.tar"]
    assert not any("Authorization" in request.headers for request in google.server.requests)


def test_no_credentials(google, monkeypatch):
    """Where no credentials are found public objects are read, and a refusal says where they were looked for."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    url = google.put("a.tar", DATA)
    options = StorageOptions(endpoint=google.server.base)
    assert places.open_read(url, options).read() == DATA
    google.tokens = {"x"}
    with pytest.raises(OpenError, match=r"no credentials were found \(GOOGLE_APPLICATION_CREDENTIALS, gcloud"):
        places.open_read(url, options)


def test_credentials_that_are_none(google, monkeypatch, tmp_path):
    """A file of credentials that cannot be used is an error; nothing is read without them instead."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    file = tmp_path / "account.json"
    file.write_text('{"type": "service_account", "private_key": "S3CR3T"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(OpenError, match="GOOGLE_APPLICATION_CREDENTIALS cannot be used: ") as caught:
        places.open_read(google.put("a.tar", DATA), StorageOptions(endpoint=google.server.base))
    assert "S3CR3T" not in str(caught.value)


def test_a_token_server_that_refuses(google, account):
    """When no token is to be had, the error says so and shows no secret."""

    def answer(request):
        return Page(b'{"error": "invalid_grant", "error_description": "gone"}', status=400)

    with serve(answer) as server:
        file = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
        with open(file) as stream:
            told = json.load(stream)
        with open(file + "2", "w") as stream:
            json.dump({**told, "token_uri": server.url("/token")}, stream)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", file + "2")
            with pytest.raises(OpenError, match=r"Google's credentials cannot be renewed: .*invalid_grant") as caught:
                places.open_read("gs://bucket/a", account)
    assert "PRIVATE" not in str(caught.value)


def test_objects_come_as_they_are_stored(google):
    """Reads ask for the stored bytes, so that what is stored compressed keeps its size and its ranges."""
    gopen(google.put("a.tar.gz", DATA)).close()
    assert google.server.requests[-1].headers["Accept-Encoding"] == "gzip"


def test_missing_buckets(google):
    """The bucket that is not there is named as such by reads; listings tell what Google says."""
    with pytest.raises(NotFoundError, match="HTTP 404 Not Found: there is no bucket of this name"):
        gopen("gs://other/a.tar")
    with pytest.raises(NotFoundError, match=r"Google says: The specified bucket does not exist\."):
        list(places.entries("gs://other/"))


@pytest.mark.parametrize("url", ["gs://", "gs://bucket", "gs://bucket/", "htgs://bucket", "gs://me:S3CR3T@bucket/a"])
def test_urls_that_name_no_object(url):
    """A url without bucket or object says how it is written, and asks nobody."""
    with pytest.raises(OpenError, match="write gs://BUCKET/OBJECT") as caught:
        gopen(url)
    assert "S3CR3T" not in str(caught.value)


def test_without_google_auth(tmp_path):
    """Without google-auth anonymous reads work; else the package is named, or gsutil stands in."""
    start = "import sys; sys.modules['google.auth'] = None; import webdataset as wds\n"
    read = "print(wds.gopen('gs://bucket/a', endpoint={!r}, anonymous={}).read())"
    with serve({"/bucket/a": b"bytes"}) as server:

        def done(anonymous: bool) -> str:
            code = start + read.format(server.base, anonymous)
            environment = {**os.environ, "PATH": str(tmp_path), "HOME": str(tmp_path)}
            ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            return ran.stdout + ran.stderr

        assert done(True) == "b'bytes'\n"
        assert "needs google-auth: pip install google-auth" in done(False)
        tool = tmp_path / "gsutil"
        tool.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
        tool.chmod(0o755)
        instead = done(False)
        assert "until then the gsutil command serves gs urls" in instead
        assert "b'cat gs://bucket/a '\n" in instead
