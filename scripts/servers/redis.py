"""A private Redis server, for the dispatch back ends that want one. No driver is needed."""

from __future__ import annotations

import socket
from itertools import count
from pathlib import Path
from typing import ClassVar

from scripts.servers.parts import HOST, NotHere, ServerError, find_program
from scripts.servers.server import Server

DATABASES = 1000
_numbers = count(1)


def find_redis() -> Path | None:
    """The program, if there is one."""
    return find_program("redis-server", ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"])


class Redis(Server):
    """One server that writes every change to its file at once."""

    name: ClassVar[str] = "redis"

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{self.host}/0"

    def fresh(self) -> str:
        """The URL of a number that nobody had. Raises ServerError after a thousand."""
        number = next(_numbers)
        if number >= DATABASES:
            raise ServerError(f"redis: all {DATABASES} databases were given away")
        return f"redis://{self.host}/{number}"

    def _command(self) -> list[str]:
        program = find_redis()
        if program is None:
            raise NotHere("Redis", "RQ and Celery can use it", "apt install redis-server")
        settings = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "databases": str(DATABASES),
            "daemonize": "no",
        }
        return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"


def redis(inside: Path | None = None) -> Redis:
    """One server with a folder in `inside`, or where temporary files go."""
    return Redis(inside)
