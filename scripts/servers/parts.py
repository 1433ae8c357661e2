"""Small parts that every server needs: its errors, a port, a folder, a program, the end of a log."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

HOST = "127.0.0.1"
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT = 20_000
LAST_WORDS = 2000  # characters of a log that an error shows
_taken: set[int] = set()
_numbers = count(1)


class ServerError(Exception):
    """A server did not do what it was asked; its own log is part of the message."""


class NotHere(ServerError):
    """There is no such server on this machine: which, why it is needed, and the command that gets it."""

    def __init__(self, server: str, why: str, command: str) -> None:
        super().__init__(f"no {server} on this machine ({why}): {command}")
        self.server, self.why, self.command = server, why, command


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that no outgoing connection will be given.

    So it stays free while a server that had it is away: a client that tries again and again would otherwise be
    connected to itself one day.
    """
    try:
        top = int(EPHEMERAL.read_text().split()[0])
    except OSError:
        top = 32_768
    ports = range(min(LOWEST_PORT, top - 5_000), top)
    for _ in range(1_000):
        port = random.choice(ports)
        if port in _taken:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _taken.add(port)
            return port
    raise ServerError("no free port was found")


def make_folder(name: str, inside: Path | None) -> Path:
    """A new folder that only its server uses, in `inside` or where temporary files go."""
    if inside is not None:
        inside.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"synergy-{name}-", dir=inside)).resolve()


def find_program(name: str, places: Sequence[str] = (), *, places_first: bool = False) -> Path | None:
    """The program on PATH, or the last one (the highest version) in one of `places`, which are globs."""
    found = shutil.which(name)
    if found and not places_first:
        return Path(found)
    for place in places:
        anchor = Path(place).anchor
        for path in sorted(Path(anchor).glob(str(Path(place, name).relative_to(anchor))), reverse=True):
            if os.access(path, os.X_OK):
                return path
    return Path(found) if found else None


def new_name() -> str:
    """The name of a database that is in use nowhere."""
    return f"t{os.getpid()}_{secrets.token_hex(2)}_{next(_numbers)}"


def database_of(url: str) -> str:
    """The database, or virtual host, that a URL names; as it stands there."""
    return url.partition("?")[0].rpartition("/")[2]


def with_database(url: str, name: str) -> str:
    """The same URL with another database."""
    place, mark, query = url.partition("?")
    scheme, _, rest = place.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{name}{mark}{query}"


def last_words(*logs: Path) -> str:
    """The end of the logs that exist."""
    texts = [log.read_text(errors="replace")[-LAST_WORDS:].strip() for log in logs if log.is_file()]
    return "\n".join(filter(None, texts)) or "its log is empty"


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False
