"""The JSON of wids: what it may say, where its urls lie, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import webdataset as wds
import wids
from helpers import foreign_data
from servers import serve
from webdataset.errors import NotFoundError, SecurityError, ShardListError
from wids.wids_specs import (
    check_shards,
    load_dsdesc_and_resolve,
    load_remote_dsdesc_raw,
    rebase_shardlist,
    resolve_dsdesc,
    set_all,
    urldir,
    urlmerge,
)

WIDS = foreign_data() / "wids"


def spec_of(*urls: str, **more) -> dict:
    return {"wids_version": 1, "shardlist": [{"url": url, "nsamples": 3} for url in urls], **more}


def urls_of(spec: dict) -> list[str]:
    return [shard["url"] for shard in spec["shardlist"]]


def written(path: Path, spec: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("base", "url", "merged"),
    [
        ("http://h/a", "b.tar", "http://h/a/b.tar"),
        ("http://h/a", "/b.tar", "http://h/b.tar"),
        ("http://h/a", "../b.tar?x", "http://h/b.tar?x"),
        ("http://h/a?q=1", "b", "http://h/a/b"),
        ("http://h", "b", "http://h/b"),
        ("http://h/a", "s3://b/c", "s3://b/c"),
        ("http://h/a", "pipe:cat x", "pipe:cat x"),
        ("/data", "b.tar", "/data/b.tar"),
        ("data", "../b.tar", "b.tar"),
        ("", "b.tar", "b.tar"),
        ("/data", "a#b?c.tar", "/data/a#b?c.tar"),
        ("file:/a", "b", "file:///a/b"),
    ],
)
def test_urls_below_a_base(base, url, merged):
    """Relative urls lie below the base, whole ones stay, commands too."""
    assert urlmerge(base, url) == merged


def test_folders_of_urls():
    """The folder of a url is a url, that of a path a path."""
    urls = ["http://h/a/b.json?x", "a/b", "b", "/b", "file:///a/b"]
    assert [urldir(url) for url in urls] == ["http://h/a?x", "a", "", "/", "file:///a"]


@pytest.mark.parametrize("name", ["amber", "amber-base", "amber-minimal", "amber-datasets"])
def test_files_of_published_wids(name):
    """Every index that published wids made names shards that are there."""
    spec = load_dsdesc_and_resolve(str(WIDS / f"{name}.json"))
    assert all(Path(url).is_file() for url in urls_of(spec))


def test_several_data_sets():
    """Components come in order; names, weights and sources are noted at their shards."""
    shards = load_dsdesc_and_resolve(str(WIDS / "amber-datasets.json"))["shardlist"]
    assert [shard["dataset"] for shard in shards[:3]] == ["first", "rest", "rest"]
    assert [shard["weight"] for shard in shards[3:]] == [0.5, 0.5]
    assert {shard["source_url"] for shard in shards[3:]} == {"amber-base.json"}


def test_the_base_that_counts(tmp_path):
    """The argument wins over the file's own base, which lies below the file's folder."""
    source = written(tmp_path / "x.json", spec_of("a.tar", base="shards"))
    assert urls_of(load_dsdesc_and_resolve(source)) == [f"{tmp_path}/shards/a.tar"]
    assert urls_of(load_dsdesc_and_resolve(source, base="http://h/d")) == ["http://h/d/a.tar"]
    assert urls_of(load_dsdesc_and_resolve(source, options={"base": None})) == [f"{tmp_path}/a.tar"]
    assert urls_of(resolve_dsdesc(spec_of("a.tar"))) == ["a.tar"]
    assert urls_of(load_dsdesc_and_resolve(io.StringIO(json.dumps(spec_of("a.tar"))))) == ["a.tar"]


def test_streams_find_the_shards_of_a_base(monkeypatch, tmp_path):
    """`WebDataset` reads the shards that `ShardListDataset` does, whatever the working directory."""
    monkeypatch.chdir(tmp_path)
    keys = [sample["__key__"] for sample in wds.WebDataset(str(WIDS / "amber-base.json"), shardshuffle=False)]
    dataset = wids.ShardListDataset(str(WIDS / "amber-base.json"))
    assert keys == [sample["__key__"] for sample in dataset]
    assert len(keys) == 6


def test_an_index_on_a_server(tmp_path):
    """Relative urls of an index on a server are there too, and so is what it names."""
    inner = json.dumps(spec_of("b.tar", name="inner")).encode()
    outer = json.dumps({"wids_version": 1, "datasets": [{"source_url": "sub/inner.json"}]}).encode()
    with serve({"/d/x.json": outer, "/d/sub/inner.json": inner}) as server:
        spec = load_dsdesc_and_resolve(server.url("/d/x.json"))
        assert urls_of(spec) == [server.url("/d/sub/b.tar")]
        assert spec["shardlist"][0]["dataset"] == "inner"


@pytest.mark.parametrize("field", ["shard", "base", "source_url"])
def test_an_index_on_a_server_names_no_local_files(tmp_path, field):
    """What comes from elsewhere cannot have files of this machine read."""
    spec = {
        "shard": spec_of("file:///etc/passwd"),
        "base": spec_of("passwd", base="file:///etc"),
        "source_url": {"wids_version": 1, "datasets": [{"source_url": "file:///etc/x.json"}]},
    }[field]
    with (
        serve({"/x.json": json.dumps(spec).encode()}) as server,
        pytest.raises(ShardListError, match="names no local files"),
    ):
        load_dsdesc_and_resolve(server.url("/x.json"))


def test_an_index_from_a_command_names_no_local_files(tmp_path):
    """Nobody knows what the names in it are relative to: the program has to say so, and means what is below that."""
    source = f"pipe:cat {written(tmp_path / 'x.json', spec_of('a.tar'))}"
    with pytest.raises(ShardListError, match="names no local files"):
        load_dsdesc_and_resolve(source)
    with pytest.raises(ShardListError, match="names no local files"):
        wds.IndexedDataset(source)
    assert urls_of(load_dsdesc_and_resolve(source, base="/data")) == ["/data/a.tar"]
    for name in ("/etc/passwd", "../a.tar", "x/../../a.tar"):
        written(tmp_path / "x.json", spec_of(name))
        with pytest.raises(ShardListError, match="names no local files"):
            load_dsdesc_and_resolve(source, base="/data")


def test_absolute_paths_on_a_server_are_paths_there(tmp_path):
    """For wids, as published; a stream, which was never told so, refuses them."""
    with serve({"/d/x.json": json.dumps(spec_of("/s/a.tar")).encode()}) as server:
        assert urls_of(load_dsdesc_and_resolve(server.url("/d/x.json"))) == [server.url("/s/a.tar")]
        with pytest.raises(ShardListError, match="names no local files"):
            wds.IndexedDataset(server.url("/d/x.json"))


@pytest.mark.parametrize("name", ["amber", "amber-base", "amber-minimal", "amber-datasets"])
def test_all_read_an_index_alike(name):
    """wids, indexed data sets and streams find the same shards in the same order."""
    urls = urls_of(load_dsdesc_and_resolve(str(WIDS / f"{name}.json")))
    assert [shard.url for shard in wds.IndexedDataset(str(WIDS / f"{name}.json")).shards] == urls
    seen = dict.fromkeys(sample["__url__"] for sample in wds.WebDataset(str(WIDS / f"{name}.json"), shardshuffle=False))
    assert list(seen) == list(dict.fromkeys(urls))


def test_commands_in_an_index_do_not_run(tmp_path, monkeypatch):
    """A `pipe:` url that comes from a file is refused, unless the program or the environment allows it."""
    source = written(tmp_path / "x.json", spec_of("pipe:cat a.tar"))
    with pytest.raises(SecurityError, match="command that comes from a file"):
        load_dsdesc_and_resolve(source)
    assert urls_of(load_dsdesc_and_resolve(source, allow_pipe=True)) == ["pipe:cat a.tar"]
    monkeypatch.setenv("WDS_ALLOW_PIPE", "1")
    assert urls_of(load_dsdesc_and_resolve(source)) == ["pipe:cat a.tar"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"shardlist": []}, "wids_version must be 1, got None"),
        (spec_of("a", wids_version=2), "wids_version must be 1, got 2"),
        (spec_of(), "names no shards"),
        ([], "a mapping with the key shardlist, got list"),
        (spec_of("a", base=3), "base must be a folder"),
        (spec_of("a", base="pipe:ls"), "base must be a folder"),
        ({"wids_version": 1, "shardlist": {}}, "must be a list of shards, got dict"),
        ({"wids_version": 1, "shardlist": ["a"]}, r"shardlist\[0\]: a shard is a mapping"),
        ({"wids_version": 1, "shardlist": [{"nsamples": 3}]}, r"shardlist\[0\]: url must be text"),
        ({"wids_version": 1, "shardlist": [{"url": "a"}]}, r"shardlist\[0\]: nsamples must be a number"),
        ({"wids_version": 1, "shardlist": [{"url": "a", "nsamples": -1}]}, "nsamples must be"),
        ({"wids_version": 1, "shardlist": [{"url": "a", "nsamples": True}]}, "nsamples must be"),
        ({"wids_version": 1, "datasets": [3]}, "datasets must be a list of mappings"),
        ({"wids_version": 1, "datasets": [{"source_url": 3}]}, r"datasets\[0\]: source_url must be text"),
    ],
)
def test_what_is_no_index(tmp_path, spec, message):
    """A wrong index is one line that names the file and the field."""
    source = written(tmp_path / "x.json", spec)
    with pytest.raises(ShardListError, match=message) as caught:
        load_dsdesc_and_resolve(source)
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_that_names_an_index_of_indexes(tmp_path):
    """One indirection is enough."""
    written(tmp_path / "c.json", spec_of("a.tar"))
    written(tmp_path / "b.json", {"wids_version": 1, "datasets": [{"source_url": "c.json"}]})
    source = written(tmp_path / "a.json", {"wids_version": 1, "datasets": [{"source_url": "b.json"}]})
    with pytest.raises(ShardListError, match="names no further one"):
        load_dsdesc_and_resolve(source)


def test_what_cannot_be_read(tmp_path):
    """No file, and a file that is no JSON."""
    with pytest.raises(NotFoundError):
        load_remote_dsdesc_raw(str(tmp_path / "none.json"))
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    with pytest.raises(ShardListError, match="cannot be read as JSON"):
        load_remote_dsdesc_raw(str(tmp_path / "x.json"))


def test_the_helpers():
    """`set_all` fills in what is missing, `rebase_shardlist` and `check_shards` give lists."""
    shards = [{"a": 1}, {}]
    set_all(shards, "a", 3)
    assert shards == [{"a": 1}, {"a": 3}]
    assert rebase_shardlist([{"url": "a"}], "http://x/") == [{"url": "http://x/a"}]
    assert rebase_shardlist([{"url": "a"}], None) == [{"url": "a"}]
    assert check_shards([{"url": "a", "nsamples": 3}]) == [{"url": "a", "nsamples": 3}]
    with pytest.raises(ShardListError):
        check_shards([{"url": "a"}])


def test_a_hundred_thousand_shards(tmp_path):
    """A list of 100,000 shards is read as a whole, urls and all."""
    source = written(tmp_path / "x.json", spec_of(*(f"shard-{n:06d}.tar" for n in range(100_000))))
    urls = urls_of(load_dsdesc_and_resolve(source))
    assert (len(urls), urls[-1]) == (100_000, f"{tmp_path}/shard-099999.tar")
