"""The stage that keeps samples in an lmdb data base."""

from __future__ import annotations

import pickle

import webdataset as wds


def test_lmdb_replays_what_was_read(tmp_path):
    """A complete pass is replayed by key, duplicate keys included, in this process and from a copy of the stage."""
    samples = [{"__key__": key, "n": n} for n, key in enumerate(["b", "a", "b", "_", "k" * 600])]
    cached = wds.LMDBCached(str(tmp_path / "db"), map_size=1 << 24, chunksize=2)
    assert not cached.is_complete()
    assert list(cached.run(samples)) == samples
    assert cached.is_complete()
    replayed = list(cached.run([]))
    assert sorted(sample["n"] for sample in replayed) == [0, 1, 2, 3, 4]
    assert [sample["__key__"] for sample in replayed if len(sample["__key__"]) == 1 and sample["n"] < 3] == [
        "a",
        "b",
        "b",
    ]
    copy = pickle.loads(pickle.dumps(cached))
    cached.close()
    assert list(copy.run([])) == replayed
    copy.close()


def test_lmdb_that_the_program_fills(tmp_path):
    """`add_samples` writes pairs of key and sample; the pass that is read from the source comes on top of them."""
    cached = wds.LMDBCached(str(tmp_path / "db"), map_size=1 << 24)
    cached.add_samples([(b"a", "of the program"), (b"z", "of the program")])
    assert not cached.is_complete()
    samples = [{"__key__": "a", "n": 1}, {"__key__": "b", "n": 2}]
    assert samples == list(cached.run(samples))
    assert [*samples, "of the program"] == list(cached.run([]))
    cached.close()


def test_lmdb_is_complete_only_after_a_whole_pass(tmp_path):
    """A pass that is left early is not replayed, and the next one reads the source again."""
    cached = wds.LMDBCached(tmp_path / "db", map_size=1 << 24)
    stream = cached.run(range(5))
    assert next(stream) == 0
    stream.close()
    assert not cached.is_complete()
    assert list(cached.run(range(5))) == list(range(5))
    assert list(wds.FluidWrapper(range(9)).compose(cached)) == list(range(5))
    cached.close()
