"""Azure: accounts, shared keys and SAS against azurite, tokens of azure-identity, and what refusals mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from opener_contract import DATA, OpenerContract
from servers import Page, Request, serve
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import azure as azure_storage
from webdataset.storage import places
from webdataset.storage.options import StorageOptions


class TestWriting(OpenerContract):
    """azurite serves and takes everything that openers must."""

    @pytest.fixture
    def url_of(self, azure):
        return lambda data: azure.put("some/object.tar", data)

    @pytest.fixture
    def missing(self, azure):
        return azure.url("nothing.tar")

    @pytest.fixture
    def target(self, azure):
        return azure.url("new/ö written.tar"), lambda: azure.get("new/ö written.tar")


def test_large_blobs(azure):
    """What does not fit into one part comes in blocks; an upload that is given up leaves nothing."""
    data = DATA * 60
    with gopen(azure.url("large.tar"), "wb") as stream:
        stream.write(data)
    assert hashlib.sha256(azure.get("large.tar")).digest() == hashlib.sha256(data).digest()
    stream = gopen(azure.url("other.tar"), "wb")
    stream.write(data)
    stream.abort()
    assert [entry.url for entry in places.entries(azure.url(""))] == [azure.url("large.tar")]
    with pytest.raises(OpenError, match="it exists"), gopen(azure.url("large.tar"), "wb", overwrite=False) as stream:
        stream.write(b"x")


def sas(store, hours: float = 1.0, permissions: str = "rl") -> str:
    """A SAS token for the container, as https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas
    has it for version 2020-12-06 and later."""
    ends = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    resource = f"/blob/{store.account}/{store.container}"
    fields = [permissions, "", ends, resource, "", "", "", "2021-12-02", "c", "", "", "", "", "", "", ""]
    proof = hmac.new(base64.b64decode(store.key), "\n".join(fields).encode(), hashlib.sha256).digest()
    told = {"sv": "2021-12-02", "sr": "c", "sp": permissions, "se": ends, "sig": base64.b64encode(proof).decode()}
    return urlencode(told)


@pytest.fixture
def bare(azure, monkeypatch):
    """The container, and an environment that names nothing but the endpoint."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", f"{azure.endpoint}/{azure.account}")
    return azure


def test_account_and_key(bare, monkeypatch):
    """Account and key may stand in variables of their own."""
    url = bare.put("a.tar", DATA)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", bare.account)
    monkeypatch.setenv("AZURE_STORAGE_KEY", bare.key)
    assert gopen(url).read() == DATA
    for scheme in ("abfs", "abfss", "AZ"):
        assert gopen(url.replace("az", scheme, 1)).read() == DATA
    assert [entry.url for entry in places.entries(bare.url("a"))] == [url]


def test_sas(bare, monkeypatch):
    """A SAS token grants what it says: from the environment, with or without its question mark, or in the string."""
    url = bare.put("a b.tar", DATA)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", bare.account)
    for start in ("", "?"):
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", start + sas(bare))
        assert gopen(url).read() == DATA
        assert [entry.url for entry in places.entries(bare.url("a"))] == [url]
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    endpoint = f"{bare.endpoint}/{bare.account}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"BlobEndpoint={endpoint};SharedAccessSignature={sas(bare)}")
    assert gopen(url).read() == DATA


def test_sas_that_has_run_out(bare, monkeypatch):
    """A SAS token that has run out, or does not allow it, is said to be that, and is not shown."""
    url = bare.put("a.tar", DATA)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", bare.account)
    token = sas(bare, hours=-1)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    with pytest.raises(
        OpenError, match=r"HTTP 403 .*: the key, the SAS token or the clock of this machine is wrong"
    ) as caught:
        gopen(url)
    assert token.partition("sig=")[2] not in str(caught.value)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas(bare, permissions="l"))
    with pytest.raises(OpenError, match=r"HTTP 403 .*: these credentials may not do it"):
        gopen(url)


def test_wrong_key(bare, monkeypatch):
    """A wrong key is said to be wrong, for each kind of question, and what is no key is told from that."""
    url = bare.put("a.tar", DATA)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", bare.account)
    monkeypatch.setenv("AZURE_STORAGE_KEY", base64.b64encode(b"S3CR3T").decode())
    for ask in (gopen, places.stat, lambda url: list(places.entries(url))):
        with pytest.raises(OpenError, match=r"HTTP 403 .*: the key, the SAS token or the clock"):
            ask(url)
    monkeypatch.setenv("AZURE_STORAGE_KEY", "S3CR3T!")
    with pytest.raises(OpenError, match=r"the key of the storage account \(AZURE_STORAGE_KEY\) is no base64") as caught:
        gopen(url)
    assert "S3CR3T" not in str(caught.value)


def test_anonymous(azure):
    """Without credentials what is private is refused, and the refusal says that none were sent."""
    url = azure.put("a.tar", DATA)
    with pytest.raises(OpenError, match="no credentials were sent, as was asked; the container is not public"):
        gopen(url, anonymous=True)
    acl = b'<?xml version="1.0" encoding="utf-8"?><SignedIdentifiers />'
    azure.ask("PUT", "?restype=container&comp=acl", {"x-ms-blob-public-access": "container"}, acl)
    assert gopen(url, anonymous=True).read() == DATA
    assert [entry.url for entry in places.entries(azure.url(""), StorageOptions(anonymous=True))] == [url]


def test_missing(azure):
    """What is missing is said to be the container or the blob."""
    with pytest.raises(NotFoundError, match="the container has no such blob"):
        gopen(azure.url("a.tar"))
    with pytest.raises(NotFoundError, match="the container has no such blob"):
        places.stat(azure.url("a.tar"))
    with pytest.raises(NotFoundError, match="there is no container of this name"):
        gopen("az://no-such-container/a.tar")


ADDRESSES = [
    ("az://data/x/a b.tar", "https://ours.blob.core.windows.net/data/x/a%20b.tar", True),
    ("abfs://data@ours.dfs.core.windows.net/a", "https://ours.blob.core.windows.net/data/a", True),
    ("abfss://data@other.dfs.core.windows.net/a", "https://other.blob.core.windows.net/data/a", False),
    ("az://data@other.blob.core.windows.net/a", "https://other.blob.core.windows.net/data/a", False),
    ("az://ours.blob.core.usgovcloudapi.net/data/x/a", "https://ours.blob.core.usgovcloudapi.net/data/x/a", True),
]


@pytest.mark.parametrize(("url", "address", "ours"), ADDRESSES)
def test_addresses(clean_clouds, monkeypatch, url, address, ours):
    """Accounts in urls win; keys and SAS tokens go to the account that the environment names and to no other."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ours")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=S3CR3T")
    target = azure_storage.target_of(url, StorageOptions())
    assert target.address == address
    assert "S3CR3T" not in repr(target) + repr(azure_storage.account_of(url, StorageOptions()))
    assert (azure_storage.account_of(url, StorageOptions()).sas == "sig=S3CR3T") == ours


def test_urls_of_hosts_are_listed_in_their_own_spelling(azure):
    """Entries repeat the beginning of the url that was asked for."""
    azure.put("x/a.tar", DATA)
    options = StorageOptions(endpoint=f"{azure.endpoint}/{azure.account}")
    for base in (
        f"abfs://{azure.container}@ours.dfs.core.windows.net",
        f"az://ours.blob.core.windows.net/{azure.container}",
    ):
        assert [entry.url for entry in places.entries(f"{base}/x/", options)] == [f"{base}/x/a.tar"]
        assert places.open_read(f"{base}/x/a.tar", options).read() == DATA


WRONG = [
    "az://",
    "az://c",
    "az://Data/a",
    "az://data",
    "az://data/",
    "az://ours.blob.core.windows.net/",
    "az://a:S3CR3T@h/b",
]


@pytest.mark.parametrize("url", WRONG)
def test_urls_that_name_no_blob(clean_clouds, url):
    """A url without container or blob says how it is written, and asks nobody."""
    with pytest.raises(OpenError, match="write az://CONTAINER/BLOB"):
        gopen(url)


def test_no_account(clean_clouds):
    """A url without an account, where the environment names none, says what to set."""
    with pytest.raises(OpenError, match=r"az://data/a.tar: set AZURE_STORAGE_ACCOUNT to the account of the container"):
        gopen("az://data/a.tar")


def test_tokens_of_an_identity(clean_clouds, monkeypatch):
    """Without key and SAS azure-identity is asked: here for the managed identity of a machine; its token is kept."""
    given = []

    def identity(request: Request) -> Page:
        given.append(request.headers["X-IDENTITY-HEADER"])
        token = {
            "access_token": "T0K3N",
            "expires_on": str(int(time.time()) + 3600),
            "resource": "x",
            "token_type": "Bearer",
        }
        return Page(json.dumps(token).encode(), content_type="application/json")

    def blobs(request: Request) -> Page:
        return Page(DATA) if request.headers.get("Authorization") == "Bearer T0K3N" else Page(status=401)

    with serve(identity) as machine, serve(blobs) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", machine.url("/token"))
        monkeypatch.setenv("IDENTITY_HEADER", "S3CR3T")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ours")
        for _ in range(3):
            assert gopen("az://data/a.tar", endpoint=server.base).read() == DATA
        assert given == ["S3CR3T"]
        assert server.requests[0].headers["x-ms-version"] == azure_storage.VERSION


def test_no_credentials(clean_clouds, monkeypatch):
    """Where no credentials are found public blobs are read, and a refusal says where they were looked for."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ours")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    private = Page(status=409, headers={"x-ms-error-code": "PublicAccessNotPermitted"})
    with serve({"/data/a.tar": DATA, "/data/b.tar": private}) as server:
        assert gopen("az://data/a.tar", endpoint=server.base).read() == DATA
        with pytest.raises(OpenError, match=r"no credentials were found \(AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN"):
            gopen("az://data/b.tar", endpoint=server.base)


def test_without_azure_identity(tmp_path):
    """Without azure-identity keys work; with neither, the package is named, or the az command reads."""
    start = "import sys; sys.modules['azure.identity'] = None; import webdataset as wds\n"
    read = "print(wds.gopen('az://data/x/a', {}endpoint={!r}).read())"
    with serve({"/data/x/a": b"bytes"}) as server:

        def done(mode: str = "", **more: str) -> str:
            code = start + read.format(mode, server.base)
            environment = {**os.environ, "PATH": str(tmp_path), "AZURE_STORAGE_ACCOUNT": "ours", **more}
            ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            return ran.stdout + ran.stderr

        assert done(AZURE_STORAGE_KEY="a2V5") == "b'bytes'\n"
        assert "needs azure-identity: pip install azure-identity" in done()
        tool = tmp_path / "az"
        tool.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
        tool.chmod(0o755)
        instead = done()
        assert "until then the az command serves az urls" in instead
        assert "--container-name data --name x/a" in instead
        assert "the az command does not write what is still being made" in done("'wb', tool=True, ")
