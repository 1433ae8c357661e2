"""The contract of the `Store` port, against every adapter: inserts, and updates by compare-and-set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.core.errors import Conflict
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Store, Where
from scheduler.core.uow import Uow
from tests.conformance.store_records import H, T, event, insert, job, uow, update


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
