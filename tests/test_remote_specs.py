"""Specs, indexes and lists on servers: read where they are, naming nothing of this machine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import webdataset as wds
from helpers import tar_bytes
from servers import serve
from webdataset.errors import NotFoundError, SecurityError, ShardListError
from webdataset.gopen import gopen_schemes
from webdataset.shardlists import expand_urls, shardspec


def urls_of(shards) -> list[str]:
    return [shard["url"] for shard in shards]


def test_specs_and_indexes_on_servers(s3):
    """A spec or an index on a server or in a store is read there; names without a scheme lie beside it."""
    for name in ("0", "1"):
        s3.put(f"set/a-{name}.tar", tar_bytes({f"{name}.txt": name.encode()}))
    s3.put("set/index.json", json.dumps({"shardlist": [{"url": "a-1.tar"}, {"url": s3.url("set/a-0.tar")}]}).encode())
    s3.put("set/spec.yaml", b"datasets: [{shards: 'a-{0..1}.tar'}]")
    s3.put("stars.json", json.dumps({"datasets": [{"buckets": "set", "shards": "a-*.tar"}]}).encode())
    assert [sample["txt"] for sample in wds.WebDataset(s3.url("set/index.json"), shardshuffle=False)] == [b"1", b"0"]
    for spec in ("set/spec.yaml", "stars.json"):
        found = wds.WebDataset(s3.url(spec), shardshuffle=False)
        assert sorted(sample["txt"] for sample in found) == [b"0", b"1"]
    pages = {"/d/index.json": json.dumps({"base": "e", "shardlist": [{"url": "a.tar"}]}).encode()}
    pages["/d/spec.yaml"] = b"datasets: [{shards: ['b.tar', 'https://host/c.tar']}]"
    with serve(pages) as server:
        assert urls_of(shardspec(server.url("/d/index.json?sig=x"))) == [server.url("/d/e/a.tar")]
        assert sorted(urls_of(shardspec(server.url("/d/spec.yaml")))) == [server.url("/d/b.tar"), "https://host/c.tar"]
        with pytest.raises(NotFoundError, match=r"none\.yaml: HTTP 404"):
            shardspec(server.url("/none.yaml"), storage_options={"attempts": 1})


LOCAL = ["/etc/passwd", "file:///etc/passwd", "file:passwd", "-", "local:///etc/passwd", "simplecache::file:///etc/x"]


@pytest.mark.parametrize("name", [*LOCAL, "/etc/*", "{/etc/passwd,a.tar}"])
def test_a_spec_from_elsewhere_names_no_local_files(name):
    """Nothing in a spec, an index or a list from elsewhere is a file of this machine, under no name; nor is it run."""
    prefix, _, last = name.rpartition("/")
    pages = {"/spec.yaml": json.dumps({"datasets": [{"shards": name}]}).encode()}
    if not set("*{") & set(name):
        pages["/index.json"] = json.dumps({"shardlist": [{"url": name}]}).encode()
        pages["/list.txt"] = name.encode()
    if prefix and "{" not in name:
        pages["/prefix.yaml"] = json.dumps({"prefix": f"{prefix}/", "datasets": [{"shards": last}]}).encode()
    if prefix and "/index.json" in pages:
        pages["/base.json"] = json.dumps({"base": prefix, "shardlist": [{"url": last}]}).encode()
    with serve(pages) as server:
        for path in pages:
            url = server.url(path)
            with pytest.raises(ShardListError, match="from elsewhere names no local files"):
                wds.WebDataset(f"@{url}" if path == "/list.txt" else url, shardshuffle=False)


def test_a_list_without_folder_names_no_local_files(monkeypatch):
    """Beside a url without a slash is the same scheme, and not the root of this machine."""
    monkeypatch.setitem(gopen_schemes, "mine", lambda url, mode, bufsize: io.BytesIO(b"etc/passwd"))
    assert expand_urls("@mine:list") == ["mine:etc/passwd"]
    with serve({"/": b"a.tar"}) as server:
        assert expand_urls(f"@{server.base}") == [server.url("/a.tar")]


def test_commands_from_elsewhere_do_not_run(tmp_path, monkeypatch):
    """A `pipe:` url in a spec from a server is refused as one in a local file is."""
    monkeypatch.chdir(tmp_path)
    pages = {
        "/spec.yaml": b"{prefix: 'pipe:touch ', datasets: [{shards: planted}]}",
        "/index.json": b'{"shardlist": [{"url": "PIPE:touch planted"}]}',
    }
    with serve(pages) as server:
        for path in pages:
            with pytest.raises(SecurityError, match="a command that comes from a file does not run"):
                wds.WebDataset(server.url(path), shardshuffle=False)
    assert not Path("planted").exists()


def test_variables_reach_no_server(tmp_path, monkeypatch):
    """What a file makes of variables is refused before any place is listed: the listing would tell them."""
    monkeypatch.setenv("TOKEN", "S3CR3T")
    text = "{prefix: 's3://bucket/', datasets: [{shards: '$TOKEN/*.tar'}]}"
    with serve({"/spec.yaml": text.encode()}) as server:
        options = {"endpoint": server.base, "anonymous": True, "attempts": 1}
        (tmp_path / "spec.yaml").write_text(text)
        for spec in (str(tmp_path / "spec.yaml"), server.url("/spec.yaml")):
            with pytest.raises(SecurityError, match="variables in a file stand for parts of local paths only"):
                shardspec(spec, storage_options=options)
        assert [request.path for request in server.requests] == ["/spec.yaml"]


def test_the_switch_leaves_specs_of_servers(monkeypatch):
    """With the security switch on, specs on servers are read and local ones are not."""
    monkeypatch.setenv("WDS_SECURE", "1")
    with serve({"/spec.yaml": b"datasets: [{shards: a.tar}]"}) as server:
        assert urls_of(shardspec(server.url("/spec.yaml"))) == [server.url("/a.tar")]
        with pytest.raises(SecurityError):
            shardspec("pipe:curl -s " + server.url("/spec.yaml"))
