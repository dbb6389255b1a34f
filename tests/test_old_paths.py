"""Old import paths, the names of the package, and stand-ins for torch."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.data

import webdataset as wds
from helpers import write_shards

RELEASES = {
    "0.1.0 to 0.1.20": "dataset webdataset io checks autodecode filters gopen tenbin writer",
    "git of 2021": "fluid iterators mock dbcache shardcache multi workerenv bench utils tariterators",
    "0.2.100": "autodecode bench cache cborsiterators compat downloader extradatasets filters gopen handlers mix multi "
    "pipeline pytorch shardlists tariterators tenbin typecheck utils writer",
    "1.0.2": "autodecode cache compat extradatasets filters gopen handlers mix multi pipeline pytorch shardlists "
    "tariterators tenbin typecheck utils writer",
}
"""Release to its modules."""

NAMES = sorted({name for names in RELEASES.values() for name in names.split()})
WIDS = "wids wids_bench wids_cleanup wids_dir wids_dl wids_index wids_lru wids_mmtar wids_specs wids_tar"
MODULES = [f"webdataset.{name}" for name in [*NAMES, "errors"]] + [f"wids.{name}" for name in WIDS.split()]

WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Absent())
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_old_modules_import(name):
    """Each module of every release imports and has an `__all__`, whose names are there, each once."""
    module = importlib.import_module(name)
    assert module.__name__ == name
    assert len(set(module.__all__)) == len(module.__all__)
    assert [n for n in module.__all__ if not hasattr(module, n)] == []


def test_attributes_after_a_bare_import():
    """`import webdataset` alone gives every submodule as an attribute; gopen is the function."""
    names = sorted(set(NAMES) - {"gopen"})
    code = f"import webdataset as w; print(all(getattr(w, n).__name__ == 'webdataset.' + n for n in {names}))"
    assert python(code).strip() == "True"
    assert callable(wds.gopen)
    assert importlib.import_module("webdataset.gopen").gopen is wds.gopen
    assert wds.repeatedly is wds.utils.repeatedly
    assert wds.with_epoch is wds.extradatasets.with_epoch


def test_all_of_the_package():
    """`__all__` is sorted, every name in it is there, and a star import gives them."""
    assert sorted(wds.__all__) == wds.__all__
    names: dict = {}
    exec("from webdataset import *", names)
    assert set(wds.__all__) <= names.keys()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wds.nothing  # noqa: B018


def test_compat_names_are_the_same_objects():
    """Classes subclassed from the old path are those of the new one."""
    assert wds.compat.FluidInterface is wds.FluidInterface
    assert wds.compat.WebDataset is wds.WebDataset

    class Mine(wds.DataPipeline, wds.compat.FluidInterface):
        pass

    assert list(Mine(range(3)).map(lambda x: x + 1)) == [1, 2, 3]


def test_torch_names_are_torchs():
    """With torch installed each name is torch's own, wherever it is imported from."""
    from webdataset.pytorch import DataLoader, IterableDataset, TorchTensor

    assert IterableDataset is torch.utils.data.IterableDataset
    assert DataLoader is torch.utils.data.DataLoader
    assert TorchTensor is torch.Tensor
    for module in (wds.mix, wds.extradatasets):
        assert module.IterableDataset is IterableDataset
    assert wds.compat.DataLoader is DataLoader


def test_torch_comes_with_the_first_of_its_names():
    """Importing the module imports no torch; asking for a name does, and our objects are instances of it."""
    code = """
import sys, webdataset, webdataset.pytorch
ds = webdataset.MockDataset(1, 2)
print("torch" in sys.modules)
from webdataset.pytorch import IterableDataset
print("torch" in sys.modules, isinstance(ds, IterableDataset))
"""
    assert python(code).split() == ["False", "True", "True"]


def test_stand_ins_without_torch():
    """Without torch there are classes to subclass and to ask isinstance of; a DataLoader says what is missing."""
    code = """
import webdataset as wds
from webdataset.pytorch import DataLoader, IterableDataset, TorchTensor
class Mine(IterableDataset):
    def __iter__(self):
        return iter([1, 2])
print(list(wds.FluidWrapper(Mine())), isinstance(wds.MockDataset(1, 2), IterableDataset), isinstance(1, TorchTensor))
try:
    DataLoader([])
except ImportError as exn:
    print(exn)
"""
    assert python(WITHOUT_TORCH + code).splitlines() == [
        "[1, 2] True False",
        "DataLoader needs torch: pip install torch",
    ]


def test_iterators_are_the_stages_as_functions(tmp_path):
    """`iterators` has the stages of 2021, which take the data first."""
    from webdataset import iterators

    urls = write_shards(tmp_path, 2, 3)
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    pairs = list(iterators.to_tuple(iterators.decode(samples), "txt", "cls"))
    assert pairs[4] == ("text 4", 4)
    assert sorted(iterators.shuffle(pairs, 3)) == pairs
    assert [len(texts) for texts, _ in iterators.batched(pairs, 4)] == [4, 2]
    assert iterators.getfirst(samples[0], "jpg;txt") == b"text 0"


def test_mock_gives_torchs_classes():
    """`mock` has torch's classes where torch is, and stand-ins where it is not."""
    from webdataset import mock

    assert mock.IterableDataset is torch.utils.data.IterableDataset
    code = "from webdataset.mock import IterableDataset, DataLoader; print(IterableDataset.__module__)"
    assert python(WITHOUT_TORCH + code).startswith("webdataset.")


def test_fluid_has_the_classic_dataset():
    """`webdataset.fluid.Dataset`, as late 0.1 releases have it."""
    from webdataset.fluid import Dataset

    assert Dataset is wds.Dataset


def test_workerenv(monkeypatch):
    """Who this process is, as an object, and the splitting of lists by it."""
    from webdataset import workerenv

    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("WORKER", 2), ("NUM_WORKERS", 3)):
        monkeypatch.setenv(name, str(value))
    env = workerenv.get_worker_environment()
    assert (env.rank, env.world_size, env.worker, env.nworkers) == (1, 2, 2, 3)
    assert repr(env) == "TorchWorkerEnvironment(rank=1, world_size=2, worker=2, nworkers=3)"
    assert env.identity == workerenv.worker_id()
    urls = [str(n) for n in range(6)]
    assert workerenv.split_by_node(urls) == ["1", "3", "5"]
    assert workerenv.split_by_worker(urls) == ["2", "5"]
    other = workerenv.WorkerEnvironment(rank=0, world_size=3, worker=0, nworkers=2)
    assert workerenv.split_by_node(urls, other) == ["0", "3"]
    assert workerenv.split_by_worker(urls, env=other) == ["0", "2", "4"]


def test_cache_shards(tmp_path):
    """Remote shards are copied once, under the names that `cache_name` gives, and read from the copies."""
    from webdataset.shardcache import cache_shards, guess_shard, shard_uuid

    (tmp_path / "shards").mkdir()
    urls = write_shards(tmp_path / "shards", 2, 3)
    commands = [f"pipe:echo x >> {tmp_path}/opened; cat {url}" for url in urls]
    for name in (guess_shard, shard_uuid, guess_shard):
        sources = ({"url": url, "stream": wds.gopen(urls[0])} for url in commands)
        copies = cache_shards(sources, str(tmp_path / name.__name__), cache_size=1e9, cache_name=name, verbose=False)
        samples = list(wds.tariterators.expand_and_group(copies))
        assert [sample["__key__"] for sample in samples] == [f"{number:06d}" for number in range(6)]
    assert (tmp_path / "opened").read_text().count("x") == 4
    assert sorted(path.name for path in (tmp_path / "guess_shard").glob("*.tar")) == [
        "shard-0000.tar",
        "shard-0001.tar",
    ]
    assert guess_shard("pipe:curl -s http://host/a/b.tar") == "b.tar"
    assert shard_uuid("a.tar") == "ec6b6daf-c790-3d6b-9a2a-cf3498dd3cae"


def test_a_cache_stream_leaves_a_whole_copy_or_none(tmp_path):
    """The copy appears when all was read; a stream that is closed before leaves nothing."""
    from webdataset.shardcache import CacheStream

    [url] = write_shards(tmp_path, 1, 30)
    data = Path(url).read_bytes()
    with CacheStream(tmp_path / "copy", open(url, "rb"), verbose=True) as stream:
        assert io.BufferedReader(stream).read(1000) == data[:1000]
    assert not (tmp_path / "copy").exists()
    with CacheStream(tmp_path / "copy", open(url, "rb")) as stream:
        samples = list(wds.webdataset.tariterator(stream))
        assert len(samples) == 30
        stream.read()
    assert (tmp_path / "copy").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "shard-0000.tar"]
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


def test_a_stream_that_fails_when_it_is_closed_leaves_no_copy(tmp_path):
    """The error reaches the program, and no part of a copy stays behind."""
    from webdataset.shardcache import CacheStream

    class Failing(io.BytesIO):
        def close(self):
            super().close()
            raise OSError("it was cut")

    stream = CacheStream(tmp_path / "copy", Failing(b"text"))
    assert stream.read() == b"text"
    with pytest.raises(OSError, match="cut"):
        stream.close()
    assert stream.closed
    assert list(tmp_path.iterdir()) == []


def test_dbcache(tmp_path, monkeypatch):
    """The first `size` samples are kept; what is in the file is not read again, and the rest goes on behind it."""
    from webdataset.dbcache import DBCache, get_uuid

    samples = list(wds.WebDataset(write_shards(tmp_path, 2, 10), shardshuffle=False))
    cache = DBCache(str(tmp_path / "a.db"), 15, source=samples, shuffle=False, verbose=False)
    assert len(cache) == 15
    assert isinstance(cache, torch.utils.data.IterableDataset)
    first = iter(cache)
    assert [next(first) for _ in range(4)] == samples[:4]
    first.close()
    reads = []
    assert list(DBCache(tmp_path / "a.db", 15)) == samples[:4]
    assert list(DBCache(tmp_path / "a.db", 15)(reads.append(s) or s for s in samples)) == samples[:15]
    assert len(reads) == 15
    assert list(DBCache(tmp_path / "a.db", 15)) == samples[:15]
    mixed = DBCache(tmp_path / "a.db", 15, shuffle=True)
    orders = [[s["__key__"] for s in mixed] for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [s["__key__"] for s in samples[:15]]
    with pytest.raises(ValueError, match="holds no sample, and there is no source"):
        list(DBCache(tmp_path / "b.db", 5))
    assert get_uuid("a.tar") == get_uuid(b"a.tar") == "ec6b6daf-c790-3d6b-9a2a-cf3498dd3cae"
    monkeypatch.setenv("WDS_SECURE", "1")
    with pytest.raises(ValueError, match="pickles"):
        list(cache)


def test_pytorch_weights_only_has_two_names(monkeypatch):
    """The name of the package is that of autodecode."""
    assert wds.pytorch_weights_only is True
    monkeypatch.setattr(wds.autodecode, "pytorch_weights_only", False, raising=False)
    assert wds.pytorch_weights_only is False


def test_a_download_is_complete_or_absent(tmp_path):
    """The copy has the bytes; a source that fails leaves nothing behind."""
    from webdataset.downloader import download_file, get_oldest_file, total_file_size

    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    download_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert total_file_size([str(tmp_path / "a"), str(tmp_path / "b")]) == 6_000_000
    assert get_oldest_file([str(tmp_path / "a"), str(tmp_path / "b")]) == str(tmp_path / "a")
    with pytest.raises(OSError, match="exit"):
        download_file("pipe:echo x; exit 3", str(tmp_path / "c"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
