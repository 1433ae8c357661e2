"""`store copy`: everything from one store to another, and the proof that it arrived.

Both sides are read again at the end, in the order of their keys, and each record is written as canonical JSON:
fields by name, times as ISO text, dictionaries by key. So the hash of a table says the same on every database.
A source that somebody writes meanwhile ends as different, and is named; so does a broken destination.

The source is led by us meanwhile (`scheduler.charge`), so no scheduler writes there; the row of that lease itself
is copied as handed over. The queues are not copied: a new leader sends what is requested again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from scheduler.charge import handed_over
from scheduler.core.command import Command
from scheduler.core.errors import Refused
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import LEADER, BoxProcess, Fact, Hold, Lease, LogChunk, ProcessRow, User
from scheduler.core.uow import Uow

# table -> record and key; the largest last
KINDS: dict[str, tuple[type, tuple[str, ...]]] = {
    "facts": (Fact, ("key",)),
    "processes": (ProcessRow, ("name",)),
    "holds": (Hold, ("scope",)),
    "leases": (Lease, ("name",)),
    "boxes": (BoxProcess, ("id",)),
    "users": (User, ("name",)),
    "commands": (Command, ("id",)),
    "jobs": (Job, ("id",)),
    "units_of_work": (Uow, ("id",)),
    "events": (Event, ("source", "seq")),
    "logs": (LogChunk, ("uow", "attempt", "n")),
}
SCHEMA = "schema"  # the fact that every store makes for itself
PAGE = 1000

Progress = Callable[[str, int], None]  # table, rows
Without = Mapping[str, frozenset[str]]  # table -> columns
NOTHING: Without = {}


@dataclass(frozen=True, slots=True)
class Table:
    """One table on both sides."""

    name: str
    source_rows: int
    rows: int
    source_hash: str
    hash: str

    @property
    def is_same(self) -> bool:
        """It arrived."""
        return (self.source_rows, self.source_hash) == (self.rows, self.hash)


def refuse_if_used(store: Store, shown: str) -> None:
    """Raises Refused if a store holds anything but its schema."""
    for name, (kind, _) in KINDS.items():
        where = (Where("key", "!=", SCHEMA),) if kind is Fact else ()
        rows = store.count(kind, where).get((), 0)
        if rows:
            raise Refused(f"{shown}: it is not empty ({name}: {rows} rows); copy into an empty database")


def refuse_if_worked_on(store: Store, shown: str) -> None:
    """Raises Refused while workers hold units of work there: they would write."""
    alive = (Where("state", "=", "in_progress"), Where("lease_until", ">", store.now()))
    held = store.select(Uow, ("owner",), alive, limit=1000)
    if held:
        owners = ", ".join(sorted({str(owner) for (owner,) in held})[:3])
        raise Refused(f"{shown}: workers are at work there ({owners}): stop them first (launch.py stop)")


def copy(
    source: Store,
    destination: Store,
    keep: Callable[[], None],
    progress: Progress,
    without: Without = NOTHING,
) -> None:
    """Copy all tables, a page in a transaction. `keep` is called after each. Raises StoreUnavailable.

    `without`: columns that a source of an older version lacks, per table; its records have what is their default.
    """
    for name in KINDS:
        for page in pages(source, name, without):
            with destination.transaction() as tx:
                tx.insert(page)
            keep()
            progress(name, len(page))


def compare(
    source: Store,
    destination: Store,
    keep: Callable[[], None],
    progress: Progress,
    without: Without = NOTHING,
) -> list[Table]:
    """Count and hash every table on both sides; not the columns `without`."""
    found = []
    for name in KINDS:
        ours = _summed(source, name, keep, progress, without)
        theirs = _summed(destination, name, keep, progress, without)
        found.append(Table(name, ours[0], theirs[0], ours[1], theirs[1]))
    return found


def pages(store: Store, name: str, without: Without = NOTHING) -> Iterator[list[Any]]:
    """The records of a table by key, in pages; without the schema's own fact."""
    kind, key = KINDS[name]
    read = _reader(store, kind, without.get(name, frozenset()))
    if kind is Event:
        for (source,) in sorted(store.count(Event, by=("source",))):
            yield from _pages(read, ("seq",), (Where("source", "=", source),))
    else:
        yield from _pages(read, key, (Where("key", "!=", SCHEMA),) if kind is Fact else ())


Read = Callable[[Sequence[Where], Sequence[str], int], list[Any]]


def _reader(store: Store, kind: type, without: frozenset[str]) -> Read:
    """What finds records: whole ones, or all but these columns, which the store has not."""
    names = [field.name for field in fields(kind) if field.name not in without]

    def read(where: Sequence[Where], order: Sequence[str], limit: int) -> list[Any]:
        if not without:
            return store.find(kind, where, order, limit)
        rows = store.select(kind, names, where, order, limit)
        return [kind(**dict(zip(names, row, strict=True))) for row in rows]

    return read


def _pages(read: Read, key: tuple[str, ...], where: Sequence[Where], size: int = PAGE) -> Iterator[list[Any]]:
    last: tuple[Any, ...] | None = None
    limit = size
    while True:
        # of a key of several fields the first is looked for from its last value on: some come twice
        op = ">" if len(key) == 1 else ">="
        after = () if last is None else (Where(key[0], op, last[0]),)
        found = read((*where, *after), key, limit)
        fresh = [record for record in found if last is None or _key(record, key) > last]
        if fresh:
            yield [_as_copied(record) for record in fresh]
            last = _key(fresh[-1], key)
        if len(found) < limit:
            return
        limit = size if len(fresh) > size // 2 else limit * 2


def _key(record: Any, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple([getattr(record, name) for name in names])


def _as_copied(record: Any) -> Any:
    return handed_over(record) if isinstance(record, Lease) and record.name == LEADER else record


def _summed(
    store: Store, name: str, keep: Callable[[], None], progress: Progress, without: Without
) -> tuple[int, str]:
    total, digest = 0, hashlib.sha256()
    for page in pages(store, name, without):
        for record in page:
            digest.update(canonical(record))
        total += len(page)
        keep()
        progress(name, len(page))
    return total, digest.hexdigest()


def canonical(record: Any) -> bytes:
    """A record as bytes that are the same on every adapter."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_text)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _text(value: Any) -> str:
    assert isinstance(value, datetime), value
    return value.astimezone(UTC).isoformat(timespec="milliseconds")
