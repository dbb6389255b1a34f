"""S3: who asks, where, with which signature, and what refusals mean. What all stores do is in test_stores.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opener_contract import DATA
from servers import Page, Request, serve
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import aws, places, sigv4
from webdataset.storage import s3 as s3_storage
from webdataset.storage.options import StorageOptions

KEYS = ["a.tar", "a b/ü+&=%41?x#y.tar", "deep/er/a'(1)*!~$,;:@.tar"]


def test_a_listing_without_end():
    """A server that names the same next page again and again is an error."""
    page = b"<R><NextContinuationToken>t</NextContinuationToken></R>"
    with serve({"/bucket/": page}) as server, pytest.raises(OpenError, match="the same page again and again"):
        list(places.entries("s3://bucket/", StorageOptions(endpoint=server.base, anonymous=True)))


def test_missing_buckets(s3):
    """A bucket that is not there is named as such, where the server says so."""
    with pytest.raises(NotFoundError, match="there is no bucket of this name"):
        gopen("s3://no-such-bucket/a.tar")
    with pytest.raises(NotFoundError, match="there is no bucket of this name"):
        list(places.entries("s3://no-such-bucket/"))
    with pytest.raises(NotFoundError):
        places.stat("s3://no-such-bucket/a.tar")


def test_unknown_keys(s3, s3rver_endpoint, monkeypatch):
    """An access key that the server does not know is said to be that, and the secret is not shown."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3rver_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CR3T")
    with pytest.raises(OpenError, match=r"HTTP 403 .*: the access key is not known; check AWS_ACCESS_KEY_ID") as caught:
        gopen(s3.url("a.tar"))
    assert "S3CR3T" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3://b", "s3://bucket", "s3://bucket/", "s3://me:S3CR3T@bucket/a"])
def test_urls_that_name_no_object(url):
    """A url without bucket or key says how it is written, and asks nobody."""
    with pytest.raises(OpenError, match="write s3://BUCKET/KEY") as caught:
        gopen(url)
    assert "S3CR3T" not in str(caught.value)


# Who asks


def test_profiles(s3, monkeypatch, tmp_path):
    """Keys, region, endpoint and addressing come from a profile of the configuration, as for AWS's own tools."""
    url = s3.put("a.tar", DATA)
    environment = s3.environment
    for name in environment:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        "[profile lab]\nregion = eu-west-1\nservices = here\ns3 =\n    addressing_style = path\n"
        f"[services here]\ns3 =\n    endpoint_url = {environment['AWS_ENDPOINT_URL']}\n"
    )
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert gopen(url).read() == DATA
    assert "eu-west-1" == aws.account(False).region
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(OpenError, match=r"the AWS configuration cannot be used: .*\(other\)"):
        gopen(url)


def test_keys_of_a_command_are_renewed(clean_clouds, monkeypatch, tmp_path):
    """Credentials that a command hands out for a short time are asked for anew while a read goes on."""
    script = tmp_path / "keys.py"
    script.write_text(
        "import datetime, json, pathlib\n"
        "counter = pathlib.Path(__file__).with_name('count')\n"
        "n = int(counter.read_text()) + 1 if counter.exists() else 1\n"
        "counter.write_text(str(n))\n"
        "ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60)\n"  # soon
        "keys = {'AccessKeyId': f'KEY{n}', 'SecretAccessKey': 'S3CR3T', 'SessionToken': 'T0K3N'}\n"
        "print(json.dumps({'Version': 1, **keys, 'Expiration': ends.isoformat()}))\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with serve({"/bucket/a.tar": Page(DATA, cut=len(DATA) // 2, headers={"ETag": '"1"'})}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.base)
        assert gopen("s3://bucket/a.tar").read() == DATA
        used = [request.headers["Authorization"].split("Credential=")[1].split("/")[0] for request in server.requests]
        assert len(set(used)) == len(used) > 1
        assert {request.headers["X-Amz-Security-Token"] for request in server.requests} == {"T0K3N"}


def test_anonymous(s3, monkeypatch):
    """The option anonymous sends no signature, whoever is known here."""
    with serve({"/bucket/a.tar": DATA, "/bucket/secret": Page(status=403)}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.base)
        assert gopen("s3://bucket/a.tar", anonymous=True).read() == DATA
        assert "Authorization" not in server.requests[-1].headers
        with pytest.raises(
            OpenError, match="the request was not signed, as the option anonymous asks; the bucket is not"
        ):
            gopen("s3://bucket/secret", anonymous=True)
        assert gopen("s3://bucket/a.tar").read() == DATA
        assert "Signature=" in server.requests[-1].headers["Authorization"]


def test_no_credentials(clean_clouds, monkeypatch):
    """Where no credentials are found, public objects are read, and a refusal says where they were looked for."""
    with serve({"/bucket/a.tar": DATA, "/bucket/secret": Page(status=403)}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.base)
        assert gopen("s3://bucket/a.tar").read() == DATA
        with pytest.raises(OpenError, match=r"HTTP 403 Forbidden: no credentials were found \(AWS_ACCESS_KEY_ID"):
            gopen("s3://bucket/secret")


WITHOUT_BOTOCORE = """
import sys
sys.modules["botocore"] = None
import webdataset as wds
{}
"""


def without_botocore(code: str, **environment: str) -> str:
    """What a program prints where botocore is not installed."""
    import os

    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_BOTOCORE.format(code)],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_without_botocore(tmp_path):
    """Without botocore, anonymous reads and keys of the environment work; else it is named, or aws stands in."""
    with serve({"/bucket/a.tar": b"bytes"}) as server:
        where = {"AWS_ENDPOINT_URL": server.base, "PATH": str(tmp_path)}
        read = "print(wds.gopen('s3://bucket/a.tar').read())"
        assert without_botocore("print(wds.gopen('s3://bucket/a.tar', anonymous=True).read())", **where) == "b'bytes'\n"
        assert without_botocore(read, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", **where) == "b'bytes'\n"
        missing = without_botocore(read, **where)
        assert "MissingDependencyError: finding AWS credentials" in missing
        assert "set the storage option anonymous" in missing
        assert "needs botocore: pip install botocore" in missing
        tool = tmp_path / "aws"
        tool.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
        tool.chmod(0o755)
        instead = without_botocore(f"{read}\n{read}", **where)
        assert instead.count("b's3 cp --only-show-errors s3://bucket/a.tar - '") == 2
        assert instead.count("until then the aws command serves s3 urls") == 1


def test_the_tool_by_option(tmp_path, monkeypatch):
    """The option tool uses the aws command, with what it can be told; headers cannot be kept secret there."""
    tool = tmp_path / "aws"
    tool.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", '{"tool": true}')
    assert gopen("s3://bucket/a b").read() == b"s3 cp --only-show-errors s3://bucket/a b - "
    told = gopen("s3://bucket/a", anonymous=True, endpoint="http://h:1", tool=True).read()
    assert told == b"s3 cp --only-show-errors s3://bucket/a - --no-sign-request --endpoint-url http://h:1 "
    with pytest.raises(OpenError, match="the option headers does not reach the aws command"):
        gopen("s3://bucket/a", tool=True, headers={"x-amz-request-payer": "requester"})


# Where to ask


@pytest.fixture
def keys(clean_clouds, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CR3T")
    monkeypatch.setattr(s3_storage, "_regions", {})


def region_of(request: Request) -> str:
    return request.headers["Authorization"].split("Credential=")[1].split("/")[2]


WRONG_REGION = {
    "301": (301, {"x-amz-bucket-region": "eu-north-1"}, b""),
    "400": (400, {"x-amz-bucket-region": "eu-north-1"}, b""),
    "the body": (400, {}, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>"),
    "307": (307, {}, b"<Error><Endpoint>bucket.s3.eu-north-1.amazonaws.com</Endpoint></Error>"),
}


@pytest.mark.parametrize("how", WRONG_REGION)
def test_the_right_region_is_followed(keys, how):
    """The refusal of the wrong region is followed once, and the region is remembered."""
    status, headers, body = WRONG_REGION[how]

    def answer(request: Request) -> Page:
        return Page(DATA) if region_of(request) == "eu-north-1" else Page(body, status=status, headers=headers)

    with serve(answer) as server:
        options = StorageOptions(endpoint=server.base)
        assert places.open_read("s3://bucket/a.tar", options).read() == DATA
        assert [region_of(request) for request in server.requests] == ["us-east-1", "eu-north-1"]
        assert places.stat("s3://bucket/b.tar", options).size == len(DATA)
        assert len(server.requests) == 3


def test_regions_that_lead_nowhere(keys):
    """Two regions that send the request to each other end in an error that names one."""
    other = {"us-east-1": "eu-north-1", "eu-north-1": "us-east-1"}

    def answer(request: Request) -> Page:
        return Page(status=301, headers={"x-amz-bucket-region": other[region_of(request)]})

    with (
        serve(answer) as server,
        pytest.raises(OpenError, match="the bucket is in the region us-east-1, not eu-north-1"),
    ):
        places.open_read("s3://bucket/a.tar", StorageOptions(endpoint=server.base))


def test_a_region_is_no_host(keys):
    """What is no name of a region does not become part of an address."""
    page = Page(status=400, headers={"x-amz-bucket-region": "evil.example/"})
    with serve({"/bucket/a": page}) as server, pytest.raises(OpenError, match="the credentials may have run out"):
        places.open_read("s3://bucket/a", StorageOptions(endpoint=server.base))


ADDRESSES = [
    ("bucket", {}, "https://bucket.s3.us-east-1.amazonaws.com/k"),
    ("bucket", {"AWS_DEFAULT_REGION": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/k"),
    ("b.dots", {"AWS_REGION": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com/b.dots/k"),
    ("Old_Bucket", {}, "https://s3.us-east-1.amazonaws.com/Old_Bucket/k"),
    ("bucket", {"AWS_ENDPOINT_URL": "http://h:9000/"}, "http://h:9000/bucket/k"),
    (
        "bucket",
        {"AWS_ENDPOINT_URL": "http://no", "AWS_ENDPOINT_URL_S3": "http://h:9000/s3"},
        "http://h:9000/s3/bucket/k",
    ),
    (
        "bucket",
        {"AWS_ENDPOINT_URL": "http://no", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        "https://bucket.s3.us-east-1.amazonaws.com/k",
    ),
]


@pytest.mark.parametrize(("bucket", "environment", "address"), ADDRESSES)
def test_addresses(keys, monkeypatch, bucket, environment, address):
    """Amazon's buckets are hosts, if their name can be one; buckets of other endpoints are folders."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    target = s3_storage.target_of(f"s3://{bucket}/k", StorageOptions())
    assert target.address == address
    assert target.sign("GET", target.address, {})[0] == address


def test_a_learned_region_is_another_host(keys):
    """Requests that follow the right region go to its host."""
    target = s3_storage.target_of("s3://bucket/k", StorageOptions())
    assert target.learn(301, {"x-amz-bucket-region": "eu-west-3"}, b"")
    address, headers = target.sign("GET", target.address, {})
    assert address == "https://bucket.s3.eu-west-3.amazonaws.com/k"
    assert "/eu-west-3/s3/" in headers["Authorization"]
    assert not target.redirected


# What is wrong

REFUSALS = {
    "ExpiredToken": (400, "the credentials have run out"),
    "RequestTimeTooSkewed": (403, "the clock of this machine is wrong"),
    "AccessDenied": (403, "these credentials may not read it"),
    "InvalidObjectState": (403, "the object is archived"),
    "Strange": (409, "S3 says Strange: Read this"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals(keys, code):
    """Each refusal is one line that says what to do, and shows no credentials."""
    status, meaning = REFUSALS[code]
    body = f"<Error><Code>{code}</Code><Message>Read\nthis</Message><AWSAccessKeyId>access</AWSAccessKeyId></Error>"
    with serve(
        {"/bucket/a": Page(body.replace("\n", " ").replace("Read this", "Read this").encode(), status=status)}
    ) as server:
        with pytest.raises(OpenError, match=meaning) as caught:
            places.open_read("s3://bucket/a", StorageOptions(endpoint=server.base))
        assert len(server.requests) == 1
    assert str(caught.value).startswith("s3://bucket/a: HTTP ")
    assert "\n" not in str(caught.value)
    assert "access" not in str(caught.value).replace("access key", "")


def test_newer_credentials_are_taken(clean_clouds, monkeypatch, tmp_path):
    """When the keys have run out, the files that they came from are read again."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\naws_session_token = t\n"

    def answer(request: Request) -> Page:
        if "Credential=new/" in request.headers["Authorization"]:
            return Page(DATA)
        return Page(b"<Error><Code>ExpiredToken</Code></Error>", status=400)

    with serve(answer) as server:
        options = StorageOptions(endpoint=server.base)
        file.write_text(text.format("old"))
        with pytest.raises(OpenError, match="the credentials have run out"):
            places.open_read("s3://bucket/a", options)
        file.write_text(text.format("new"))
        assert places.open_read("s3://bucket/a", options).read() == DATA


def test_nothing_secret_is_shown(keys, monkeypatch, caplog, capfd):
    """Keys and tokens are in no error, repr or log line, however much is logged."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "S3CR3T-token")
    caplog.set_level("DEBUG")
    pages = {
        "/bucket/a": DATA,
        "/bucket/b": Page(status=403),
        "/bucket/c": Page(status=500),
        "/bucket/d": Page(DATA, cut=200_000),
    }
    shown = []
    with serve(pages) as server:
        options = StorageOptions(endpoint=server.base, attempts=2, backoff=0.01)
        for key in "abcd":
            target = s3_storage.target_of(f"s3://bucket/{key}", options)
            shown += [repr(target), repr(aws.account(False)), repr(aws.keys(aws.account(False), "x"))]
            try:
                with places.open_read(f"s3://bucket/{key}", options) as stream:
                    shown.append(repr(stream))
                    stream.read()
            except OpenError as exn:
                shown += [str(exn), repr(exn)]
    shown += [caplog.text, *capfd.readouterr()]
    assert "S3CR3T" not in "".join(shown)


# The signature


def as_botocore_signs(request: Request, address: str, names: list[str], token: str | None) -> str:
    """The Authorization header that botocore makes of a request, at the time that the request names."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    class AtThatTime(S3SigV4Auth):
        def payload(self, request):
            return sigv4.UNSIGNED

        def _set_necessary_date_headers(self, request):
            request.context["timestamp"] = request.headers["X-Amz-Date"]

    theirs = AWSRequest(request.method, address, headers={name: request.headers[name] for name in names})
    AtThatTime(Credentials("access", "S3CR3T", token), "s3", "us-east-1").add_auth(theirs)
    return str(theirs.headers["Authorization"])


@pytest.mark.parametrize("token", [None, "session"])
@pytest.mark.parametrize("key", KEYS)
def test_requests_arrive_with_the_signature_of_botocore(keys, monkeypatch, key, token):
    """What comes over the wire, path, query and headers, is what was signed, as botocore signs it."""
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    page = Page(b"<ListBucketResult/>", headers={"ETag": '"1"'})
    with serve(lambda request: page) as server:
        options = StorageOptions(endpoint=server.base, headers={"x-amz-request-payer": "requester", "X-Two": "a  b"})
        places.read_part(f"s3://bucket/{key}", 5, 10, options, etag='"1"')[0]
        places.stat(f"s3://bucket/{key}", options)
        list(places.entries(f"s3://bucket/{key}", options))
        assert [request.method for request in server.requests] == ["GET", "HEAD", "GET"]
        for request in server.requests:
            names = request.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
            assert {"host", "x-amz-date", "x-amz-request-payer"} <= set(names)
            signed = as_botocore_signs(request, server.url(request.path), names, token)
            assert request.headers["Authorization"] == signed


def test_botocore_comes_with_the_first_use(tmp_path):
    """Importing the library or naming an s3 url imports no botocore."""
    code = "import sys, webdataset as wds; wds.WebDataset('s3://b/a.tar'); print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(tmp_path))
    assert done.stdout == "False\n"
