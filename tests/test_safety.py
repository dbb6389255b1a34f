"""Nothing that data plants ever runs: fields of every kind, names, dataset descriptions; and the security switch."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import PIL.Image
import pytest
import torch
import yaml

import webdataset as wds
import webdataset.autodecode as ad
from helpers import tar_bytes, write_shards
from media import sound, tone
from servers import serve
from webdataset import security
from webdataset.autodecode import Decoder, DecodingError, ImageHandler, decoders, handle_extension
from webdataset.codecs import encoders
from webdataset.codecs.ffmpeg import opened
from webdataset.codecs.gz import gzipped
from webdataset.errors import SecurityError
from webdataset.gopen import gopen_curl
from webdataset.shardlists import SimpleShardList, expand_urls
from webdataset.tariterators import tarfile_samples


class Planted:
    """Pickles to the creation of a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def written(save: Callable[..., Any], *args: Any, **kw: Any) -> bytes:
    """What a function writes to a stream that it gets as its last positional argument."""
    stream = io.BytesIO()
    save(*args, stream, **kw)
    return stream.getvalue()


def pickles(canary: Path) -> list[bytes]:
    """The plant in every container that a pickle can travel in."""
    planted = Planted(canary)
    objects = np.array([planted, 1], dtype=object)
    return [
        *(pickle.dumps([planted], protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        written(lambda stream: np.save(stream, objects, allow_pickle=True)),
        written(lambda stream: np.savez(stream, a=objects)),
        written(lambda stream: np.savez_compressed(stream, a=objects)),
        written(torch.save, {"x": planted}),
        written(torch.save, {"x": planted}, _use_new_zipfile_serialization=False),
    ]


def texts(canary: Path) -> list[bytes]:
    """The plant as the formats of text and structure would spell it for a trusting reader."""
    code = f"__import__('os').mkdir({str(canary)!r})"
    names = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [str(canary)]}]}  # jsonpickle
    return [
        code.encode(),
        f"!!python/object/apply:os.mkdir ['{canary}']".encode(),
        json.dumps(names).encode(),
        json.dumps({"__class__": "os.mkdir", "args": [str(canary)]}).encode(),
        cbor2.dumps(cbor2.CBORTag(35, f"(?#{code})")),
        cbor2.dumps({"py/object": names}),
        f"pipe:mkdir {canary}".encode(),
    ]


def every_field(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Each plant under each extension that anything here decodes, plain and compressed."""
    media = [*ad.IMAGE_EXTENSIONS[::8], "eps", "png", "wav", "m4a", "mp4", "yaml", "yml", "pt", "bin", "py"]
    for number, data in enumerate([*pickles(canary), *texts(canary)]):
        for extension in [*decoders, *media]:
            yield f"{number}.{extension}", data
            yield f"{number}.{extension}.gz", gzipped(data)


def consumed(make: Callable[[], Any]) -> list[Any]:
    """Everything that a data set gives until it is at its end, or raises."""
    given: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given.extend(make())
        except Exception as exn:
            given.append(exn)
    return given


def test_planted_code_never_runs(tmp_path: Path) -> None:
    """Every plant in every field goes through decode, with all handlers of the library, and xdecode; none runs."""
    canary = tmp_path / "canary"
    shard = tmp_path / "x.tar"
    fields = list(every_field(canary))
    shard.write_bytes(tar_bytes([(f"{n:06d}.{field}", data) for n, (field, data) in enumerate(fields)]))
    handlers = ["pil", ad.torch_audio, ad.torch_video]
    failed = []

    def note(exn: Exception) -> bool:
        failed.append(exn)
        return True

    dataset = wds.WebDataset(str(shard), shardshuffle=False).decode(*handlers, handler=note)
    decoded = sum(1 for _ in dataset)
    assert not canary.exists()
    assert decoded + len(failed) == len(fields)
    assert all(type(exn) is DecodingError for exn in failed)
    refused = [exn for exn in failed if isinstance(exn.__cause__, SecurityError)]
    assert {exn.field.split(".")[1] for exn in refused} >= {"pyd", "pickle", "pkl", "pth"}
    plain = wds.WebDataset(str(shard), shardshuffle=False)
    for field, data in fields:
        consumed(lambda field=field, data=data: wds.filters._xdecode([{"__key__": "k", field: data}]))
    consumed(lambda: plain.xdecode(must_decode=False))
    assert not canary.exists()


def test_the_plants_are_alive(tmp_path: Path) -> None:
    """The same bytes do their work where a reader trusts them, so the test above tests something."""
    trusting = [
        *[pickle.loads] * (pickle.HIGHEST_PROTOCOL + 1),
        lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        *[lambda data: np.load(io.BytesIO(data), allow_pickle=True)["a"]] * 2,
        *[lambda data: torch.load(io.BytesIO(data), weights_only=False)] * 2,
        lambda data: eval(data),
        yaml.unsafe_load,
    ]
    canary = tmp_path / "canary"
    for run, data in zip(trusting, [*pickles(canary), *texts(canary)], strict=False):
        run(data)
        canary.rmdir()


@pytest.mark.parametrize("field", ["eps", "ps", "png", "jpg", "eps.gz"])
def test_postscript_is_not_rendered(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is refused under any name, before ghostscript is looked for; the program can decode it itself."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    data = written(lambda stream: PIL.Image.new("RGB", (2, 2)).save(stream, "EPS"))
    data = gzipped(data) if field.endswith(".gz") else data
    for spec in ad.imagespecs:
        with pytest.raises(DecodingError, match="this is EPS, which is a program that ghostscript would run"):
            Decoder([ImageHandler(spec)])({"__key__": "a", field: data})
    assert not (tmp_path / "canary").exists()
    with pytest.raises((OSError, SystemError)):
        PIL.Image.open(io.BytesIO(data if not field.endswith(".gz") else ad.gzfilter(".eps.gz", data).data)).load()
    assert (tmp_path / "canary").exists()
    own = Decoder([handle_extension("eps ps png jpg", len), ImageHandler("rgb")])
    assert own({"__key__": "a", field: data})[field] > 100


def playlists(url: str, path: Path) -> dict[str, bytes]:
    """Files that tell FFmpeg to open others."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile {path}\nfile {url}\n".encode(),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
            ' mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
            '<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
            f"<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
        ).encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "ref": f"[Reference]\nRef1={url}\n".encode(),
    }


def test_media_open_nothing_else(tmp_path: Path) -> None:
    """Playlists and lists of files in audio and video fields are errors: no url is asked, no file is read."""
    path = tmp_path / "private.wav"
    path.write_bytes(sound(tone(), "WAV"))
    with serve({"/private.wav": path.read_bytes()}) as server:
        for name, data in playlists(server.url("/private.wav"), path).items():
            for field in ("mp4", "mov", "avi", "m4a", "wav", "wma", "sox", "mp3"):
                with pytest.raises(DecodingError):
                    Decoder([ad.torch_audio, ad.torch_video])({"__key__": "a", field: data})
            with pytest.raises(ValueError, match="FFmpeg cannot decode"), opened(data, "the test"):
                pytest.fail(f"{name} was opened")
        assert server.requests == []


def test_names_are_not_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shell syntax in names of shards, keys and fields stays text, for local files and for command-line tools."""
    monkeypatch.chdir(tmp_path)
    plants = ["$(touch canary)", "`touch canary`", ";touch canary;", "|touch canary", "&touch canary&"]
    for tool in ("curl", "gsutil", "ais"):
        program = tmp_path / "bin" / tool
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for plant in plants:
        Path(f"x{plant}.tar").write_bytes(tar_bytes({f"{plant}.{plant}": b"1"}))
        (sample,) = wds.WebDataset([f"x{plant}.tar"], shardshuffle=False)
        assert sample["__key__"] == plant
        for url in (f"sftp://h/{plant}", f"ftps://h/{plant}", f"gs://b/{plant}", f"ais://b/{plant}"):
            consumed(lambda url=url: wds.WebDataset([url], shardshuffle=False))
            consumed(lambda url=url: [wds.gopen(url, "wb").close()])
    assert not Path("canary").exists()


def specs(canary: Path) -> dict[str, str]:
    """Descriptions of data sets, by name of file, that would run a command for a trusting reader."""
    pipe = f"pipe:touch {canary}; cat /dev/null"
    tag = f"!!python/object/apply:os.system ['touch {canary}']"
    datasets = [{"name": "a", "shards": [pipe], "buckets": "", "resample": 1}]
    return {
        "tag.yaml": tag,
        "tag.yml": f"datasets:\n- shards: {tag}\n",
        "tagged.yaml": f"prefix: {tag}\nbuckets: {tag}\ndatasets: []\n",
        "new.yaml": f"datasets: !!python/object/new:os.system ['touch {canary}']\n",
        "name.yaml": "datasets: !!python/name:os.system\n",
        "pipe.yaml": yaml.safe_dump({"datasets": datasets}),
        "prefix.yaml": yaml.safe_dump({"prefix": "pipe:", "datasets": [{"shards": [f"touch {canary}"]}]}),
        "bucket.yml": yaml.safe_dump({"datasets": [{"buckets": ["pipe:"], "shards": [f"touch {canary}"]}]}),
        "pipe.json": json.dumps({"datasets": datasets}),
        **{
            f"hidden{number}.{kind}": dump({"datasets": [{"shards": shards}]})
            for kind, dump in (("yaml", yaml.safe_dump), ("json", json.dumps))
            for number, shards in enumerate(
                (
                    pipe,
                    [pipe.replace("pipe:", "PIPE:")],
                    f"a.tar::{pipe}",
                    f"{{pipe,x}}:touch {canary}",
                    [f"p{{i,j}}pe:touch {canary}"],
                    [f" {pipe}", f"file:{pipe}", f"./{pipe}", f"\t{pipe}", f"\u200b{pipe}"],
                )
            )
        },
        "upper.json": json.dumps({"shardlist": [{"url": f"Pipe:touch {canary}"}], "__kind__": "wids-shard-index-v1"}),
        "braces.json": json.dumps({"shardlist": [{"url": f"{{pipe,x}}:touch {canary}"}, {"url": f"a::{pipe}"}]}),
        "wids.json": json.dumps({"wids_version": 1, "shardlist": [{"url": pipe, "nsamples": 1}]}),
        "base.json": json.dumps({"wids_version": 1, "base": "pipe:", "shardlist": [{"url": f"touch {canary}"}]}),
        "list.json": json.dumps([pipe]),
        "shards.txt": pipe + "\n",
        "shards.lst": pipe + "\n",
        "shards.list": f"{pipe}\nPIPE:touch {canary}\n",
    }


@pytest.mark.parametrize("name", specs(Path("c")))
def test_descriptions_run_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML tags are not obeyed, and a pipe: url that arrives through a file is not opened."""
    monkeypatch.setenv("ALLOW_OBSOLETE", "1")
    canary = tmp_path / "canary"
    spec = tmp_path / name
    spec.write_text(specs(canary)[name])
    for urls in (str(spec), f"file:{spec}", f"{spec}::{spec}", [str(spec)], f"@{spec}"):
        consumed(lambda urls=urls: wds.WebDataset(urls, shardshuffle=False))
        consumed(lambda urls=urls: wds.WebDataset(urls, resampled=True, shardshuffle=False).slice(2))
        consumed(lambda urls=urls: wds.DataPipeline(SimpleShardList(urls), tarfile_samples))
    assert not canary.exists()
    if name.endswith((".yaml", ".yml")) and "!!" in spec.read_text():
        consumed(lambda: [yaml.unsafe_load(spec.read_text())])
        assert canary.exists() or name == "name.yaml"


def test_file_names_found_by_a_star_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody called `pipe:...` is read as the file it is when a star, a folder or a spec finds it."""
    monkeypatch.chdir(tmp_path)
    name = "pipe:touch canary;.tar"
    Path(name).write_bytes(tar_bytes({"a.txt": b"text"}))
    Path("spec.json").write_text(json.dumps({"datasets": [{"shards": "*.tar"}]}))
    for urls in ("*.tar", "**/*.tar", "{*,*}.tar::./*.tar", Path("*.tar"), "./", "spec.json", expand_urls("*.tar")):
        samples = wds.WebDataset(urls, shardshuffle=False)
        assert f"./{name}" in {sample["__url__"] for sample in samples}
    assert not Path("canary").exists()


def test_the_program_is_trusted(tmp_path: Path) -> None:
    """A pipe: url that the program writes does run."""
    canary = tmp_path / "canary"
    consumed(lambda: wds.WebDataset(f"pipe:touch {canary}", shardshuffle=False))
    assert canary.exists()


def switch_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_SECURE", "1")


def switch_by_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "enforce_security", True)


def switch_by_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = sys.modules.get("webdataset.utils") or types.ModuleType("webdataset.utils")
    monkeypatch.setitem(sys.modules, "webdataset.utils", utils)
    monkeypatch.setitem(vars(utils), "enforce_security", True)


@pytest.mark.parametrize("switch", [switch_by_environment, switch_by_program, switch_by_old_name])
def test_the_switch(
    switch: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the switch on, local files, commands and pickles are refused on every way in; http and writing work."""
    (local,) = write_shards(tmp_path, 1, 2)
    pickled = {"__key__": "a", "a.pyd": pickle.dumps(1)}
    trained = written(torch.save, 1)
    switch(monkeypatch)
    opening = [
        lambda url: wds.gopen(url).read(),
        lambda url: list(wds.WebDataset(url, shardshuffle=False)),
        lambda url: list(wds.DataPipeline(wds.SimpleShardList(url), wds.tarfile_to_samples())),
        lambda url: list(wds.tarfile_samples([{"url": url}])),
        lambda url: list(wds.StreamingOpen()([{"url": url}])),
    ]
    for open_ in opening:
        for url in (local, f"file:{local}"):
            with pytest.raises(ValueError, match="gopen: unsafe_gopen is False, cannot open local files") as caught:
                open_(url)
            assert isinstance(caught.value, SecurityError)
        for url in (f"pipe:cat {local}", f"PIPE:cat {local}"):
            with pytest.raises(ValueError, match="gopen_pipe: unsafe_gopen is False, cannot open pipe URLs"):
                open_(url)
    with pytest.raises(SecurityError, match="cannot open local files"):
        gopen_curl(f"FILE://{local}")
    cached = wds.DataPipeline([pickled], wds.LMDBCached(tmp_path / "db", map_size=1 << 20))
    with pytest.raises(
        SecurityError, match=r"LMDBCached: '.*db' holds pickles, which are not loaded while enforce_sec"
    ):
        list(cached)
    with pytest.raises(ValueError, match="Unpickling is not allowed for security reasons when enforce_security is set"):
        list(wds.filters._xdecode([pickled]))
    with pytest.raises(ValueError, match="Unpickling is not allowed"):
        Decoder([])(pickled)
    with pytest.raises(ValueError, match="is not allowed for security reasons when enforce_security is set"):
        Decoder([])({"__key__": "a", "pth": trained})
    with serve({"/a.tar": Path(local).read_bytes()}) as server:
        assert len(list(wds.WebDataset(server.url("/a.tar"), shardshuffle=False))) == 2
        monkeypatch.setenv("GOPEN_REWRITE", "s3://=pipe:echo ")
        with pytest.raises(ValueError, match="rewrite_url: unsafe_gopen is False, cannot rewrite URLs using environme"):
            wds.gopen(server.url("/a.tar"))
        monkeypatch.delenv("GOPEN_REWRITE")
    with wds.TarWriter(str(tmp_path / "w.tar")) as sink:
        sink.write({"__key__": "a", "txt": "x"})
    with wds.ShardWriter(str(tmp_path / "s-%d.tar"), verbose=0) as shards:
        shards.write({"__key__": "a", "txt": "x"})
    assert (tmp_path / "w.tar").stat().st_size > 0
    assert (tmp_path / "s-0.tar").stat().st_size > 0
    assert Decoder([])({"__key__": "a", "json": b"1", "npy": encoders["npy"](np.zeros(1))})["json"] == 1


def test_off_and_on_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two names of the switch differ, on wins; a program that says off wins over the environment."""
    monkeypatch.setenv("WDS_SECURE", "1")
    monkeypatch.setattr(security, "enforce_security", False)
    assert not security.security_enforced()
    switch_by_old_name(monkeypatch)
    assert security.security_enforced()


def test_the_environment_reaches_new_processes(tmp_path: Path) -> None:
    """WDS_SECURE holds in a process that never heard of the switch."""
    (local,) = write_shards(tmp_path, 1, 1)
    code = f"import webdataset as wds; list(wds.WebDataset({local!r}, shardshuffle=False))"
    environment = {**os.environ, "WDS_SECURE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "SecurityError: " in done.stderr
    assert "cannot open local files" in done.stderr


@pytest.mark.parametrize(
    ("environment", "assigned", "top", "expected"),
    [
        (None, None, None, True),
        ("1", None, None, True),
        ("0", None, None, False),
        ("0", True, None, True),
        ("1", False, None, False),
        (None, None, False, False),
        (None, True, False, False),
    ],
)
def test_weights_only(
    environment: str | None,
    assigned: bool | None,
    top: bool | None,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pth fields run code only where WDS_PYTORCH_WEIGHTS_ONLY=0, or either name in the program, says so."""
    monkeypatch.delitem(vars(ad), "pytorch_weights_only", raising=False)
    monkeypatch.delenv("WDS_PYTORCH_WEIGHTS_ONLY", raising=False)
    if environment is not None:
        monkeypatch.setenv("WDS_PYTORCH_WEIGHTS_ONLY", environment)
    if assigned is not None:
        monkeypatch.setitem(vars(ad), "pytorch_weights_only", assigned)
    if top is not None:
        monkeypatch.setitem(vars(wds), "pytorch_weights_only", top)
    canary = tmp_path / "canary"
    data = written(torch.save, Planted(canary))
    if expected:
        with pytest.raises(SecurityError):
            ad.torch_loads(data)
    else:
        ad.torch_loads(data)
    assert canary.exists() is not expected
    if assigned is None and top is None:
        assert ad.pytorch_weights_only is expected


def test_weights_only_that_is_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is neither 0 nor 1 is an error, never a guess."""
    monkeypatch.delitem(vars(ad), "pytorch_weights_only", raising=False)
    monkeypatch.setenv("WDS_PYTORCH_WEIGHTS_ONLY", "no")
    with pytest.raises(SecurityError, match="WDS_PYTORCH_WEIGHTS_ONLY must be 0 or 1, got 'no'"):
        ad.torch_loads(written(torch.save, 1))


def image_of(width: int, height: int) -> bytes:
    """A PNG header that claims this size, with next to no data."""
    data = bytearray(encoders["png"](np.zeros((1, 1), np.uint8)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_decompression_bombs() -> None:
    """An image that claims more pixels than Pillow allows is an error that says what to raise."""
    with pytest.raises(DecodingError, match=r"u\.tar!k\.png: Image size \(10000000000 pixels\) exceeds limit .*bomb.*"):
        Decoder([ImageHandler("rgb8")])({"__key__": "k", "__url__": "u.tar", "png": image_of(100_000, 100_000)})
    with pytest.raises(DecodingError, match=r"raise PIL\.Image\.MAX_IMAGE_PIXELS$"):
        Decoder([ImageHandler("pil")])({"__key__": "k", "png": image_of(100_000, 100_000)})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_truncated_images(kind: str) -> None:
    """An image that was cut is an error of one line, whatever its format."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    data = written(lambda stream: PIL.Image.fromarray(pixels).save(stream, kind))
    with pytest.raises(DecodingError, match=r"^u\.tar!k\.img: ") as caught:
        Decoder([ImageHandler("rgb8")])({"__key__": "k", "__url__": "u.tar", "img": data[: len(data) // 2]})
    assert "\n" not in str(caught.value)
    if kind in ("JPEG", "PNG", "BMP"):
        assert "the image is cut or damaged: image file is truncated" in str(caught.value)
