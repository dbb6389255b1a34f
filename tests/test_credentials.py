"""Passwords, tokens and signatures of urls, commands and the environment appear in no error, repr, log or warning."""

from __future__ import annotations

import base64
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from helpers import tar_bytes
from servers import Page, serve
from webdataset.errors import public_url
from webdataset.gopen import gopen
from webdataset.storage import places
from webdataset.storage.options import storage_options

SECRET = "S3CR3T"

COMMANDS = [
    f"false -H 'Authorization: Bearer {SECRET}' http://h/",
    f'false -H "Authorization: Basic {SECRET}" http://h/',
    f"false -H Authorization:{SECRET} http://h/",
    f"false -H 'X-Api-Key: {SECRET}' -H 'Cookie: a={SECRET}; b={SECRET}' http://h/",
    f"false --header='Authorization: AWS4-HMAC-SHA256 Credential={SECRET}, Signature={SECRET}' x",
    f"AWS_SECRET_ACCESS_KEY={SECRET} AWS_SESSION_TOKEN='{SECRET}' false",
    f"export PGPASSWORD='{SECRET} x'; false",
    f"false --password {SECRET}",
    f'false --token "{SECRET} {SECRET}"',
    f"false --token={SECRET} --secret={SECRET}",
    f"false --oauth2-bearer {SECRET} --sse-c-key {SECRET} --account-key {SECRET}",
    f"false -u me:{SECRET} http://h/x?sig={SECRET}",
    f"false -ume:{SECRET} --user='me:{SECRET}' --proxy-user=me:{SECRET} x",
    f"false --cookie 'k={SECRET}' -b k={SECRET} -b 'k={SECRET}' x",
    f"false 'https://me:{SECRET}@127.0.0.1:1/x' \"s3://me:{SECRET}@b/k?sig={SECRET}\"",
    f"false 'https://acc.blob.core.windows.net/c/x?sv=1&sig={SECRET}' -",
    f"false -d 'password={SECRET}&x=1' x",
    f"false; sshpass -p {SECRET} scp a b; false",
]

URLS = [
    *(f"pipe:{command}" for command in COMMANDS),
    f"PIPE:false --token {SECRET}",
    f"http://me:{SECRET}@127.0.0.1:1/a.tar?sig={SECRET}#{SECRET}",
    f"HTTPS://me:{SECRET}@127.0.0.1:1/a-{{0..1}}.tar?token={SECRET}",
    f"foo://me:{SECRET}@b/k?key={SECRET}",
    f"s3://me:{SECRET}@b/{{0..1}}?key={SECRET}",
    f"file://me:{SECRET}@h/x",
]


def written(url: str, sample: dict[str, Any]) -> str:
    """The reprs of a writer and its stream at work; closing them fails."""
    with wds.TarWriter(url) as sink:
        shown = repr(sink) + repr(sink.stream) + repr(sink.tarstream)
        sink.write(sample)
    return shown


def shown_open(stream: Any) -> str:
    """The repr of an open stream."""
    try:
        return repr(stream)
    finally:
        stream.close()


def uses(url: str) -> Iterator[Callable[[], Any]]:
    """Ways to open a url, each of which fails, and the reprs of what was made on the way."""
    yield lambda: gopen(url).read()
    yield lambda: gopen(url, "wb").close()
    yield lambda: list(wds.WebDataset(url, shardshuffle=False))
    yield lambda: list(wds.WebDataset(url, shardshuffle=False, handler=wds.warn_and_continue))
    yield lambda: list(wds.DataPipeline(wds.SimpleShardList(url), wds.tarfile_to_samples()).repeat(2))
    yield lambda: list(wds.tarfile_samples([{"url": url}, {"wrong": url}]))
    yield lambda: written(url, {"__key__": "a", "json": object()})
    yield lambda: wds.SimpleShardList(url + "{")
    yield lambda: shown_open(gopen(url))
    yield lambda: written(url, {"__key__": "a", "txt": "x"})
    yield lambda: "".join(map(repr, wds.WebDataset(url, shardshuffle=False).pipeline))
    yield lambda: "".join(map(repr, (wds.WebDataset(url, shardshuffle=1), wds.ResampledShards(url))))


def told(use: Callable[[], Any]) -> Iterator[str]:
    """What a program and its user get to see: repr of the result, or the error, its parts and its traceback."""
    try:
        yield str(use())
    except Exception as exn:
        yield from (str(exn), repr(exn), repr(exn.args))
        lines = "".join(traceback.format_exception(exn)).splitlines()
        code = ("File ", "raise ", "^")
        yield "\n".join(line for line in lines if not line.strip().startswith(code))  # sources hold the names only


def leaks(use: Callable[[], Any], caplog: Any, capfd: Any, *secrets: str) -> list[str]:
    """Everything shown that holds one of the secrets."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        shown = list(told(use))
    shown += [str(warning.message) for warning in caught]
    shown += [record.getMessage() + str(record.exc_text) for record in caplog.records]
    shown += capfd.readouterr()
    assert any(shown)
    return [text for text in shown if any(secret in text for secret in secrets or (SECRET,))]


@pytest.mark.parametrize("url", URLS)
def test_credentials_are_not_shown(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any
) -> None:
    """No way of opening a url that fails tells the secret, verbose or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOPEN_VERBOSE", "1")
    for use in uses(url):
        assert leaks(use, caplog, capfd) == []


def test_answers_of_servers(monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any) -> None:
    """Refusals, redirects, cuts and damage do not tell what was in the url, the headers or the new place."""
    monkeypatch.setenv("GOPEN_VERBOSE", "1")
    data = tar_bytes({"a.json": b"{", "a.pyd": b"x"})
    pages = {
        "/403": Page(status=403),
        "/404": Page(status=404),
        "/moved": Page(redirect=f"/404?token={SECRET}"),
        "/away": Page(redirect=f"http://me:{SECRET}@127.0.0.1:1/x?token={SECRET}"),
        "/cut": Page(data, cut=700),
        "/goes-on": Page(data, cut=700, headers={"ETag": '"1"'}),
        "/silent": Page(data, cut=0, reset=True),
        "/busy": Page(status=503),
        "/damaged": data[:700],
        "/bad": data,
    }
    with serve(pages) as server:
        for page in pages:
            url = server.url(page).replace("//", f"//me:{SECRET}@") + f"?sig={SECRET}"
            options = {"headers": {"Authorization": f"Bearer {SECRET}"}}
            for use in (
                lambda url=url, options=options: gopen(url, **options).read(),
                lambda url=url, options=options: places.stat(url, storage_options(**options)),
                lambda url=url, options=options: places.read_part(url, 1, 9, storage_options(**options))[0],
                lambda options=options: repr(storage_options(**options)),
                lambda url=url, options=options: shown_open(gopen(url, **options)),
                lambda url=url: list(wds.WebDataset(url, shardshuffle=False).decode()),
                lambda url=url: list(wds.WebDataset(url, shardshuffle=False).to_tuple("missing")),
                lambda url=url: list(wds.WebDataset(url, shardshuffle=False).map(lambda sample: 1 / 0)),
                lambda url=url: list(
                    wds.WebDataset(url, shardshuffle=False, handler=wds.warn_and_continue).decode(
                        handler=wds.warn_and_continue
                    )
                ),
            ):
                assert leaks(use, caplog, capfd) == []


@pytest.mark.parametrize(
    "headers",
    [f"Authorization: Bearer {SECRET}", [("Authorization", SECRET)], {"Authorization": f"Bearer {SECRET}\n"}],
)
def test_wrong_headers_are_not_shown(headers: Any, caplog: Any, capfd: Any) -> None:
    """Headers of a wrong form, such as a token with the end of its line, are an error without what they hold."""
    for use in (
        lambda: gopen("http://127.0.0.1:1/a.tar", headers=headers),
        lambda: wds.WebDataset("http://127.0.0.1:1/a.tar", shardshuffle=False, storage_options={"headers": headers}),
    ):
        with pytest.raises(ValueError, match="storage option 'headers'"):
            use()
        assert leaks(use, caplog, capfd) == []


def test_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any) -> None:
    """Tokens and rewriting rules of the environment stay where they are."""
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTP_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("GOPEN_VERBOSE", "1")
    monkeypatch.setenv("GOPEN_REWRITE", f"s3://=http://me:{SECRET}@127.0.0.1:1/?sig={SECRET}")
    assert leaks(lambda: gopen("s3://b/k").read(), caplog, capfd) == []
    monkeypatch.setenv("GOPEN_REWRITE", f"s3://=pipe:false --token {SECRET} ")
    assert leaks(lambda: gopen("s3://b/k").read(), caplog, capfd) == []
    monkeypatch.delenv("GOPEN_REWRITE")
    with serve({"/datasets/a/b/resolve/main/c.tar": Page(status=403)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url("").rstrip("/"))
        assert leaks(lambda: gopen("hf://datasets/a/b/c.tar").read(), caplog, capfd) == []


REFUSALS = {
    "expired": Page(b"<Error><Code>ExpiredToken</Code><Message>bad</Message></Error>", status=403),
    "missing": Page(status=404),
    "broken": Page(status=500),
    "cut": Page(b"x" * 5000, cut=100),
    "moved": Page(redirect=f"http://me:{SECRET}@127.0.0.1:1/x?sig={SECRET}"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("url", ["s3://bucket/a", "az://cont/a", "az://sas/a", "gs://bucket/a", "hf://datasets/o/n/a"])
def test_credentials_of_stores_are_not_shown(
    url: str, refusal: str, clean_clouds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any
) -> None:
    """Reading, measuring, listing, writing and copying what a store refuses tells no key, token or signature."""
    key = base64.b64encode(SECRET.encode() * 3).decode()
    with serve(lambda request: REFUSALS[refusal]) as server:
        azure = f"AccountName=acc;BlobEndpoint={server.base}/acc;"
        for name, value in {
            "AWS_ACCESS_KEY_ID": f"AKIA{SECRET}",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": SECRET,
            "AWS_ENDPOINT_URL": server.base,
            "AZURE_STORAGE_CONNECTION_STRING": azure
            + (f"SharedAccessSignature=sv=1&sig={SECRET}" if url.startswith("az://sas") else f"AccountKey={key}"),
            "HF_TOKEN": f"hf_{SECRET}",
            "HF_ENDPOINT": server.base,
            "STORAGE_EMULATOR_HOST": server.base,
            "GOPEN_VERBOSE": "1",
        }.items():
            monkeypatch.setenv(name, value)
        for use in (
            lambda: gopen(url).read(),
            lambda: places.stat(url),
            lambda: places.read_part(url, 1, 9)[0],
            lambda: gopen(url, "wb").close(),
            lambda: list(wds.WebDataset(f"{url}/*.tar", shardshuffle=False)),
            lambda: list(wds.WebDataset(f"@{url}", shardshuffle=False)),
            lambda: list(wds.WebDataset(f"{url}.json", shardshuffle=False)),
            lambda: list(wds.WebDataset(url, shardshuffle=False, cache_dir=str(tmp_path))),
        ):
            assert leaks(use, caplog, capfd, SECRET, key) == []
    assert [path for path in tmp_path.rglob("*") if SECRET in path.name] == []


def test_proxies_are_not_shown(monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any) -> None:
    """A proxy that is not there, one that wants other credentials, and one that serves: none is told with password."""
    url = f"http://me:{SECRET}@host.invalid/a.tar?sig={SECRET}"
    with serve({"//host.invalid/a.tar": Page(status=407), "/a.tar": b""}) as proxy:
        for port in (proxy.port, 1):
            monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", "")
            assert leaks(lambda: gopen(url).read(), caplog, capfd) == []
        assert len(proxy.requests) == 1


def test_copies_have_no_secret_names(tmp_path: Path, caplog: Any, capfd: Any) -> None:
    """What a cache has in its folder, while it downloads, afterwards and on failure, is named without credentials."""
    names: set[str] = set()

    def look(request: Any) -> Page:
        names.update(path.name for path in tmp_path.rglob("*"))
        return Page(tar_bytes({"a.txt": b"x"}), cut=700 if request.path.startswith("/cut") else None)

    with serve({"/a.tar": look, "/cut.tar": look}) as server:
        for name in ("/a.tar", "/cut.tar"):
            url = server.url(name).replace("//", f"//me:{SECRET}@") + f"?sig={SECRET}"
            dataset = wds.WebDataset(url, shardshuffle=False, cache_dir=str(tmp_path))
            assert leaks(lambda dataset=dataset: [sample["txt"] for sample in dataset], caplog, capfd) == []
    names.update(path.name for path in tmp_path.rglob("*"))
    assert names
    assert [name for name in names if SECRET in name] == []


def test_lines_of_other_programs_stay(caplog: Any) -> None:
    """urllib3's log lines about requests of the program itself are left as they are."""
    import urllib3

    with serve({"/a": b"x"}) as server, caplog.at_level(logging.DEBUG, "urllib3"):
        assert gopen(server.url("/a?ours=1")).read() == b"x"
        assert urllib3.request("GET", server.url("/a?theirs=1")).data == b"x"
    assert "ours=1" not in caplog.text.replace("theirs=1", "")
    assert "theirs=1" in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("pipe:curl -s -b 1-3 --range 0-9 http://h/a.tar", "pipe:curl -s -b 1-3 --range 0-9 http://h/a.tar"),
        ("pipe:cat tokens.tar secret/a.tar", "pipe:cat tokens.tar secret/a.tar"),
        ("pipe:tar -u -p -f a.tar", "pipe:tar -u -p -f a.tar"),
        ("data/a.tar?x=1", "data/a.tar?x=1"),
        ("https://h/a.tar", "https://h/a.tar"),
    ],
)
def test_the_rest_is_shown(url: str, shown: str) -> None:
    """What is no secret stays readable."""
    assert public_url(url) == shown
