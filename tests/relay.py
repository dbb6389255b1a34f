"""A relay on loopback before a real server, that cuts connections: what a bad network does to a good server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def cutting_relay(port: int, cuts: Sequence[int]) -> Iterator[int]:
    """The port of a relay to `port` that closes its first connections after so many bytes of what the server sends.

    Connection number i is cut after cuts[i] bytes, headers included; those behind the last of them are left alone.
    """
    left = list(cuts)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                open_sockets.extend((client, server))
                cut = left.pop(0) if left else None
                for work in ((client, server, None), (server, client, cut)):
                    threads.append(threading.Thread(target=_copy, args=work, name="test relay"))
                    threads[-1].start()

    accepting = threading.Thread(target=accept, name="test relay")
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for each in open_sockets:
            _hang_up(each)
        for thread in threads:
            thread.join()
        for each in open_sockets:
            each.close()


def _copy(source: socket.socket, sink: socket.socket, count: int | None) -> None:
    """Copy up to `count` bytes, or all; then end both connections."""
    with contextlib.suppress(OSError):
        while count is None or count > 0:
            data = source.recv(65536 if count is None else min(count, 65536))
            if not data:
                break
            sink.sendall(data)
            count = None if count is None else count - len(data)
    _hang_up(source)
    _hang_up(sink)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
