"""Public names that no other test calls: each does its work on archives that were really written."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import webdataset as wds
from helpers import write_shards
from test_names import LACKING, ROWS, place
from webdataset import autodecode, cborsiterators, filters, gopen_schemes, multi, shardlists, tenbin, writer
from webdataset.errors import OpenError, UnknownSchemeError
from webdataset.gopen import Pipe, gopen_ais, gopen_error, gopen_gsutil, gopen_hf, gopen_htgs

HERE = Path(__file__).parent

CODECS = {
    "npy": (writer.numpy_dumps, autodecode.npy_loads, np.arange(6.0).reshape(2, 3)),
    "npz": (writer.numpy_npz_dumps, autodecode.npz_loads, {"a": np.arange(3)}),
    "ten": (writer.tenbin_dumps, autodecode.tenbin_loads, [np.arange(4, dtype="u4")]),
    "mp": (writer.mp_dumps, autodecode.msgpack_loads, {"x": [1, "é"]}),
    "cbor": (writer.cbor_dumps, autodecode.cbor_loads, {"x": [1, "é"]}),
}

TWINS = {
    "associate": [lambda key: {"id": int(key)}],
    "decode": [],
    "extract_keys": ["*.txt", "cls;id"],
    "map": [dict],
    "map_dict": [{"cls": int}],
    "rename": [{"label": "id;cls"}],
    "rename_keys": [("text", "t?t"), {"keep_unselected": True}],
    "select": [lambda sample: sample["cls"] == b"3"],
    "slice": [1, 5, 2],
    "to_tuple": ["txt", "cls"],
}
"""Stages and their arguments, those by keyword in a dict."""


@pytest.fixture
def urls(tmp_path):
    return write_shards(tmp_path, 3, 4)


@pytest.mark.parametrize("field", CODECS)
def test_functions_of_one_format(field, tmp_path):
    """The encoder by name makes the bytes that are in the archive, the decoder by name their value."""
    dumps, loads, value = CODECS[field]
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", f"x.{field}": value})
    [sample] = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    data = sample[f"x.{field}"]
    assert bytes(dumps(value)) == data
    assert data == writer.encode_based_on_extension1(value, f"x.{field}", writer.default_handlers)
    assert {"__key__": "a", field: data} == writer.encode_based_on_extension(
        {"__key__": "a", field: value}, writer.default_handlers
    )
    for found in (
        loads(data),
        autodecode.call_extension_handler(f".x.{field}", data, loads, [field]),
        autodecode.default_decoder(sample)[f"x.{field}"],
        autodecode.Decoder([], post=[*autodecode.default_post_handlers])({field: data})[field],
    ):
        np.testing.assert_equal(found, value)


def test_handlers_that_stand_before_all_others(tmp_path):
    """What a program adds to `default_pre_handlers` is in every decoder made from then on."""
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", "txt.gz": "text", "secret": b"txet"})

    def reverse(key, data):
        return autodecode.Continue(".txt", data[::-1]) if key == ".secret" else None

    autodecode.default_pre_handlers.append(reverse)
    try:
        [sample] = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode()
    finally:
        autodecode.default_pre_handlers.remove(reverse)
    assert ("text", "text") == (sample["txt.gz"], sample["secret"])


@pytest.mark.parametrize("name", TWINS)
def test_a_stage_and_its_private_twin(name, urls):
    """`_name(data, ...)` gives what the stage `name(...)` gives, and the fluid method where there is one."""
    args = [arg for arg in TWINS[name] if not isinstance(arg, dict)]
    kw = next((arg for arg in TWINS[name] if isinstance(arg, dict)), {})
    dataset = wds.WebDataset(urls, shardshuffle=False)
    expected = list(dataset.compose(getattr(filters, name)(*args, **kw)))
    assert 0 < len(expected) <= 12
    assert expected == list(getattr(filters, f"_{name}")(iter(dataset), *args, **kw))
    assert expected == list(getattr(dataset, name)(*args, **kw))


def test_twins_that_work_on_batches(urls):
    """`_map_tuple`, `_listed`, `_unlisted`, `_batched`, `_unbatched`: there and back."""
    pairs = [tuple(pair) for pair in wds.WebDataset(urls, shardshuffle=False).decode().to_tuple("txt", "cls")]
    assert [(text.upper(), number) for text, number in pairs] == list(filters._map_tuple(pairs, str.upper, None))
    assert pairs == list(filters._unlisted(filters._listed(pairs, 5)))
    assert pairs == [(str(text), int(number)) for text, number in filters._unbatched(filters._batched(pairs, 5))]


def test_rules_of_xdecode(urls):
    """`default_decoders` are rules of pattern and function; a list of them may replace them."""
    dataset = wds.WebDataset(urls, shardshuffle=False)
    rules = [*filters.default_decoders, ("*.cls", lambda stream: int(stream.read()))]
    assert [n % 10 for n in range(12)] == [sample["cls"] for sample in dataset.xdecode(defaults=rules)]


def test_the_parts_of_tenbin(tmp_path):
    """A `.ten` member is chunks of 64 bytes after their head: header, data, header, data; infos are checked."""
    arrays = [np.arange(3, dtype="f4"), np.zeros((2, 2), "u1")]
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", "ten": tenbin.encode_buffer(arrays, ["ab", "c"])})
    [sample] = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert sample["ten"].startswith(tenbin.magic_bytes)
    assert tenbin.magic_bytes == tenbin.magic_str.encode()
    chunks = tenbin.decode_chunks(sample["ten"])
    assert chunks == tenbin.encode_list(arrays, ["ab", "c"])
    assert tenbin.encode_chunks(chunks) == sample["ten"]
    assert len(sample["ten"]) == sum(16 + tenbin.roundup(len(chunk)) for chunk in chunks)
    assert tenbin.decode_header(chunks[0]) == ((3,), np.dtype("f4"), "ab")
    assert chunks[0] == tenbin.encode_header(arrays[0], "ab")
    assert tenbin.long_to_short["float32"] == "f4"
    np.testing.assert_equal(tenbin.decode_list(chunks), arrays)
    assert tenbin.check_infos(arrays, ["ab", "c"], ["ab", "c"]) is arrays
    with (tmp_path / "b.ten").open("wb") as stream:
        for chunk in chunks:
            tenbin.write_chunk(stream, chunk)
    np.testing.assert_equal(tenbin.load(tmp_path / "b.ten", infos=True), (arrays, ["ab", "c"]))


def test_cbors_by_the_plain_function(tmp_path):
    """`cbors_samples` and `cbors2_samples` are stages as they stand."""
    items = [{"number": n} for n in range(5)]
    (tmp_path / "a.cbors").write_bytes(b"".join(writer.cbor_dumps(item) for item in items))
    for stage in (cborsiterators.cbors_samples, cborsiterators.cbors2_samples):
        samples = list(wds.DataPipeline(wds.SimpleShardList(str(tmp_path / "a.cbors")), stage))
        assert items == [{"number": sample["number"]} for sample in samples]


def test_a_handler_that_warns_and_stops(urls):
    """`warn_and_stop` ends the stage at the first sample that fails, and says which it was."""
    stage = wds.WebDataset(urls, shardshuffle=False).map(lambda s: 1 // (5 - int(s["cls"])), wds.warn_and_stop)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        assert 5 == len(list(stage))


def test_handlers_of_schemes_by_name(urls, tmp_path, monkeypatch):
    """gopen_gsutil and gopen_ais run their commands; gopen_error refuses; hf: and htgs: are there for reading."""
    for tool in ("gsutil", "ais"):
        (tmp_path / tool).write_text('#!/bin/sh\nexec cat "/${2#*:///}"\n')
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(gopen_schemes, "gs", gopen_gsutil)
    for scheme, handler in (("gs", gopen_gsutil), ("ais", gopen_ais)):
        assert gopen_schemes[scheme] is handler
        with handler(f"{scheme}://{urls[0]}", "rb", 8192) as stream:
            assert Path(urls[0]).read_bytes() == stream.read()
        assert 4 == len(list(wds.WebDataset(f"{scheme}://{urls[0]}", shardshuffle=False)))
    assert gopen_schemes["__default__"] is gopen_error
    with pytest.raises(UnknownSchemeError, match="no gopen handler defined"):
        gopen_error("odd://a.tar")
    for scheme, handler in (("hf", gopen_hf), ("htgs", gopen_htgs)):
        assert gopen_schemes[scheme] is handler
        with pytest.raises(ValueError, match="can only be read"):
            handler(f"{scheme}://o/n/x.tar", "wb")


def test_the_status_of_a_command(urls):
    """`check_status` says nothing as long as a command may go well; `wait_for_child` waits, then says what was."""
    with Pipe(f"cat '{urls[0]}'", shell=True, mode="rb") as pipe:
        pipe.check_status()
        assert Path(urls[0]).read_bytes() == pipe.read()
        pipe.wait_for_child()
        assert 0 == pipe.status
    pipe = Pipe("exit 3", shell=True, mode="rb")
    with pytest.raises(OpenError, match="exit status 3"):
        pipe.wait_for_child()
    pipe.close()


def test_variables_and_specs_of_shards(urls, tmp_path, monkeypatch):
    """`envlookup` is what `${NAME}` stands for; `parse_spec` gives a MultiShardSample other sources."""
    monkeypatch.setenv("WDS_PLACE", str(tmp_path))
    assert str(tmp_path) == shardlists.envlookup(re.fullmatch(r"\$\{(\w+)\}", "${PLACE}"))
    assert 12 == len(list(wds.WebDataset("${PLACE}/shard-{0000..0002}.tar", shardshuffle=False)))
    shards = wds.MultiShardSample({"datasets": [{"shards": urls[:1]}]})
    shards.parse_spec({"datasets": [{"shards": urls, "choose": 2}]})
    assert 8 == len(list(wds.DataPipeline(shards, wds.tarfile_to_samples())))


def test_shards_of_processes_that_are_gone(urls, tmp_path):
    """A folder's shards that a dead process holds are given back, those that were read are treated by the mode."""
    Path(urls[0]).rename(f"{urls[0]}._999999999_")
    folder = shardlists.DirectoryShardList(f"{tmp_path}/", mode="keep", poll=None)
    folder.cleanup_files_without_processes()
    assert Path(urls[0]).exists()
    Path(urls[1]).rename(f"{urls[1]}._1_")
    folder.recycle(f"{urls[1]}._1_")
    assert Path(f"{urls[1]}._done_").exists()


def test_what_workers_send():
    """Samples and the mark of the end are pickled by `the_protocol`, the highest one."""
    assert multi.the_protocol == pickle.HIGHEST_PROTOCOL
    assert vars(pickle.loads(pickle.dumps(multi.EOF(index=2), multi.the_protocol))) == {"index": 2}


def test_every_public_name_is_used_somewhere():
    """Each name of the table occurs in a test other than that of the table, or is one that we lack."""
    words = {f"_{name}" for name in TWINS}
    for path in HERE.rglob("*.py"):
        if path.name != "test_names.py":
            words.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    names = {row[2].rpartition(".")[2] for row in ROWS if row[2] and place(row) not in LACKING}
    assert sorted(name for name in names if not name.startswith("__") and name not in words) == []
