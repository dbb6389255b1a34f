"""torch: instances in every import order, DataLoader with workers of every kind, and everything without torch."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections import Counter
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

import webdataset as wds
from helpers import tar_bytes, write_shards


@pytest.fixture
def urls(tmp_path):
    return write_shards(tmp_path, shards=6, samples=5)


def all_keys(urls):
    return [f"{number:06d}" for number in range(5 * len(urls))]


def run(program, *arguments):
    """What a fresh interpreter prints for a program, warnings being errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program, *arguments], capture_output=True, text=True)
    assert "" == done.stderr
    return done.stdout


def loader(dataset, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        return DataLoader(dataset, batch_size=None, **options)


ORDERS = {
    "torch first": "import torch.utils.data; import webdataset as wds; ds = wds.WebDataset('x.tar')",
    "torch later": "import webdataset as wds; ds = wds.WebDataset('x.tar'); import torch.utils.data",
    "torch in between": "import webdataset as wds; import torch.utils.data; ds = wds.WebDataset('x.tar')",
}


@pytest.mark.parametrize("order", ORDERS)
def test_datasets_are_iterable_datasets_in_every_import_order(order):
    """isinstance(ds, IterableDataset) holds whenever torch is imported, for composed pipelines too."""
    program = ORDERS[order] + (
        "; import torch.utils.data as d"
        "; data = ds, ds.shuffle(5), wds.DataPipeline(ds), wds.FluidWrapper([1])"
        "; print([isinstance(x, d.IterableDataset) for x in data]"
        ", issubclass(wds.WebDataset, d.IterableDataset))"
    )
    assert "[True, True, True, True] True\n" == run(program)


def test_importing_webdataset_imports_no_torch_and_little_else():
    """import webdataset leaves torch, PIL, urllib3, yaml and multiprocessing alone, even where they are installed."""
    program = (
        "import numpy, sys; before = set(sys.modules); import webdataset, wids; new = set(sys.modules) - before;"
        "print([name for name in ('torch', 'PIL', 'urllib3', 'yaml', 'multiprocessing') if name in new])"
    )
    assert "[]\n" == run(program)


def test_adding_and_indexing(urls):
    """ds1 + ds2 is both, one after the other; ds[0] of a stream without numbers says that this is one."""
    both = wds.WebDataset(urls[:1]) + wds.WebDataset(urls[1:2])
    assert isinstance(both, ChainDataset)
    assert all_keys(urls)[:10] == [sample["__key__"] for sample in both]
    with pytest.raises(NotImplementedError, match="iterate over it"):
        wds.WebDataset(urls).shuffle(10)[0]


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_data_loader_gives_each_sample_once_and_a_new_order_each_epoch(urls, workers, start, persistent):
    """0, 1 and 3 workers, fork and spawn, persistent or not: every epoch all samples once, in another order."""
    options = {"num_workers": workers, "multiprocessing_context": start, "persistent_workers": persistent}
    if workers == 0:
        options = {}
    dataset = wds.DataPipeline(
        wds.SimpleShardList(urls),
        wds.shuffle(100),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.to_tuple("__key__"),
    )
    data = loader(dataset, **options)
    epochs = [[key for (key,) in data] for _ in range(2)]  # no more: each spawned worker imports torch anew
    dataset.set_epoch(0)
    epochs.append([key for (key,) in data])
    for keys in epochs:
        assert all_keys(urls) == sorted(keys)
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]


class Wrapper(IterableDataset):
    """A data set of the program around one of ours, which torch never asks for its class."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def wait_by_number(worker):
    time.sleep(0.3 * worker)


def shuffled_before_the_split(urls):
    return wds.DataPipeline(
        wds.SimpleShardList(urls),
        wds.shuffle(100),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.map(itemgetter("__key__")),
    )


@pytest.mark.parametrize("around", [Wrapper, lambda dataset: dataset + dataset], ids=["wrapped", "added"])
def test_epochs_advance_inside_other_data_sets(urls, around):
    """Around a data set that torch does not see itself, every epoch has another order too."""
    data = loader(around(shuffled_before_the_split(urls)), num_workers=2)
    first, second = list(data), list(data)
    assert first != second
    assert sorted(first) == sorted(second)


def test_workers_that_are_late_count_the_same_passes(tmp_path):
    """With several passes in one epoch and workers out of step, each sample still comes once a pass."""
    urls = []
    for number, samples in enumerate([1, 40, 1, 40, 1, 30]):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(tar_bytes({f"{number}-{sample}.txt": b"" for sample in range(samples)}))
        urls.append(str(path))
    data = loader(
        shuffled_before_the_split(urls).repeat(3), num_workers=2, prefetch_factor=256, worker_init_fn=wait_by_number
    )
    assert {3} == set(Counter(data).values())


def test_decoded_batches_come_through_workers(urls):
    """Shuffled, decoded, batched samples cross worker processes as arrays."""
    dataset = wds.WebDataset(urls, shardshuffle=6).shuffle(10).decode().to_tuple("cls", "txt").batched(4)
    batches = list(loader(dataset, num_workers=2))
    assert sorted(f"text {number}" for number in range(30)) == sorted(text for _, texts in batches for text in texts)
    assert all(isinstance(classes, torch.Tensor) for classes, _ in batches)


def test_web_loader_mixes_the_batches_of_workers(urls):
    """WebLoader(...).unbatched().shuffle().batched() has all samples; attributes may be set on it."""
    dataset = wds.WebDataset(urls).decode().to_tuple("txt", "cls").batched(3)
    data = wds.WebLoader(dataset, batch_size=None, num_workers=2).unbatched().shuffle(100).batched(7)
    data.length = 5
    sizes, texts = [], []
    for batch, _ in data:
        sizes.append(len(batch))
        texts += batch
    assert [7, 7, 7, 7, 2] == sizes
    assert sorted(f"text {number}" for number in range(30)) == sorted(texts)
    assert 5 == data.length


def test_errors_cross_worker_processes_with_their_place(urls, tmp_path):
    """A damaged shard read by a worker raises the same error class, with the shard, in the main process."""
    path = tmp_path / "cut.tar"
    path.write_bytes(Path(urls[0]).read_bytes()[:1300])
    with pytest.raises(wds.DataError, match=r"cut\.tar") as caught:
        list(loader(wds.WebDataset([str(path)]), num_workers=1))
    assert "TruncatedError" == type(caught.value).__name__
    assert str(path) == caught.value.url


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocker())
import webdataset as wds
"""


def test_streaming_works_without_torch(urls):
    """Shards are streamed, shuffled, decoded to arrays and batched where torch is not installed."""
    program = f"""
dataset = wds.WebDataset({urls!r}, shardshuffle=5).shuffle(5).decode("rgb").to_tuple("txt", "cls").batched(8)
print(sum(len(texts) for texts, classes in dataset))
"""
    assert "30\n" == run(WITHOUT_TORCH + program)


def test_what_needs_torch_says_so_where_it_is_missing(urls):
    """WebLoader, ds1 + ds2 and torch image specs name the pip line when torch is not installed."""
    program = f"""
dataset = wds.WebDataset({urls!r})
for use in (lambda: wds.WebLoader(dataset), lambda: dataset + dataset):
    try:
        use()
    except ImportError as exn:
        print(exn)
"""
    expected = "WebLoader needs torch: pip install torch\nadding data sets needs torch: pip install torch\n"
    assert expected == run(WITHOUT_TORCH + program)


def test_every_pipeline_object_is_registered():
    """Classes of pipelines are subclasses of IterableDataset for issubclass, too, once torch is imported."""
    for kind in (wds.WebDataset, wds.DataPipeline, wds.WebLoader, wds.FluidWrapper):
        assert issubclass(kind, IterableDataset)


def test_functions_of_torch_fields(tmp_path):
    """`torch_dumps` makes the bytes of a pth field, `torch_loads` the tensors that are in them."""
    value = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7}
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", "pth": value, "model.pth": wds.torch_dumps(value)})
    [sample] = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    for data in (sample["pth"], sample["model.pth"]):
        found = wds.torch_loads(data)
        assert (7, True) == (found["step"], torch.equal(value["weights"], found["weights"]))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_threaded_loader_in_workers(urls, start):
    """A ThreadedLoader is an IterableDataset, and runs in workers of a DataLoader."""
    threaded = wds.ThreadedLoader(wds.WebDataset(urls, shardshuffle=False).map(itemgetter("__key__")), 2)
    assert isinstance(threaded, IterableDataset)
    assert sorted(loader(threaded, num_workers=2, multiprocessing_context=start)) == all_keys(urls)
