"""Object stores on loopback: moto and s3rver speak S3, azurite speaks Azure; each starts with the first test that asks
for it and ends with the tests. `make servers` installs the two that come from npm.

    def test_x(s3):                       one of the S3 servers after the other
        s3.put("a/b.tar", data)
        gopen(s3.url("a/b.tar"))          the environment says where it is and who asks
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(params=sorted(S3_SERVERS))
def s3(request: pytest.FixtureRequest, clean_clouds: None, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A new bucket on each of the servers, which the environment names."""
    fixture, access, secret = S3_SERVERS[request.param]
    store = S3Store(request.getfixturevalue(fixture), access, secret)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture
def clean_clouds(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credentials of whoever runs the tests, and no question to a cloud for those of a machine."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
