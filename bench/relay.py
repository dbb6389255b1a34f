"""A far server on loopback: `python bench/relay.py PORT MILLISECONDS BYTES` relays to a near one, and prints its port.

Each connection answers so many milliseconds later and gives at most so many bytes a second.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

PIECE = 1 << 18
WAITING = 16
"""Pieces that a connection may have on the way."""


def carry(source: socket.socket, sink: socket.socket, delay: float, rate: float) -> None:
    """Give what comes to the other side, later and more slowly."""
    way: queue.Queue[tuple[float, bytes]] = queue.Queue(WAITING)
    threading.Thread(target=deliver, args=(way, sink, rate), daemon=True).start()
    piece = int(min(PIECE, rate / 50))
    with contextlib.suppress(OSError):
        while data := source.recv(piece):
            way.put((time.perf_counter() + delay, data))
    way.put((0.0, b""))


def deliver(way: queue.Queue[tuple[float, bytes]], sink: socket.socket, rate: float) -> None:
    """Send each piece when its time has come, and not before what was sent last would be through."""
    free = 0.0
    with contextlib.suppress(OSError):
        while True:
            due, data = way.get()
            if not data:
                break
            free = max(free, time.perf_counter() - 0.02) + len(data) / rate
            time.sleep(max(0.0, due - time.perf_counter(), free - time.perf_counter()))
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
    while way.get()[1]:  # the other thread may be waiting for room
        pass


def main() -> None:
    """Relay until the process is ended."""
    port, milliseconds, rate = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for side in (near, far):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small answers wait for nothing else
        threading.Thread(target=carry, args=(near, far, 0.0, float("inf")), daemon=True).start()
        threading.Thread(target=carry, args=(far, near, milliseconds / 1e3, rate), daemon=True).start()


if __name__ == "__main__":
    main()
