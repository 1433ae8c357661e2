"""The model's memory: one state of the exploration, held in dictionaries behind the ports.

Not an adapter and not a double of one: it keeps a handful of records for the length of one turn, so that the shipped
engine can read and write them, and forgets them. What the contract of the ports asks of a store is asked of it as
well: all or nothing, compare-and-set, total order. `before_commit` is where somebody else writes between a
scheduler's look and its commit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.core.command import Command
from scheduler.core.errors import Conflict
from scheduler.core.event import Event
from scheduler.core.evolve import evolve
from scheduler.core.job import Job
from scheduler.core.ports import Change, Consumer, Outgoing, Where
from scheduler.core.records import Fact, Hold, Lease, ProcessRow
from scheduler.core.uow import Uow
from simulation.model import Broken

KEYS: dict[type, str] = {
    Job: "id",
    Uow: "id",
    ProcessRow: "name",
    Hold: "scope",
    Lease: "name",
    Command: "id",
    Fact: "key",
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, among: value in among,
}


def _matches(record: Any, where: Sequence[Where]) -> bool:
    for field, op, wanted in where:
        value = getattr(record, field)
        if op == "null":
            fits = value is None
        elif op == "notnull":
            fits = value is not None
        else:
            fits = value is not None and _COMPARE[op](value, wanted)
        if not fits:
            return False
    return True


class Memory:
    """A store and its transaction at once."""

    def __init__(self) -> None:
        self.tables: dict[type, dict[Any, Any]] = {kind: {} for kind in KEYS}
        self.events: list[Event] = []
        self.seq = 0
        self.real = datetime.min.replace(tzinfo=UTC)
        self.before_commit: Callable[[], None] | None = None
        self.touched: set[str] = set()  # units of work that a scheduler's transaction would write

    def load(self, real: datetime, seq: int, records: dict[type, dict[Any, Any]]) -> None:
        """Hold these records and no others."""
        self.tables = {kind: dict(records.get(kind, {})) for kind in KEYS}
        self.events, self.seq, self.real = [], seq, real
        self.before_commit, self.touched = None, set()

    # -- Store ------------------------------------------------------------------------------------

    def init(self) -> None:
        """Nothing to make."""

    def close(self) -> None:
        """Nothing to let go of."""

    def now(self) -> datetime:
        """As `Store.now`."""
        return self.real

    @contextmanager
    def transaction(self, lease: Lease | None = None) -> Iterator[Memory]:
        """As `Store.transaction`."""
        if lease is None:
            raise Broken(12, "a scheduler commits without its lease")
        interposed, self.before_commit = self.before_commit, None
        if interposed is not None:
            interposed()
        tables = {kind: dict(rows) for kind, rows in self.tables.items()}
        events = list(self.events)
        try:
            yield self
        except BaseException:
            self.tables, self.events = tables, events
            raise

    def find(
        self, kind: type, where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[Any]:
        """As `Store.find`."""
        found = [record for record in self.tables[kind].values() if _matches(record, where)]
        found.sort(key=operator.attrgetter(KEYS[kind]))
        for field in reversed(order):
            found.sort(key=operator.attrgetter(field.lstrip("-")), reverse=field.startswith("-"))
        return found[:limit]

    def select(
        self,
        kind: type,
        fields: Sequence[str],
        where: Sequence[Where] = (),
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `Store.select`; of the events only the last number is known."""
        if kind is Event:
            return [(self.seq,)]
        return [
            tuple(getattr(record, field) for field in fields)
            for record in self.find(kind, where, order, limit)
        ]

    def count(
        self, kind: type, where: Sequence[Where] = (), by: Sequence[str] = ()
    ) -> dict[tuple[Any, ...], int]:
        """As `Store.count`."""
        found: dict[tuple[Any, ...], int] = {}
        for record in self.find(kind, where):
            key = tuple(getattr(record, field) for field in by)
            found[key] = found.get(key, 0) + 1
        return found

    def session(self) -> None:
        """As `Store.session`."""

    def end_session(self, lease: Lease) -> None:
        """As `Store.end_session`."""

    def get(self, kind: type, *key: Any) -> Any:
        """As `Store.get`."""
        return self.tables[kind].get(key[0])

    # -- Transaction ------------------------------------------------------------------------------

    def insert(self, records: Sequence[Any], *, ignore: bool = False) -> int:
        """As `Transaction.insert`."""
        for record in records:
            if isinstance(record, Event):
                if record.seq != self.seq + 1:
                    raise Broken(8, f"event {record.seq} follows event {self.seq}")
                self.seq = record.seq
                self.events.append(record)
                continue
            key = getattr(record, KEYS[type(record)])
            if key in self.tables[type(record)]:
                raise Conflict
            self.tables[type(record)][key] = record
            if isinstance(record, Uow):
                self.touched.add(record.id)
        return len(records)

    def update(self, changes: Sequence[Change]) -> int:
        """As `Transaction.update`."""
        hits = 0
        for change in changes:
            if change.kind is Uow:
                self.touched.add(str(change.key))
            hits += self.apply(change)
        return hits

    def apply(self, change: Change) -> bool:
        """One compare-and-set."""
        rows = self.tables[change.kind]
        record = rows.get(change.key)
        if record is None or any(getattr(record, f) != value for f, value in change.expect.items()):
            return False
        sets = dict(change.set)
        if change.entry is not None:
            sets["history"] = record.history + change.entry
            sets["history_n"] = record.history_n + change.entries
        rows[change.key] = evolve(record, sets)
        return True

    def delete(self, kind: type, where: Sequence[Where]) -> int:
        """As `Transaction.delete`."""
        gone = [key for key, record in self.tables[kind].items() if _matches(record, where)]
        for key in gone:
            del self.tables[kind][key]
        return len(gone)


class Post:
    """A broker that keeps what one turn published. Nothing that is not in the store may be."""

    def __init__(self, store: Memory) -> None:
        self.store = store
        self.published: list[str] = []

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`. Words to workers are left out: a worker may look at its own at any time."""
        for message in messages:
            if self.store.get(Uow, message.body) is None:
                raise Broken(9, f"{message.body} is published and not in the store", message.body)
            if not message.queue.startswith("control."):
                self.published.append(message.body)

    def consume(self, queues: Sequence[str], prefetch: int) -> Consumer:
        """Nobody consumes here: the exploration delivers."""
        raise NotImplementedError

    def nudge(self, queue: str) -> None:
        """Nobody sleeps here."""

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """Nothing waits here."""
        return {}

    def purge(self, queue: str) -> int:
        """Nothing waits here."""
        return 0

    def close(self) -> None:
        """Nothing to let go of."""


class Still:
    """Two clocks that stand: business time at one of the instants, real time always."""

    def __init__(self, real: datetime) -> None:
        self._real = self._business = real

    def set_business(self, now: datetime) -> None:
        """Business time is this from now on."""
        self._business = now

    def real(self) -> datetime:
        """As `Clock.real`."""
        return self._real

    def business(self) -> datetime:
        """As `Clock.business`."""
        return self._business

    def real_for(self, instant: datetime) -> datetime | None:
        """As `Clock.real_for`."""
        return self._real + max(timedelta(0), instant - self._business)

    def monotonic(self) -> float:
        """As `Clock.monotonic`."""
        return 0.0

    def refresh(self) -> None:
        """As `Clock.refresh`."""
