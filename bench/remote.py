"""The servers that the remote rows read from, on loopback, for the time of a benchmark.

nginx serves the sets as files; behind relay.py it is far, or slow; moto holds the images as S3 objects. `places` gives
the url of each, as the rows name them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data import DATA

HERE = Path(__file__).parent
BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}

NGINX = """
daemon off; master_process on; worker_processes 2;
pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; root {root}; default_type application/octet-stream;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    log_format sent $bytes_sent;
    server {{ listen 127.0.0.1:{near}; }}
    server {{ listen 127.0.0.1:{counted}; access_log {home}/sent.log sent; }}
}}
"""


@contextlib.contextmanager
def places() -> Iterator[dict[str, str]]:
    """Urls of the folder of sets: `near`, `slow` (200 KB/s), `far` (20 ms, 50 MB/s a connection), and `s3`.

    `counted` is as near, and the file `sent` has a line with the bytes of each of its answers.

    The variables that S3 programs read are set as long.
    """
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed (Debian: apt-get install nginx-light): leave the remote rows out")
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        near, counted = _free_ports(2)
        home.chmod(0o755)
        (home / "nginx.conf").write_text(NGINX.format(home=home, root=DATA.resolve(), near=near, counted=counted))
        stack.enter_context(_running(["nginx", "-c", str(home / "nginx.conf"), *_as_this_user()]))
        relay = [sys.executable, str(HERE / "relay.py"), str(near)]
        far = stack.enter_context(_running([*relay, "20", "50e6"], r"(\d+)"))
        slow = stack.enter_context(_running([*relay, "0", "200e3"], r"(\d+)"))
        moto = str(Path(sys.executable).parent / "moto_server")
        endpoint = stack.enter_context(_running([moto, "-H", "127.0.0.1", "-p", "0"], r"Running on (http\S+)"))
        os.environ.update(KEYS, AWS_ENDPOINT_URL=endpoint)
        for name in (*KEYS, "AWS_ENDPOINT_URL"):
            stack.callback(os.environ.pop, name)
        _fill(endpoint)
        yield {
            "near": f"http://127.0.0.1:{near}",
            "slow": f"http://127.0.0.1:{slow}",
            "far": f"http://127.0.0.1:{far}",
            "counted": f"http://127.0.0.1:{counted}",
            "sent": f"{home}/sent.log",
            "s3": f"s3://{BUCKET}",
        }


@contextlib.contextmanager
def _running(command: list[str], says: str = "") -> Iterator[str]:
    """A server for the time of the block; the group of `says` that its output matched."""
    with tempfile.TemporaryFile("w+") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for _ in range(600):
                time.sleep(0.05)
                output.seek(0)
                match = re.search(says, output.read())
                if match or process.poll() is not None:
                    break
            if process.poll() is not None or match is None:
                output.seek(0)
                raise SystemExit(f"{command[0]} does not serve: {output.read()[-1000:]}")
            yield match[1] if says else ""
        finally:
            process.terminate()


def _as_this_user() -> list[str]:
    """As root, nginx would give up its rights and could not read the sets of root."""
    return ["-g", "user root;"] if os.geteuid() == 0 else []


def _free_ports(count: int) -> list[int]:
    import socket

    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _fill(endpoint: str) -> None:
    """Put the images into the bucket."""
    import botocore.session

    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    for path in sorted((DATA / "jpg").iterdir()):
        with path.open("rb") as stream:
            client.put_object(Bucket=BUCKET, Key=f"jpg/{path.name}", Body=stream)
