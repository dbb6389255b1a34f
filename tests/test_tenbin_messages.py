"""Arrays as messages: over ZeroMQ, over SCTP where the kernel has it, and over AF_UNIX SOCK_SEQPACKET."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec_contract import same
from webdataset import tenbin
from webdataset.errors import ConnectionLostError, DecodingError, OpenError, TransferTimeoutError

VALUES = [np.arange(12, dtype="f4").reshape(3, 4), np.array(7, "u4"), np.zeros((0, 2), "i8"), np.arange(100_000.0)]
LABELS = ["a", "b", "", "long one"]
PAIRS = pytest.mark.parametrize(
    ("send", "receive"),
    [(tenbin.zsend_single, tenbin.zrecv_single), (tenbin.zsend_multipart, tenbin.zrecv_multipart)],
)


@pytest.fixture
def sockets() -> Iterator[Any]:
    """A function that opens ZeroMQ sockets, which are closed with the test."""
    with zmq.Context() as context:
        opened = []

        def make(kind: int, bind: str = "", connect: str = "") -> Any:
            opened.append(context.socket(kind))
            opened[-1].linger = 0
            if bind:
                opened[-1].bind(bind)
            if connect:
                opened[-1].connect(connect)
            return opened[-1]

        yield make
        for one in opened:
            one.close()


@PAIRS
def test_arrays_cross_zeromq(sockets, send, receive) -> None:
    """Arrays and infos come through a TCP connection, one list a message, in order; what comes may be kept."""
    out = sockets(zmq.PUSH)
    port = out.bind_to_random_port("tcp://127.0.0.1")
    into = sockets(zmq.PULL, connect=f"tcp://127.0.0.1:{port}")
    send(out, VALUES, LABELS)
    send(out, [VALUES[0].astype(">f4")])
    first, labels = receive(into, infos=True, timeout=30)
    (second,) = receive(into, timeout=30)
    assert same(VALUES, first)
    assert labels == LABELS
    assert same(VALUES[0], second)


numbers = hnp.integer_dtypes(endianness="<") | hnp.floating_dtypes(endianness="<", sizes=(16, 32, 64))
lists = st.lists(
    hnp.arrays(dtype=numbers, shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)), min_size=1, max_size=4
)


@PAIRS
def test_any_arrays_cross_zeromq(sockets, send, receive, tmp_path) -> None:
    """Whatever the types, shapes and sizes, the arrays come back, aligned."""
    out, into = sockets(zmq.PUSH, bind=f"ipc://{tmp_path}/s"), sockets(zmq.PULL, connect=f"ipc://{tmp_path}/s")

    @settings(max_examples=50, deadline=None)
    @given(values=lists)
    def crosses(values) -> None:
        send(out, values)
        found = receive(into, timeout=30)
        assert same(values, found)
        assert all(array.flags.aligned for array in found)

    crosses()


SENDER = """
import os, sys, time
import numpy as np, zmq
from webdataset import tenbin
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(sys.argv[1])
if sys.argv[2] == "half":
    tenbin.zsend_multipart(socket, [np.arange(5)])
    for part in tenbin.encode_list([np.arange(1000)] * 500)[:-1]:
        socket.send(part, zmq.SNDMORE)
    print("sent", flush=True)
    time.sleep(600)
for name in ("single", "multipart"):
    getattr(tenbin, f"zsend_{name}")(socket, [np.arange(5), np.array(2.5)], ["n", "x"])
socket.close(linger=30_000)
"""


def start(code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def test_another_process_sends(sockets, tmp_path) -> None:
    """Both kinds of messages come from a process of its own."""
    into = sockets(zmq.PULL, bind=f"ipc://{tmp_path}/s")
    with start(SENDER, f"ipc://{tmp_path}/s", "all") as sender:
        for receive in (tenbin.zrecv_single, tenbin.zrecv_multipart):
            arrays = receive(into, infos=["n", "x"], timeout=60)
            assert same([np.arange(5), np.array(2.5)], arrays)
    assert sender.returncode == 0


def test_a_zeromq_peer_vanishes_in_the_middle_of_a_message(sockets, tmp_path) -> None:
    """A peer that is killed half way through leaves no half message, and the receiver does not wait for ever."""
    into = sockets(zmq.PULL, bind=f"ipc://{tmp_path}/s")
    with start(SENDER, f"ipc://{tmp_path}/s", "half") as sender:
        assert same([np.arange(5)], tenbin.zrecv_multipart(into, timeout=60))
        assert sender.stdout.readline() == "sent\n"
        os.kill(sender.pid, signal.SIGKILL)
    with pytest.raises(TransferTimeoutError, match=r"no ZeroMQ message came within 0.5 s; is the peer there"):
        tenbin.zrecv_multipart(into, timeout=0.5)
    with start(SENDER, f"ipc://{tmp_path}/s", "all"):
        assert same([np.arange(5), np.array(2.5)], tenbin.zrecv_single(into, timeout=60))


@PAIRS
def test_nobody_takes_what_is_sent(sockets, send, receive, tmp_path) -> None:
    """Where there is no peer, sending ends with the timeout, of the call or of the socket; so does receiving."""
    out, into = sockets(zmq.PUSH, bind=f"ipc://{tmp_path}/a"), sockets(zmq.PULL, bind=f"ipc://{tmp_path}/b")
    with pytest.raises(TransferTimeoutError, match=r"could be sent, because nobody takes it within 0\.1 s"):
        send(out, [VALUES[0]], timeout=0.1)
    with pytest.raises(TimeoutError, match="no ZeroMQ message came"):
        receive(into, timeout=0)
    out.sndtimeo = into.rcvtimeo = 50
    with pytest.raises(zmq.Again):
        send(out, [VALUES[0]])
    with pytest.raises(zmq.Again):
        receive(into)
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        receive(into, timeout="soon")


def test_wrong_zeromq_messages(sockets, tmp_path) -> None:
    """Wrong magic, half messages and the other kind of message are errors that say so; the next message is read."""
    out, into = sockets(zmq.PUSH, bind=f"ipc://{tmp_path}/s"), sockets(zmq.PULL, connect=f"ipc://{tmp_path}/s")
    single, parts = bytes(tenbin.encode_buffer(VALUES)), tenbin.encode_list(VALUES)
    wrong = [
        (tenbin.zrecv_single, [b"GET / HTTP/1.1\r\n\r\n"], r"magic bytes mismatch: b'GET / HT' .* \(byte 0\)"),
        (tenbin.zrecv_single, [single[:1000]], r"claims 800000 bytes, 488 are there \(byte 496\)"),
        (tenbin.zrecv_single, [single[:8]], r"cut in the head of a chunk \(byte 0\)"),
        (tenbin.zrecv_single, parts, "a ZeroMQ message of 8 parts, 1 expected; zrecv_multipart"),
        (tenbin.zrecv_multipart, parts[:-1], "ends after the header of an array"),
        (tenbin.zrecv_multipart, [*parts[:-1], parts[-1][:9]], "needs 800000 bytes, its chunk has 9"),
        (tenbin.zrecv_multipart, parts[1:], "header of 48 bytes|unsupported tenbin array type"),
        (tenbin.zrecv_multipart, [single], "a ZeroMQ message of one part, two an array expected; zrecv_single"),
        (tenbin.zrecv_multipart, [b""], "header of 0 bytes"),
    ]
    for receive, message, match in wrong:
        out.send_multipart(message)
        tenbin.zsend_single(out, [np.arange(3)])
        with pytest.raises(DecodingError, match=match):
            receive(into, timeout=30)
        assert same([np.arange(3)], tenbin.zrecv_single(into, timeout=30))
    with pytest.raises(ValueError, match="at least one array"):
        tenbin.zsend_multipart(out, [])


@pytest.fixture
def seqpacket(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening AF_UNIX SOCK_SEQPACKET socket, which keeps messages apart as SCTP does, and its address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        yield listener, str(tmp_path / "s")


def test_arrays_cross_seqpacket_sockets(seqpacket) -> None:
    """Over AF_UNIX SOCK_SEQPACKET, in place of SCTP: each message comes by a connection of its own, or all by one."""
    listener, address = seqpacket
    for values, labels in ((VALUES[:3], LABELS[:3]), ([], [])):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sender:
            tenbin.sctp_send(sender, address, values or [VALUES[0]], labels or ["x"])
            arrays, found = tenbin.sctp_recv(listener, infos=True, timeout=30)
            assert same(values or [VALUES[0]], arrays)
            assert found == (labels or ["x"])
            assert arrays[0].flags.writeable
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        for n in range(3):
            tenbin.sctp_send(left, None, [np.arange(n)])
        for n in range(3):
            assert same([np.arange(n)], tenbin.sctp_recv(right))
        assert left.gettimeout() is right.gettimeout() is None


def test_seqpacket_peers_that_vanish(seqpacket) -> None:
    """Over AF_UNIX SOCK_SEQPACKET: a peer that says nothing, goes without a word, or is not there is an error."""
    listener, address = seqpacket
    with pytest.raises(TransferTimeoutError, match=r"no message was received within 0\.1 s"):
        tenbin.sctp_recv(listener, timeout=0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(address)
        with pytest.raises(TimeoutError, match="no message was received"):
            tenbin.sctp_recv(listener, timeout=0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.connect(address)
    with pytest.raises(ConnectionLostError, match="closed the connection before a message came"):
        tenbin.sctp_recv(listener, timeout=30)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    right.close()
    with left, pytest.raises(ConnectionLostError, match="the peer is gone, no message was sent"):
        tenbin.sctp_send(left, None, [np.arange(3)])
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lonely,
        pytest.raises(OpenError, match="no message was sent: No such file"),
    ):
        tenbin.sctp_send(lonely, address + "x", [np.arange(3)])


@contextmanager
def full_connection() -> Iterator[socket.socket]:
    """One end of a connection over AF_UNIX SOCK_SEQPACKET whose other end reads nothing, and which takes no more."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.setblocking(False)
        with pytest.raises(BlockingIOError):
            [left.send(bytes(10_000)) for _ in range(1000)]
        left.setblocking(True)
        yield left


def test_a_seqpacket_peer_that_takes_nothing() -> None:
    """Over AF_UNIX SOCK_SEQPACKET: a full connection ends the sender's wait after the timeout."""
    with full_connection() as left, pytest.raises(TransferTimeoutError, match=r"no message was sent within 0\.1 s"):
        tenbin.sctp_send(left, None, [np.arange(5000)], timeout=0.1)


def test_wrong_seqpacket_messages() -> None:
    """Over AF_UNIX SOCK_SEQPACKET: wrong magic, half messages, and messages beyond `maxsize` are refused, and go."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data = bytes(tenbin.encode_buffer([np.arange(1000)]))
    with left, right:
        for message, match in (
            (b"hello, this is no tensor", r"magic bytes mismatch: b'hello, t' .* \(byte 0\)"),
            (data[:1000], r"claims 8000 bytes, 904 are there \(byte 80\)"),
        ):
            left.send(message)
            tenbin.sctp_send(left, None, [np.arange(3)])
            with pytest.raises(DecodingError, match=match):
                tenbin.sctp_recv(right, timeout=30)
            assert same([np.arange(3)], tenbin.sctp_recv(right, timeout=30))
        left.send(data)
        with pytest.raises(DecodingError, match="a message of more than 999 bytes; raise maxsize"):
            tenbin.sctp_recv(right, maxsize=999, timeout=30)
        left.send(data)
        assert same([np.arange(1000)], tenbin.sctp_recv(right, maxsize=len(data), timeout=30))
        with pytest.raises(OpenError, match=r"a message of \d+ bytes is too long for the socket; raise its SO_SNDBUF"):
            tenbin.sctp_send(left, None, [np.arange(1_000_000)])


def test_a_long_timeout_overflowed(sockets, tmp_path) -> None:
    """Any time from 0 on may be waited for, also without end; -1 is no time."""
    out = sockets(zmq.PUSH, bind=f"ipc://{tmp_path}/z")
    into = sockets(zmq.PULL, connect=f"ipc://{tmp_path}/z")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        for seconds in (1e12, float("inf")):
            tenbin.zsend_single(out, VALUES[:1], timeout=seconds)
            assert same(VALUES[:1], tenbin.zrecv_single(into, timeout=seconds))
            for sender, receiver in ((left, right), (OwnMethods(left), OwnMethods(right))):
                tenbin.sctp_send(sender, None, VALUES[:1], timeout=seconds)
                assert same(VALUES[:1], tenbin.sctp_recv(receiver, timeout=seconds))
    with pytest.raises(ValueError, match=r"timeout must be a number of seconds, 0 or more, got -1"):
        tenbin.zsend_single(out, VALUES[:1], timeout=-1)


class OwnMethods:
    """A socket as pysctp has it, over AF_UNIX SOCK_SEQPACKET: its methods know the descriptor and no timeout."""

    def __init__(self, inner: socket.socket, events: int = 0) -> None:
        self.inner, self.events = inner, events

    def accept(self) -> tuple[OwnMethods, Any]:
        peer, address = self.inner.accept()
        return OwnMethods(peer), address

    def sctp_send(self, msg: bytes, to: tuple[str, int] = ("", 0)) -> int:
        return os.write(self.fileno(), msg)

    def sctp_recv(self, maxlen: int) -> tuple[Any, int, bytes | None, Any]:
        if self.events:
            self.events -= 1
            return None, 0x8000, None, "somebody has come"
        data = os.read(self.fileno(), maxlen)
        return None, 0 if len(data) == maxlen else socket.MSG_EOR, data, None

    def fileno(self) -> int:
        return self.inner.fileno()

    def close(self) -> None:
        self.inner.close()

    def getsockopt(self, *args: int) -> Any:
        return self.inner.getsockopt(*args)


def test_a_timeout_with_methods_of_pysctp_was_none(seqpacket) -> None:
    """Over a stand-in: sockets with methods of their own wait as long as asked, and skip what is no message."""
    listener, address = seqpacket
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        mine, other = OwnMethods(left), OwnMethods(right, events=2)
        with pytest.raises(TransferTimeoutError, match=r"no message was received within 0\.1 s"):
            tenbin.sctp_recv(mine, timeout=0.1)
        later = threading.Timer(0.2, tenbin.sctp_send, (mine, None, VALUES[:3], LABELS[:3]))
        later.start()
        arrays, labels = tenbin.sctp_recv(other, infos=True, timeout=30)
        later.join()
        assert same(VALUES[:3], arrays)
        assert labels == LABELS[:3]
        tenbin.sctp_send(mine, ("127.0.0.1", 7), VALUES[:3])
        with pytest.raises(DecodingError, match="a message of more than 99 bytes; raise maxsize"):
            tenbin.sctp_recv(other, maxsize=99)
        right.close()
        with pytest.raises(ConnectionLostError, match="the peer is gone, no message was sent"):
            tenbin.sctp_send(mine, None, VALUES[:3])
    with pytest.raises(TransferTimeoutError):
        tenbin.sctp_recv(OwnMethods(listener), timeout=0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(address)
        with pytest.raises(TransferTimeoutError):
            tenbin.sctp_recv(OwnMethods(listener), timeout=0.1)
    with full_connection() as left, pytest.raises(TransferTimeoutError, match=r"no message was sent within 0\.1 s"):
        tenbin.sctp_send(OwnMethods(left), None, VALUES[:3], timeout=0.1)


def test_sockets_that_keep_no_messages_apart() -> None:
    """A stream socket, or something that is no socket, is refused with the advice what to use."""
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(OpenError, match=r"does not keep messages apart; sctp_socket\(\) opens an SCTP one"):
            tenbin.sctp_send(left, None, [np.arange(3)])
        with pytest.raises(OpenError, match="does not keep messages apart"):
            tenbin.sctp_recv(right)
    for call in (lambda: tenbin.sctp_send(3, None, []), lambda: tenbin.sctp_recv("s")):
        with pytest.raises(TypeError, match="expected a socket that sends messages"):
            call()


def kernel_has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
    except OSError:
        return False
    return True


def test_sctp() -> None:
    """Arrays cross SCTP where the kernel has it; where it has not, opening a socket says so and what to do."""
    if not kernel_has_sctp():
        with pytest.raises(OpenError, match="this kernel has no SCTP; on Linux the module sctp brings it"):
            tenbin.sctp_socket()
        return
    with tenbin.sctp_socket(("127.0.0.1", 0)) as listener, tenbin.sctp_socket() as sender:
        thread = threading.Thread(
            target=tenbin.sctp_send, args=(sender, listener.getsockname(), VALUES[:3], LABELS[:3])
        )
        thread.start()
        arrays, labels = tenbin.sctp_recv(listener, infos=True, timeout=30)
        thread.join()
        assert same(VALUES[:3], arrays)
        assert labels == LABELS[:3]
    kind = (socket.AF_INET, socket.SOCK_SEQPACKET, 132)
    with socket.socket(*kind) as listener, socket.socket(*kind) as sender:  # all peers by one socket
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for n in range(3):
            tenbin.sctp_send(sender, listener.getsockname(), [np.arange(n)], timeout=30)
            assert same([np.arange(n)], tenbin.sctp_recv(listener, timeout=30))
