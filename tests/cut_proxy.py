"""A TCP proxy that cuts a connection after the server did what it was asked, and before it could say so.

For the conformance suites of both ports: the client must find out by itself whether its write counts.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

CHUNK = 1 << 16


class CutProxy:
    """Listens on a free port of `listen`, and passes everything on to `(host, port)` but what is cut."""

    def __init__(self, host: str, port: int, listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server((listen, 0))
        self.host, self.port = self._listener.getsockname()[:2]
        self._lock = threading.Lock()
        self._marker = b""
        self._cuts = 0
        self._refuses = False
        self._sockets: set[socket.socket] = set()
        self.cut = threading.Event()  # a reply was dropped
        self.dropped = 0  # how many replies
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CutProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def drop_reply_to(self, marker: bytes, times: int = 1) -> None:
        """Pass on the next `times` requests that hold `marker`, and cut instead of passing on their replies."""
        with self._lock:
            self._marker, self._cuts = marker, times
            self.cut.clear()

    def cut_all(self) -> None:
        """Cut every connection now."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _shut(each)

    def refuse(self, does: bool) -> None:
        """Cut every connection and take none, until it is told otherwise."""
        self._refuses = does
        if does:
            self.cut_all()

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        _shut(self._listener)
        self.cut_all()

    # --- inside

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refuses:
                    _shut(client)
                    continue
                try:
                    server = socket.create_connection(self._target, timeout=10)
                except OSError:
                    _shut(client)
                    continue
                server.settimeout(None)
                with self._lock:
                    self._sockets |= {client, server}
                doomed = threading.Event()
                for act in (self._requests, self._replies):
                    threading.Thread(target=act, args=(client, server, doomed), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        tail = b""  # a marker may lie across two pieces
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                seen = tail + data
                with self._lock:
                    if self._cuts and self._marker in seen:
                        self._cuts -= 1
                        seen = b""
                        doomed.set()  # before the request is passed on: its reply finds it set
                tail = seen[-len(self._marker) :] if self._marker else b""
                server.sendall(data)
        self._end(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                if doomed.is_set():
                    self.dropped += 1
                    self.cut.set()
                    break
                client.sendall(data)
        self._end(client, server)

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            _shut(each)
        with self._lock:
            self._sockets -= {*sockets}


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
