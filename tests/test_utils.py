"""Small helpers that programs import by name."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import webdataset as wds
from helpers import write_shards
from webdataset import security, utils
from webdataset.errors import SecurityError


@pytest.fixture
def switch(monkeypatch):
    """Leaves the security switch as it was: unset."""
    monkeypatch.delenv("WDS_SECURE", raising=False)
    yield monkeypatch
    vars(utils).pop("enforce_security", None)
    assert security.enforce_security is None


def test_the_security_switch_is_settable_here(switch, tmp_path):
    """Assigning utils.enforce_security decides what gopen, decoding and specs allow, at once, both ways."""
    url = write_shards(tmp_path, 1, 1)[0]
    assert utils.enforce_security is False
    wds.utils.enforce_security = True
    for refused in (lambda: wds.gopen(url), lambda: wds.gopen("pipe:true"), lambda: wds.torch_loads(b"")):
        with pytest.raises(SecurityError, match=r"unsafe_gopen is False|enforce_security is set"):
            refused()
    with pytest.raises(ValueError, match="enforce_security"):
        wds.shardspec(str(tmp_path / "spec.yaml"))
    with pytest.raises(ValueError, match="Unpickling is not allowed"):
        wds.autodecode.unpickle_loads(pickle.dumps(1))
    wds.utils.enforce_security = False
    wds.gopen(url).close()


def test_the_security_switch_follows_the_environment(switch):
    """As long as nobody assigns it, it is what WDS_SECURE says; what is assigned wins."""
    switch.setenv("WDS_SECURE", "1")
    assert utils.enforce_security is True
    utils.enforce_security = False
    assert security.security_enforced() is False


def test_who_am_i(monkeypatch):
    """The position is a plain tuple of four; the seed is 1000 times the rank, plus the worker."""
    assert utils.pytorch_worker_info() == (0, 1, 0, 1)
    for name, value in (("RANK", 2), ("WORLD_SIZE", 3), ("WORKER", 4), ("NUM_WORKERS", 5)):
        monkeypatch.setenv(name, str(value))
    assert utils.pytorch_worker_info() == (2, 3, 4, 5)
    assert utils.pytorch_worker_seed() == 2004


GROUPS = """
import sys
import torch.distributed as dist
from webdataset import utils
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
mine = [dist.new_group([0]), dist.new_group([1])][rank]
print(*utils.pytorch_worker_info(), *utils.pytorch_worker_info(group=mine))
print(utils.pytorch_worker_seed(), utils.pytorch_worker_seed(group=mine))
dist.barrier()
dist.destroy_process_group()
"""


def test_who_am_i_in_a_process_group(tmp_path):
    """Ranks are those of torch.distributed, or of the group that is named: here each process has one of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    commands = [[sys.executable, "-c", GROUPS, str(rank), str(tmp_path / "meet")] for rank in (0, 1)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands]
    said = [process.communicate(timeout=100)[0].splitlines() for process in running]
    assert said == [["0 2 0 1 0 1 0 1", "0 0"], ["1 2 0 1 0 1 0 1", "1000 0"]]


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("True", True), ("None", None), ("1_0", 10), ("0x1f", 31)])
def test_safe_eval_reads_literals(text, value):
    """Numbers, True, False and None."""
    assert utils.safe_eval(text) == value


def test_safe_eval_runs_nothing():
    """Names, calls and everything else are errors, in the text and in the expression around it."""
    assert utils.safe_eval("3", "[{}, 0]") == [3, 0]
    for text, expr in (("a-b", "{}"), ("exit", "{}"), ("", "{}"), ("3\n", "{}"), ("3", "print({})")):
        with pytest.raises(ValueError, match="safe_eval"):
            utils.safe_eval(text, expr)


def test_lookup_sym_takes_the_first_module_that_has_the_name():
    """The attribute, or None where no module has it."""
    assert utils.lookup_sym("join", ["math", "os.path"]) is os.path.join
    assert utils.lookup_sym("sqrt", ["math"]) is math.sqrt
    assert utils.lookup_sym("nothing_like_it", ["math"]) is None


def test_make_seed_is_the_same_everywhere():
    """Golden values for integers; text gives the same in every process."""
    assert utils.make_seed(1003, 0, 5) == 963888
    assert utils.make_seed(1, 2, 3) == 1026
    assert utils.make_seed("a", 1) == utils.make_seed("a", 1) != utils.make_seed("b", 1)
    assert utils.make_seed("a") == 3904355907 & 0x7FFFFFFF


def test_is_iterable():
    """Text and bytes do not count."""
    assert all(utils.is_iterable(x) for x in ([], (), {}, iter([]), range(3)))
    assert not any(utils.is_iterable(x) for x in ("a", b"a", 3, None))


def test_repeatedly_counts_what_it_is_told():
    """Passes, items, samples; the batch size may be a number or a function."""
    batches = [([1, 2],), ([3],)]
    assert list(wds.repeatedly([1, 2, 3], nbatches=5)) == [1, 2, 3, 1, 2]
    assert list(wds.repeatedly([1, 2, 3], nepochs=2, nbatches=4)) == [1, 2, 3, 1]
    assert list(wds.repeatedly(batches, nsamples=5)) == [*batches, batches[0]]
    assert list(wds.repeatedly([1, 2, 3], nsamples=8, batchsize=4)) == [1, 2]
    assert list(wds.repeatedly([[0], [0, 0]], nsamples=3, batchsize=len)) == [[0], [0, 0]]
    assert list(wds.repeatedly([1], nbatches=0)) == []
    assert list(wds.repeatedly([])) == []


def test_repeatedly_reads_no_item_too_many(tmp_path):
    """At a limit the source is closed without another item being read."""
    seen = []

    class Source:
        def __iter__(self):
            for i in range(10):
                seen.append(i)
                yield i

    assert list(wds.repeatedly(Source(), nbatches=3)) == [0, 1, 2]
    assert seen == [0, 1, 2]


def test_repeatedly0_limits_each_pass():
    """`nbatches` is for each pass."""
    assert list(utils.repeatedly0([1, 2, 3], nepochs=2, nbatches=2)) == [1, 2, 1, 2]
    assert list(utils.repeatedly0([])) == []


def test_weights_and_batch_sizes():
    """n * w divided by the largest, as an array; the batch size is that of the first column."""
    assert np.allclose(utils.compute_sample_weights([(10, 1), (20, 2)]), [0.25, 1.0])
    assert utils.guess_batchsize(([1, 2], [3, 4])) == 2
    assert utils.identity(utils) is utils


def test_weights_of_nothing_were_nan():
    """Without a product above 0 there is nothing to divide by, which is said."""
    for pairs in ([], [(0, 1)], [(1, -1)], [(1, float("nan"))]):
        with pytest.raises(ValueError, match="a number times its weight must be more than 0"):
            utils.compute_sample_weights(pairs)


def test_names_with_braces(tmp_path):
    """Braces and stars together, for files and for names alone."""
    for name in ("b.tar", "a.tar", "c.tgz", "d.zip"):
        (tmp_path / name).touch()
    found = utils.glob_with_braces(str(tmp_path / "*.{tgz,tar}"))
    assert [os.path.basename(path) for path in found] == ["c.tgz", "a.tar", "b.tar"]
    assert utils.fnmatch_with_braces("a.tar", "*.{tar,tgz}")
    assert not utils.fnmatch_with_braces("a.zip", "*.{tar,tgz}")


def test_deprecated_warns_at_each_call():
    """Plain or with a reason; the function works on, under its own name."""
    plain = utils.deprecated(len)
    reasoned = utils.deprecated("use len")(len)
    with pytest.warns(DeprecationWarning, match=r"deprecated function len\.$"):
        assert plain([1]) == 1
    with pytest.warns(DeprecationWarning, match="Reason: use len"):
        assert reasoned([1]) == 1
    assert plain.__name__ == "len"


def test_obsolete_raises_unless_allowed(monkeypatch):
    """ALLOW_OBSOLETE=1 lets the call through; nothing of this package is behind it."""
    monkeypatch.delenv("ALLOW_OBSOLETE", raising=False)
    marked = utils.obsolete(reason="gone")(len)
    with pytest.raises(utils.ObsoleteException, match=r"obsolete function len.*ALLOW_OBSOLETE=1.*gone"):
        marked([])
    monkeypatch.setenv("ALLOW_OBSOLETE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert utils.obsolete(len)([]) == 0


def test_pipeline_stages_are_subclassed_with_run_or_invoke():
    """Either method makes a stage; without both the error says which is missing."""

    class Doubled(utils.PipelineStage):
        def run(self, src):
            return (2 * x for x in src)

    class Older(wds.PipelineStage):
        def invoke(self, src):
            return (x + 1 for x in src)

    assert list(wds.FluidWrapper(range(1, 3)).compose(Doubled(), Older())) == [3, 5]
    with pytest.raises(NotImplementedError, match=r"must define run\(src\)"):
        utils.PipelineStage().run([])
