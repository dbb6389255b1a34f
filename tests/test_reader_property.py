"""The reader against the standard tarfile, on archives that hypothesis thinks of."""

from __future__ import annotations

import io
import itertools
import re
import tarfile
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from helpers import TrickleReader, tar_bytes
from reading import PATHS, SCANS, members_of, no_short_cuts, read, scan_everything

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = [tarfile.REGTYPE] * 12 + [
    tarfile.AREGTYPE,
    tarfile.CONTTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
]
SMALL_SIZES = [0, 1, 2, 511, 512, 513, 1023, 1024, 1025]
LARGE_SIZES = [8191, 8192, 8193, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 1 << 16, (1 << 19) - 1, (1 << 19) + 513]
A_WHOLE_ARCHIVE = tar_bytes({"inner.txt": b"not a member of the outer archive", "inner.cls": b"1"})

letters = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0") | st.sampled_from([chr(0xDC80 + n) for n in range(128)]),
    min_size=1,
    max_size=12,
)
components = letters | st.sampled_from(["a", "b", ".", "..", "a.b", ".hidden", "__meta__", "__", "a\nb", "k" * 99])
names = (
    st.sampled_from(["a.txt", "a.cls", "b.txt", "dir/a.txt", "v1.2/a.seg.png", "n" * 95 + ".txt", "n" * 96 + ".txt"])
    | st.lists(components, min_size=1, max_size=6).map("/".join)
    | st.integers(90, 300).map(lambda length: ("segment/" * 40)[: length - 5] + "x.txt")
)
sizes = st.sampled_from(SMALL_SIZES * 12 + LARGE_SIZES)


def content(seed: int, size: int) -> bytes:
    """Bytes of a member: text, zeros, or something that looks like members."""
    pattern = [b"0123456789abcdef", bytes(16), A_WHOLE_ARCHIVE][seed % 3]
    return (pattern * (size // len(pattern) + 1))[:size]


class Spec(NamedTuple):
    """What an archive is made of; members are (name, kind, size, mtime)."""

    format: str
    comment: str | None
    members: list[tuple[str, bytes, int, float]]


def specs() -> st.SearchStrategy[Spec]:
    """Any names, sizes, kinds, times and a global header, in any of the three formats."""
    times = st.sampled_from([0, 1500000000, 1500000000.25])
    members = st.tuples(names, st.sampled_from(KINDS), sizes, times)
    comments = st.sampled_from([None, None, "made by a test", "größer" * 200])
    return st.builds(Spec, st.sampled_from(sorted(FORMATS)), comments, st.lists(members, min_size=1, max_size=12))


def build(spec: Spec) -> bytes:
    """The archive, by the standard tarfile; a name that the format cannot hold is replaced."""
    headers: Any = {"pax_headers": {"comment": spec.comment}} if spec.format == "pax" and spec.comment else {}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[spec.format], errors="surrogateescape", **headers) as tar:
        for number, (name, kind, size, mtime) in enumerate(spec.members):
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.AREGTYPE and len(name.encode("utf-8", "surrogateescape")) > 100:
                info.type = tarfile.REGTYPE  # tarfile takes it for a folder where the 100 bytes end in a slash
            info.linkname = "target" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = size if info.isreg() else 0
            info.mtime = mtime if spec.format == "pax" else int(mtime)
            try:
                tar.addfile(info, io.BytesIO(content(number, info.size)))
            except ValueError:  # too long for ustar
                info.name = f"short-{number}.txt"
                tar.addfile(info, io.BytesIO(content(number, info.size)))
    return out.getvalue()


def oracle(archive: bytes) -> list[tuple[str, bytes, int]]:
    """Name, bytes and place of each ordinary file, as the standard tarfile reads them."""
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        return [(info.name, tar.extractfile(info).read(), info.offset) for info in tar if info.isreg()]  # type: ignore[union-attr]


def oracle_samples(archive: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """The samples of an archive, grouped in the most obvious way."""
    split = []
    for name, data, _ in oracle(archive):
        match = re.match(r"((?:.*/|)[^.]+)[.]([^/]*)$", name)
        if match and not re.match(r"__[^/]*__($|/)", name):
            split.append((match[1], match[2].lower(), data))
    samples = []
    for key, group in itertools.groupby(split, lambda item: item[0]):
        fields = [(field, data) for _, field, data in group]
        if len(dict(fields)) == len(fields):
            samples.append((key, dict(fields)))
    return samples


several = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@several
@given(spec=specs(), seed=st.integers(0, 1000))
def test_members_are_those_of_tarfile(spec: Spec, seed: int) -> None:
    """Names, bytes and offsets of all ordinary files are what tarfile finds, however short the reads are."""
    archive = build(spec)
    expected = oracle(archive)
    members, in_runs = members_of(io.BytesIO(archive), runs=False)
    assert members == expected
    assert in_runs == 0
    assert members_of(TrickleReader(archive, seed), runs=False)[0] == expected
    with pytest.MonkeyPatch.context() as monkeypatch:
        no_short_cuts(monkeypatch)
        assert members_of(io.BytesIO(archive))[0] == expected


@several
@given(spec=specs(), seed=st.integers(0, 1000))
def test_runs_change_nothing(spec: Spec, seed: int) -> None:
    """With the vectorised scan at work from the first block on, the members are the same."""
    archive = build(spec)
    expected = oracle(archive)
    with pytest.MonkeyPatch.context() as monkeypatch:
        scan_everything(monkeypatch)
        members, in_runs = members_of(io.BytesIO(archive))
        assert members == expected
        assert members_of(TrickleReader(archive, seed))[0] == expected
    event(f"members in runs: {'some' if in_runs else 'none'}")


@several
@given(spec=specs(), seed=st.integers(0, 1000))
@pytest.mark.filterwarnings("ignore:.*torn apart")
def test_samples_are_the_same_on_every_path(spec: Spec, seed: int) -> None:
    """Fused or in stages, scanned or one by one, short reads or not: the samples of the obvious grouping."""
    archive = build(spec)
    expected = oracle_samples(archive)
    for setting in SCANS.values():
        for path in PATHS.values():
            for stream in (io.BytesIO(archive), TrickleReader(archive, seed)):
                with pytest.MonkeyPatch.context() as monkeypatch:
                    setting(monkeypatch)
                    reading = read(path, stream, handler=lambda exn: True)
                assert reading.samples == expected
                assert reading.error is None
                assert all("torn apart" in warning for warning in reading.warnings)


@pytest.mark.parametrize("mtime", [1500000000, 1500000000.25])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [3, 700, 40_000])
def test_large_archives_are_scanned(format: str, mtime: float, size: int) -> None:
    """Small plain members come in runs, also behind PAX headers that hold a time and nothing else; all are right."""
    count = 40 if size > 1000 else 4000
    if format != "pax":
        mtime = int(mtime)
    members = [(f"dir/{n // 2:06d}.{'txt' if n % 2 else 'cls'}", content(n % 2, size + n % 3)) for n in range(count)]
    archive = tar_bytes(members, FORMATS[format], mtime=mtime)
    found, in_runs = members_of(io.BytesIO(archive))
    assert [(name, data) for name, data, _ in found] == members
    if size < 1000:
        assert in_runs > 0.9 * count
    else:
        assert in_runs < count
    assert found == members_of(io.BytesIO(archive), runs=False)[0] == oracle(archive)


@pytest.mark.parametrize("seed", range(6))
def test_irregular_members_between_runs(seed: int, tmp_path: Any) -> None:
    """Long archives of small members with all kinds of others strewn in are read right, on both paths."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=list(FORMATS.values())[seed % 3]) as tar:
        for number in range(3000):
            info = tarfile.TarInfo(f"{number // 3:05d}.{'abc'[number % 3]}")
            if number % (97 + seed) == 0:
                info = tarfile.TarInfo(f"{'long/' * 25}{number:05d}.txt")
            elif number % (101 + seed) == 0:
                info.type = KINDS[12 + number % 6]
                info.linkname = "x"
            info.size = [7, 600, 5000][number % 3] if info.isreg() else 0
            if number % (503 + seed) == 0 and info.isreg():
                info.size = 1 << 17
            tar.addfile(info, io.BytesIO(content(number, info.size)))
    archive = out.getvalue()
    expected = oracle(archive)
    members, in_runs = members_of(io.BytesIO(archive))
    assert members == expected
    assert in_runs > 100
    file = tmp_path / "irregular.tar"
    file.write_bytes(archive)
    assert members_of(file.open("rb"))[0] == expected
    assert members_of(TrickleReader(archive, seed))[0] == expected
    samples = oracle_samples(archive)
    for path in PATHS.values():
        assert read(path, file.open("rb")).samples == samples
