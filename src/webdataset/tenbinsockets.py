"""Lists of arrays <-> messages, over ZeroMQ and over SCTP.

A single message, and an SCTP one, is a tenbin file; a multipart message has the payloads of the chunks as its parts:
header, data, header, data, ... . Messages arrive whole or not at all, so whatever is half was sent half, and says
so. Times are seconds; without one, the timeout of the socket itself holds.
"""

from __future__ import annotations

import errno
import selectors
import socket as sockets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arguments import check_number
from ._optional import require
from .errors import ConnectionLostError, DecodingError, OpenError, TransferTimeoutError, WebDatasetError
from .tenbinformat import MAGIC, decode_buffer, decode_list, encode_buffer, encode_list

_SCTP = 132  # the protocol's number; not every Python has a name for it
_UNSUPPORTED = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT)
_LONGEST = 2e6  # seconds, which every way of waiting takes
_NOTIFICATION = getattr(sockets, "MSG_NOTIFICATION", 0x8000)


def zsend_single(
    socket: Any,
    l: list[Any],  # noqa: E741 published name
    infos: Sequence[str] | None = None,
    *,
    timeout: float | None = None,
) -> None:
    """Send arrays as one ZeroMQ message of one part.

    Raises:
        TransferTimeoutError: no peer took it within `timeout` seconds; it was not sent.
    """
    data = encode_buffer(l, infos)
    _await(socket, "POLLOUT", timeout)
    socket.send(data)


def zrecv_single(socket: Any, infos: Any = False, *, timeout: float | None = None) -> Any:
    """The arrays of the next ZeroMQ message, which has one part; they are views of the message where that is aligned.

    Raises:
        DecodingError: the message is no tenbin, or has several parts.
        TransferTimeoutError: none came within `timeout` seconds.
    """
    _await(socket, "POLLIN", timeout)
    parts = socket.recv_multipart(copy=False)
    if len(parts) > 1:
        raise DecodingError(message=f"a ZeroMQ message of {len(parts)} parts, 1 expected; zrecv_multipart reads those")
    return decode_buffer(parts[0].buffer, infos)


def zsend_multipart(
    socket: Any,
    l: list[Any],  # noqa: E741 published name
    infos: Sequence[str] | None = None,
    *,
    timeout: float | None = None,
) -> None:
    """Send arrays as one ZeroMQ message with two parts an array.

    Raises:
        TransferTimeoutError: no peer took it within `timeout` seconds; it was not sent.
    """
    parts = encode_list(l, infos)
    if not parts:
        raise ValueError("zsend_multipart: a ZeroMQ message has at least one part, so at least one array is needed")
    _await(socket, "POLLOUT", timeout)
    socket.send_multipart(parts)


def zrecv_multipart(socket: Any, infos: Any = False, *, timeout: float | None = None) -> Any:
    """The arrays of the next ZeroMQ message, which has two parts an array.

    Raises:
        DecodingError: the parts are not headers and data of arrays.
        TransferTimeoutError: none came within `timeout` seconds.
    """
    _await(socket, "POLLIN", timeout)
    parts = [frame.buffer for frame in socket.recv_multipart(copy=False)]
    if len(parts) == 1 and bytes(parts[0][:8]) == MAGIC:
        raise DecodingError(message="a ZeroMQ message of one part, two an array expected; zrecv_single reads those")
    return decode_list(parts, infos)


def _await(socket: Any, event: str, timeout: float | None) -> None:
    """Wait until the socket can do it; at most so long."""
    if timeout is None:
        return
    check_number("tenbin", "timeout", timeout, "seconds", least=0)
    zmq = require("zmq", "pyzmq", "sending arrays over ZeroMQ")
    if not socket.poll(min(_LONGEST, timeout) * 1000, getattr(zmq, event)):
        what = "came" if event == "POLLIN" else "could be sent, because nobody takes it"
        raise TransferTimeoutError(f"no ZeroMQ message {what} within {timeout:g} s; is the peer there?")


def sctp_socket(address: Any = None, *, family: int = sockets.AF_INET) -> sockets.socket:
    """An SCTP socket of this kernel; with an address, one that listens there.

    Raises:
        OpenError: the kernel has no SCTP, or the address cannot be used.
    """
    try:
        socket = sockets.socket(family, sockets.SOCK_STREAM, _SCTP)
    except OSError as exn:
        fact = f"an SCTP socket cannot be opened: {exn.strerror}"
        if exn.errno in _UNSUPPORTED:
            fact = "this kernel has no SCTP; on Linux the module sctp brings it (as root: modprobe sctp)"
        raise OpenError(fact) from exn
    if address is not None:
        try:
            socket.bind(address)
            socket.listen()
        except OSError as exn:
            socket.close()
            raise OpenError(f"an SCTP socket cannot listen at {address}: {exn.strerror}") from exn
    return socket


def sctp_send(
    socket: Any,
    dest: Any,
    l: list[Any],  # noqa: E741 published name
    infos: Sequence[str] | None = None,
    *,
    timeout: float | None = None,
) -> None:
    """Send arrays as one SCTP message.

    Args:
        socket: from `sctp_socket`, from the package pysctp, or any other that keeps messages apart.
        dest: address of the receiver, as the socket takes it; a socket that is connected needs none.

    Raises:
        OpenError: nobody listens there, the message is too long for the socket, or the socket keeps none apart.
        TransferTimeoutError: it was not taken within `timeout` seconds.
    """
    data = encode_buffer(l, infos)
    own = hasattr(socket, "sctp_send")
    if not own:
        _check_kind(socket)
    with _Deadline(socket, timeout, "sent", own) as deadline:
        try:
            if own:
                deadline.wait(socket, selectors.EVENT_WRITE)
                sent = socket.sctp_send(bytes(data), **({} if dest is None else {"to": dest}))
                sent = len(data) if sent is None else sent
            elif dest is not None and _has_many_peers(socket):
                sent = socket.sendto(data, dest)
            else:
                if dest is not None and not _is_connected(socket):
                    socket.connect(dest)
                sent = socket.send(data)
        except OSError as exn:
            if exn.errno == errno.EMSGSIZE:
                fact = f"a message of {len(data)} bytes is too long for the socket; raise its SO_SNDBUF, or send fewer"
                raise OpenError(fact) from exn
            raise
    if sent < len(data):
        raise ConnectionLostError(f"{sent} of {len(data)} bytes were sent, the message is cut")


def sctp_recv(socket: Any, infos: Any = False, maxsize: int = 100000000, *, timeout: float | None = None) -> Any:
    """The arrays of the next SCTP message, of at most `maxsize` bytes; a socket that listens takes a new peer for it.

    Raises:
        DecodingError: the message is no tenbin, or longer than `maxsize`.
        ConnectionLostError: the peer went without one.
        TransferTimeoutError: none came within `timeout` seconds.
    """
    own = hasattr(socket, "sctp_recv")
    if not own:
        _check_kind(socket)
    with _Deadline(socket, timeout, "received", own) as deadline:
        listens = socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN) and not _has_many_peers(socket)
        if own:
            deadline.wait(socket, selectors.EVENT_READ)
        peer = socket.accept()[0] if listens else socket
        try:
            data = (_own_message if own else _message)(peer, maxsize, deadline)
        finally:
            if listens:
                peer.close()
    if not data:
        raise ConnectionLostError("the peer closed the connection before a message came")
    return decode_buffer(data, infos)


def _own_message(socket: Any, maxsize: int, deadline: _Deadline) -> Any:
    """One message by the socket's own method, which tells of other events, too."""
    while True:
        deadline.wait(socket, selectors.EVENT_READ)
        _, flags, data, _ = socket.sctp_recv(maxsize)
        if not flags & _NOTIFICATION:
            break
    if data and len(data) >= maxsize and not flags & sockets.MSG_EOR:
        raise DecodingError(message=f"a message of more than {maxsize} bytes; raise maxsize")
    return data


def _message(socket: sockets.socket, maxsize: int, deadline: _Deadline) -> memoryview:
    """One message; memory is taken for what comes of it."""
    view = np.empty(maxsize + 1, np.uint8).data  # untouched pages are no memory
    count = 0
    while True:
        socket.settimeout(deadline.left())
        got, _, flags, _ = socket.recvmsg_into([view[count:]])
        count += got
        if count > maxsize or flags & sockets.MSG_TRUNC:
            raise DecodingError(message=f"a message of more than {maxsize} bytes; raise maxsize")
        if not got or flags & sockets.MSG_EOR or not _comes_in_pieces(socket):
            break
    if count and not got:
        raise ConnectionLostError(f"the peer closed the connection after {count} bytes of a message")
    return memoryview(bytearray(view[:count]))


def _comes_in_pieces(socket: sockets.socket) -> bool:
    """Whether a message may come by several calls, the last of which says that it is the end."""
    return socket.proto == _SCTP


def _check_kind(socket: Any) -> None:
    if not isinstance(socket, sockets.socket):
        raise TypeError(f"expected a socket that sends messages, such as sctp_socket gives, got {socket!r:.100}")
    if socket.type == sockets.SOCK_STREAM and socket.proto != _SCTP:
        raise OpenError(
            "a stream socket does not keep messages apart; sctp_socket() opens an SCTP one, tenbin.write and "
            "tenbin.read serve streams (socket.makefile)"
        )


def _has_many_peers(socket: Any) -> bool:
    """Whether it is an SCTP socket that has all its peers itself, without an accepted socket for each."""
    return getattr(socket, "proto", None) == _SCTP and socket.type == sockets.SOCK_SEQPACKET


def _is_connected(socket: sockets.socket) -> bool:
    try:
        socket.getpeername()
    except OSError:
        return False
    return True


class _Deadline:
    """The timeout of a socket, changed for one exchange, and in words what went wrong with it.

    Methods of their own, as pysctp has them, do not look at that timeout, and fail where it makes a descriptor not
    block: before them is waited, and the timeout stays as it is.
    """

    def __init__(self, socket: Any, timeout: float | None, done: str, own: bool) -> None:
        self._socket, self._done, self._own = socket, done, own
        self._before = socket.gettimeout() if not own or hasattr(socket, "gettimeout") else None
        if timeout is not None:
            check_number("tenbin", "timeout", timeout, "seconds", more_than=0)
        self._seconds = self._before if timeout is None else min(_LONGEST, timeout)
        self._end = None if self._seconds is None else time.monotonic() + self._seconds

    def left(self) -> float | None:
        """Seconds that are left, None for as long as it takes."""
        return None if self._end is None else max(self._end - time.monotonic(), 1e-3)

    def wait(self, socket: Any, event: int) -> None:
        """Wait until the socket is ready for it."""
        with selectors.DefaultSelector() as selector:
            selector.register(socket.fileno(), event)
            if not selector.select(self.left()):
                raise TimeoutError

    def __enter__(self) -> _Deadline:
        if not self._own:
            self._socket.settimeout(self._seconds)
        return self

    def __exit__(self, exc_type: Any, exn: BaseException | None, traceback: Any) -> None:
        if not self._own:
            self._socket.settimeout(self._before)
        if isinstance(exn, WebDatasetError):
            return
        if isinstance(exn, TimeoutError):
            raise TransferTimeoutError(f"no message was {self._done} within {self._seconds:g} s") from exn
        if isinstance(exn, (BrokenPipeError, ConnectionResetError)):
            raise ConnectionLostError(f"the peer is gone, no message was {self._done}: {exn.strerror}") from exn
        if isinstance(exn, OSError):
            raise OpenError(f"no message was {self._done}: {exn.strerror or exn}") from exn
