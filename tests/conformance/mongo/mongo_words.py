"""Words of the MongoDB suite: stores on a URL, refusals, leases, events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from db.mongo import MongoStore
from scheduler.core.event import Event
from scheduler.core.records import Lease
from tests.conformance.store_adapters import opened_as

T = datetime(2013, 7, 4, tzinfo=UTC)
IMPATIENT = "serverSelectionTimeoutMS=500&connectTimeoutMS=500"


def opened_at(url: str, clock: Any) -> MongoStore:
    """A store object."""
    return opened_as(MongoStore, url, clock)


def event(seq: int, source: str = "s") -> Event:
    """Some event."""
    return Event(source=source, seq=seq, at=T, business_at=T, kind="test.write")


def insert(store: MongoStore, *records: Any) -> None:
    """A transaction of nothing but inserts."""
    with store.transaction() as transaction:
        assert transaction.insert(records) == len(records)


def lease_of(store: MongoStore, **changed: Any) -> Lease:
    """A lease of half a minute, of the session of that store."""
    now = store.now()
    given = Lease(name="leader", holder="a", token=1, taken_at=now, expires_at=now + timedelta(seconds=30))
    return replace(given, data=store.session(), **changed)
