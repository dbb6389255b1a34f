"""`ShardListDataset`: samples by number from local and remote shards, in workers too, and what it says of bad input."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import webdataset as wds
import wids
from helpers import foreign_data, tar_bytes, write_shards
from servers import serve
from webdataset.errors import (
    DecodingError,
    MissingFieldError,
    NotFoundError,
    SecurityError,
    ShardListError,
    StaleIndexError,
    WrongContentError,
)
from wids.wids import LRUShards, default_decoder, hash_dataset_name, interpret_transformations

WIDS = foreign_data() / "wids"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "cache"))


def listed(urls: list[str], count: int) -> list[dict]:
    return [{"url": url, "nsamples": count} for url in urls]


@pytest.fixture
def dataset(tmp_path):
    """12 samples in 4 shards, whose texts count through."""
    return wids.ShardListDataset(listed(write_shards(tmp_path, 4, 3), 3))


def picture(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), colour).save(out, "JPEG")
    return out.getvalue()


def test_the_example_of_the_readme(tmp_path, monkeypatch, capsys):
    """The published README's lines run on a small fake-imagenet on a server: keys in order, image, text, the line."""
    files, shards = {}, []
    for shard in range(20):
        members = {}
        for number in range(shard * 100, (shard + 1) * 100):
            members[f"im{number:06d}.cls"] = str(number % 1000).encode()
            members[f"im{number:06d}.jpg"] = picture((number % 256, 0, 0))
            members[f"im{number:06d}.txt"] = b"a high quality color photograph of a dog"
        data = tar_bytes(members)
        name = f"imagenet-train-{shard:06d}.tar"
        files[f"/fake-imagenet/{name}"] = data
        digest = hashlib.md5(data).hexdigest()
        shards.append({"url": name, "md5sum": digest, "nsamples": 100, "filesize": len(data)})
    spec = {"wids_version": 1, "name": "imagenet-train", "shardlist": shards}
    files["/fake-imagenet/imagenet-train.json"] = json.dumps(spec).encode()
    with serve(files) as server:
        train_url = server.url("/fake-imagenet/imagenet-train.json")
        dataset = wids.ShardListDataset(train_url)
        sample = dataset[1900]
        print(sample.keys())
        print(sample[".txt"])
        fetched = [request.path for request in server.requests if request.path.endswith(".tar")]
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "dict_keys(['.cls', '.jpg', '.txt', '__key__', '__dataset__', '__index__', '__shard__', '__shardindex__'])",
        "a high quality color photograph of a dog",
    ]
    assert isinstance(sample[".jpg"], PIL.Image.Image)
    assert np.asarray(sample[".jpg"]).shape == (6, 8, 3)
    assert set(fetched) == {"/fake-imagenet/imagenet-train-000019.tar"}
    nbytes = sum(shard["filesize"] for shard in shards)
    assert err.splitlines() == [
        f"{train_url[:50]} base: {server.url('/fake-imagenet')} name: imagenet-train nfiles: 20 nbytes: {nbytes}"
        f" samples: 2000 cache: {tmp_path / 'cache'}"
    ]


def test_a_sample(dataset):
    """Fields with their dots, then what is known of the sample, in the published order."""
    sample = dataset[4]
    assert list(sample.items())[:3] == [(".cls", 4), (".txt", "text 4"), ("__key__", "000004")]
    assert list(sample)[3:] == ["__dataset__", "__index__", "__shard__", "__shardindex__"]
    assert (sample["__index__"], sample["__shardindex__"]) == (4, 1)
    assert sample["__shard__"] == dataset.shards[1]["url"]


def test_numbers_and_slices(dataset):
    """Negative numbers count from the end, numpy's are numbers, slices give lists; others are Python's errors."""
    assert [dataset[-1]["__key__"], dataset[np.int64(-12)]["__key__"]] == ["000011", "000000"]
    assert [sample["__index__"] for sample in dataset[2:11:4]] == [2, 6, 10]
    assert [sample["__index__"] for sample in dataset] == list(range(12))
    for index in (12, -13, 10**12):
        with pytest.raises(IndexError, match=f"12 samples, there is no .{index}."):
            dataset[index]
    with pytest.raises(TypeError):
        dataset["x"]


def test_shards_without_samples(tmp_path):
    """Empty shards among others are passed over."""
    urls = write_shards(tmp_path, 2, 2)
    Path(tmp_path / "empty.tar").write_bytes(bytes(1024))
    shards = listed(urls, 2)
    empty = {"url": str(tmp_path / "empty.tar"), "nsamples": 0}
    dataset = wids.ShardListDataset([empty, shards[0], empty, empty, shards[1], empty])
    assert [sample["__key__"] for sample in dataset] == ["000000", "000001", "000002", "000003"]


def test_the_same_samples_as_the_stream():
    """For each archive that other tools wrote, `ds[i]` has key, fields and bytes of the i-th of the stream."""
    compared = 0
    for path in sorted(foreign_data().rglob("*.tar*")):
        if path.suffix in (".json", ".idx", ".index", ".md") or "corrupt" in path.parts:
            continue
        try:
            stream = list(wds.WebDataset(str(path), shardshuffle=False, lcase=False))
        except Exception:
            continue
        dataset = wids.ShardListDataset([{"url": str(path), "nsamples": len(stream)}], transformations=[])
        for number, expected in enumerate(stream):
            sample = dataset[number]
            fields = {key[1:]: value.getvalue() for key, value in sample.items() if key.startswith(".")}
            meta = ("__key__", "__url__", "__local_path__")
            assert fields == {key: value for key, value in expected.items() if key not in meta}
            assert sample["__key__"] == expected["__key__"]
            compared += 1
        dataset.close()
    assert compared > 100


def test_names_of_lists(tmp_path, capsys):
    """A list's name is the argument, or made from the list; the line at opening shows no password."""
    assert hash_dataset_name("abc") == "ungWv48Bz-pBQUDe"
    shards = [("http://user:secret@host/a.tar?token=secret", 3)]
    assert wids.ShardListDataset(shards, dataset_name="mine").dataset_name == "mine"
    assert wids.ShardListDataset(shards).dataset_name == hash_dataset_name(str(shards))
    err = capsys.readouterr().err
    assert "samples: 3" in err
    assert "secret" not in err


def test_transformations(dataset, capsys):
    """Functions follow each other; `add_transform` and `add_transformation` give the object."""
    assert dataset.add_transform(lambda sample: sample[".cls"]) is dataset
    assert dataset.add_transformation(lambda number: number * 2) is dataset
    assert dataset[5] == 10
    plain = wids.ShardListDataset(dataset.shards, transformations=[])
    assert isinstance(plain[0][".txt"], io.BytesIO)
    assert wids.ShardListDataset(dataset.shards, transformations=len)[0] == 7
    assert [repr(f) for f in interpret_transformations(["PIL", "numpy"])] == [
        "DefaultDecoder('PIL')",
        "DefaultDecoder('numpy')",
    ]
    with pytest.raises(TypeError, match="'PIL', 'numpy' or a function"):
        interpret_transformations(None)
    with pytest.raises(ValueError, match="'PIL' or 'numpy'"):
        interpret_transformations("pill")


def test_the_fluid_methods(dataset):
    """They give new data sets, map-style as before; names may have their dots or not."""
    assert dataset.to_tuple("txt", ".cls")[3] == ("text 3", 3)
    assert dataset.to_tuple("nothing;cls txt")[3] == (3, "text 3")
    assert dataset.map_dict(cls=lambda number: -number)[3][".cls"] == -3
    assert dataset.rename(label="cls")[3][".label"] == 3
    assert dataset.map(lambda sample: sample["__key__"]).map(int)[-1] == 11
    assert dataset.to_tuple("cls", "txt").map_tuple(str, len)[2] == ("2", 6)
    assert dataset[3][".cls"] == 3
    assert len(dataset.to_tuple("cls")) == 12
    raw = wids.ShardListDataset(dataset.shards, transformations=[])
    assert raw.decode()[3][".cls"] == 3


def test_names_without_dots(dataset):
    """One option gives the names that `webdataset` has."""
    sample = wids.ShardListDataset(dataset.shards, dots=False)[1]
    assert list(sample)[:3] == ["cls", "txt", "__key__"]
    assert sample["txt"] == "text 1"


def test_decoding():
    """What each extension gives, also inside gz; others stay streams, and so do images without a format."""
    import gzip

    array = io.BytesIO()
    np.save(array, np.arange(3))
    raw = {
        ".txt": b"\xc3\xa4",
        ".cls2": b"7",
        ".json.gz": gzip.compress(b"[1, 2]"),
        ".npy": array.getvalue(),
        ".a.pkl": pickle.dumps({"x": (1, 2)}),
        ".jpg": picture(),
        ".jpeg": picture(),
        ".JPG": picture(),
        ".bin": b"x",
    }
    sample = {key: io.BytesIO(data) for key, data in raw.items()} | {"__key__": "k"}
    decoded = default_decoder(sample, "numpy")
    assert (decoded[".txt"], decoded[".cls2"], decoded[".json.gz"]) == ("ä", 7, [1, 2])
    assert (decoded[".npy"].tolist(), decoded[".a.pkl"], decoded["__key__"]) == ([0, 1, 2], {"x": (1, 2)}, "k")
    assert (decoded[".jpg"].shape, decoded[".jpg"].dtype) == ((6, 8, 3), np.uint8)
    assert all(isinstance(decoded[key], io.BytesIO) for key in (".jpeg", ".JPG", ".bin"))
    assert default_decoder(sample, "PIL")[".jpg"].size == (8, 6)
    assert isinstance(default_decoder(sample)[".jpg"], io.BytesIO)
    assert isinstance(sample[".txt"], io.BytesIO)


def test_a_field_that_cannot_be_decoded(tmp_path):
    """The error names shard, key and field; a pickle that asks for code is refused."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.json": b"{", "b.pkl": b"cos\nsystem\n(S'true'\ntR."}))
    dataset = wids.ShardListDataset([{"url": str(path), "nsamples": 2}])
    with pytest.raises(DecodingError, match=r"a\.tar!a\.json: "):
        dataset[0]
    with pytest.raises(SecurityError, match="not among the safe types"):
        dataset[1]


def test_an_error_of_a_function_did_not_say_which_sample(dataset):
    """Exceptions of functions and methods tell shard and key; a wrong keyword is told with what was meant."""

    def wrong(sample):
        return sample[".none"]

    with pytest.raises(KeyError) as caught:
        dataset.with_transform(wrong)[3]
    shard, key = dataset.get_shard(3)[2]["url"], dataset[3]["__key__"]
    assert caught.value.__notes__ == [f"in transformations, sample {shard}!{key}"]
    with pytest.raises(MissingFieldError) as missing:
        dataset.to_tuple("none")[3]
    assert (missing.value.url, missing.value.key) == (shard, key)
    with pytest.raises(TypeError, match=r"unknown argument 'transformation' \(did you mean 'transformations'\?\)"):
        wids.ShardListDataset([], transformation="numpy")


def test_images_that_are_programs(tmp_path):
    """PostScript under the name of a picture is not opened."""
    out = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(out, "EPS")
    with pytest.raises(SecurityError, match="EPS"):
        default_decoder({".jpg": io.BytesIO(out.getvalue())}, "PIL")


def test_remote_shards_are_copied_once(tmp_path):
    """Each shard is downloaded when it is needed, once, and checked; others find the copy."""
    paths = write_shards(tmp_path, 3, 2)
    files = {f"/a/{Path(path).name}": Path(path).read_bytes() for path in paths}
    with serve(files) as server:
        shards = [
            {"url": server.url(name), "nsamples": 2, "md5sum": hashlib.md5(data).hexdigest(), "filesize": len(data)}
            for name, data in files.items()
        ]
        for _ in range(2):
            dataset = wids.ShardListDataset(shards, cache_dir=tmp_path / "copies")
            assert [dataset[number]["__key__"] for number in (5, 4, 1)] == ["000005", "000004", "000001"]
        assert sorted({request.path for request in server.requests if request.sent}) == [
            sorted(files)[0],
            sorted(files)[2],
        ]
        assert sum(request.sent for request in server.requests) == 2 * len(files["/a/shard-0000.tar"])
    assert len(list((tmp_path / "copies").glob("*.tar"))) == 2


def test_two_shards_with_one_name(tmp_path):
    """Shards of the same file name in different folders never share a copy."""
    shards = {f"/{place}/x.tar": tar_bytes({f"{place}.txt": place.encode()}) for place in "ab"}
    with serve(shards) as server:
        dataset = wids.ShardListDataset(listed([server.url(name) for name in shards], 1), cache_dir=tmp_path / "c")
        assert [sample[".txt"] for sample in dataset] == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"md5sum": "0" * 32}, "md5sum"), ({"filesize": 1}, r"filesize"), ({"nsamples": 7}, "2 samples, where .* 7")],
)
@pytest.mark.parametrize("remote", [True, False])
def test_an_index_of_other_shards(tmp_path, wrong, message, remote):
    """Wrong MD5, size or number of samples is an error that names shard and field; a wrong copy is not kept."""
    path = Path(write_shards(tmp_path, 1, 2)[0])
    with serve({"/a.tar": path.read_bytes()}) as server:
        url = server.url("/a.tar") if remote else str(path)
        desc = {"url": url, "nsamples": 2, **wrong}
        dataset = wids.ShardListDataset([desc], cache_dir=tmp_path / "copies" if "md5sum" in wrong else None)
        for _ in range(2):
            with pytest.raises((WrongContentError, StaleIndexError), match=message):
                dataset[0]
    if "nsamples" not in wrong:
        assert list(tmp_path.glob("c*/*")) == []


def test_a_shard_that_shrinks(tmp_path):
    """A file that becomes shorter while it is read is an error, not the end of the process."""
    path = write_shards(tmp_path, 1, 50)[0]
    dataset = wids.ShardListDataset(listed([path], 50))
    assert dataset[0][".cls"] == 0
    os.truncate(path, 2000)
    with pytest.raises(StaleIndexError, match=r"0000\.tar.*changed after it was opened"):
        dataset[49]


def test_a_shard_that_is_missing(tmp_path):
    """A relative url from another folder, or a shard that is gone, is named."""
    (tmp_path / "x.json").write_text(json.dumps({"wids_version": 1, "shardlist": listed(["data/a.tar"], 3)}))
    dataset = wids.ShardListDataset(str(tmp_path / "x.json"))
    with pytest.raises(NotFoundError, match=r"data/a\.tar"):
        dataset[0]


def test_lists_that_are_none(tmp_path):
    """An empty list is an IndexError, what is no list of shards names the entry."""
    with pytest.raises(IndexError):
        wids.ShardListDataset([])
    with pytest.raises(ShardListError, match=r"shards\[0\]: a shard is a mapping"):
        wids.ShardListDataset(["a.tar"])
    with pytest.raises(ShardListError, match="got a dict"):
        wids.ShardListDataset({"url": "a.tar"})
    with pytest.warns(UserWarning, match="lru_size is 201"):
        wids.ShardListDataset([("a.tar", 1)], lru_size=201)


def test_json_from_a_stream_and_with_options(tmp_path):
    """An open JSON is read as well, and `options` replace its keys."""
    urls = write_shards(tmp_path, 2, 3)
    text = json.dumps({"wids_version": 1, "name": "x", "shardlist": listed([Path(url).name for url in urls], 3)})
    dataset = wids.ShardListDataset(io.StringIO(text), base=str(tmp_path), options={"name": "y"})
    assert (dataset.dataset_name, dataset[4]["__key__"]) == ("y", "000004")


@pytest.mark.parametrize("keep", [False, True])
def test_the_size_of_the_cache(tmp_path, keep):
    """Copies that were used longest ago go when there are more bytes than `cache_size`, unless `keep` holds them."""
    data = {f"/{number}.tar": tar_bytes({"a.bin": bytes(20_000)}) for number in range(6)}
    size = len(data["/0.tar"])
    with serve(data) as server:
        shards = listed([server.url(name) for name in data], 1)
        dataset = wids.ShardListDataset(
            shards, cache_dir=tmp_path / "c", cache_size=2.5 * size, lru_size=1, keep=keep, transformations=[]
        )
        for number in range(6):
            assert dataset[number]["__index__"] == number
    copies = len(list((tmp_path / "c").glob("*.tar")))
    assert copies == 6 if keep else copies <= 3


def test_local_shards_are_copied_where_a_folder_is_named(tmp_path):
    """Without `cache_dir` local shards are read where they are; with it, or `localname`, they are copied."""
    shards = listed(write_shards(tmp_path, 1, 2), 2)
    assert wids.ShardListDataset(shards)[1]["__key__"] == "000001"
    assert not (tmp_path / "cache").exists()
    assert wids.ShardListDataset(shards, cache_dir=tmp_path / "c")[1]["__key__"] == "000001"
    assert len(list((tmp_path / "c").glob("*.tar"))) == 1
    own = wids.ShardListDataset(shards, localname=lambda url: str(tmp_path / "own" / "x"))
    assert own[1]["__key__"] == "000001"
    assert (tmp_path / "own" / "x").exists()


def test_how_many_shards_stay_open(dataset):
    """The last `lru_size` stay open, the others are closed; both are counted; `close` closes all."""
    shards = LRUShards(2)
    urls = [shard["url"] for shard in dataset.shards]
    opened = [shards.get_shard(url) for url in (urls[0], urls[1], urls[0], urls[2])]
    assert (shards.accesses, shards.misses, shards.last_missed, len(shards)) == (4, 3, True, 2)
    assert [shard.stream.closed for shard in opened] == [False, True, False, False]
    shards.reset_stats()
    shards.clear()
    assert (shards.accesses, len(shards), opened[0].stream.closed) == (0, 0, True)
    assert dataset.get_stats() == (0, 0)
    assert dataset[0]["__key__"] == dataset[1]["__key__"].replace("1", "0")
    assert dataset.get_stats() == (2, 1)
    dataset.close()
    assert len(dataset.cache) == 0


def test_many_misses_are_told_once(tmp_path):
    """Jumping between shards with a small `lru_size` gives one warning, with the share in percent."""
    dataset = wids.ShardListDataset(listed(write_shards(tmp_path, 2, 3), 3), lru_size=1)
    for number in range(101):
        dataset.check_cache_misses()
        dataset[3 * (number % 2)]
    with pytest.warns(UserWarning, match=r"101 of 101 samples \(100\.0 %\)"):
        dataset.check_cache_misses()
    dataset.check_cache_misses()


def test_no_files_stay_open(dataset):
    """Neither closing nor letting go of a data set leaves files behind."""
    before = len(os.listdir("/proc/self/fd"))
    other = wids.ShardListDataset(dataset.shards)
    assert len(list(other)) == 12
    assert len(os.listdir("/proc/self/fd")) > before
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert other[0][".cls"] == 0
    del other
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_share_a_data_set(dataset):
    """Samples that threads ask for at once, with few shards open, are the right ones."""
    from concurrent.futures import ThreadPoolExecutor

    dataset = wids.ShardListDataset(dataset.shards, lru_size=4)
    wanted = random.Random(1).choices(range(12), k=300)
    with ThreadPoolExecutor(8) as pool:
        assert [sample["__index__"] for sample in pool.map(dataset.__getitem__, wanted)] == wanted


BILLION = """
import json, resource, sys, time, wids
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = wids.ShardListDataset(sys.argv[1])
print(len(dataset), dataset[-1]["__key__"], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_billion_samples(tmp_path):
    """A list of 100,000 shards is opened, and a sample of the last one read, with less than 300 MB."""
    last = write_shards(tmp_path, 1, 10_000)[0]
    shards = [{"url": f"none-{n:06d}.tar", "nsamples": 10_000} for n in range(99_999)]
    spec = {"wids_version": 1, "shardlist": [*shards, {"url": last, "nsamples": 10_000}]}
    (tmp_path / "x.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-c", BILLION, str(tmp_path / "x.json")], capture_output=True, text=True, check=True
    )
    count, key, megabytes = done.stdout.split()
    assert (count, key) == ("1000000000", "009999")
    assert int(megabytes) < 300


def test_the_import_is_light():
    """`import wids` brings no torch; its names do."""
    code = "import sys, wids; print('torch' in sys.modules); wids.wids_lru; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert set(wids.__all__) <= set(dir(wids))
    with pytest.raises(AttributeError):
        wids.nothing  # noqa: B018
