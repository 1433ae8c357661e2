"""Servers that somebody else runs, named by a URL in the environment: asked for empty databases, and never stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from scripts.servers.parts import database_of, new_name, with_database


class Source(Protocol):
    """Where empty databases (virtual hosts) come from; every server of ours is one."""

    @property
    def url(self) -> str:
        """The URL of the first of them."""

    def fresh(self) -> str:
        """The URL of an empty one, which nobody else uses."""

    def delete(self, url: str) -> None:
        """Delete it again."""


@dataclass(frozen=True, slots=True)
class Given:
    """One at `url`, and how a database is made and deleted there."""

    url: str
    create: Callable[[], str]
    drop: Callable[[str], None]

    def fresh(self) -> str:
        """The URL of an empty one, which nobody else uses."""
        return self.create()

    def delete(self, url: str) -> None:
        """Delete it again."""
        self.drop(url)


@dataclass(frozen=True, slots=True)
class SqlDatabases:
    """Databases made beside the one of a URL, by statements that `run_sql(url, text)` runs there."""

    run_sql: Callable[[str, str], None]
    drop_suffix: str = ""  # what the server's DROP DATABASE says behind the name

    def given(self, url: str) -> Given:
        """One that somebody else runs; the user of its URL may make databases."""
        return Given(url, lambda: self.create(url), lambda made: self.drop(url, made))

    def create(self, url: str) -> str:
        """A new database beside the one of `url`; its URL. Raises the driver's errors."""
        name = new_name()
        self.run_sql(url, f"CREATE DATABASE {name}")
        return with_database(url, name)

    def drop(self, url: str, made: str) -> None:
        """Drop the database `made`. Raises the driver's errors."""
        self.run_sql(url, f"DROP DATABASE IF EXISTS {database_of(made)}{self.drop_suffix}")
