"""A private Redis server, for the dispatch back ends that want one. No driver is needed."""

from __future__ import annotations

import socket
from itertools import count
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from scripts.servers.given import Given
from scripts.servers.need import Need
from scripts.servers.parts import HOST, ServerError
from scripts.servers.server import Server

DATABASES = 1000
_numbers = count(1)


NEED = Need(
    name="redis",
    title="Redis",
    why="carries the commands of the dispatch back ends that use it",
    variable="SYNERGY_TEST_REDIS_URL",
    programs=("redis-server",),
    places=("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"),
    packages=(("redis-server",),),
    image="docker.io/library/redis:7",
)


class Redis(Server):
    """One server that writes every change to its file at once."""

    need: ClassVar[Need] = NEED

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

    def delete(self, url: str) -> None:
        """Empty the database that a URL names."""
        say(url, "FLUSHDB")

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "databases": str(DATABASES),
            "daemonize": "no",
        }
        return [
            self._tool("redis-server"),
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    def _answers(self) -> bool:
        return say(self.url, "PING") == "+PONG"


def redis(inside: Path | None = None) -> Redis:
    """One server with a folder in `inside`, or where temporary files go."""
    return Redis(inside)


def given(url: str) -> Given:
    """One that somebody else runs: redis://host:port/number. Its only database is the one that was given."""
    return Given(url, lambda: _emptied(url), lambda made: None)


def say(url: str, command: str) -> str:
    """The first line that the database of `url` answers to a command. Raises OSError."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or HOST, parts.port or 6379), 5) as connection:
        connection.sendall(f"SELECT {parts.path.strip('/') or 0}\r\n{command}\r\n".encode())
        with connection.makefile("rb") as answers:
            answers.readline()
            return answers.readline().decode().strip()


def _emptied(url: str) -> str:
    say(url, "FLUSHDB")
    return url
