"""The contract of the `Store` port, against every adapter: what was written is read, of every type."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core.command import Command
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import BoxProcess, Fact, Hold, Lease, LogChunk, ProcessRow, User
from scheduler.core.uow import Uow
from tests.conformance.store_records import T, insert, job, uow

FULL = T + timedelta(milliseconds=987)

JSON: dict[str, Any] = {"a": [1, 2.5, None, True, {"b": "ü\n\"'🚲"}], "": {}}

TEXT = "äöü 🚲 \x00 ' \" % _ \\ \n end"


def filled(kind: type, key: Any) -> Any:
    """A record with something in every field."""
    hints = {
        "str": TEXT,
        "int": 2**53 + 1,
        "float": 1.5,
        "bool": True,
        "datetime": FULL,
        "dict": JSON,
        "list": [1, 2],
    }
    values = {f.name: hints[str(f.type).removesuffix(" | None").partition("[")[0]] for f in fields(kind)}
    return kind(**values | key)


KINDS = (
    filled(ProcessRow, {"name": "p"}),
    filled(Job, {"id": "p@1"}),
    filled(Uow, {"id": "p@1#1"}),
    filled(Event, {"source": "s", "seq": 1}),
    filled(Command, {"id": "c"}),
    filled(BoxProcess, {"id": "b/w"}),
    filled(Lease, {"name": "l"}),
    filled(LogChunk, {"uow": "u", "attempt": 1, "n": 1}),
    filled(User, {"name": "u"}),
    filled(Hold, {"scope": "*"}),
    filled(Fact, {"key": "k"}),
)


@pytest.mark.parametrize("record", KINDS, ids=lambda record: type(record).__name__)
def test_what_was_written_is_read(store: Store, record: Any) -> None:
    insert(store, record)
    where = [Where("key", "!=", "schema")] if isinstance(record, Fact) else []
    assert store.find(type(record), where) == [record]


def test_defaults_and_nulls_are_read(store: Store) -> None:
    insert(store, job(1), uow(1), ProcessRow(name="p", kind="managed"))
    assert store.find(Job) == [job(1)]
    assert store.find(Uow) == [uow(1)]
    assert store.get(ProcessRow, "p") == ProcessRow(name="p", kind="managed")


def test_flags_are_read_as_booleans(store: Store) -> None:
    insert(store, job(1, open=False))
    assert store.find(Job)[0].open is False
    assert store.select(Job, ["open", "produced"]) == [(False, False)]


def test_large_values(store: Store) -> None:
    chunk = LogChunk(uow="u", attempt=1, n=1, at=T, text="line ü\n" * 100_000)
    fact = Fact(key="big", value={"jobs": [{"id": f"p@{n}", "note": "ö"} for n in range(20_000)]})
    insert(store, chunk, fact)
    assert store.get(LogChunk, "u", 1, 1) == chunk
    assert store.get(Fact, "big") == fact


def test_times_are_kept_to_the_millisecond_in_utc(store: Store) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    insert(
        store,
        job(
            1,
            start=datetime(2013, 7, 4, 5, 30, 0, 123_999, tzinfo=india),
            end=datetime(1969, 1, 1, tzinfo=UTC),
        ),
    )
    (found,) = store.find(Job, [Where("start", "=", T + timedelta(milliseconds=123))])
    assert found.start.isoformat() == "2013-07-04T00:00:00.123000+00:00"
    assert found.end.isoformat() == "1969-01-01T00:00:00+00:00"
    assert found.start.tzinfo is UTC


def test_a_naive_time_is_a_bug(store: Store) -> None:
    with pytest.raises(AssertionError, match="naive"):
        insert(store, job(1, start=datetime(2013, 7, 4)))
    with pytest.raises(AssertionError, match="naive"):
        store.find(Job, [Where("start", "=", datetime(2013, 7, 4))])
    assert store.find(Job) == []


def test_now_is_the_injected_clock_to_the_millisecond(store: Store, clock: Any) -> None:
    clock.at = datetime(2026, 11, 21, 3, 0, 0, 123_999, tzinfo=UTC)
    assert store.now() == datetime(2026, 11, 21, 3, 0, 0, 123_000, tzinfo=UTC)
