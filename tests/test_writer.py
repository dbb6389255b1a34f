"""TarWriter and the encoders: what goes in comes out, of every reader, or is refused with the reason."""

from __future__ import annotations

import gc
import gzip
import io
import mmap
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tools
from helpers import TrickleReader
from webdataset import writer
from webdataset.errors import EncodingError, MissingDependencyError, OpenError
from webdataset.samples import base_plus_ext, is_metadata_member
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

LONG = "d" * 120 + "/" + "e" * 150

SAMPLES = [
    {"__key__": "000000", "cls": b"7", "txt": b"plain"},
    {"__key__": "000001", "txt": b""},
    {"__key__": "v1.2/sub dir/000002", "a.b.json": b"{}", "bin": bytes(range(256)) * 40},
    {"__key__": "größe/été-日本語", "txt": "ключ".encode()},
    {"__key__": "p" * 90 + "/" + "q" * 80, "txt": b"split into prefix and name"},
    {"__key__": LONG, "txt": b"needs a record", "cls": b"1"},
    {"__key__": "ö" * 110, "txt": b"needs a record in UTF-8"},
    {"__key__": "100_bytes_" + "n" * 86, "txt": b"name without a NUL"},
    {"__key__": "a#b?c=%20", "txt": b"x" * 511, "cls": b"y" * 512, "json": b"z" * 513},
]


def write_samples(target, samples, **kw) -> None:
    with TarWriter(target, **kw) as sink:
        for sample in samples:
            sink.write(sample)


def archive_of(samples, **kw) -> bytes:
    stream = io.BytesIO()
    write_samples(stream, samples, **kw)
    return stream.getvalue()


def members_of(archive: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def read_back(archive: bytes) -> list[dict[str, object]]:
    """What our own reader makes of an archive, without the places."""
    files = tar_file_expander([{"url": "archive.tar", "stream": TrickleReader(archive)}])
    return [
        {k: v for k, v in sample.items() if k not in ("__url__", "__local_path__")} for sample in group_by_keys(files)
    ]


def expected_members(samples) -> list[tuple[str, bytes]]:
    return [(f"{s['__key__']}.{field}", s[field]) for s in samples for field in sorted(s) if field != "__key__"]


@pytest.mark.parametrize(
    "options", [{}, {"format": "GNU"}, {"mtime": 1.5}, {"align": 4096}, {"align": 65536, "mtime": 7}]
)
@pytest.mark.parametrize("tool", sorted(tools.TOOLS))
def test_every_tar_program_lists_and_extracts_the_same(tool, options, tmp_path):
    """GNU tar, bsdtar, busybox and Python's tarfile see the same names and contents in all that we write."""
    archive = tmp_path / "shard.tar"
    archive.write_bytes(archive_of(SAMPLES, **options))
    members = expected_members(SAMPLES)
    assert tools.list_with(tool, archive) == [name for name, _ in members]
    assert tools.extract_with(tool, archive, tmp_path / "extracted") == dict(members)


@pytest.mark.parametrize("options", [{}, {"format": "GNU"}, {"mtime": 1.5}, {"align": 4096}, {"compress": "gz"}])
def test_the_published_package_reads_the_same(options, tmp_path):
    """webdataset 1.0.2 delivers our samples as they were written."""
    archive = tmp_path / "shard.tar"
    archive.write_bytes(archive_of(SAMPLES, **options))
    assert pickle.loads(tools.samples_of_published(archive)) == SAMPLES


keys = st.text(min_size=1, max_size=150)
fields = st.text(min_size=1, max_size=12)
samples = st.fixed_dictionaries({"__key__": keys}).flatmap(
    lambda sample: st.dictionaries(fields, st.binary(max_size=1500), min_size=1, max_size=4).map(
        lambda f: {**sample, **f}
    )
)


@given(st.lists(samples, max_size=5), st.sampled_from([512, 2048]), st.sampled_from(["PAX", "GNU"]))
def test_what_is_accepted_comes_back(batch, align, format):
    """A sample is either refused, and leaves no trace, or read back as it was by tarfile and by our reader."""
    if format == "GNU":
        align = 512
    stream = io.BytesIO()
    written = []
    with TarWriter(stream, align=align, format=format) as sink:
        for number, sample in enumerate(batch):
            before = sink.tarstream.position
            sample["__key__"] = f"{number}{sample['__key__']}"  # neighbours with one key would be one sample
            try:
                size = sink.write(sample)
            except EncodingError:
                assert sink.tarstream.position == before
            else:
                written.append({k: v for k, v in sample.items() if k == "__key__" or k[0] != "_"})
                assert size == sum(len(v) for k, v in written[-1].items() if k != "__key__")
    assert members_of(stream.getvalue()) == expected_members(written)
    read = read_back(stream.getvalue())
    lowered = [{(k if k == "__key__" else k.lower()): v for k, v in s.items()} for s in written]
    assert read == [sample for sample in lowered if len(sample) > 1]


@given(keys, fields)
def test_names_are_refused_exactly_when_they_do_not_read_back(key, field):
    """Whatever the naming rule would split otherwise, or skip, is refused; nothing else but control characters is."""
    name = f"{key}.{field}"
    reads_back = base_plus_ext(name) == (key, field) and not is_metadata_member(name) and not key.endswith("/")
    control = any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
    try:
        archive_of([{"__key__": key, field: b""}], keep_meta=True)
    except EncodingError:
        assert control or not reads_back
    else:
        assert reads_back
        assert not control


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"txt": "x"}, "object must contain a __key__"),
        ({}, "object must contain a __key__"),
        ({"__key__": 5, "txt": "x"}, r"__key__ must be a string, got int; use str\(key\)"),
        ({"__key__": "", "txt": "x"}, "it is empty or ends with a slash"),
        ({"__key__": "d/", "txt": "x"}, "it is empty or ends with a slash"),
        ({"__key__": "2024.01.02", "txt": "x"}, r"sample '2024.01.02': .* first dot .* key.replace\('.', '_'\)"),
        ({"__key__": "a\nb", "txt": "x"}, "it has control characters"),
        ({"__key__": "__meta__/a", "txt": "x"}, "readers skip members named __...__"),
        ({"__key__": "__k", "a__": b"x"}, "readers skip members named __...__"),
        ({"__key__": "\ud800", "txt": "x"}, "characters that UTF-8 cannot write"),
        ({"__key__": "k", "": "x"}, "field name '' is empty"),
        ({"__key__": "k", "a/b": "x"}, "field name 'a/b' has a slash"),
        ({"__key__": "k", "a\0b": "x"}, "control characters"),
        ({"__key__": "k", "TXT": "x", "txt": "y"}, "two fields have the same name but for upper case"),
        ({"__key__": "k", 5: "x"}, "field names must be strings, got 5"),
        ({"__key__": "k", "jpeg2": 5}, "sample 'k': field 'jpeg2': no handler found for jpeg2, and it is int"),
        ({"__key__": "k", "json": {1, 2}}, "sample 'k': field 'json': set cannot be encoded"),
        ({"__key__": "k", "txt": "\ud800"}, "sample 'k': field 'txt': .*surrogates"),
        ([("__key__", "k")], "a sample must be a dict, got list"),
    ],
)
def test_samples_that_cannot_be_written_are_refused_with_the_reason(sample, reason):
    """The error says sample, field and reason, and the archive goes on as if nothing had been."""
    stream = io.BytesIO()
    with TarWriter(stream) as sink:
        sink.write({"__key__": "before", "txt": "1"})
        with pytest.raises(EncodingError, match=reason):
            sink.write(sample)
        sink.write({"__key__": "after", "txt": "2"})
    assert members_of(stream.getvalue()) == [("before.txt", b"1"), ("after.txt", b"2")]


def test_neighbours_with_one_key_must_not_share_a_field():
    """Readers join neighbours with one key, so a second sample may only add fields; one that repeats any is refused."""
    stream = io.BytesIO()
    with TarWriter(stream) as sink:
        sink.write({"__key__": "k", "txt": "1"})
        sink.write({"__key__": "k", "cls": 2})
        for field in ("TXT", "cls"):
            with pytest.raises(EncodingError, match=r"sample 'k': the sample before has the same key, and .* too"):
                sink.write({"__key__": "k", "json": {}, field: "3"})
        sink.write({"__key__": "l", "txt": "4"})
        sink.write({"__key__": "k", "txt": "5"})
    with pytest.warns(UserWarning, match="k"):  # the key came back
        read = read_back(stream.getvalue())
    assert read[0] == {"__key__": "k", "txt": b"1", "cls": b"2"}


def test_names_of_other_bytes_are_written_raw(tmp_path):
    """A key with lone surrogates, as Python reads names that are no UTF-8, gives back those bytes."""
    samples = [{"__key__": "caf\udce9", "txt": b"1"}, {"__key__": "caf\udce9" * 40, "txt": b"2"}]
    archive = archive_of(samples)
    assert b"caf\xe9.txt\0" in archive
    assert read_back(archive) == samples
    assert members_of(archive) == expected_members(samples)


def test_fields_of_more_than_8_gib_are_written(tmp_path):
    """A field of 9 GiB gets a PAX size record, and is written from where it lies."""

    class Head:
        head, size = b"", 0

        def write(self, data):
            self.head += bytes(data[:4096]) if len(self.head) < 3000 else b""
            self.size += len(data)

    size = 9 << 30
    with open(tmp_path / "large", "w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as large:
            head = Head()
            write_samples(head, [{"__key__": "k", "bin": memoryview(large)}])
    assert head.size == -(-(1536 + size + 1024) // 10240) * 10240
    with tarfile.open(fileobj=io.BytesIO(head.head)) as tar:
        member = tar.next()
    assert (member.name, member.size, member.offset_data) == ("k.bin", size, 1536)


def test_a_field_that_fails_late_leaves_no_part_of_the_sample():
    """All fields are encoded before the first is written: the sorted-first field of a bad sample is not there."""
    good = archive_of([{"__key__": "k", "txt": "1"}])
    stream = io.BytesIO()
    with TarWriter(stream) as sink:
        sink.write({"__key__": "k", "txt": "1"})
        with pytest.raises(EncodingError, match="field 'zzz'"):
            sink.write({"__key__": "l", "aaa": b"x" * 3000, "zzz": object()})
    assert stream.getvalue() == good


def test_without_an_encoder_only_bytes_are_taken():
    """encoder=False takes bytes, bytearray and memoryview, and refuses text with its field's name."""
    sample = {
        "__key__": "k",
        "a": b"1",
        "b": bytearray(b"22"),
        "c": memoryview(b"3333")[::2],
        "d": memoryview(np.arange(4)),
    }
    archive = archive_of([sample], encoder=False)
    assert members_of(archive) == [("k.a", b"1"), ("k.b", b"22"), ("k.c", b"33"), ("k.d", np.arange(4).tobytes())]
    with pytest.raises(EncodingError, match=r"txt doesn't map to a bytes after encoding, got str"):
        archive_of([{"__key__": "k", "txt": "x"}], encoder=False)


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_buffer_may_be_reused_after_write(size):
    """What write has taken is written as it was, small or large, even if the caller overwrites the buffer."""
    buffer = bytearray(b"a" * size)
    stream = io.BytesIO()
    with TarWriter(stream) as sink:
        sink.write({"__key__": "k", "bin": buffer})
        buffer[:] = b"b" * size
        sink.write({"__key__": "l", "bin": memoryview(buffer)})
        buffer[:] = b"c" * size
    assert members_of(stream.getvalue()) == [("k.bin", b"a" * size), ("l.bin", b"b" * size)]


def test_headers_say_owner_mode_and_time():
    """Owner bigdata, mode 0o444 and time 0, or what the arguments say."""
    with tarfile.open(fileobj=io.BytesIO(archive_of([{"__key__": "k", "txt": "x"}]))) as tar:
        member = tar.next()
    assert (member.uname, member.gname, member.mode, member.mtime) == ("bigdata", "bigdata", 0o444, 0)
    assert (member.uid, member.gid, member.type, member.pax_headers) == (0, 0, tarfile.REGTYPE, {})
    options = {"user": "größe", "group": "", "mode": 0o640, "mtime": 1700000000.25}
    with tarfile.open(fileobj=io.BytesIO(archive_of([{"__key__": "k", "txt": "x"}], **options))) as tar:
        member = tar.next()
    assert (member.uname, member.gname, member.mode, member.mtime) == ("größe", "", 0o640, 1700000000.25)


@pytest.mark.parametrize("compress", ["", "gz", "bz2", "xz", "zst", "lz4"])
def test_equal_samples_give_equal_bytes(compress):
    """The bytes depend on samples and arguments only, compressed or not, also through a stream that takes little."""

    class Slow(io.BytesIO):
        def write(self, data):
            return super().write(data[:70_001])

    slow = Slow()
    write_samples(slow, SAMPLES * 20, compress=compress)
    assert slow.getvalue() == archive_of(SAMPLES * 20, compress=compress)


@pytest.mark.parametrize("taken", [1, 40_000, 100_000, 10**9])
def test_chunks_that_are_taken_in_part_are_written_whole(taken):
    """A stream that takes several chunks in one call, but not all of their bytes, gets every byte once."""

    class Gathering(io.BytesIO):
        calls = 0

        def writev(self, chunks):
            self.calls += 1
            return self.write(b"".join(chunks)[:taken])

    samples = [{"__key__": f"{n}", "a": b"a" * n, "b": bytes([n % 251]) * (n * 997), "c": b"c"} for n in range(400)]
    stream = Gathering()
    write_samples(stream, samples)
    assert stream.calls > 0
    assert stream.getvalue() == archive_of(samples)


def test_headers_follow_attributes_that_are_set_later(tmp_path):
    """user, group, mode and mtime, set between samples, count for those that follow; what has no place is refused."""
    path = tmp_path / "a.tar"
    with TarWriter(str(path), user="u", mtime=1) as sink:
        sink.write({"__key__": "a", "txt": b"1"})
        sink.user, sink.group, sink.mode, sink.mtime = "someone", "others", 0o600, 7
        with pytest.raises(ValueError, match="mode must be permission bits"):
            sink.mode = 0o77777
        sink.write({"__key__": "b", "txt": b"1"})
        assert (sink.user, sink.group, sink.mode, sink.mtime) == ("someone", "others", 0o600, 7)
    with tarfile.open(path) as archive:
        found = [(info.uname, info.gname, info.mode, info.mtime) for info in archive]
    assert found == [("u", "bigdata", 0o444, 1), ("someone", "others", 0o600, 7)]


@pytest.mark.parametrize(
    ("name", "compress", "mode"),
    [
        ("a.tar", None, "w|"),
        ("a.tgz", None, "w|gz"),
        ("a.tar.gz", None, "w|gz"),
        ("a.tar.gz", False, "w|"),
        ("a.tar", True, "w|gz"),
        ("a.tar", "gz", "w|gz"),
        ("a.tar.bz2", None, "w|bz2"),
        ("a.tar", "bz2", "w|bz2"),
        ("a.tar.xz", None, "w|xz"),
        ("a.tar.zst", None, "w|zst"),
        ("a.tar.lz4", None, "w|lz4"),
        ("a.tar.xz", "zst", "w|zst"),
        (io.BytesIO(), None, "w|"),
    ],
)
def test_compression_is_chosen_by_argument_or_name(name, compress, mode):
    """The argument decides, for None the end of the name."""
    assert TarWriter.tarmode(name, compress) == mode


@pytest.mark.parametrize("suffix", ["tar", "tgz", "tar.bz2", "tar.xz", "tar.zst", "tar.lz4"])
def test_compressed_archives_are_read_back(suffix, tmp_path):
    """An archive is written to a path as its name says, and our reader finds the samples in it."""
    path = tmp_path / f"a.{suffix}"
    write_samples(path, SAMPLES)
    assert read_back(path.read_bytes()) == SAMPLES
    assert (suffix == "tar") == (path.stat().st_size % 10240 == 0)


def test_gzip_headers_have_no_time_and_no_name(tmp_path):
    """The gzip header has time 0 and no flags, so the name of the file is not in it."""
    write_samples(str(tmp_path / "named.tgz"), SAMPLES)
    header = (tmp_path / "named.tgz").read_bytes()[:9]
    assert header[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 30])
def test_archives_end_with_zeros_to_a_whole_record(count):
    """Two zero blocks end the archive, filled up to a multiple of 10240 bytes, as tarfile does."""
    archive = archive_of([{"__key__": f"{number}", "txt": "x"} for number in range(count)])
    oracle = io.BytesIO()
    with tarfile.open(fileobj=oracle, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.txt")
            info.size, info.uname, info.gname, info.mode = 1, "bigdata", "bigdata", 0o444
            tar.addfile(info, io.BytesIO(b"x"))
    assert archive == oracle.getvalue()


def test_strict_ustar_refuses_long_names():
    """format=USTAR has no records, so a name that does not fit is refused and the archive untouched."""
    sink = TarWriter(io.BytesIO(), format=tarfile.USTAR_FORMAT)
    with pytest.raises(EncodingError, match=r"sample 'd.*format USTAR has no place for a name"):
        sink.write({"__key__": LONG, "txt": "x"})
    assert sink.tarstream.position == 0
    sink.close()


@pytest.mark.parametrize("format", [None, "USTAR", "PAX", "PAX_FORMAT", tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_formats_differ_only_where_ustar_does_not_suffice(format):
    """Samples with short names and small fields have the same bytes in every format but GNU."""
    plain = [{"__key__": "k", "txt": "x"}, {"__key__": "p" * 90 + "/" + "q" * 80, "txt": "y"}]
    assert archive_of(plain, format=format) == archive_of(plain)
    assert b"ustar  \0" in archive_of(plain, format=tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "ZIP"}, "format must be one of USTAR, GNU, PAX"),
        ({"compress": "rar"}, "compress='rar' is not known: use one of 'gz', 'bz2', 'xz', 'zst', 'lz4'"),
        ({"encoder": "rgb"}, "encoder must be True, False, a dict of encoders by extension or a function, got 'rgb'"),
        ({"user": "u" * 32}, "user must have at most 31 bytes"),
        ({"mode": 0o10000}, "mode must be permission bits"),
        ({"mtime": float("nan")}, "mtime must be seconds"),
        ({"mtime": -1, "format": "USTAR"}, "format USTAR has no place for mtime=-1"),
        ({"align": 1000}, "align must be a power of two"),
        ({"align": 256}, "align must be a power of two"),
        ({"align": 1024, "format": "GNU"}, "align=1024 is done with PAX records"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_opened(options, message, tmp_path):
    """A wrong argument is a ValueError that says what is right, and no file appears."""
    with pytest.raises(ValueError, match=message):
        TarWriter(str(tmp_path / "a.tar"), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_to_is_refused():
    """A fileobj without a method write is a TypeError."""
    with pytest.raises(TypeError, match="fileobj must be a path, a url or have a method write, got int"):
        TarWriter(7)


def test_alignment_puts_payloads_on_block_boundaries():
    """With align=4096 every payload starts at a multiple of 4096, also those of members with long names."""
    archive = archive_of(SAMPLES, align=4096)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        offsets = [member.offset_data % 4096 for member in tar]
    assert offsets == [0] * len(expected_members(SAMPLES))


@pytest.mark.parametrize("align", [512, 4096])
def test_equal_members_give_equal_blocks(align):
    """Two shards that share members among others share their blocks, so that storage keeps them once."""
    rng = np.random.default_rng(0)
    shared = [{"__key__": f"shared{n}", "bin": rng.bytes(20_000 + 77 * n)} for n in range(8)]
    own = [[{"__key__": f"own{side}{n}", "bin": rng.bytes(3_000)} for n in range(8)] for side in range(2)]
    first = archive_of([s for pair in zip(own[0], shared, strict=True) for s in pair], align=align)
    second = archive_of([*own[1][:3], *reversed(shared), *own[1][3:]], align=align)

    def blocks(archive):
        return {archive[at : at + align] for at in range(0, len(archive), align)}

    common = blocks(first) & blocks(second)
    whole = {s["bin"][at : at + align] for s in shared for at in range(0, len(s["bin"]) - align + 1, align)}
    assert whole <= common
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        headers = {first[m.offset_data - 512 : m.offset_data] for m in tar if m.name.startswith("shared")}
    if align == 512:
        assert headers <= common


def test_metadata_is_left_out_unless_asked_for():
    """Fields that begin with an underscore are not written, whatever they are; with keep_meta text and bytes are."""
    sample = {"__key__": "k", "__url__": "here", "__n__": b"5", "_x": "6", "txt": "7"}
    assert members_of(archive_of([{**sample, "__index__": 3, "_y": None}])) == [("k.txt", b"7")]
    kept = [("k.__n__", b"5"), ("k.__url__", b"here"), ("k._x", b"6"), ("k.txt", b"7")]
    assert members_of(archive_of([sample], keep_meta=True)) == kept
    with pytest.raises(EncodingError, match=r"field '__index__'.*got int"):
        archive_of([{**sample, "__index__": 3}], keep_meta=True)


def test_a_sample_of_no_fields_is_refused():
    """A key alone makes no member, so nothing of the sample would be in the archive: that is said."""
    with pytest.raises(EncodingError, match="sample 'k': it has no field to write"):
        archive_of([{"__key__": "k"}])


def test_closing_twice_is_closing_once_and_nothing_is_written_afterwards():
    """close is idempotent; write after it is a ValueError; the given stream stays open."""
    stream = io.BytesIO()
    sink = TarWriter(stream)
    sink.write({"__key__": "k", "txt": "x"})
    sink.close()
    sink.close()
    assert len(stream.getvalue()) == 10240
    with pytest.raises(ValueError, match="closed TarWriter"):
        sink.write({"__key__": "k", "txt": "x"})


def test_the_attributes_are_those_of_the_published_writer(tmp_path):
    """stream, own_fileobj and the arguments are there under their published names."""
    sink = TarWriter(str(tmp_path / "a.tar"), user="u", group="g", mode=0o600, mtime=5, keep_meta=True)
    assert (sink.user, sink.group, sink.mode, sink.mtime, sink.keep_meta) == ("u", "g", 0o600, 5, True)
    assert sink.stream is sink.own_fileobj
    assert sink.compress is None
    assert callable(sink.encoder)
    sink.close()
    assert sink.own_fileobj is None
    assert sink.stream.closed


def forget_a_writer() -> None:
    sink = TarWriter(io.BytesIO())
    del sink
    gc.collect()


def test_a_writer_that_is_forgotten_says_so():
    """A writer that is dropped unclosed warns, because its archive is not complete."""
    with pytest.warns(ResourceWarning, match="was not closed"):
        forget_a_writer()


def test_a_full_disk_is_a_clear_error():
    """Writing where there is no space names the place and the reason, at close at the latest."""
    with pytest.raises(OpenError, match="/dev/full: cannot be written: No space left on device") as caught:
        write_samples("/dev/full", [{"__key__": "k", "txt": "x"}])
    assert caught.value.errno == 28
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left on device"):
        write_samples(full, [{"__key__": "k", "bin": bytes(3_000_000)}])


def test_an_archive_that_failed_gets_no_end_mark(tmp_path):
    """After a failed write, close adds nothing: what is there looks cut off, which it is."""

    class Fragile(io.BytesIO):
        def write(self, data):
            if self.tell() > 500_000:
                raise OSError(5, "Input/output error")
            return super().write(data)

    stream = Fragile()
    sink = TarWriter(stream)
    for number in range(10):
        sink.write({"__key__": f"{number}", "bin": bytes(60_000)})
    with pytest.raises(OpenError, match="Input/output error"):
        sink.write({"__key__": "k", "bin": bytes(300_000)})
    length = len(stream.getvalue())
    with pytest.raises(OpenError, match="an earlier write failed: the archive cannot go on"):
        sink.write({"__key__": "l", "bin": b"x"})
    with pytest.raises(OpenError, match="an earlier write failed"):
        sink.close()
    assert len(stream.getvalue()) == length


def test_a_stream_that_takes_nothing_is_an_error():
    """A write that returns 0 does not turn into a loop."""

    class Stuck:
        def write(self, data):
            return 0

    with pytest.raises(OpenError, match="stopped taking bytes"):
        write_samples(Stuck(), [{"__key__": "k", "txt": "x"}])


def test_pipes_are_written_to_and_their_failure_is_an_error(tmp_path):
    """`pipe:` hands the archive to a command; one that fails is an error with its status."""
    path = tmp_path / "a.tar"
    write_samples(f"pipe:cat > '{path}'", SAMPLES[:1])
    assert members_of(path.read_bytes()) == expected_members(SAMPLES[:1])
    with pytest.raises(OpenError, match="exit status 3"):
        write_samples("pipe:cat > /dev/null; exit 3", SAMPLES[:1])
    with pytest.raises(OpenError, match="exit status 4"):
        write_samples("pipe:exit 4", [{"__key__": f"{number}", "bin": bytes(100_000)} for number in range(20)])


def test_the_encoders_write_what_the_decoders_of_these_names_expect():
    """Numbers, text, JSON and arrays become the bytes that belong to their extension; the last extension decides."""
    sample = {
        "__key__": "k",
        "cls": 3,
        "txt": "é",
        "meta.json": {"a": 1},
        "html": "<p>",
        "CLS2": True,
        "x.npy": np.arange(3),
    }
    members = dict(members_of(archive_of([sample])))
    assert members["k.cls"] == b"3"
    assert members["k.txt"] == "é".encode()
    assert members["k.meta.json"] == b'{"a": 1}'
    assert members["k.html"] == b"<p>"
    assert np.load(io.BytesIO(members["k.x.npy"])).tolist() == [0, 1, 2]


def test_gz_fields_are_compressed_without_a_time():
    """`.gz` compresses what the name before it says, text, bytes and values alike, and always to the same bytes."""
    sample = {"__key__": "k", "a.txt.gz": "x" * 1000, "b.bin.gz": b"y" * 1000, "c.json.gz": [1] * 100}
    members = dict(members_of(archive_of([sample])))
    assert gzip.decompress(members["k.a.txt.gz"]) == b"x" * 1000
    assert gzip.decompress(members["k.b.bin.gz"]) == b"y" * 1000
    assert gzip.decompress(members["k.c.json.gz"]) == str([1] * 100).encode()
    assert len(members["k.a.txt.gz"]) < 40
    assert members["k.a.txt.gz"][4:8] == bytes(4)


def test_encoders_can_be_a_table_or_a_function():
    """A dict adds its own extensions and knows no others; a callable gets the sample and gives one back."""
    assert (
        members_of(archive_of([{"__key__": "k", "up": "x", "n": 3}], encoder={"n": lambda n: b"n" * n}))[0][1] == b"nnn"
    )
    archive = archive_of([{"__key__": "k", "value": 3}], encoder=lambda s: {"__key__": s["__key__"], "a": b"1"})
    assert members_of(archive) == [("k.a", b"1")]
    with pytest.raises(EncodingError, match="no handler found for json"):
        archive_of([{"__key__": "k", "json": {}}], encoder={})


def test_the_default_table_can_be_extended(monkeypatch):
    """An encoder entered into default_handlers is used by every writer from then on; make_handlers gives a copy."""
    copy = writer.make_handlers()
    writer.add_handlers(copy, "one two", writer.bytestr)
    writer.add_handlers(copy, ["three"], writer.bytestr)
    assert copy.keys() - writer.default_handlers.keys() == {"one", "two", "three"}
    sink_made_before = writer.make_encoder(True)
    monkeypatch.setitem(writer.default_handlers, "one", writer.bytestr)
    assert sink_made_before({"__key__": "k", "one": 1}) == {"__key__": "k", "one": b"1"}


def test_the_published_names_of_the_table_are_there():
    """Every extension that the published writer encodes is encoded here."""
    published = (
        "cbor class cls cls2 count htm html id image img index inx jpeg jpg jsn json mp msg msgpack npy npz pbm pgm"
    )
    published += " pickle png ppm pth pyd tb ten tenbin text tif tiff transcript txt"
    assert set(published.split()) <= writer.default_handlers.keys()


def test_a_missing_package_is_named():
    """An encoder that needs a package which is not there passes its error on, with the line that installs it."""

    def encode(value):
        raise MissingDependencyError("encoding x needs y: pip install y")

    with pytest.raises(MissingDependencyError, match="pip install y"):
        archive_of([{"__key__": "k", "x": 1}], encoder={"x": encode})


def test_bytestr_is_ascii():
    """Bytes pass, everything else becomes its ASCII text."""
    assert (writer.bytestr(b"\xff"), writer.bytestr("a"), writer.bytestr(5)) == (b"\xff", b"a", b"5")
    with pytest.raises(UnicodeEncodeError):
        writer.bytestr("é")


def test_a_path_object_is_a_path(tmp_path):
    """A Path is opened, and compressed by its name."""
    write_samples(Path(tmp_path) / "a.tgz", SAMPLES[:1])
    assert read_back((tmp_path / "a.tgz").read_bytes()) == SAMPLES[:1]


def test_an_archive_takes_its_place_when_it_is_complete(tmp_path):
    """A path keeps what it had until close; an exception in the block leaves it as it was, and nothing beside it."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")
    interrupted = TarWriter(str(path))
    interrupted.write({"__key__": "a", "txt": "new"})
    interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (b"old", [path]) == (path.read_bytes(), list(tmp_path.iterdir()))
    with TarWriter(str(path)) as sink:
        sink.write({"__key__": "a", "txt": "new"})
        assert b"old" == path.read_bytes()
    with tarfile.open(path) as tar:
        assert ["a.txt"] == tar.getnames()
    assert [path] == list(tmp_path.iterdir())


def test_a_link_to_an_archive_stays_a_link(tmp_path):
    """Writing through a symbolic link replaces the file that it points to."""
    (tmp_path / "real.tar").write_bytes(b"old")
    (tmp_path / "link.tar").symlink_to("real.tar")
    with TarWriter(str(tmp_path / "link.tar")) as sink:
        sink.write({"__key__": "a", "txt": "new"})
    assert (tmp_path / "link.tar").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "real.tar")
