"""The ports: what the core's shell and the workers ask of a store, a broker and a clock.

An interface belongs to its consumer, so these live here and not with their adapters. One conformance
suite per port runs against every adapter (`tests/conformance`); what it checks is the contract:

* A store's transaction is all or nothing. With a lease, its last statement writes the lease row
  (token compared, expiry renewed); a lease that is no longer ours raises LeaseLost, nothing is kept.
* `update` is a compare-and-set: a row whose `expect` does not match is not touched and not counted.
* Order of `find` is total: by `order`, then by key. So the same seed gives the same event history.
* `now()` is the store's clock. Leases are measured on it, never on a box's own.
* A broker may lose, double, delay and reorder; it must not invent. A message is one unit of work's id.
* Unreachable servers raise StoreUnavailable or BrokerUnavailable with the driver's error as cause.
  A commit whose outcome is unknown raises StoreUnavailable too: whoever gets it reads again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from scheduler.core.records import Lease

R = TypeVar("R")


class Where(NamedTuple):
    """One condition of a query; several are ANDed. `op`: = != < <= > >= in null notnull prefix contains.

    A null matches `null` and nothing else (`= None` is taken as `null`, `!= None` as `notnull`): no
    comparison with it holds, `!=` included. Text is compared by code point, case matters. In an order
    nulls come before everything. `in` of nothing matches nothing.
    """

    field: str
    op: str
    value: Any = None


class Change(NamedTuple):
    """A compare-and-set on one record.

    Of the record of type `kind` with `key`, set the fields of `set`, if every field of `expect` has
    the given value (None means null). `entry`, one line, is appended to `history`, and `history_n`
    grows by one, in the same write. Only units of work have a history.
    """

    kind: type
    key: str | tuple[Any, ...]
    expect: Mapping[str, Any]
    set: Mapping[str, Any]
    entry: str | None = None
    entries: int = 1  # lines in `entry`


class Transaction(Protocol):
    """The inside of `store.transaction()`. Nothing is visible to others until the block ends."""

    def insert(self, records: Sequence[Any], *, ignore: bool = False) -> int:
        """Insert records of one or several kinds; with `ignore`, one whose key exists is left as it is.

        Returns how many were inserted. Without `ignore` an existing key raises Conflict.
        """

    def update(self, changes: Sequence[Change]) -> int:
        """Apply compare-and-sets; returns how many hit. Whoever needs all of them compares and raises."""

    def delete(self, kind: type, where: Sequence[Where]) -> int:
        """Delete what matches; returns how many."""

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """As `Store.find`, inside the transaction."""


class Store(Protocol):
    """The truth. Safe to use from several threads and several processes at once."""

    def init(self) -> None:
        """Create the schema, or check it: ConfigError if it belongs to a newer program."""

    def close(self) -> None:
        """Let go of every connection of this store object; may be called twice."""

    def now(self) -> datetime:
        """The store's clock, aware UTC, milliseconds."""

    def transaction(self, lease: Lease | None = None) -> AbstractContextManager[Transaction]:
        """The all-or-nothing block. Leaving it by an exception rolls back.

        With `lease`, the last write is the lease row: token compared, expiry set to now + its length
        (`lease.expires_at - lease.taken_at`). Raises LeaseLost, Conflict, StoreUnavailable.
        """

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """Records of `kind`, in the order of fields `order` ("-field": descending), then by key."""

    def select(
        self,
        kind: type,
        fields: Sequence[str],
        where: Sequence[Where] = (),
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `find`, but only some fields, as tuples: for the hot paths and the pages."""

    def count(
        self, kind: type, where: Sequence[Where] = (), by: Sequence[str] = ()
    ) -> dict[tuple[Any, ...], int]:
        """How many match, per value of the fields `by`; `{(): n}` without `by`."""

    def get(self, kind: type[R], *key: Any) -> R | None:
        """The record with this key, or None."""

    def session(self) -> dict[str, Any] | None:
        """What a leader writes into `Lease.data`, so that its successor can end what it left under way.

        None where a transaction that is left open ends by itself. Raises StoreUnavailable.
        """

    def end_session(self, lease: Lease) -> None:
        """Before a take-over: end the transaction that the holder of `lease` may be stopped in.

        Whoever it belonged to gets LeaseLost once the lease is taken. Raises StoreUnavailable.
        """


class Message(NamedTuple):
    """What a consumer got: `body` is a unit of work's id; `tag` is what `ack` wants back."""

    body: str
    tag: Any
    redelivered: bool = False


class Consumer(Protocol):
    """A subscription to one or several queues. Used by one thread."""

    def receive(self, limit: int, timeout_s: float) -> list[Message]:
        """Up to `limit` messages, highest priority first, then oldest; waits `timeout_s` at most.

        Returns earlier with [] when `wake` was called or the queue was nudged without a message.
        What was received and neither acked nor nacked is delivered again after this consumer is gone.
        """

    def ack(self, tags: Iterable[Any]) -> None:
        """These are done with."""

    def nack(self, tags: Iterable[Any]) -> None:
        """Give these back at once, for somebody else."""

    def wake(self) -> None:
        """Make a waiting `receive` return; callable from any thread."""

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when there may be messages, if the adapter has one."""

    def close(self) -> None:
        """Give back what was not acked, and stop consuming."""


class Outgoing(NamedTuple):
    """A message to publish."""

    queue: str
    body: str
    priority: int = 5


class Broker(Protocol):
    """The queues. Durable, created by whoever comes first. Safe to use from several threads."""

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish a batch; returns when the broker confirmed all of them. Raises BrokerUnavailable."""

    def consume(self, queues: Sequence[str], prefetch: int) -> Consumer:
        """Subscribe. `prefetch` bounds what is received and not yet acked."""

    def nudge(self, queue: str) -> None:
        """Wake whoever waits on `queue`, without a message. Best effort; may be lost."""

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """Messages that wait, per queue."""

    def purge(self, queue: str) -> int:
        """Drop what waits in `queue`; returns how many."""

    def close(self) -> None:
        """Let go of every connection; may be called twice."""


REPORT_QUEUE = "report"  # workers → leader: this unit of work changed


def control_queue(owner: str) -> str:
    """The queue on which one worker (instance) is told to look at a unit of work again."""
    return f"control.{owner}"


class Clock(Protocol):
    """Two clocks in one. Business time decides periods and triggers; real time leases and retries."""

    def real(self) -> datetime:
        """Real time, aware UTC, milliseconds."""

    def business(self) -> datetime:
        """Business time, aware UTC, milliseconds; never goes back."""

    def real_for(self, instant: datetime) -> datetime | None:
        """When (real time) business time will reach `instant`; None while it stands still."""

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward."""

    def refresh(self) -> None:
        """Read anew how business time runs. Raises StoreUnavailable."""
