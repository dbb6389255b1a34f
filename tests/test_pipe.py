"""Pipe: exit statuses, early ends, and nothing left behind."""

from __future__ import annotations

import gc
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from opener_contract import children, descriptors, eventually
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import pipe, process
from webdataset.storage.pipe import Pipe


def write_on(stream) -> None:
    """Write more than any buffer between holds."""
    while True:
        stream.write(bytes(100_000))


def write_and_fail(url: str) -> None:
    """Write a part, then fail inside the block."""
    with gopen(url, "wb") as stream:
        stream.write(bytes(1000))
        raise KeyError


def gone(pid: int) -> bool:
    """Whether a process has ended (it may wait as a zombie for a parent that is not us)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_failing_command_is_an_error_at_the_end():
    """All data comes first; then the exit status is an error, whenever it is asked again, and closing adds nothing."""
    stream = gopen("pipe:echo some data; exit 3")
    assert stream.read(100) == b"some data\n"
    for _ in range(2):
        with pytest.raises(
            OSError, match=r"^pipe:echo some data; exit 3: exit status 3: what the command wrote"
        ) as caught:
            stream.read(100)
        assert isinstance(caught.value, OpenError)
    assert stream.status == 3
    stream.close()
    assert children() == set()


@pytest.mark.parametrize(
    "ask",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read1(10),
        lambda stream: stream.readinto(bytearray(10)),
        lambda stream: stream.readinto1(bytearray(10)),
        lambda stream: stream.readline(),
        list,
    ],
)
def test_every_way_of_reading_notices(ask):
    """Whichever method finds the end, it waits for the command and checks its status."""
    with pytest.raises(OpenError, match="exit status 5"), gopen("pipe:exec 1>&-; sleep 0.2; exit 5") as stream:
        ask(stream)


@pytest.mark.parametrize("ask", [lambda stream: stream.read(0), lambda stream: stream.readinto(bytearray())])
def test_asking_for_nothing_waits_for_nothing(ask):
    """A read of no bytes is not the end."""
    with gopen("pipe:echo x") as stream:
        assert not ask(stream)
        assert stream.read() == b"x\n"


@pytest.mark.parametrize(
    ("command", "fact"),
    [
        ("no-such-command-here 2>/dev/null", "exit status 127: the command was not found"),
        ("/dev/null 2>/dev/null", "exit status 126: the command is not executable"),
        ("kill -9 $$", "exit status -9: ended by SIGKILL"),
        ("sh -c 'kill -15 $$'; exit $?", "exit status 143: ended by SIGTERM"),
    ],
)
def test_statuses_are_explained(command, fact):
    """An error says what the exit status means."""
    with pytest.raises(OpenError, match=fact):
        gopen(f"pipe:{command}").read()


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("false https://me:secret@host/a?sig=secret", "false https://host/a"),
        ("false -H 'Authorization: Bearer secret' x", "false -H 'Authorization: …' x"),
        ("AWS_SECRET_ACCESS_KEY=secret false", "AWS_SECRET_ACCESS_KEY=… false"),
        ("false --user me:secret x", "false --user … x"),
        ("false --token secret -u plain", "false --token … -u plain"),
        ("false --api-key='secret' tokens.tar", "false --api-key='…' tokens.tar"),
    ],
)
def test_credentials_are_not_shown(command, shown):
    """Errors and reprs show the command without what is named like a secret."""
    stream = gopen(f"pipe:{command}")
    with pytest.raises(OpenError) as caught:
        stream.read()
    assert f"pipe:{shown}: exit status 1" in str(caught.value)
    assert repr(stream) == f"<Pipe {shown!r} rb>"


@pytest.mark.parametrize("command", ["yes", "echo x", "cat /dev/zero | cat", "sh -c 'kill -13 $$'", "exit 141"])
def test_closing_early_is_no_error(command):
    """Whatever the command is in the middle of when its reader leaves, SIGPIPE is fine."""
    stream = gopen(f"pipe:{command}")
    stream.read(1)
    stream.close()
    assert children() == set()


def test_sigpipe_of_a_direct_child():
    """A command without a shell that dies of SIGPIPE shows -13, which 141 in ignore_status includes."""
    with Pipe(["sh", "-c", "kill -13 $$"], mode="rb", ignore_status=[141]) as stream:
        assert stream.read() == b""
    assert stream.status == -13
    with pytest.raises(OpenError, match="ended by SIGPIPE"), Pipe(["sh", "-c", "kill -13 $$"], mode="rb") as stream:
        stream.read()


def test_failure_before_an_early_close_is_an_error():
    """A command that had already failed when its reader left is not forgiven."""
    stream = gopen("pipe:echo 1; echo 2; exit 3")
    assert stream.readline() == b"1\n"
    stream.proc.wait()
    with pytest.raises(OpenError, match="exit status 3"):
        stream.close()
    assert stream.closed


def test_closing_early_ends_the_whole_pipeline(tmp_path):
    """Everything that the shell started is ended, not only the shell."""
    stream = gopen(f"pipe:(sleep 1000 & echo $! > {tmp_path}/pid; echo ready; wait) | cat")
    assert stream.readline() == b"ready\n"
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid)
    stream.close()
    assert eventually(lambda: gone(pid))
    assert children() == set()


def test_command_that_does_not_want_to_end(monkeypatch):
    """A command that ignores SIGTERM is killed."""
    monkeypatch.setattr(process, "GRACE", 0.1)
    stream = gopen("pipe:trap '' TERM PIPE; echo ready; while :; do sleep 0.05; done")
    assert stream.readline() == b"ready\n"
    stream.close()
    assert stream.status == -9
    assert children() == set()


def test_command_that_goes_on_after_its_data():
    """A command that closes its output and goes on is waited for, `timeout` seconds at most."""
    with Pipe("exec 1>&-; sleep 0.2; exit 0", shell=True, mode="rb") as stream:
        assert stream.read() == b""
        assert stream.status == 0
    stream = Pipe("exec 1>&-; sleep 1000", shell=True, mode="rb", timeout=0.2)
    with pytest.raises(OpenError, match=r"it was still running 0\.2 s after the end of its data"):
        stream.read()
    stream.close()
    assert children() == set()


def test_dropped_streams_end_their_commands():
    """A stream that nobody closes ends its command without a word when it is forgotten, finished or failed or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of what earlier tests left in cycles
        gc.collect()
    before = descriptors()
    for command in ("yes", "true", "exit 3", "sleep 1000"):
        Pipe(command, shell=True, mode="rb")
    gc.collect()
    assert children() == set()
    assert descriptors() <= before


def test_error_in_the_block_wins():
    """An exception inside the block is not replaced by what the command did."""
    stream = gopen("pipe:exit 3")
    stream.proc.wait()
    with pytest.raises(KeyError), stream:
        raise KeyError
    assert stream.closed
    assert children() == set()


def test_ignoring_errors():
    """ignore_errors accepts every status, ignore_status some."""
    assert Pipe("exit 3", shell=True, mode="rb", ignore_errors=True).read() == b""
    assert Pipe("exit 3", shell=True, mode="rb", ignore_status=[3]).read() == b""
    with pytest.raises(OpenError, match="exit status 4"):
        Pipe("exit 4", shell=True, mode="rb", ignore_status=[3]).read()


def test_arguments_without_a_shell(tmp_path):
    """A list of arguments runs as it is, with the options of Popen."""
    with Pipe(["sh", "-c", 'printf "%s" "$1"; pwd', "sh", "a b$(x)"], mode="rb", cwd=tmp_path) as stream:
        assert stream.read() == b"a b$(x)" + os.fsencode(tmp_path) + b"\n"
        assert stream.command == shlex.join(["sh", "-c", 'printf "%s" "$1"; pwd', "sh", "a b$(x)"])


def test_wrong_arguments():
    """A missing mode or program is named."""
    for mode in (None, "", "x"):
        with pytest.raises(ValueError, match='the mode of a pipe must be "rb" or "wb"'):
            Pipe("true", shell=True, mode=mode)
    with pytest.raises(NotFoundError, match="cannot run 'no-such-program-here': not found on PATH"):
        Pipe(["no-such-program-here"], mode="rb")
    with pytest.raises(OpenError, match="cannot run the command: embedded null byte"):
        gopen("pipe:a\0b")


def test_unbuffered_streams():
    """bufsize=0 reads and writes as well."""
    with gopen("pipe:echo data", bufsize=0) as stream:
        assert stream.read1(2) == b"da"
        assert stream.read() == b"ta\n"


def test_writing_checks_the_status(tmp_path):
    """A command that fails after taking all data is an error when the stream is closed, once."""
    stream = gopen(f"pipe:cat > {tmp_path}/out; exit 6", "wb")
    stream.write(b"data")
    with pytest.raises(OpenError, match=r"exit status 6"):
        stream.close()
    stream.close()
    assert (tmp_path / "out").read_bytes() == b"data"
    assert children() == set()


def test_writing_to_a_command_that_has_left():
    """A command that does not take all data is an error, at the write that finds out or at the end."""
    with pytest.raises(OpenError, match="not all was written: exit status 3"), gopen("pipe:exit 3", "wb") as stream:
        write_on(stream)
    stream = gopen("pipe:exec 0<&-; exit 0", "wb")
    stream.proc.wait()
    stream.write(b"x")
    with pytest.raises(OpenError, match=r"not all was written: exit status 0: it ended well"):
        stream.flush()
    stream.close()
    stream = gopen("pipe:exit 4", "wb")
    stream.proc.wait()
    stream.write(b"x")
    with pytest.raises(OpenError, match=r"not all was written: exit status 4"):
        stream.close()
    assert children() == set()


def test_writing_to_a_command_that_does_not_read(monkeypatch):
    """A command that closes its input but goes on is ended, and the write is an error."""
    monkeypatch.setattr(pipe, "GRACE", 0.1)
    stream = gopen("pipe:exec 0<&-; sleep 1000", "wb")
    with pytest.raises(OpenError, match="not all was written: it does not read any more"):
        write_on(stream)
    stream.close()
    assert children() == set()


def test_error_while_writing_ends_the_command(tmp_path):
    """A command whose writer fails is ended: it must not take a part for the whole."""
    url = f"pipe:cat > {tmp_path}/part && touch {tmp_path}/complete"
    with pytest.raises(KeyError):
        write_and_fail(url)
    assert children() == set()
    assert not (tmp_path / "complete").exists()
    with gopen(url, "wb") as stream:
        stream.write(bytes(1000))
    assert (tmp_path / "complete").exists()


def test_what_the_command_says_is_not_swallowed():
    """stderr of the command is stderr of the program."""
    program = "from webdataset.gopen import gopen; gopen('pipe:echo why >&2').read()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr == b"why\n"


def test_forked_copies_leave_the_command_alone(tmp_path):
    """A forked process that drops its copy of a stream does not end, wait for, or write to the command."""
    program = f"""
import os
from webdataset.gopen import gopen
reading = gopen("pipe:printf a; read line < {tmp_path}/fifo; printf b")
writing = gopen("pipe:cat > {tmp_path}/out", "wb")
assert reading.read(1) == b"a"
writing.write(b"once")
if os.fork() == 0:
    reading.close()
    writing.close()
    os._exit(0)
assert os.wait()[1] == 0
with open("{tmp_path}/fifo", "w") as fifo:
    fifo.write("go\\n")
assert reading.read() == b"b"
writing.close()
"""
    os.mkfifo(tmp_path / "fifo")
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    assert (tmp_path / "out").read_bytes() == b"once"
