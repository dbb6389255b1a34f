"""Stars, folders and lists, local and in stores: what is there is found, sorted, once; what is missing is told."""

from __future__ import annotations

import pickle
import uuid
import warnings
from pathlib import Path

import fsspec
import pytest

import webdataset as wds
from helpers import tar_bytes, write_shards
from servers import Page, serve
from stores import S3Store
from webdataset.errors import EmptyDatasetError, NotFoundError, OpenError, SecurityError, ShardListError
from webdataset.gopen import gopen_schemes
from webdataset.shardgaps import gaps
from webdataset.shardglobs import matcher
from webdataset.shardlists import expand_urls, shardspec

KEYS = [
    "train-000.tar",
    "train-001.tar",
    "train-002.tar",
    "train-003.tar.partial",
    "deep/er/x.tar",
    "deep/x.tar",
    "deep/.hidden.tar",
    "deep/notes.txt",
    "a?[1]-x.tar",
]


def texts(source: object, **options: object) -> list[bytes]:
    dataset = wds.WebDataset(source, shardshuffle=False, **options)
    return [sample["txt"] for sample in dataset]


@pytest.fixture
def bucket(s3: S3Store) -> S3Store:
    """A bucket with these keys; the shards hold their own names."""
    for key in KEYS:
        s3.put(key, tar_bytes({"a.txt": key.encode()}))
    return s3


# stars


PATTERNS = [
    ("train-*.tar", ["train-000.tar", "train-001.tar", "train-002.tar"]),
    ("train-00*{2,0}.tar", ["train-002.tar", "train-000.tar"]),
    ("*.tar", ["a?[1]-x.tar", "train-000.tar", "train-001.tar", "train-002.tar"]),
    ("**/x.tar", ["deep/er/x.tar", "deep/x.tar"]),
    ("deep/*", ["deep/er", "deep/notes.txt", "deep/x.tar"]),
    ("deep/.*", ["deep/.hidden.tar"]),
    ("deep/**", ["deep/er/x.tar", "deep/notes.txt", "deep/x.tar"]),
    ("a?[1]-*.tar", ["a?[1]-x.tar"]),
    ("*.partial", ["train-003.tar.partial"]),
    ("d*p/*.tar", ["deep/x.tar"]),
]


@pytest.mark.parametrize(("pattern", "keys"), PATTERNS)
def test_stars_match_alike_everywhere(tmp_path, pattern, keys):
    """What matches in a store is what the standard glob finds in a folder of the same names."""
    for key in KEYS:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    found = expand_urls(f"{tmp_path}/{pattern}")
    assert [path for path in found if Path(path).is_file()] == [f"{tmp_path}/{key}" for key in keys if key != "deep/er"]
    one = pattern.replace("{2,0}", "2")
    assert [key for key in KEYS if matcher(one)(key)] == [
        key for key in KEYS if f"{tmp_path}/{key}" in expand_urls(f"{tmp_path}/{one}")
    ]


@pytest.mark.parametrize(("pattern", "keys"), PATTERNS)
def test_stars_in_every_store(store, pattern, keys):
    """A pattern stands for the objects that match, sorted, by the rules of local files, in each kind of store."""
    for key in KEYS:
        store.put(key, b"x")
    found = expand_urls(store.url(pattern))
    assert found == [store.url(key) for key in keys if key != "deep/er"]


def test_folders_in_every_store(store):
    """A url that ends in a slash stands for the archives that lie directly there; a missing one is an error."""
    for key in KEYS:
        store.put(key, tar_bytes({"a.txt": key.encode()}))
    assert texts(store.url("deep/")) == [b"deep/.hidden.tar", b"deep/x.tar"]
    with pytest.raises(EmptyDatasetError, match="there is nothing here"):
        wds.WebDataset(store.url("none/"), shardshuffle=False)
    with pytest.raises(EmptyDatasetError, match="no object matches"):
        wds.WebDataset(store.url("train-*.zip"), shardshuffle=False)


@pytest.mark.parametrize(("pattern", "keys"), PATTERNS)
def test_stars_in_what_fsspec_knows(pattern, keys):
    """Patterns stand for the same files in a file system of fsspec."""
    folder = f"memory://{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for key in KEYS:
        memory.pipe_file(f"{folder}/{key}", tar_bytes({"a.txt": key.encode()}))
    try:
        assert expand_urls(f"{folder}/{pattern}") == [f"{folder}/{key}" for key in keys if key != "deep/er"]
        assert texts(f"{folder}/deep/") == [b"deep/.hidden.tar", b"deep/x.tar"]
        with pytest.raises(EmptyDatasetError):
            expand_urls(f"{folder}/none/*.tar")
    finally:
        memory.store.clear()


def test_a_data_set_of_a_pattern(bucket):
    """A data set reads what a pattern in a store stands for."""
    assert texts(f"s3://{bucket.bucket}/train-*.tar") == [b"train-000.tar", b"train-001.tar", b"train-002.tar"]
    spec = {"prefix": f"s3://{bucket.bucket}/", "datasets": [{"shards": "train-*.tar", "choose": 3}]}
    assert sorted(texts(spec)) == [b"train-000.tar", b"train-001.tar", b"train-002.tar"]


def test_no_match_in_a_store(bucket):
    """The error shows the pattern, where it looked, and how much lies there."""
    with pytest.raises(EmptyDatasetError, match=rf"^s3://{bucket.bucket}/train-\*\.zip: no object matches; 4 objects "):
        expand_urls(f"s3://{bucket.bucket}/train-*.zip")
    with pytest.raises(EmptyDatasetError, match=rf"nothing there begins with s3://{bucket.bucket}/none/$"):
        wds.WebDataset(f"s3://{bucket.bucket}/none/*.tar", shardshuffle=False)
    with pytest.raises(NotFoundError, match="s3://there-is-no-such-bucket/"):
        expand_urls("s3://there-is-no-such-bucket/*.tar")
    with pytest.raises(ShardListError, match=r"^s3://buck\*/a\.tar: .* name the bucket whole"):
        expand_urls("s3://buck*/a.tar")


def test_http_has_no_listing():
    """A star in an http url is an error that says what to write instead; in a query it is left alone."""
    with pytest.raises(
        ShardListError, match=r"^https://host/\*\.tar: an http server gives no listing .*\{000\.\.999\}"
    ):
        expand_urls("https://me:secret@host/*.tar?sig=secret")
    assert expand_urls("https://host/a.tar?sig=a*b") == ["https://host/a.tar?sig=a*b"]


def test_handlers_of_the_program_get_their_stars(monkeypatch):
    """Urls that the program's own handlers open are left alone: only those know what is there."""
    monkeypatch.setitem(gopen_schemes, "mine", lambda url, mode, bufsize: None)
    monkeypatch.setitem(gopen_schemes, "s3", lambda url, mode, bufsize: None)
    for url in ("mine://b/*.tar", "s3://b/*.tar", "http://h/a.tar"):
        assert expand_urls(url) == [url]


def test_file_urls(tmp_path):
    """A `file:` url may have stars, and name a folder."""
    urls = write_shards(tmp_path, 3, 1)
    assert expand_urls(f"file://{tmp_path}/*.tar") == urls
    assert texts(f"file://{tmp_path}/") == texts(urls)


# folders


def test_a_folder_of_a_store(bucket):
    """A url that ends in a slash stands for the archives that lie directly there."""
    assert texts(f"s3://{bucket.bucket}/deep/") == [b"deep/.hidden.tar", b"deep/x.tar"]
    assert len(texts(f"s3://{bucket.bucket}/")) == 4
    with pytest.raises(EmptyDatasetError, match=rf"^s3://{bucket.bucket}/none/: there is nothing here"):
        wds.WebDataset(f"s3://{bucket.bucket}/none/", shardshuffle=False)


def test_a_folder_without_archives(s3):
    """A folder with other things only is an error that names the endings."""
    s3.put("docs/a.txt", b"x")
    with pytest.raises(EmptyDatasetError, match=r"/docs/: no object here is named \.tar, \.tgz"):
        wds.WebDataset(s3.url("docs/"), shardshuffle=False)


def test_options_reach_the_listing(s3):
    """Listings use the storage options of the data set."""
    s3.put("a/x.tar", tar_bytes({"a.txt": b"x"}))
    options = {"endpoint": "http://127.0.0.1:1", "attempts": 1}
    for url in (s3.url("a/*.tar"), s3.url("a/")):
        with pytest.raises(OpenError, match="no connection"):
            wds.WebDataset(url, shardshuffle=False, storage_options=options)


# lists


LIST = """\ufeff# the shards of this set

  shard-0001.tar\r
shard-0000.tar
"""


def test_lists(tmp_path):
    """One shard a line, in its order, beside the list; comments and empty lines do not count."""
    urls = write_shards(tmp_path, 2, 1)
    (tmp_path / "list.txt").write_bytes(LIST.encode())
    assert expand_urls(f"@{tmp_path}/list.txt") == [urls[1], urls[0]]
    assert expand_urls(tmp_path / "a.tar") == [str(tmp_path / "a.tar")]
    assert expand_urls(f"x.tar::@{tmp_path}/li*.txt") == ["x.tar", urls[1], urls[0]]
    assert texts(f"@{tmp_path}/list.txt") == [b"text 1", b"text 0"]


def test_nothing_in_a_list_is_expanded(tmp_path, monkeypatch):
    """Lines are names: braces, stars, variables, pieces and lists in them are none."""
    monkeypatch.setenv("WDS_X", "y")
    names = ["{a,b}.tar", "*.tar", "${X}", "a::b", "@list.txt", "https://host/{a,b}*.tar"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    folder = str(tmp_path)
    assert expand_urls(f"@{folder}/list.txt") == [*(f"{folder}/{name}" for name in names[:5]), names[5]]


def test_a_file_may_begin_with_an_at(tmp_path, monkeypatch):
    """Where a file of this very name is there, it is the shard."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "@a.tar").touch()
    assert expand_urls("@a.tar") == ["@a.tar"]


def test_lists_from_servers(s3):
    """A list in a store or on a server names what lies beside it, and whole urls; no local files."""
    s3.put("set/a.tar", tar_bytes({"a.txt": b"a"}))
    s3.put("set/list.txt", f"a.tar\n{s3.url('set/a.tar')}\n".encode())
    assert texts(f"@{s3.url('set/list.txt')}") == [b"a", b"a"]
    pages = {"/d/list.txt": b"e/a.tar\nhttps://host/b.tar\n", "/bad.txt": b"/etc/passwd\n", "/worse": b"file:///etc/x"}
    with serve(pages) as server:
        listed = expand_urls(f"@{server.url('/d/list.txt')}?sig=x")
        assert listed == [server.url("/d/e/a.tar"), "https://host/b.tar"]
        for name in ("/bad.txt", "/worse"):
            with pytest.raises(ShardListError, match="a list from elsewhere names no local files"):
                expand_urls(f"@{server.url(name)}")


@pytest.mark.parametrize("line", ["pipe:touch planted", "  PIPE:touch planted", "a.tar\npipe:touch planted # x"])
def test_commands_in_a_list_do_not_run(tmp_path, line, monkeypatch):
    """A `pipe:` url in a list is refused, unless the program or the environment allows it."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(line)
    with pytest.raises(SecurityError, match=r"list\.txt: .*a command that comes from a file does not run"):
        wds.WebDataset("@list.txt", shardshuffle=False)
    assert any(url.lower().startswith("pipe:") for url in shardspec("@list.txt", allow_pipe=True).urls)
    monkeypatch.setenv("WDS_ALLOW_PIPE", "1")
    assert expand_urls("@list.txt")
    assert not Path("planted").exists()


@pytest.mark.parametrize(
    ("data", "error", "fact"),
    [
        (b"# nothing\n\n", EmptyDatasetError, "the list names no shard"),
        (b"\xff\xfe", ShardListError, "this is no text"),
        (tar_bytes({"a": b"x"}), ShardListError, "this is no text"),
    ],
)
def test_what_is_no_list(tmp_path, data, error, fact):
    """An empty list, and what is no text, are errors that name the file."""
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(error, match=f"list.txt: {fact}"):
        expand_urls(f"@{path}")
    with pytest.raises(NotFoundError, match="no such file"):
        expand_urls(f"@{path}.none")


# gaps


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["x-000.tar", "x-001.tar", "x-003.tar"], [("x-002.tar", 1)]),
        (["x-8.tar", "x-9.tar", "x-11.tar"], [("x-10.tar", 1)]),
        (["x-008.tar.bz2", "x-009.tar.bz2", "x-011.tar.bz2"], [("x-010.tar.bz2", 1)]),
        ([f"d1/x-{n:02}-v2.tgz" for n in (*range(10), 12)], []),
        ([f"d1/x-{n:02}.tgz" for n in (*range(10), 13)], [("d1/x-{10..12}.tgz", 3)]),
        (["a-0.tar", "b-2.tar"], []),
        (["a-0.tar", "a-100.tar", "a-200.tar"], []),
        (["a-20240101.tar", "a-20240102.tar", "a-20241231.tar"], []),
        (["a.tar", "b.tar"], []),
        ([f"{n}.tar" for n in range(5)], []),
        ([f"s3://b/4/x-{n}-of-9.tar" for n in range(9)], []),
    ],
)
def test_gaps(names, missing):
    """Names between the first and the last number of a sequence are missed; numbers that are no sequence are not."""
    assert gaps(names) == missing


def test_a_gap_is_told_once(tmp_path):
    """One warning names what is missing, when the data set is made, and none when it is read."""
    urls = write_shards(tmp_path, 6, 1)
    for url in (urls[2], urls[4]):
        Path(url).unlink()
    for source in (f"{tmp_path}/*.tar", f"{tmp_path}/"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset = wds.WebDataset(source, shardshuffle=False)
            assert [len(list(dataset)) for _ in range(2)] == [4, 4]
        (warning,) = caught
        assert str(warning.message) == (f"{source}: 2 shards of a numbered sequence are missing: {urls[2]}, {urls[4]}")
    assert len(list(wds.WebDataset([urls[0], urls[3]], shardshuffle=False))) == 2


# once


def test_places_are_listed_once(tmp_path):
    """A data set looks what there is when it is made; all passes, and copies for workers, see the same list."""
    asked = []
    listing = (
        '<?xml version="1.0"?><ListBucketResult><Contents><Key>b/1.tar</Key><Size>1</Size></Contents>'
        "<Contents><Key>b/0.tar</Key><Size>1</Size></Contents></ListBucketResult>"
    )

    def answer(request):
        if "list-type=2" in request.path:
            asked.append(request)
            return Page(listing.encode())
        return Page(tar_bytes({"a.txt": request.path.encode()}))

    with serve(answer) as server:
        options = {"endpoint": server.base, "anonymous": True}
        dataset = wds.WebDataset("s3://bucket/b/*.tar", shardshuffle=False, storage_options=options)
        for source in (dataset, dataset, pickle.loads(pickle.dumps(dataset))):
            assert [sample["__url__"] for sample in source] == ["s3://bucket/b/0.tar", "s3://bucket/b/1.tar"]
    assert len(asked) == 1
