"""Connections, and what a database has of its own.

`Database` is all that an SQL adapter adds to `db.sql`: how to connect, its grammar, its clock, and
what its errors mean. A session is one connection; a pool keeps those that are idle.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol

from db.statement import Grammar
from scheduler.core.errors import StoreUnavailable

Values = Sequence[Any]


class Session(Protocol):
    """A connection that commits every statement by itself, unless begun."""

    def query(self, sql: str, values: Values) -> list[Any]:
        """All rows of a query."""

    def run(self, sql: str, rows: Sequence[Values]) -> int:
        """Run a statement once per row of values; how many rows of the table it hit."""

    def begin(self) -> None:
        """Begin a transaction that writes; wait for its turn."""

    def commit(self) -> None:
        """End it."""

    def rollback(self) -> None:
        """Undo it; nothing happens if none was begun."""

    def close(self) -> None:
        """Let go of the connection; never raises."""


class Pool(Protocol):
    """Where sessions are borrowed."""

    def borrow(self) -> Session:
        """A session for one thread, until it is given back or discarded."""

    def give(self, session: Session) -> None:
        """Give back one that is as it was."""

    def discard(self, session: Session) -> None:
        """Give back one that saw an error."""

    def close(self) -> None:
        """Close the idle ones now and the others when they come back."""


class Database(ABC):
    """What a database has of its own. `driver_error` is the driver's root exception."""

    grammar: Grammar
    driver_error: type[Exception]
    explain: str  # what is put before a query to be told its plan

    @abstractmethod
    def pool(self) -> Pool:
        """A new pool of sessions."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's clock."""

    @abstractmethod
    def translate(self, error: Exception) -> Exception:
        """The port's error for a driver's; a bug (no such column) comes back as it is."""

    @abstractmethod
    def tables(self, session: Session) -> set[str]:
        """The names of the tables that are there."""

    @abstractmethod
    def indexes(self, session: Session) -> set[str]:
        """The names of the indexes that are there."""

    @abstractmethod
    def columns(self, session: Session, table: str) -> set[str]:
        """The names of the columns of a table that is there."""

    def prepare(self) -> None:
        """Before the schema is looked at: may refuse (ConfigError) what is not ours, untouched."""

    def prepare_schema(self, session: Session) -> None:
        """At the beginning of the transaction that makes the schema: one such transaction at a time."""

    def settle(self, session: Session) -> None:
        """Settings that belong to a whole database of ours, made once it is known to be ours."""

    def tune(self, session: Session) -> None:
        """What helps the planner, in the transaction that made the schema."""

    def start(self) -> None:
        """Begin maintenance, if this process was asked for it; called again and again."""

    def stop(self) -> None:
        """End maintenance."""


class SessionPool:
    """Idle sessions, last in first out; none is ever shared, nor carried over a fork."""

    _orphans: ClassVar[
        list[Any]
    ] = []  # a child must not close its parent's connections, nor have them collected

    def __init__(self, connect: Callable[[], Session]) -> None:
        self._connect = connect
        self._idle: list[Session] = []
        self._pid = os.getpid()
        self._closed = False

    def borrow(self) -> Session:
        """As `Pool.borrow`."""
        if self._closed:
            raise StoreUnavailable("the store was closed")
        if self._pid != os.getpid():
            self._orphans.append(self._idle)
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def give(self, session: Session) -> None:
        """As `Pool.give`."""
        self._idle.append(session)
        if self._closed:
            self.close()

    def discard(self, session: Session) -> None:
        """As `Pool.discard`: an error may mean that the others are stale as well."""
        session.close()
        self._drain()

    def close(self) -> None:
        """As `Pool.close`."""
        self._closed = True
        self._drain()

    def _drain(self) -> None:
        while self._idle and self._pid == os.getpid():
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return
