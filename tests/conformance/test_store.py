"""The contract of the `Store` port, sentence by sentence, against every adapter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core.command import Command
from scheduler.core.errors import Conflict, LeaseLost, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Store, Where
from scheduler.core.records import BoxProcess, Fact, Hold, Lease, LogChunk, ProcessRow, User
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


# --- insert


def test_an_existing_key_is_a_conflict_and_nothing_is_kept(store: Store) -> None:
    insert(store, job(1), event("s", 1))
    for duplicate in (job(1, state="processed"), event("s", 1, message="other")):
        with pytest.raises(Conflict), store.transaction() as transaction:
            transaction.insert([job(2), duplicate, job(3)])
    assert store.find(Job) == [job(1)]
    assert store.find(Event) == [event("s", 1)]


def test_insert_ignore_leaves_what_exists(store: Store) -> None:
    insert(store, job(1), event("s", 1))
    with store.transaction() as transaction:
        records = [job(1, state="processed"), job(2), event("s", 1, message="new"), event("s", 2), job(3)]
        assert transaction.insert(records, ignore=True) == 3
        assert transaction.insert([job(3)], ignore=True) == 0
        assert transaction.insert([]) == 0
    assert store.find(Job) == [job(1), job(2), job(3)]
    assert store.find(Event) == [event("s", 1), event("s", 2)]


# --- compare-and-set


def test_update_hits_only_what_is_expected(store: Store) -> None:
    insert(store, *(job(n) for n in range(5)), job(7, version=3))
    change = {"state": "in_progress", "version": 1}
    hits = update(
        store,
        Change(Job, "p@000", {"state": "embryo", "version": 0}, change),
        Change(Job, "p@001", {"state": "embryo", "version": 1}, change),
        Change(Job, "p@002", {"state": "final_run", "version": 0}, change),
        Change(Job, "p@003", {}, change),
        Change(Job, "p@007", {"state": "embryo", "version": 0}, change),
        Change(Job, "p@999", {"state": "embryo", "version": 0}, change),
    )
    assert hits == 2
    assert [(j.timeperiod, j.state, j.version) for j in store.find(Job)] == [
        ("000", "in_progress", 1),
        ("001", "embryo", 0),
        ("002", "embryo", 0),
        ("003", "in_progress", 1),
        ("004", "embryo", 0),
        ("007", "embryo", 3),
    ]


def test_update_sets_only_the_fields_it_names(store: Store) -> None:
    before = uow(1, owner="w", error="e", progress={"done": 1})
    insert(store, before)
    change = {"error": None, "progress": {"done": 2}, "due_at": T + H, "dirty": True}
    assert update(store, Change(Uow, before.id, {"owner": "w"}, change)) == 1
    assert store.find(Uow) == [replace(before, error=None, progress={"done": 2}, due_at=T + H, dirty=True)]


def test_expected_nulls(store: Store) -> None:
    insert(store, uow(1), uow(2, owner="w"))
    change = {"box": "b"}
    assert update(store, Change(Uow, "p@001#1", {"owner": None}, change)) == 1
    assert update(store, Change(Uow, "p@002#1", {"owner": None}, change)) == 0
    assert update(store, Change(Uow, "p@001#1", {"owner": "w"}, change)) == 0
    assert update(store, Change(Uow, "p@002#1", {"owner": "w", "due_at": None}, change)) == 1


def test_expected_values_of_every_type(store: Store) -> None:
    insert(store, uow(1, due_at=T, arguments={"a": 1}, dirty=True))
    expect = {"due_at": T, "arguments": {"a": 1}, "dirty": True, "run": 1, "queue": ""}
    assert update(store, Change(Uow, "p@001#1", expect, {"box": "b"})) == 1
    for name, other in {
        "due_at": T + H,
        "arguments": {"a": 2},
        "dirty": False,
        "run": 2,
        "queue": "q",
    }.items():
        assert update(store, Change(Uow, "p@001#1", expect | {name: other}, {"box": "c"})) == 0
    assert store.find(Uow)[0].box == "b"


def test_setting_what_is_already_there_is_a_hit(store: Store) -> None:
    insert(store, job(1))
    assert update(store, Change(Job, "p@001", {"state": "embryo"}, {"state": "embryo"})) == 1


def test_a_key_of_several_fields(store: Store) -> None:
    insert(store, event("s", 1), event("s", 2), event("r", 1))
    assert update(store, Change(Event, ("s", 1), {}, {"message": "m"})) == 1
    assert [e.message for e in store.find(Event)] == ["", "m", ""]
    assert store.get(Event, "s", 1) == event("s", 1, message="m")


def test_history_is_appended(store: Store) -> None:
    insert(store, uow(1))
    first = Change(Uow, "p@001#1", {"state": "requested"}, {"state": "in_progress"}, "1 ü\n")
    assert update(store, first) == 1
    assert update(store, first) == 0, "a miss appends nothing"
    two = Change(Uow, "p@001#1", {"state": "in_progress"}, {}, "2\n3\n", entries=2)
    assert update(store, two, Change(Uow, "p@001#1", {}, {"dirty": True}, "4\n")) == 2
    found = store.find(Uow)[0]
    assert (found.history, found.history_n, found.dirty, found.state) == (
        "1 ü\n2\n3\n4\n",
        4,
        True,
        "in_progress",
    )


def test_changes_of_one_record_are_applied_in_their_order(store: Store) -> None:
    insert(store, *(job(n) for n in range(3)))
    step = [
        Change(
            Job, f"p@{n:03}", {"state": a, "version": version}, {"state": b, "version": version + 1} | extra
        )
        for n in range(3)
        for version, a, b, extra in (
            (0, "embryo", "in_progress", {}),
            (1, "in_progress", "final_run", {"detail": "x"}),
            (2, "final_run", "processed", {}),
        )
    ]
    assert update(store, *step) == 9
    assert [(j.state, j.version) for j in store.find(Job)] == [("processed", 3)] * 3


def test_a_batch_of_many_shapes(store: Store) -> None:
    insert(store, *(job(n) for n in range(64)), *(uow(n) for n in range(64)))
    jobs = [
        Change(Job, f"p@{n:03}", {"version": 0}, {"version": 1} | ({"uow": "u"} if n % 2 else {}))
        for n in range(64)
    ]
    uows = [
        Change(Uow, f"p@{n:03}#1", {"version": n % 3}, {"version": 5}, "line\n" if n % 2 else None)
        for n in range(64)
    ]
    mixed = [change for pair in zip(jobs, uows, strict=True) for change in pair]
    assert update(store, *mixed) == 64 + 22
    assert store.count(Job, by=["uow"]) == {(None,): 32, ("u",): 32}
    assert store.count(Uow, [Where("version", "=", 5)], ["history_n"]) == {(0,): 11, (1,): 11}


def test_states_may_be_enumerations(store: Store) -> None:
    from scheduler.core.lifecycle import JobState

    insert(store, job(1, state=JobState.EMBRYO))
    assert update(store, Change(Job, "p@001", {"state": JobState.EMBRYO}, {"state": JobState.SKIPPED})) == 1
    assert store.find(Job, [Where("state", "=", JobState.SKIPPED)]) == [job(1, state="skipped")]


# --- find, select, count, get, delete


def test_order_is_total(store: Store) -> None:
    records = [
        event(source, seq, severity=s)
        for source, seq, s in (("b", 2, "x"), ("a", 1, "y"), ("b", 1, "x"), ("a", 2, "x"))
    ]
    insert(store, *records)

    def found(*order: str) -> list[tuple[str, int]]:
        return [(e.source, e.seq) for e in store.find(Event, order=order)]

    assert found() == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert found("severity") == [("a", 2), ("b", 1), ("b", 2), ("a", 1)]
    assert found("-severity") == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert found("-seq") == [("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert found("-source", "-seq") == [("b", 2), ("b", 1), ("a", 2), ("a", 1)]


def test_nulls_come_first_and_text_is_ordered_by_code_point(store: Store) -> None:
    names = ["a", "B", "é", "z", "🚲", "￿", "A b"]
    insert(store, *(uow(n, owner=name) for n, name in enumerate(names)), uow(50))
    owners = [owner for (owner,) in store.select(Uow, ["owner"], order=["owner"])]
    assert owners == [None, *sorted(names)]
    assert [owner for (owner,) in store.select(Uow, ["owner"], order=["-owner"])] == owners[::-1]


def test_limit(store: Store) -> None:
    insert(store, *(job(n) for n in range(5)))
    assert ids(store.find(Job, order=["-start"], limit=2)) == ["p@004", "p@003"]
    assert store.select(Job, ["timeperiod"], [Where("start", ">=", T + 3 * H)], limit=10) == [
        ("003",),
        ("004",),
    ]
    assert store.find(Job, limit=0) == []


WHERE: dict[str, tuple[list[Where], str]] = {
    "=": ([Where("owner", "=", "Ab")], "1"),
    "= is sensitive to case": ([Where("owner", "=", "ab")], "2"),
    "= None": ([Where("owner", "=", None)], "0"),
    "!=": ([Where("owner", "!=", "Ab")], "234"),
    "!= None": ([Where("owner", "!=", None)], "1234"),
    "<": ([Where("owner", "<", "ab")], "13"),
    "<=": ([Where("owner", "<=", "ab")], "123"),
    ">": ([Where("owner", ">", "ab")], "4"),
    ">=": ([Where("owner", ">=", "ab")], "24"),
    "in": ([Where("owner", "in", ["Ab", "a_c%", "x"])], "13"),
    "in a set": ([Where("owner", "in", {"ab"})], "2"),
    "in nothing": ([Where("owner", "in", [])], ""),
    "null": ([Where("owner", "null")], "0"),
    "notnull": ([Where("owner", "notnull")], "1234"),
    "prefix": ([Where("owner", "prefix", "a")], "23"),
    "prefix with a sign": ([Where("owner", "prefix", "a_")], "3"),
    "prefix of nothing": ([Where("owner", "prefix", "")], "1234"),
    "prefix at the edge": ([Where("owner", "prefix", "b\ud7ff")], "4"),
    "contains": ([Where("owner", "contains", "b")], "124"),
    "contains a sign": ([Where("owner", "contains", "%")], "3"),
    "contains nothing": ([Where("owner", "contains", "zz")], ""),
    "several": ([Where("owner", "notnull"), Where("run", ">", 2), Where("run", "<=", 3)], "3"),
    "flag": ([Where("dirty", "=", True)], "02"),
    "no flag": ([Where("dirty", "!=", True)], "134"),
    "state": ([Where("state", "=", "invalid")], "1"),
    "no state": ([Where("state", "!=", "invalid")], "0234"),
    "states": ([Where("state", "in", ("requested", "invalid"))], "0124"),
    "states of any kind": ([Where("state", "in", ["processed", "o'clock"])], "3"),
    "no such state": ([Where("state", "=", "o'clock")], ""),
    "states not": ([Where("state", "in", [])], ""),
    "time": ([Where("start", ">", T), Where("start", "<", T + 3 * H)], "12"),
    "times": ([Where("start", "in", [T, T + 4 * H])], "04"),
    "time null": ([Where("due_at", "<=", T + H)], "1"),
    "json": ([Where("arguments", "=", {"n": 1})], "1"),
}


@pytest.mark.parametrize("case", WHERE)
def test_conditions(store: Store, case: str) -> None:
    where, expected = WHERE[case]
    insert(
        store,
        uow(0, dirty=True, run=0),
        uow(1, owner="Ab", state="invalid", due_at=T, arguments={"n": 1}, run=1),
        uow(2, owner="ab", dirty=True, run=2, due_at=T + 2 * H),
        uow(3, owner="a_c%", state="processed", run=3),
        uow(4, owner="b\ud7ffb", run=4),
    )
    found = [str(n) for (n,) in store.select(Uow, ["run"], where)]
    assert "".join(found) == expected
    assert [str(u.run) for u in store.find(Uow, where)] == found
    assert store.count(Uow, where) == {(): len(found)}
    with store.transaction() as transaction:
        assert [str(u.run) for u in transaction.find(Uow, where)] == found
        assert transaction.delete(Uow, where) == len(found)
    assert store.count(Uow) == {(): 5 - len(found)}


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 1_000, 10_000, 20_000])
def test_in_of_many(store: Store, n: int) -> None:
    insert(store, *(job(i) for i in range(70)))
    assert len(store.find(Job, [Where("id", "in", [f"p@{i:03}" for i in range(n)])])) == min(n, 70)


def test_select_gives_tuples_in_the_asked_order(store: Store) -> None:
    insert(store, uow(1, due_at=T, arguments={"a": 1}))
    assert store.select(Uow, ["state", "due_at", "id", "arguments", "dirty", "owner"]) == [
        ("requested", T, "p@001#1", {"a": 1}, False, None)
    ]
    assert store.select(Uow, ["id"]) == [("p@001#1",)]


def test_count(store: Store) -> None:
    insert(
        store,
        *(job(n, state="embryo" if n % 3 else "skipped", open=bool(n % 3), ready=None) for n in range(7)),
    )
    assert store.count(Job) == {(): 7}
    assert store.count(Job, [Where("open", "=", True)]) == {(): 4}
    assert store.count(Job, by=["state"]) == {("embryo",): 4, ("skipped",): 3}
    assert store.count(Job, by=("process", "open", "ready")) == {("p", True, None): 4, ("p", False, None): 3}
    assert store.count(Job, [Where("start", ">", T + 99 * H)]) == {(): 0}
    assert store.count(Job, [Where("start", ">", T + 99 * H)], ["state"]) == {}
    assert store.count(Job, by=["start"])[(T,)] == 1


def test_get(store: Store) -> None:
    insert(store, job(1), LogChunk(uow="u", attempt=1, n=2, at=T, text="x"))
    assert store.get(Job, "p@001") == job(1)
    assert store.get(Job, "p@002") is None
    assert store.get(LogChunk, "u", 1, 2) is not None
    assert store.get(LogChunk, "u", 2, 2) is None


def test_delete(store: Store) -> None:
    insert(store, *(job(n) for n in range(5)), uow(1))
    with store.transaction() as transaction:
        assert transaction.delete(Job, [Where("start", "<", T + 2 * H)]) == 2
        assert transaction.delete(Job, [Where("id", "=", "nobody")]) == 0
    assert ids(store.find(Job)) == ["p@002", "p@003", "p@004"]
    with store.transaction() as transaction:
        assert transaction.delete(Job, []) == 3
    assert store.find(Job) == []
    assert store.find(Uow) == [uow(1)]


# --- the transaction


def test_an_exception_rolls_back_everything(store: Store) -> None:
    insert(store, job(1), job(2))
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:  # noqa: PT012
        transaction.insert([job(3)])
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
        transaction.delete(Job, [Where("id", "=", "p@002")])
        raise ZeroDivisionError
    assert store.find(Job) == [job(1), job(2)]
    insert(store, job(3))  # and the store is as good as before
    assert store.count(Job) == {(): 3}


def test_a_transaction_sees_its_own_writes(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.insert([job(1), job(2)])
        assert ids(transaction.find(Job)) == ["p@001", "p@002"]
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
        transaction.delete(Job, [Where("id", "=", "p@002")])
        assert transaction.find(Job, [Where("state", "=", "skipped")]) == [job(1, state="skipped")]
        assert transaction.find(Job, order=["-start"], limit=1) == [job(1, state="skipped")]


def test_a_failed_transaction_does_not_commit_even_if_the_error_was_caught(store: Store) -> None:
    insert(store, job(1))
    with pytest.raises(Conflict), store.transaction() as transaction:  # noqa: PT012
        transaction.insert([job(2)])
        with pytest.raises(Conflict):
            transaction.insert([job(1)])
    assert store.find(Job) == [job(1)]


def test_a_transaction_inside_a_transaction_is_a_bug(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.insert([job(1)])
        with pytest.raises(AssertionError), store.transaction():
            pass
    assert ids(store.find(Job)) == ["p@001"]


def test_an_empty_transaction(store: Store) -> None:
    with store.transaction() as transaction:
        assert transaction.update([]) == 0
    insert(store, job(1))


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.find(Job)
    with pytest.raises(StoreUnavailable, match="closed"), store.transaction():
        pass


# --- the lease


def lease(store: Store, **changed: Any) -> Lease:
    """A lease of 30 s from now."""
    now = store.now()
    taken = Lease(name="scheduler", holder="a", token=1, taken_at=now, expires_at=now + timedelta(seconds=30))
    return replace(taken, **changed)


def test_a_commit_renews_the_lease(store: Store, clock: Any) -> None:
    mine = lease(store, data={"session": 7})
    insert(store, mine, lease(store, name="other"))
    clock.move(20)
    with store.transaction(mine) as transaction:
        transaction.insert([job(1)])
    assert store.get(Lease, "scheduler") == replace(mine, expires_at=store.now() + timedelta(seconds=30))
    assert store.get(Lease, "other") == lease(
        store, name="other", taken_at=mine.taken_at, expires_at=mine.expires_at
    )
    clock.move(20)
    with store.transaction(mine):  # a transaction without another write renews it as well
        pass
    assert store.get(Lease, "scheduler") == replace(mine, expires_at=store.now() + timedelta(seconds=30))
    assert store.count(Job) == {(): 1}


@pytest.mark.parametrize("now_held_by", [{"token": 2}, {"holder": "b"}, {"token": 2, "holder": "b"}, None])
def test_a_lost_lease_keeps_nothing(store: Store, now_held_by: dict[str, Any] | None) -> None:
    mine = lease(store)
    current = replace(mine, **now_held_by) if now_held_by else None
    insert(store, job(1), *([current] if current else []))
    with pytest.raises(LeaseLost, match="scheduler"), store.transaction(mine) as transaction:  # noqa: PT012
        transaction.insert([job(2)])
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
    assert store.find(Job) == [job(1)]
    assert store.get(Lease, "scheduler") == current


def test_a_lease_that_ran_out_but_was_not_taken_is_still_ours(store: Store, clock: Any) -> None:
    mine = lease(store)
    insert(store, mine)
    clock.move(3600)
    with store.transaction(mine) as transaction:
        transaction.insert([job(1)])
    assert store.count(Job) == {(): 1}


def test_a_take_over_by_compare_and_set(store: Store, clock: Any) -> None:
    insert(store, lease(store))
    clock.move(60)
    now = store.now()
    taken: dict[str, Any] = {
        "holder": "b",
        "token": 2,
        "taken_at": now,
        "expires_at": now + timedelta(seconds=30),
    }
    assert update(store, Change(Lease, "scheduler", {"token": 1}, taken)) == 1
    assert update(store, Change(Lease, "scheduler", {"token": 1}, taken | {"holder": "c"})) == 0
    assert store.get(Lease, "scheduler") == Lease(name="scheduler", **taken)


# --- threads


def together(*functions: Callable[[], None]) -> None:
    """Run them in threads at the same time; raises what they raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_write_and_read_at_once(store: Store) -> None:
    insert(store, *(uow(n) for n in range(40)))
    won: list[int] = []

    def claim(name: str) -> None:
        for n in range(40):
            accept = Change(Uow, f"p@{n:03}#1", {"owner": None}, {"owner": name}, f"{name}\n")
            if update(store, accept):
                won.append(n)
            assert store.count(Uow) == {(): 40}

    together(*(lambda name=f"t{i}": claim(name) for i in range(6)))
    assert sorted(won) == list(range(40))
    assert {u.history_n for u in store.find(Uow)} == {1}


def test_nothing_is_lost_between_threads_that_read_and_write(store: Store) -> None:
    insert(store, Fact(key="n", value={"n": 0}))

    def add() -> None:
        for _ in range(25):
            with store.transaction() as transaction:
                (fact,) = transaction.find(Fact, [Where("key", "=", "n")])
                transaction.update([Change(Fact, "n", {}, {"value": {"n": fact.value["n"] + 1}})])

    together(*[add] * 4)
    assert store.get(Fact, "n") == Fact(key="n", value={"n": 100})
