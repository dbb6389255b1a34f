"""The vectorised scan: which members make a run, where a run ends, and that data is never taken for a header."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from helpers import tar_bytes
from reading import members_of, scan_everything
from webdataset.tar.scan import Run, scan
from webdataset.tar.source import Source
from webdataset.tariterators import expand_and_group


def header(name: str = "a.txt", size: int = 0, format: int = tarfile.USTAR_FORMAT, **attributes: object) -> bytearray:
    """A header block by the standard tarfile (for PAX with a fractional time: three blocks)."""
    info = tarfile.TarInfo(name)
    info.size = size
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return bytearray(info.tobuf(format))


def summed(block: bytearray) -> bytes:
    """The block with its checksum made right."""
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def with_bytes(at: int, value: bytes, **of: object) -> bytes:
    """A header with other bytes in one place and a right checksum."""
    block = header(**of)  # type: ignore[arg-type]
    block[at : at + len(value)] = value
    return summed(block)


def member(name: str, data: bytes, format: int = tarfile.USTAR_FORMAT, **attributes: object) -> bytes:
    """A whole member: header, data, padding."""
    return bytes(header(name, len(data), format, **attributes)) + data + bytes(-len(data) % 512)


def names(run: Run | None) -> list[str]:
    """The names of the members of a run."""
    if run is None:
        return []
    return [bytes(block[:100]).partition(b"\0")[0].decode() for block in run.blocks]


PLAIN = [member("a.txt", b"1" * 512), member("a.cls", b""), member("b.txt", b"2" * 513)]
LAST = member("z.txt", b"z")


def test_a_run_of_plain_members() -> None:
    """A run says where each header is, how much data follows, and where the next block begins."""
    window = b"".join(PLAIN)
    run = scan(window, 0)
    assert run is not None
    assert run.window is window
    assert run.headers.tolist() == run.begins.tolist() == [0, 1024, 1536]
    assert run.sizes.tolist() == [512, 0, 513]
    assert run.end == len(window)
    assert run.blocks.tobytes() == PLAIN[0][:512] + PLAIN[1] + PLAIN[2][:512]


def test_a_run_can_begin_anywhere() -> None:
    """Positions count from the start of the window, wherever the run begins in it."""
    run = scan(b"x" * 77 + b"".join(PLAIN), 77)
    assert run is not None
    assert run.headers.tolist() == [77, 77 + 1024, 77 + 1536]
    assert run.end == 77 + sum(map(len, PLAIN))


def test_gnu_headers_are_plain() -> None:
    """GNU headers, whose prefix field holds times, make runs too."""
    window = member("a.txt", b"1", tarfile.GNU_FORMAT) + with_bytes(345, b"01234567012\0", format=tarfile.GNU_FORMAT)
    assert names(scan(window, 0)) == ["a.txt", "a.txt"]


def test_times_are_passed_over() -> None:
    """A PAX header with nothing but an mtime belongs to the member behind it, which begins there."""
    window = b"".join(member(f"{n}.txt", b"x", tarfile.PAX_FORMAT, mtime=n + 0.123456789) for n in range(3))
    run = scan(window, 0)
    assert names(run) == ["0.txt", "1.txt", "2.txt"]
    assert run is not None
    assert run.begins.tolist() == [0, 2048, 4096]
    assert run.headers.tolist() == [1024, 3072, 5120]
    assert run.end == len(window)


@pytest.mark.parametrize("behind", [b"", bytes(1024), b"x" * 512, member("big.txt", b"x" * 600)[:-512]])
def test_a_time_without_its_member_is_left(behind: bytes) -> None:
    """A PAX header at the end of a run is not part of it: whether its member follows is not known."""
    lone = member("1.txt", b"x", tarfile.PAX_FORMAT, mtime=0.5)[:1024]
    run = scan(PLAIN[0] + lone + behind, 0)
    assert names(run) == ["a.txt"]
    assert run is not None
    assert run.end == 1024


IRREGULAR = {
    "a folder": bytes(header("dir", type=tarfile.DIRTYPE)),
    "a symbolic link": bytes(header("link.txt", type=tarfile.SYMTYPE, linkname="a.txt")),
    "a hard link": bytes(header("hard.txt", type=tarfile.LNKTYPE, linkname="a.txt")),
    "an old type": with_bytes(156, b"\0"),
    "a contiguous file": with_bytes(156, b"7"),
    "an unknown type": with_bytes(156, b"Z"),
    "a prefix": bytes(header("p" * 60 + "/" + "n" * 60 + ".txt")),
    "a GNU long name": bytes(header("n" * 120 + ".txt", format=tarfile.GNU_FORMAT)),
    "a PAX path": bytes(header("n" * 120 + ".txt", format=tarfile.PAX_FORMAT)),
    "a global PAX header": tarfile.TarInfo.create_pax_global_header({"comment": "x"}),
    "a v7 header": with_bytes(257, bytes(8)),
    "no name": with_bytes(0, bytes(100)),
    "a size with a leading space": with_bytes(124, b" 0000000001\0"),
    "a size of twelve digits": with_bytes(124, b"000000000001"),
    "a base-256 size": with_bytes(124, b"\x80" + bytes(11)),
    "a negative size": with_bytes(124, b"\xff" * 12),
    "a size with a digit 8": with_bytes(124, b"00000000008\0"),
    "a size with a letter": with_bytes(124, b"0000000000x\0"),
    "a wrong checksum": bytes(header("a.txt")[:100]) + b"x" + bytes(header("a.txt")[101:]),
    "a checksum of seven digits": bytes(header("a.txt")[:148] + b"%07o\0" % 4000 + header("a.txt")[156:]),
    "zeros": bytes(512),
    "text": b"text".ljust(512),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_a_run_ends_before_anything_else(kind: str) -> None:
    """Whatever is no plain member ends the run in front of it, and none begins there."""
    irregular = IRREGULAR[kind]
    run = scan(b"".join(PLAIN) + irregular + LAST, 0)
    assert names(run) == ["a.txt", "a.cls", "b.txt"]
    assert run is not None
    assert run.end == sum(map(len, PLAIN))
    assert scan(irregular + LAST, 0) is None


@pytest.mark.parametrize(
    "records",
    [
        {"mtime": "1.5", "path": "other.txt"},
        {"path": "other.txt"},
        {"atime": "1.5"},
        {"size": "1"},
        {"mtimes": "1.5"},
    ],
)
def test_other_records_end_a_run(records: dict[str, str]) -> None:
    """A PAX header that holds anything besides an mtime is not passed over."""
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = records
    run = scan(PLAIN[0] + info.tobuf(tarfile.PAX_FORMAT) + LAST, 0)
    assert names(run) == ["a.txt"]
    assert run is not None
    assert run.end == 1024


@pytest.mark.parametrize(
    "record",
    [
        b"/X mtime=1\n".ljust(30, b"0"),
        b"20 mtime=1.5\n6 a=1\n1",
        b"20 mtime=1.500000000",
        b"19 mtime=1.50000000\n",
        b"9 mtime=\n",
        b"0020 mtime=1.500000\n",
    ],
)
def test_spoiled_time_records_end_a_run(record: bytes) -> None:
    """A record whose length is not exactly that of the header's data is left to the parser."""
    extended = bytes(header("x", len(record), type=tarfile.XHDTYPE)) + record.ljust(512, b"\0")
    run = scan(PLAIN[0] + extended + LAST, 0)
    assert names(run) == ["a.txt"]


def test_a_member_that_reaches_out_of_the_window_ends_the_run() -> None:
    """Only whole members, with their padding, are in a run."""
    window = b"".join(PLAIN)
    for cut in range(1, 1536):
        run = scan(window[:-cut], 0)
        assert names(run) == ["a.txt", "a.cls"]
        assert run is not None
        assert run.end == 1536
    assert names(scan(window[:1535], 0)) == ["a.txt"]
    assert scan(window[:1023], 0) is None
    assert scan(window[:511], 0) is None
    assert scan(b"", 0) is None


def test_a_size_beyond_everything() -> None:
    """A member that claims 8 GiB is not in the run, and neither is what lies behind its header."""
    huge = bytes(header("huge.txt", 8**11 - 1))
    run = scan(PLAIN[0] + huge + LAST * 3, 0)
    assert names(run) == ["a.txt"]
    assert scan(huge + LAST * 3, 0) is None


def test_the_mark_of_ustar_in_data() -> None:
    """Blocks of data that carry `ustar` where a header does are data."""
    lookalike = bytearray(b"x" * 512)
    lookalike[257:263] = b"ustar\0"
    window = member("a.txt", bytes(lookalike) * 3) + member("b.txt", b"second") + LAST
    run = scan(window, 0)
    assert names(run) == ["a.txt", "b.txt", "z.txt"]
    assert run is not None
    assert run.sizes.tolist() == [1536, 6, 1]


def test_whole_headers_in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive inside an archive is one member, however much its blocks look like members of the outer one."""
    inner = tar_bytes({f"inner-{n}.txt": b"x" * n for n in range(30)})
    nested = tar_bytes({"deep.tar": inner, "deep.txt": inner[:512]})
    members = [("a.tar", inner), ("a.tar.gz", nested), ("b.txt", b"plain"), ("c.tar", inner[512:]), ("c.cls", b"3")]
    archive = tar_bytes(members)
    run = scan(archive, 0)
    assert names(run) == [name for name, _ in members]
    assert run is not None
    assert run.sizes.tolist() == [len(data) for _, data in members]
    scan_everything(monkeypatch)
    assert [(name, data) for name, data, _ in members_of(io.BytesIO(archive))[0]] == members


def test_headers_in_data_behind_the_last_member() -> None:
    """A run does not walk into what is no member, even where its blocks are valid headers."""
    run = scan(PLAIN[0] + bytes(512) + LAST, 0)
    assert names(run) == ["a.txt"]
    run = scan(member("a.txt", LAST + LAST)[: 512 + 1024] + b"?" * 512 + LAST, 0)
    assert names(run) == ["a.txt"]


def test_names_of_any_bytes() -> None:
    """High bytes in names do not disturb the sums; a signed sum is left to the parser."""
    name = "größe-日本語.txt"
    window = member(name, b"x") + LAST
    assert names(scan(window, 0)) == [name, "z.txt"]
    signed = bytearray(window[:512])
    total = sum(signed) - sum(signed[148:156]) + 8 * 32 - 256 * sum(byte > 127 for byte in signed)
    signed[148:156] = b"%06o\0 " % total
    assert scan(bytes(signed) + window[512:], 0) is None


@pytest.mark.parametrize("part", [1, 0.4, 0.9])
@pytest.mark.parametrize("fields", [("npy",), ("npy", "cls"), ("cls", "npy", "x.y")])
def test_members_of_some_kilobytes_are_read_in_bulk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: tuple[str, ...], part: float
) -> None:
    """Local shards of members of some KiB come through a buffer that is used again, and give what tarfile gives."""
    seed = random.Random(len(fields))
    members = {f"{n:04d}.{f}": seed.randbytes(seed.randrange(4000, 16000)) for n in range(600) for f in fields}
    path = tmp_path / "a.tar"
    data = tar_bytes(members, tarfile.PAX_FORMAT, mtime=1.5)
    cut = int(part * len(data))
    path.write_bytes(data[:cut])
    bulks = []
    read_bulk = Source.read_bulk
    monkeypatch.setattr(Source, "read_bulk", lambda source: bulks.append(source.offset) or read_bulk(source))
    seen: list[Exception] = []
    samples = list(expand_and_group([{"url": "u", "stream": path.open("rb")}], lambda exn: seen.append(exn) or True))
    assert len(bulks) > 1
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        ends = {m.name: m.offset_data + m.size + -m.size % 512 for m in tar}
    whole = [n for n in range(600) if ends[f"{n:04d}.{fields[-1]}"] <= cut]
    keys = [f"{n:04d}" for n in whole]  # the last one only when the header behind it proves that it is whole
    assert [sample["__key__"] for sample in samples] in (keys, keys[:-1] if part < 1 else keys)
    for sample in samples:
        for field in fields:
            assert sample[field] == members[f"{sample['__key__']}.{field}"]
            assert type(sample[field]) is bytes
    assert len(seen) == (part < 1)
