"""video2dataset's loader: subclasses of Decoder and FluidInterface, own filters, a data set put together by hand."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

import webdataset as wds
from helpers import tar_bytes, write_picture_shards
from webdataset import DataPipeline, filters, shardlists, tariterators
from webdataset.autodecode import Continue, Decoder, ImageHandler, decoders, imagehandler
from webdataset.compat import FluidInterface

SHARDS, SAMPLES = 3, 4


class KeyPassThroughDecoder(Decoder):
    """Lets some fields through whatever they hold; it decides by `only` and `partial`, and calls `decode1`."""

    def __init__(self, *args, passthrough_keys=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.passthrough_keys = passthrough_keys or []

    def decode(self, sample):
        assert isinstance(sample, dict), sample
        result = {}
        for key, value in sample.items():
            if key[0] == "_":
                result[key] = value.decode("utf-8") if isinstance(value, bytes) else value
            elif (
                (self.only is not None and key not in self.only)
                or key in self.passthrough_keys
                or (self.partial and not isinstance(value, bytes))
            ):
                result[key] = value
            else:
                assert isinstance(value, bytes), key
                result[key] = self.decode1(key, value)
        return result


class FluidWithOwnDecode(FluidInterface):
    def decode(
        self,
        *args,
        pre=None,
        post=None,
        only=None,
        partial=False,
        passthrough_keys=None,
        handler=wds.reraise_exception,
    ):
        handlers = [ImageHandler(arg) if isinstance(arg, str) else arg for arg in args]
        options = {"pre": pre, "post": post, "only": only, "partial": partial}
        return self.map(KeyPassThroughDecoder(handlers, passthrough_keys=passthrough_keys, **options), handler=handler)


class OwnWebDataset(DataPipeline, FluidWithOwnDecode):
    """A data set from parts of the library, as the published WebDataset was long ago."""

    def __init__(
        self,
        urls,
        handler=wds.reraise_exception,
        resampled=False,
        shardshuffle=None,
        detshuffle=False,
        nodesplitter=shardlists.single_node_only,
    ):
        super().__init__()
        if isinstance(urls, IterableDataset):
            self.append(urls)
        elif resampled:
            self.append(shardlists.ResampledShards(urls))
        else:
            self.append(shardlists.SimpleShardList(urls))
            self.append(nodesplitter)
            self.append(shardlists.split_by_worker)
            if shardshuffle is not None:
                self.append((filters.detshuffle if detshuffle else filters.shuffle)(shardshuffle))
        self.append(tariterators.tarfile_to_samples(handler=handler))


def _map_always(data, f, return_always=False, handler=wds.reraise_exception):
    """As `map`, but a sample that fails can leave a marker instead of nothing."""
    for sample in data:
        try:
            result = f(sample)
        except Exception as exn:
            if not handler(exn):
                break
            result = {"__corrupted__": True} if return_always else None
        if result is None:
            continue
        result["__key__"] = sample.get("__key__")
        yield result


map_always = wds.pipelinefilter(_map_always)


def _repack(data, key):
    """An image decoded by ImageHandler, called as a program calls it."""
    for sample in data:
        sample[key] = ImageHandler("rgb", extensions=[key])(key, data=sample[key])
        yield sample


repack = filters.pipelinefilter(_repack)


def dict_collation(samples, combine_tensors=True, combine_scalars=True):
    keys = set.intersection(*[set(sample) for sample in samples])
    result = {}
    for key in keys:
        values = [sample[key] for sample in samples]
        if isinstance(values[0], (int, float)) and combine_scalars:
            result[key] = np.array(values)
        elif isinstance(values[0], torch.Tensor) and combine_tensors:
            result[key] = torch.stack(values)
        else:
            result[key] = values
    return result


@pytest.fixture
def urls(tmp_path):
    return write_picture_shards(tmp_path, SHARDS, SAMPLES)


def numbers(samples):
    return sorted(sample["json"]["number"] for sample in samples)


def test_an_own_data_set_with_an_own_decode_method(urls, load):
    """The fluid methods of the subclass and of the base mix; captions pass undecoded, pictures become tensors."""
    ds = OwnWebDataset(urls, shardshuffle=10).decode("torch", passthrough_keys=["txt"]).shuffle(5)
    assert isinstance(ds, OwnWebDataset)
    samples = load(ds.map(lambda sample: {**sample, "json": dict(sample["json"])}))
    assert list(range(SHARDS * SAMPLES)) == numbers(samples)
    assert {bytes} == {type(sample["txt"]) for sample in samples}
    assert {(torch.float32, 3, 6)} == {(sample["jpg"].dtype, *sample["jpg"].shape[:2]) for sample in samples}


def test_only_and_partial_reach_the_subclass(urls, load):
    """`only` is a set of field names, `partial` a bool; what `map` made before is let through."""
    ds = OwnWebDataset(urls).map(lambda sample: {**sample, "cls": int(sample["cls"])})
    [sample, *_] = load(ds.decode("pil", only="json cls", partial=True))
    assert [bytes, int, dict] == [type(sample[name]) for name in ("jpg", "cls", "json")]
    assert {"json", "cls"} == KeyPassThroughDecoder([], only="json cls").only
    with pytest.raises(AssertionError, match="cls"):
        list(ds.decode("pil"))


def test_handlers_before_and_after(urls, load):
    """`pre` may change key and data with Continue; `post` sees what nobody took."""

    def upper(key, data):
        return Continue(".txt", data.upper()) if key == ".txt" else None

    ds = OwnWebDataset(urls).decode(
        "pilrgb", pre=[upper], post=[wds.autodecode.basichandlers, lambda key, data: len(data)]
    )
    samples = load(ds.to_tuple("txt", "cls"))
    assert sorted(f"PICTURE {number}" for number in range(SHARDS * SAMPLES)) == sorted(text for text, _ in samples)


def test_filters_of_the_program(urls, load):
    """pipelinefilter makes stages with keywords; a marker stands for each sample that failed."""

    def first_half(sample):
        if int(sample["cls"]) >= 5:
            raise ValueError("the second half")
        return {"cls": int(sample["cls"])}

    stage = map_always(first_half, return_always=True, handler=wds.ignore_and_continue)
    assert "_map_always" in str(stage)
    samples = load(OwnWebDataset(urls).compose(stage))
    assert SHARDS * SAMPLES == len(samples)
    assert {sample["__key__"] for sample in samples if "__corrupted__" in sample} == {
        f"{number:06d}" for number in range(SHARDS * SAMPLES) if number % 10 >= 5
    }
    pictures = load(OwnWebDataset(urls).compose(repack("jpg")).to_tuple("jpg"))
    assert {(6, 3)} == {picture.shape[::2] for (picture,) in pictures}


def test_batches_by_an_own_collation(urls, load):
    """batched takes the function of the program, with dicts too."""
    ds = OwnWebDataset(urls).decode("torchrgb8").map(lambda sample: {**sample, "jpg": sample["jpg"][:, :, :6]})
    batches = load(ds.batched(2, collation_fn=dict_collation, partial=False))
    assert SHARDS * SAMPLES // 2 == len(batches)
    assert {(2, 3, 6, 6)} == {tuple(batch["jpg"].shape) for batch in batches}
    assert {(2,)} == {tuple(batch["cls"].shape) for batch in batches}


class Urls(IterableDataset):
    def __init__(self, urls):
        super().__init__()
        self.urls = urls

    def __iter__(self):
        return iter({"url": url} for url in self.urls)


def test_a_source_of_shards_and_endless_draws(urls, load, workers):
    """The shards come from an IterableDataset of the program, or are drawn without end."""
    assert SHARDS * SAMPLES * max(workers, 1) == len(load(OwnWebDataset(Urls(urls))))
    drawn = OwnWebDataset(urls, resampled=True).decode(only="json").with_epoch(20)
    assert 20 * max(workers, 1) == len(load(drawn))


def test_a_table_of_decoders_that_the_program_extends(tmp_path, load):
    """An entry in `decoders` decodes its extension everywhere; an image handler takes only its own extensions."""
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes({"a.triple": b"7", "a.npy.jpg": b"no picture"}))
    decoders["triple"] = lambda data: 3 * int(data)
    try:
        handler = imagehandler("rgb8", extensions=["png"])
        ds = wds.WebDataset(str(tmp_path / "{0..1}.tar"), shardshuffle=False).decode(handler)
        [sample, _] = load(ds)
    finally:
        del decoders["triple"]
    assert (21, b"no picture") == (sample["triple"], sample["npy.jpg"])


def test_copies_and_pickles_of_a_data_set_give_the_same(urls):
    """Programs deep-copy data sets for evaluation, and pickle them for their workers."""
    ds = OwnWebDataset(urls, shardshuffle=None).decode("rgb8", passthrough_keys=["txt"])
    expected = [sample["__key__"] for sample in ds]
    assert expected == [sample["__key__"] for sample in copy.deepcopy(ds)]
    assert expected == [sample["__key__"] for sample in pickle.loads(pickle.dumps(ds))]


def test_decode1_takes_the_name_without_a_dot():
    """A decoder is used field by field too, as loaders of nested fields do."""
    decoder = wds.autodecode.Decoder([wds.autodecode.imagehandler("torch")])
    assert ({"a": 1}, 5) == (decoder.decode1("json", b'{"a": 1}'), decoder.decode1("x.cls", b"5"))
