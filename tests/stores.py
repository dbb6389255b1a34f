"""Object stores on loopback: moto and s3rver speak S3, azurite speaks Azure; each starts with the first test that asks
for it and ends with the tests. `make servers` installs the two that come from npm. A fake of Google's store and a small
hub are of our own.

    def test_x(s3):                       one of the S3 servers after the other
        s3.put("a/b.tar", data)
        gopen(s3.url("a/b.tar"))          the environment says where it is and who asks
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
import urllib3

from servers import Loopback, Page, Request, serve
from webdataset.storage import sharedkey

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / ".servers" / "node_modules" / ".bin"
STARTED: set[int] = set()
"""Processes of servers, which are children of the tests' process all the time."""


@contextlib.contextmanager
def running(command: list[str], says: str, folder: Path, **environment: str) -> Iterator[str]:
    """A server program for the time of the block; gives the group of `says` that its output matched."""
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is not installed: make servers")
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment},
        )
    STARTED.add(process.pid)
    try:
        yield _said(process, output, says)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        STARTED.discard(process.pid)


def _said(process: subprocess.Popen[bytes], output: Path, pattern: str, seconds: float = 60.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = output.read_text(errors="replace")
        match = re.search(pattern, text)
        if match:
            return match[1]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{process.args} does not serve: {output.read_text(errors='replace')[-2000:]}")


class S3Store:
    """A bucket of its own on an S3 server, filled by botocore.

    Attributes:
        environment: variables with which a program reads it.
    """

    def __init__(self, endpoint: str, access: str, secret: str) -> None:
        import botocore.session
        from botocore.config import Config

        self.endpoint = endpoint
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
        )
        self.client.create_bucket(Bucket=self.bucket)

    def url(self, key: str) -> str:
        """The url of an object."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, data: bytes) -> str:
        """Make an object; its url."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return self.url(key)

    def get(self, key: str) -> bytes:
        """What an object holds."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto, S3 in Python; it accepts every signature."""
    program = str(Path(sys.executable).parent / "moto_server")
    command = [program, "-H", "127.0.0.1", "-p", "0"]
    with running(command, r"Running on (http://127\.0\.0\.1:\d+)", tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3rver_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """s3rver, S3 in JavaScript; it knows its access key, and believes every signature."""
    folder = tmp_path_factory.mktemp("s3rver")
    command = [str(PROGRAMS / "s3rver"), "-d", str(folder), "-a", "127.0.0.1", "-p", "0", "--silent"]
    old_ciphers = {"NODE_OPTIONS": "--openssl-legacy-provider"}  # it makes its continuation tokens with DES
    with running(command, r"listening on (127\.0\.0\.1:\d+)", folder, **old_ciphers) as address:
        yield f"http://{address}"


S3_SERVERS = {"moto": ("moto_endpoint", "access", "secret"), "s3rver": ("s3rver_endpoint", "S3RVER", "S3RVER")}
"""Fixture, access key and secret of each S3 server."""


def _s3_store(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    fixture, access, secret = S3_SERVERS[server]
    store = S3Store(request.getfixturevalue(fixture), access, secret)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(params=sorted(S3_SERVERS))
def s3(request: pytest.FixtureRequest, clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A new bucket on each of the servers, which the environment names."""
    return _s3_store(request.param, request, monkeypatch)


@pytest.fixture
def moto(request: pytest.FixtureRequest, clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A new bucket on moto, which the environment names."""
    return _s3_store("moto", request, monkeypatch)


@pytest.fixture
def s3rver(request: pytest.FixtureRequest, clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A new bucket on s3rver, which the environment names."""
    return _s3_store("s3rver", request, monkeypatch)


@pytest.fixture(params=["moto", "s3rver", "azure", "google", "hub"])
def store(request: pytest.FixtureRequest) -> Any:
    """A new place on each of the servers, which the environment names: `url(name)` and `put(name, data)`."""
    return request.getfixturevalue(request.param)


class AzureStore:
    """A container of its own in azurite, whose only client so far is the library itself: azurite checks its signatures.

    Attributes:
        environment: variables with which a program reads it.
    """

    def __init__(self, endpoint: str, account: str, key: str) -> None:
        self.endpoint, self.account, self.key = endpoint, account, key
        self.container = f"c-{uuid.uuid4().hex[:12]}"
        self.environment = {
            "AZURE_STORAGE_CONNECTION_STRING": f"AccountName={account};AccountKey={key};"
            f"BlobEndpoint={endpoint}/{account}"
        }
        self.ask("PUT", "?restype=container", accept=(201,))

    def url(self, name: str) -> str:
        """The url of a blob."""
        return f"az://{self.container}/{name}"

    def put(self, name: str, data: bytes) -> str:
        """Make a blob; its url."""
        self.ask("PUT", f"/{quote(name)}", {"x-ms-blob-type": "BlockBlob"}, data, accept=(201,))
        return self.url(name)

    def get(self, name: str) -> bytes:
        """What a blob holds."""
        return self.ask("GET", f"/{quote(name)}")

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        accept: tuple[int, ...] = (200,),
    ) -> bytes:
        """One request with the shared key."""
        address = f"{self.endpoint}/{self.account}/{self.container}{path}"
        sent = {**(headers or {}), "x-ms-version": "2021-12-02", "Content-Length": str(len(body))}
        sent = sharedkey.signed(self.account, base64.b64decode(self.key), method, address, sent, datetime.now(UTC))
        answer = urllib3.request(method, address, headers=sent, body=body, retries=False)
        assert answer.status in accept, (answer.status, answer.data)
        return answer.data


@pytest.fixture(scope="session")
def azurite_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """azurite, Azure's blobs in JavaScript; it checks shared keys and SAS."""
    command = [str(PROGRAMS / "azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]
    command += ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    accounts = ":".join(AZURITE)
    folder = tmp_path_factory.mktemp("azurite")
    with running(command, r"listens on (http://127\.0\.0\.1:\d+)", folder, AZURITE_ACCOUNTS=accounts) as endpoint:
        yield endpoint


AZURITE = ("ours", base64.b64encode(b"a key of the tests alone").decode())
"""Account and key of azurite."""


@pytest.fixture
def azure(azurite_endpoint: str, clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> AzureStore:
    """A new container, which the environment names."""
    store = AzureStore(azurite_endpoint, *AZURITE)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


class FakeGoogle:
    """A fake of Google Cloud Storage, of the tests' own: XML reads of objects and JSON listings, as its documentation
    says; no emulator was found that serves both.

    Attributes:
        objects: "bucket/name" to bytes.
        tokens: tokens that are accepted; None: everybody may read.
        lifetime: seconds that a token is said to last.
    """

    bucket = "bucket"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str] | None = None
        self.given = 0
        self.lifetime = 3600
        self.server: Loopback

    def url(self, name: str) -> str:
        """The url of an object."""
        return f"gs://{self.bucket}/{name}"

    def put(self, name: str, data: bytes) -> str:
        """Make an object; its url."""
        self.objects[f"{self.bucket}/{name}"] = data
        return self.url(name)

    def __call__(self, request: Request) -> Page:
        parts = urlsplit(request.path)
        if parts.path == "/token":
            self.given += 1
            token = f"token-{self.given}"
            if self.tokens is not None:
                self.tokens = {token}
            return Page(
                json.dumps({"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}).encode()
            )
        if (
            self.tokens is not None
            and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens
        ):
            return Page(b"<Error><Code>AuthenticationRequired</Code></Error>", status=401)
        listing = re.fullmatch(r"/storage/v1/b/([^/]+)/o", parts.path)
        if listing:
            return self._listed(listing[1], dict(parse_qsl(parts.query)))
        data = self.objects.get(unquote(parts.path)[1:])
        if data is None:
            bucket = parts.path.split("/")[1]
            code = "NoSuchKey" if bucket == self.bucket else "NoSuchBucket"
            return Page(f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode(), status=404)
        return Page(data, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _listed(self, bucket: str, query: dict[str, str]) -> Page:
        if bucket != self.bucket:
            return Page(b'{"error": {"message": "The specified bucket does not exist."}}', status=404)
        names = sorted(name.partition("/")[2] for name in self.objects)
        names = [
            name for name in names if name.startswith(query.get("prefix", "")) and name > query.get("pageToken", "")
        ]
        items = []
        size = int(query["maxResults"])
        for name in names[:size]:
            data = self.objects[f"{bucket}/{name}"]
            md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
            items.append({"name": name, "size": str(len(data)), "md5Hash": md5})
        more = {"nextPageToken": names[size - 1]} if len(names) > size else {}
        return Page(json.dumps({"items": items, **more} if items else {}).encode())


@pytest.fixture
def google(clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGoogle]:
    """The fake, which the environment names as an emulator."""
    fake = FakeGoogle()
    with serve(fake) as server:
        fake.server = server
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.base)
        yield fake


class Hub:
    """A hub of the tests' own with one repository, whose files another server gives out, as the real one does.

    Attributes:
        files: path to bytes.
        page: names in one page of a listing.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.page = 3
        self.hub: Loopback
        self.store: Loopback

    def url(self, path: str) -> str:
        """The url of a file."""
        return f"hf://datasets/owner/name/{path}"

    def put(self, path: str, data: bytes) -> str:
        """Make a file; its url."""
        self.files[path] = data
        return self.url(path)

    def __call__(self, request: Request) -> Page:
        if request.headers.get("Authorization") != "Bearer hf_secret":
            return Page(status=401, headers={"X-Error-Code": "RepoNotFound"})
        parts = urlsplit(request.path)
        file = re.fullmatch(r"/datasets/owner/name/resolve/main/(.+)", parts.path)
        if file and unquote(file[1]) in self.files:
            return Page(redirect=self.store.url(f"/{file[1]}?signature=hf_signed"))
        tree = re.fullmatch(r"/api/datasets/owner/name/tree/main/?(.*)", parts.path)
        if not tree:
            return Page(status=404, headers={"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"})
        folder = unquote(tree[1])
        paths = [path for path in self.files if path.startswith(f"{folder}/" if folder else "")]
        if folder and not paths:
            return Page(status=404, headers={"X-Error-Code": "EntryNotFound"})
        start = int(dict(parse_qsl(parts.query)).get("cursor", 0))
        items = [{"type": "directory", "path": "folder", "size": 0}] if not start else []
        items += [{"type": "file", "path": p, "size": len(self.files[p])} for p in paths[start : start + self.page]]
        more = f'<{self.hub.url(parts.path)}?recursive=true&cursor={start + self.page}>; rel="next"'
        return Page(json.dumps(items).encode(), headers={"Link": more} if start + self.page < len(paths) else {})


@pytest.fixture
def hub(clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, which the environment names."""
    hub = Hub()

    def give(request: Request) -> Page:
        assert "Authorization" not in request.headers
        data = hub.files[unquote(urlsplit(request.path).path)[1:]]
        return Page(data, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    with serve(hub) as server, serve(give) as store:
        hub.hub, hub.store = server, store
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield hub


@pytest.fixture
def clean_clouds(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credentials of whoever runs the tests, and no question to a cloud for those of a machine."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
