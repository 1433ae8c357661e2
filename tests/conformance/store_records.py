"""Records for the store suite, and the shortest ways to write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Store
from scheduler.core.uow import Uow

T = datetime(2013, 7, 4, tzinfo=UTC)
H = timedelta(hours=1)


def job(n: int, **changed: Any) -> Job:
    """The job of the nth hour of a process p."""
    given: dict[str, Any] = {
        "id": f"p@{n:03}",
        "process": "p",
        "timeperiod": f"{n:03}",
        "start": T + n * H,
        "end": T + (n + 1) * H,
    }
    return Job(**given | changed)


def uow(n: int, **changed: Any) -> Uow:
    """The unit of work of the nth hour of a process p."""
    given: dict[str, Any] = {
        "id": f"p@{n:03}#1",
        "process": "p",
        "timeperiod": f"{n:03}",
        "run": 1,
        "start": T + n * H,
        "end": T + (n + 1) * H,
        "created_at": T,
        "requested_at": T,
    }
    return Uow(**given | changed)


def event(source: str, seq: int, **changed: Any) -> Event:
    """Some event."""
    given: dict[str, Any] = {"source": source, "seq": seq, "at": T, "business_at": T, "kind": "job.dispatch"}
    return Event(**given | changed)


def insert(store: Store, *records: Any) -> None:
    """Insert in a transaction of its own."""
    with store.transaction() as transaction:
        assert transaction.insert(records) == len(records)


def update(store: Store, *changes: Change) -> int:
    """Update in a transaction of its own."""
    with store.transaction() as transaction:
        return transaction.update(changes)


def ids(found: list[Any]) -> list[str]:
    """What was found."""
    return [record.id for record in found]
