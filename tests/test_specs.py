"""Specs, globs and folders of shards."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch.utils.data

import webdataset as wds
from helpers import write_shards
from webdataset.errors import EmptyDatasetError, NotFoundError, SecurityError, ShardListError
from webdataset.shardlists import (
    DirectoryShardList,
    MSSource,
    MultiShardSample,
    check_pid_is_running,
    envsubst,
    expand,
    expand_urls,
    get_pid_from_filename,
    shardspec,
    without_last_extension,
)


def urls_of(shards) -> list[str]:
    return [shard["url"] for shard in shards]


def spec_file(folder: Path, text: str, name: str = "spec.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# specs


def test_a_spec_reads_real_archives(tmp_path):
    """Samples come from all sources of a YAML file: all of one, some of another, drawn ones of a third."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        write_shards(tmp_path / name, 3, 2)
    path = spec_file(
        tmp_path,
        f"""
        prefix: {tmp_path}/
        datasets:
          - {{name: all, buckets: a, shards: "shard-{{0000..0002}}.tar"}}
          - {{name: some, buckets: [b], shards: ["shard-{{0000..0001}}.tar", shard-0002.tar], choose: 2}}
          - {{name: drawn, buckets: c, shards: shard-*.tar, resample: 5}}
        """,
    )
    spec = MultiShardSample(path)
    assert [(s.name, s.perepoch, s.resample, len(s.urls)) for s in spec.sources] == [
        ("all", -1, False, 3),
        ("some", 2, False, 3),
        ("drawn", 5, True, 3),
    ]
    samples = list(wds.DataPipeline(spec, wds.tarfile_to_samples()))
    folders = [Path(sample["__url__"]).parent.name for sample in samples]
    assert {name: folders.count(name) for name in "abc"} == {"a": 6, "b": 4, "c": 10}


def test_each_epoch_has_another_order():
    """Epochs differ, all readers draw alike, and the same epoch is the same again; copies too."""
    spec = {"datasets": [{"shards": "{0..9}.tar"}]}
    first, second = MultiShardSample(spec), pickle.loads(pickle.dumps(MultiShardSample(spec)))
    epochs = [urls_of(first) for _ in range(3)]
    assert [urls_of(second) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(f"{n}.tar" for n in range(10))}
    assert isinstance(first, torch.utils.data.IterableDataset)


def test_set_epoch_seeds():
    """The same seed gives the same shards."""
    shards = MultiShardSample({"datasets": [{"shards": "{0..9}.tar", "resample": 20}]})
    shards.set_epoch(5)
    drawn = shards.get_shards_for_epoch()
    shards.set_epoch(5)
    assert shards.get_shards_for_epoch() == drawn
    assert len(drawn) == 20


def test_variables_of_the_environment(monkeypatch):
    """`~` and `$NAME` in the shards of a spec mean what they mean in a shell."""
    monkeypatch.setenv("SET", "train")
    assert expand("$SET-${SET}-~") == "train-train-~"
    spec = {"prefix": "p/", "buckets": "b", "datasets": [{"shards": "$SET-{0..1}.tar", "choose": 2}]}
    assert MultiShardSample(spec).sources == [MSSource("", 2, False, ["p/b/train-0.tar", "p/b/train-1.tar"])]
    monkeypatch.setenv("WDS_A", "x{0..1}")
    assert envsubst("${A}$A") == "x{0..1}$A"


def test_json_specs_and_indexes(tmp_path):
    """A JSON file is a spec as a YAML file is; one with a shardlist names shards beside it or below its base."""
    spec = spec_file(tmp_path, json.dumps({"datasets": [{"shards": "a.tar"}]}), "spec.json")
    assert urls_of(shardspec(spec)) == ["a.tar"]
    shards = [{"url": "a.tar", "nsamples": 3}, {"url": "https://host/b.tar"}]
    index = spec_file(tmp_path, json.dumps({"wids_version": 1, "shardlist": shards}), "index.json")
    assert urls_of(shardspec(index)) == [f"{tmp_path}/a.tar", "https://host/b.tar"]
    based = spec_file(tmp_path, json.dumps({"base": "s3://b/c", "shardlist": shards[:1]}), "based.json")
    assert urls_of(shardspec(Path(based))) == ["s3://b/c/a.tar"]


def test_shardspec_takes_patterns_too():
    """What is no spec is a pattern or a list."""
    assert urls_of(shardspec("a-{0..1}.tar")) == ["a-0.tar", "a-1.tar"]
    assert urls_of(shardspec(["a.tar"])) == ["a.tar"]
    assert urls_of(shardspec({"datasets": [{"shards": "a.tar"}]})) == ["a.tar"]


@pytest.mark.parametrize(
    "text",
    [
        "datasets: [{shards: 'pipe:touch planted'}]",
        "{prefix: 'pipe:touch ', datasets: [{shards: planted}]}",
        "datasets: [{shards: '{PIPE:touch planted,a.tar}'}]",
        '{"shardlist": [{"url": "pipe:touch planted"}]}',
    ],
)
def test_commands_from_a_file_do_not_run(text, tmp_path, monkeypatch):
    """A `pipe:` url in a spec file is refused when it is read; the program or the environment can allow it."""
    path = spec_file(tmp_path, text, "spec.json" if text.startswith('{"') else "spec.yaml")
    with pytest.raises(SecurityError, match=r"a command that comes from a file does not run.*WDS_ALLOW_PIPE=1"):
        shardspec(path)
    assert len(urls_of(shardspec(path, allow_pipe=True))) >= 1
    monkeypatch.setenv("WDS_ALLOW_PIPE", "1")
    shardspec(path)
    with pytest.raises(SecurityError):
        shardspec(path, allow_pipe=False)
    assert not Path("planted").exists()


def test_commands_of_the_program_run(tmp_path):
    """A dict is part of the program, and so are its commands."""
    url = write_shards(tmp_path, 1, 2)[0]
    spec = MultiShardSample({"datasets": [{"shards": f"pipe:cat {url}"}]})
    assert len(list(wds.DataPipeline(spec, wds.tarfile_to_samples()))) == 2


def test_yaml_makes_no_objects(tmp_path):
    """A tag that would run code is an error that names file and tag."""
    path = spec_file(tmp_path, "datasets: !!python/object/apply:os.system ['touch planted']")
    with pytest.raises(ShardListError, match=r"spec\.yaml: cannot be read as YAML: .*python/object"):
        shardspec(path)
    assert not Path("planted").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "datasets must be a list"),
        ({"datasets": []}, "datasets must be a list"),
        ({"datasets": ["a.tar"]}, r"datasets\[0\]: must be a mapping"),
        ({"dataset": []}, "unknown key 'dataset'; did you mean 'datasets'"),
        ({"datasets": [{"shards": "a", "perepoch": 3}]}, r"datasets\[0\]: unknown key 'perepoch'; known are"),
        ({"datasets": [{"name": "a"}]}, "shards must be text, got None"),
        ({"datasets": [{"shards": "a", "choose": 1, "resample": 1}]}, "resample or choose, not both"),
        ({"datasets": [{"shards": "a", "choose": 2}]}, "choose: 2 of 1 shards; resample: 2"),
        ({"datasets": [{"shards": "a", "resample": "2"}]}, "resample must be a number of shards, got '2'"),
        ({"datasets": [{"shards": "a", "buckets": ["a", "b"]}]}, "buckets must be one folder, got 2"),
        ({"datasets": [{"shards": []}]}, "shards names none"),
        ({"prefix": 3, "datasets": [{"shards": "a"}]}, "prefix must be text, got 3"),
    ],
)
def test_wrong_specs_say_where(spec, message):
    """What is wrong in a spec is an error that names the place in it."""
    with pytest.raises(ValueError, match=message):
        MultiShardSample(spec)


def test_files_that_are_no_specs(tmp_path):
    """A missing, a damaged and an empty file are three errors that name it."""
    with pytest.raises(NotFoundError, match=r"none\.yaml: no such spec"):
        shardspec(str(tmp_path / "none.yaml"))
    with pytest.raises(ShardListError, match=r"bad\.json: cannot be read as JSON"):
        shardspec(spec_file(tmp_path, "{", "bad.json"))
    with pytest.raises(ShardListError, match=r"empty\.yml: a spec is a mapping"):
        shardspec(spec_file(tmp_path, "", "empty.yml"))


# globs


def test_stars_in_local_paths(tmp_path):
    """`*` stands for the files that match, sorted, after braces; half-written shards do not count."""
    urls = write_shards(tmp_path, 3, 1)
    (tmp_path / "shard-0003.tar.partial").touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x.tar").touch()
    assert expand_urls(f"{tmp_path}/shard-*") == urls
    assert expand_urls(f"{tmp_path}/shard-*{{2,0}}.tar") == [urls[2], urls[0]]
    assert expand_urls(tmp_path / "*.tar") == urls
    assert expand_urls(f"{tmp_path}/**/x.tar") == [str(tmp_path / "deep" / "er" / "x.tar")]
    texts = [sample["txt"] for sample in wds.WebDataset(f"{tmp_path}/*.tar", shardshuffle=False)]
    assert texts == [b"text 0", b"text 1", b"text 2"]


def test_only_stars_are_special(tmp_path):
    """`?` and `[` are characters of names, `*` too where such a file is there; commands and lists are left alone."""
    for name in ("a?[1]-x.tar", "a1-x.tar", "b*.tar", "bb.tar"):
        (tmp_path / name).touch()
    assert expand_urls(f"{tmp_path}/a?[1]-*.tar") == [f"{tmp_path}/a?[1]-x.tar"]
    assert expand_urls(f"{tmp_path}/b*.tar") == [f"{tmp_path}/b*.tar"]
    for url in ("pipe:cat /tmp/*.tar", "sftp://host/*.tar", "unheard-of://host/*.tar", "https://host/a.tar?sig=*"):
        assert expand_urls(url) == [url]
    assert expand_urls(["x/*.tar"]) == ["x/*.tar"]


def test_no_match_is_an_error(tmp_path):
    """It names the pattern and the folder, and says whether the folder is there."""
    with pytest.raises(EmptyDatasetError, match=r"z-\*\.tar: no file matches; the folder '.*' holds no such file"):
        expand_urls(f"{tmp_path}/z-*.tar")
    with pytest.raises(EmptyDatasetError, match=r"the folder '.*nowhere' does not exist"):
        wds.WebDataset(f"{tmp_path}/nowhere/*.tar", shardshuffle=False)


# folders


def test_each_shard_is_taken_under_a_name_of_its_own(tmp_path):
    """Oldest first, renamed while it is read, deleted then; the default pattern finds tar.gz too."""
    for age, name in enumerate(["c.tar", "a.tar.gz", "b.tgz", "other.zip"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    shards = DirectoryShardList(f"{tmp_path}/", poll=None, mode="unlink", select="oldest")
    expected = [f"{tmp_path}/{name}._{os.getpid()}_" for name in ("c.tar", "a.tar.gz", "b.tgz")]
    seen = []
    for shard in shards:
        assert os.path.exists(shard["url"])
        seen.append(shard["url"])
    assert seen == expected
    assert os.listdir(tmp_path) == ["other.zip"]


def test_shards_that_are_kept_are_marked(tmp_path):
    """Mode "keep" reads every archive once and leaves it as `._done_`."""
    write_shards(tmp_path, 2, 2)
    source = DirectoryShardList(tmp_path, poll=None, mode="keep")
    samples = list(wds.DataPipeline(source, wds.tarfile_to_samples()))
    assert sorted(sample["txt"] for sample in samples) == [f"text {n}".encode() for n in range(4)]
    assert sorted(os.listdir(tmp_path)) == ["shard-0000.tar._done_", "shard-0001.tar._done_"]
    assert list(source) == []


def test_resampling_goes_on_and_leaves_the_names_as_they_were(tmp_path):
    """Mode "resample" draws without end; a shard that is left in the middle goes back, in any mode."""
    write_shards(tmp_path, 3, 1)
    shards = iter(DirectoryShardList(tmp_path))
    drawn = {without_last_extension(shard["url"]) for shard in islice(shards, 50)}
    shards.close()
    assert drawn == {str(tmp_path / f"shard-000{n}.tar") for n in range(3)}
    unlinking = iter(DirectoryShardList(tmp_path, mode="unlink"))
    next(unlinking)
    unlinking.close()
    assert sorted(os.listdir(tmp_path)) == [f"shard-000{n}.tar" for n in range(3)]


def test_shards_of_dead_processes_come_back(tmp_path):
    """A shard whose process is gone goes back and is read again; that of a living one is left alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "a.tar").touch()
    (tmp_path / f"b.tar._{gone.pid}_").touch()
    (tmp_path / f"c.tar._{os.getppid()}_").touch()
    shards = DirectoryShardList(tmp_path, poll=None, mode="keep")
    assert len(list(shards)) == 2
    assert sorted(os.listdir(tmp_path)) == ["a.tar._done_", "b.tar._done_", f"c.tar._{os.getppid()}_"]
    assert check_pid_is_running(os.getpid())
    assert not check_pid_is_running(gone.pid)


def test_only_shards_of_dead_processes_are_touched(tmp_path):
    """Other files with such names, which the pattern does not have, stay as they are."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"thesis.txt._{gone.pid}_").touch()
    (tmp_path / "a.tar").touch()
    assert len(list(DirectoryShardList(tmp_path, poll=None, mode="unlink"))) == 1
    assert os.listdir(tmp_path) == [f"thesis.txt._{gone.pid}_"]


def test_variables_in_files_stay_out_of_urls(tmp_path, monkeypatch):
    """A spec file cannot send what is in the environment to a server; a dict in the program may."""
    monkeypatch.setenv("SECRET", "hunter2")
    spec = {"datasets": [{"name": "a", "buckets": "http://127.0.0.1:9", "shards": "$SECRET.tar"}]}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    with pytest.raises(SecurityError, match="parts of local paths only") as caught:
        MultiShardSample(str(path))
    assert "hunter2" not in str(caught.value)
    assert MultiShardSample(spec).sources[0].urls == ["http://127.0.0.1:9/hunter2.tar"]


def test_names_of_taken_shards():
    """The process is read from the name, and the name from before."""
    assert get_pid_from_filename("d/a.tar._12_") == 12
    assert get_pid_from_filename("a.tar") is None
    assert without_last_extension("d.e/a.tar._12_") == "d.e/a.tar"


def test_waiting_ends_with_the_timeout(tmp_path):
    """An empty folder is looked at again and again until the timeout, or not at all with poll=None."""
    assert list(DirectoryShardList(tmp_path, poll=0.01, timeout=0.05)) == []
    assert list(DirectoryShardList(tmp_path, poll=None)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "delete"}, "mode must be one of 'resample'"), ({"select": "newest"}, "select must be one of 'random'")],
)
def test_wrong_options_of_a_folder(options, message, tmp_path):
    """Unknown words are errors when the object is made, and so is a folder that is not there or not local."""
    with pytest.raises(ShardListError, match=message):
        DirectoryShardList(tmp_path, **options)
    with pytest.raises(NotFoundError, match="no such folder"):
        DirectoryShardList(f"{tmp_path}/nowhere/")
    with pytest.raises(ShardListError, match="local folders only"):
        DirectoryShardList("s3://bucket/")
