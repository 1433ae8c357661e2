"""Programs that the store tests run as processes of their own: `python store_child.py <program> <url> …`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from db import open_store
from scheduler.core.event import Event
from scheduler.core.ports import Change, Store, Where
from scheduler.core.records import Fact

T = datetime(2026, 1, 1, tzinfo=UTC)


class RealClock:
    """The clock of this machine."""

    def real(self) -> datetime:
        """Now."""
        return datetime.now(UTC)

    business = real

    def real_for(self, instant: datetime) -> datetime | None:
        """The same instant."""
        return instant

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def refresh(self) -> None:
        """There is nothing to read."""


def event(source: str, seq: int) -> Event:
    """Some event."""
    return Event(source=source, seq=seq, at=T, business_at=T, kind="test.write", message="x" * 200)


def write(store: Store, source: str, pairs: str) -> None:
    """Write pairs of events, each pair in one transaction, until killed or done; says `ready` first."""
    last = store.find(Event, [Where("source", "=", source)], ["-seq"], 1)
    first = last[0].seq + 1 if last else 1
    print("ready", flush=True)
    for n in range(int(pairs)):
        with store.transaction() as transaction:
            transaction.insert([event(source, first + 2 * n)])
            transaction.insert([event(source, first + 2 * n + 1)])


def hot(store: Store, name: str, until: str) -> None:
    """Add one to a fact of our own as fast as possible, until the fact "total" says `until`."""
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        with store.transaction() as transaction:
            (mine,) = transaction.find(Fact, [Where("key", "=", name)])
            (total,) = transaction.find(Fact, [Where("key", "=", "total")])
            if total.value["n"] >= int(until):
                return
            for fact in (mine, total):
                changed = Change(Fact, fact.key, {}, {"value": {"n": fact.value["n"] + 1}})
                assert transaction.update([changed]) == 1


def claim(store: Store, name: str) -> None:
    """Claim facts named job.… by compare-and-set until none is free; prints how many we got."""
    got = 0
    while free := store.find(
        Fact, [Where("key", "prefix", "job."), Where("value", "=", {"owner": None})], limit=5
    ):
        for fact in free:
            with store.transaction() as transaction:
                claimed = Change(Fact, fact.key, {"value": {"owner": None}}, {"value": {"owner": name}})
                got += transaction.update([claimed])
    print(got, flush=True)


def init(store: Store) -> None:
    """Create the schema at the same time as others."""
    print("ready", flush=True)
    sys.stdin.readline()
    store.init()
    print(store.get(Fact, "schema").value["version"])  # type: ignore[union-attr]


def main() -> None:
    """Run the program that was named."""
    program, url, *arguments = sys.argv[1:]
    store = open_store(url, clock=RealClock(), maintain=True)
    programs: dict[str, Callable[..., None]] = {"write": write, "hot": hot, "claim": claim, "init": init}
    programs[program](store, *arguments)
    store.close()


if __name__ == "__main__":
    main()
