"""A database behind a network as the SQL store sees it, and one connection to it: what PostgreSQL and MariaDB share.

It knows no driver. A connection that was cut while it lay idle is replaced, and what was asked is asked once
more (why that is safe: `db.server`); inside a transaction a cut is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from db.server import Address, ServerClock, given_now
from db.session import Database, Pool, Session, SessionPool, Values
from scheduler.core.ports import Clock

T = TypeVar("T")


class ServerSession(ABC):
    """One connection; a new one takes its place if it was cut while it was idle."""

    lost_error: ClassVar[type[Exception]]  # what the driver raises, among others, when the connection was cut
    close_errors: ClassVar[tuple[type[Exception], ...]]  # of a goodbye that nobody hears any more
    raw: Any  # the driver's connection

    def __init__(self) -> None:
        self._is_begun = False
        self._connect()

    @abstractmethod
    def _connect(self) -> None:
        """Take a new connection."""

    @abstractmethod
    def _is_cut(self) -> bool:
        """Whether the driver knows that the connection is gone."""

    @abstractmethod
    def _begin(self) -> None:
        """Send what begins a transaction."""

    @abstractmethod
    def _commit(self) -> None:
        """Send what commits it."""

    @abstractmethod
    def _rollback(self) -> None:
        """Send what rolls it back."""

    @abstractmethod
    def query(self, sql: str, values: Values) -> list[Any]:
        """As `Session.query`."""

    @abstractmethod
    def run(self, sql: str, rows: Sequence[Values]) -> int:
        """As `Session.run`."""

    def _on_a_living_one(self, ask: Callable[[], T]) -> T:
        """What `ask` returns; asked once more on a new connection if this one was cut while it was idle."""
        try:
            return ask()
        except self.lost_error:
            if self._is_begun or not self._is_cut():
                raise
        self._connect()
        return ask()

    def begin(self) -> None:
        """As `Session.begin`."""
        self._on_a_living_one(self._begin)
        self._is_begun = True

    def commit(self) -> None:
        """As `Session.commit`."""
        self._is_begun = False
        self._commit()

    def rollback(self) -> None:
        """As `Session.rollback`."""
        if self._is_begun:
            self._is_begun = False
            self._rollback()

    def close(self) -> None:
        """As `Session.close`."""
        with suppress(*self.close_errors):  # the connection is gone already: nothing is left to let go of
            self.raw.close()


class ServerDatabase(Database):
    """Its pool and its clock, which is the server's unless time is given."""

    ask_now: ClassVar[str]  # the query for the server's time in milliseconds since 1970

    def __init__(self, address: Address, clock: Clock) -> None:
        self.address = address
        self._given = clock if address.given_clock else None
        self._clock = ServerClock(self._ask)
        self._pool = SessionPool(self._session)

    @abstractmethod
    def _session(self) -> Session:
        """A new session."""

    def pool(self) -> Pool:
        """As `Database.pool`."""
        return self._pool

    def now(self) -> datetime:
        """As `Database.now`."""
        return self._clock.now() if self._given is None else given_now(self._given)

    def _ask(self) -> int:
        try:
            session = self._pool.borrow()
            try:
                ((now,),) = session.query(self.ask_now, ())
            except (
                BaseException
            ):  # raised again: whatever came, an interrupt too, its answer may still arrive
                self._pool.discard(session)
                raise
        except self.driver_error as error:
            raise self.translate(error) from error
        self._pool.give(session)
        return int(now)


def own_url(url: str) -> str:
    """The URL without the driver that may be named behind a +."""
    scheme, _, rest = url.partition(":")
    return f"{scheme.partition('+')[0]}:{rest}"
