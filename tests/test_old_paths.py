"""Old import paths, the names of the package, and stand-ins for torch."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
import torch.utils.data

import webdataset as wds

MODULES = [
    "autodecode",
    "bench",
    "cache",
    "cborsiterators",
    "compat",
    "downloader",
    "extradatasets",
    "filters",
    "gopen",
    "handlers",
    "mix",
    "multi",
    "pipeline",
    "pytorch",
    "shardlists",
    "tariterators",
    "tenbin",
    "typecheck",
    "utils",
    "writer",
]

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
    """Each module of both published versions imports, and every name of its __all__ is there."""
    module = importlib.import_module(f"webdataset.{name}")
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert [n for n in names if not hasattr(module, n)] == []


def test_attributes_after_a_bare_import():
    """`import webdataset` alone gives every submodule as an attribute; gopen is the function."""
    names = sorted(set(MODULES) - {"gopen"})
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
