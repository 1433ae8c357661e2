"""Doorbells: how a publisher makes a waiting consumer look, well under a millisecond after the commit.

A bell carries no message, it only says look: MESSAGE (something may be there), NUDGE (come out of `receive`
even if nothing is) or WAKE (the same, from the consumer's own process). Lost rings cost a poll's second,
surplus ones a look. `SocketBell` is a Unix datagram socket in a private folder of the machine's temporary
folder: its path may have no more than 107 bytes, so it never lies beside the queue file, whose path may be
long. Where no such folder can be had, Linux gives an address without a file. `EventBell` is its twin
without sockets, for the broker in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

MESSAGE, NUDGE, WAKE = b"m", b"n", b"w"
MAX_PATH = 107  # bytes of a Unix socket's path


class Doorbell(Protocol):
    """What a consumer waits on."""

    address: str

    def drain(self) -> bool:
        """Forget all rings so far; whether a NUDGE or WAKE was among them."""

    def wait(self, timeout_s: float) -> None:
        """Return when it rings, or after `timeout_s`."""

    def wake(self) -> None:
        """Ring WAKE; from any thread, never lost."""

    def fileno(self) -> int | None:
        """Readable while there are rings, if it has a descriptor."""

    def close(self) -> None:
        """Take it down; may be called twice."""


class SocketBell:
    """A Unix datagram socket, bound as `<folder>/<consumer id>`. Raises OSError if none can be bound."""

    def __init__(self, folder: Path | None, consumer: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self.address = self._bind(folder, consumer)
        except OSError:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)
        self._woken = False
        self._closed = False

    def _bind(self, folder: Path | None, consumer: int) -> str:
        if folder is not None:
            address = str(folder / f"{consumer:x}")
            self._socket.bind(address)
            return address
        self._socket.bind("")  # Linux: the kernel chooses a name of its own, no file
        name = self._socket.getsockname()
        return "@" + (name[1:].decode("ascii") if isinstance(name, bytes) else str(name))

    def drain(self) -> bool:
        """As `Doorbell.drain`."""
        called = self._woken
        if called:
            self._woken = False
        while self._poll.poll(0):
            try:
                called |= self._socket.recv(1) != MESSAGE
            except BlockingIOError:
                break
        return called

    def wait(self, timeout_s: float) -> None:
        """As `Doorbell.wait`."""
        self._poll.poll(int(timeout_s * 1000) + 1)

    def wake(self) -> None:
        """As `Doorbell.wake`."""
        self._woken = True  # the ring itself may find the socket's buffer full
        if not self._closed:
            ring(self._socket, self.address, WAKE)

    def fileno(self) -> int | None:
        """As `Doorbell.fileno`."""
        return self._socket.fileno()

    def close(self) -> None:
        """As `Doorbell.close`."""
        if not self._closed:
            self._closed = True
            self._socket.close()
            unlink_socket(self.address)


class EventBell:
    """The bell inside one process."""

    def __init__(self, consumer: int) -> None:
        self.address = f"memory:{consumer}"
        self._rung = threading.Event()
        self._called = False

    def ring(self, kind: bytes) -> None:
        """Ring it."""
        if kind != MESSAGE:
            self._called = True
        self._rung.set()

    def drain(self) -> bool:
        """As `Doorbell.drain`."""
        self._rung.clear()
        called = self._called
        if called:
            self._called = False
        return called

    def wait(self, timeout_s: float) -> None:
        """As `Doorbell.wait`."""
        self._rung.wait(timeout_s)

    def wake(self) -> None:
        """As `Doorbell.wake`."""
        self.ring(WAKE)

    def fileno(self) -> int | None:
        """It has none."""
        return None

    def close(self) -> None:
        """Nothing to take down."""


def ringer() -> socket.socket:
    """The socket a publisher rings with; safe to share between threads."""
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sender.setblocking(False)
    return sender


def ring(sender: socket.socket, address: str, kind: bytes) -> bool:
    """Ring the bell at `address`; False if nobody is behind it. A full buffer means it rings already."""
    try:
        sender.sendto(kind, "\0" + address[1:] if address.startswith("@") else address)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True  # best effort: the consumer looks by itself within a second
    return True


def runtime_folder(queue_file: str) -> Path | None:
    """The private folder for the sockets of `queue_file`, made if need be; None if there is no safe place."""
    digest = hashlib.sha256(os.path.realpath(queue_file).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 (a private folder in it)
    for base in dict.fromkeys(places):
        folder = Path(base, f"synergy-{os.getuid()}", digest)
        if (
            len(os.fsencode(folder)) + 1 + 12 <= MAX_PATH
            and _is_private(folder.parent)
            and _is_private(folder)
        ):
            return folder
    return None


def unlink_socket(address: str) -> None:
    """Remove the file of a socket, if it is one; what is not a socket of ours is left alone."""
    if address.startswith("/") and Path(address).parent.parent.name == f"synergy-{os.getuid()}":
        with contextlib.suppress(OSError):  # another removed it first, or the folder has more in it
            if stat.S_ISSOCK(os.lstat(address).st_mode):
                Path(address).unlink()
                Path(address).parent.rmdir()  # succeeds for the last one


def socket_files(folder: Path) -> Iterator[tuple[int, str]]:
    """`(consumer id, address)` of each socket file in `folder`."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # no folder: no sockets
        for entry in entries:
            with contextlib.suppress(ValueError):  # the name of something else
                yield int(entry.name, 16), entry.path


def _is_private(folder: Path) -> bool:
    """Make `folder`, or trust it only if it is a real folder, ours, and closed to others."""
    with contextlib.suppress(OSError):  # what is there then is looked at below
        folder.mkdir(0o700)
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
