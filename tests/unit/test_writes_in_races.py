"""What is written on what was read, after somebody else wrote: each compared field alone makes the write miss.

Most fields change together, so that one of them would do as long as nobody forgets to count. Here each race leaves
a row that differs from what was read in one field only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import open_store
from mq import open_broker
from scheduler.clock import ManualClock
from scheduler.core.command import DONE, EXPIRED, Command
from scheduler.core.commands import decide_command
from scheduler.core.errors import LeaseLost
from scheduler.core.job import Job
from scheduler.core.known import Known
from scheduler.core.ports import Change, Outgoing, Store
from scheduler.core.process import context, managed
from scheduler.core.records import LEADER, Lease
from scheduler.core.slice import Slice
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow
from scheduler.engine import Engine
from scheduler.outbox import MARK_AFTER_S
from worker import changes
from worker.executor import Outcome

NOW = datetime(2013, 7, 4, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
JOB = Job(
    id="hour@2013070400",
    process="hour",
    timeperiod="2013070400",
    start=NOW - timedelta(hours=1),
    end=NOW,
    version=1,
)
NEW = Uow(
    id="hour@2013070400#1",
    process="hour",
    timeperiod="2013070400",
    run=1,
    start=JOB.start,
    end=JOB.end,
    created_at=NOW,
    requested_at=NOW,
)
MINE = replace(
    NEW, state="in_progress", version=1, owner="w1", box="b", token="mine", started_at=NOW, lease_until=LATER
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(clock: ManualClock) -> Iterator[Store]:
    opened = open_store("sqlite:///:memory:", clock=clock)
    opened.init()
    yield opened
    opened.close()


def timetable() -> Timetable:
    return Timetable(context([managed("hour", "m:f", "hourly")], [], [], "2013070400"))


def hits(store: Store, row: Any, *writes: Change) -> int:
    """How many of the writes hit where the store holds `row` by now; what they miss stays as it is."""
    with store.transaction() as transaction:
        transaction.insert([row])
    with store.transaction() as transaction:
        hit = transaction.update(writes)
    assert hit or store.find(type(row)) == [row]
    return hit


# -- what a turn decided ------------------------------------------------------------------------------


def turn_on_a_job() -> list[Change]:
    """A turn that read JOB finishes it."""
    s = Slice(Known(timetable()), NOW, NOW)
    s.jobs[JOB.id] = JOB
    s.change_job(JOB, "skip", reason="operator")
    return s.drain().changes


def turn_on_a_uow(uow: Uow, verb: str) -> list[Change]:
    """A turn that read `uow` changes its state."""
    s = Slice(Known(timetable()), NOW, NOW)
    s.active = {"hour": 1}
    s.uows[uow.id] = uow
    s.change_uow(uow, verb)
    return s.drain().changes


def marks_on(uow: Uow) -> list[Change]:
    """A turn that read `uow` sees nothing left to do for it."""
    s = Slice(Known(timetable()), NOW, NOW)
    s.uows[uow.id] = uow
    s.change_uow(uow, due_at=None, dirty=False)
    return s.drain().marks


@pytest.mark.parametrize("now_there", [{"state": "in_progress"}, {"version": 2}])
def test_a_job_that_another_leader_changed_is_not_written_over(
    store: Store, now_there: dict[str, Any]
) -> None:
    assert hits(store, replace(JOB, **now_there), *turn_on_a_job()) == 0


@pytest.mark.parametrize("now_there", [{"state": "in_progress"}, {"version": 1}])
def test_a_unit_of_work_that_a_worker_accepted_meanwhile_is_not_canceled_as_one_nobody_holds(
    store: Store, now_there: dict[str, Any]
) -> None:
    assert hits(store, replace(NEW, **now_there), *turn_on_a_uow(NEW, "cancel")) == 0


def test_a_worker_that_renewed_meanwhile_is_not_called_lost(store: Store) -> None:
    renewed = replace(MINE, lease_until=LATER + timedelta(seconds=5))
    assert hits(store, renewed, *turn_on_a_uow(MINE, "fail")) == 0


@pytest.mark.parametrize("now_there", [{"history_n": 3}, {"version": 3}])
def test_a_line_that_was_written_after_the_look_is_still_to_be_looked_at(
    store: Store, now_there: dict[str, Any]
) -> None:
    """A worker that says it let go writes a line and changes no state: the mark must not say it was read."""
    seen = replace(MINE, state="canceled", version=2, history_n=2, copied=2, dirty=True, due_at=NOW)
    assert hits(store, replace(seen, **now_there), *marks_on(seen)) == 0


def test_without_a_race_a_turn_is_written(store: Store) -> None:
    assert hits(store, JOB, *turn_on_a_job()) == 1
    assert hits(store, MINE, *turn_on_a_uow(MINE, "fail")) == 1
    seen = replace(NEW, id="hour@2013070400#2", dirty=True, due_at=NOW)
    assert hits(store, seen, *marks_on(seen)) == 1


def test_a_command_that_was_resolved_meanwhile_keeps_its_outcome(store: Store) -> None:
    """Its outcome is what its actor was told."""
    command = Command(id="c1", verb="hold", submitted_at=NOW, expires_at=NOW)
    s = Slice(Known(timetable()), NOW, NOW)
    decide_command(s, command)
    resolved = s.drain().commands
    assert [change.set["state"] for change in resolved] == [EXPIRED]
    assert hits(store, replace(command, state=DONE, status=200, message="held"), *resolved) == 0


# -- what a worker tells ------------------------------------------------------------------------------


def test_what_was_canceled_before_it_was_accepted_is_not_begun(store: Store) -> None:
    accept = changes.accept(NEW, owner="w1", box="b", token="t", now=NOW, lease_s=9)
    assert hits(store, replace(NEW, state="canceled"), accept) == 0


@pytest.mark.parametrize("now_there", [{"state": "canceled"}, {"token": "theirs"}])
@pytest.mark.parametrize(
    "write",
    [
        changes.finish(MINE, Outcome(uow_id=MINE.id, token="mine", verb="succeed"), now=LATER),
        changes.release(MINE, now=LATER, reason="leaving"),
    ],
    ids=["finish", "release"],
)
def test_who_lost_a_unit_of_work_does_not_end_it(
    store: Store, write: Change, now_there: dict[str, Any]
) -> None:
    """It was canceled, or another worker holds it: neither its outcome nor its leaving counts."""
    assert hits(store, replace(MINE, **now_there), write) == 0


# -- the leader's lease -------------------------------------------------------------------------------


def engine_on(store: Store, clock: ManualClock, holder: str) -> Engine:
    return Engine(store, open_broker("embedded:///:memory:"), clock, timetable(), holder=holder)


def write_lease(store: Store, **sets: Any) -> Lease:
    """Somebody else writes the lease; what it is now."""
    with store.transaction() as transaction:
        assert transaction.update([Change(Lease, LEADER, {}, sets)]) == 1
    return lease_in(store)


def lease_in(store: Store) -> Lease:
    lease = store.get(Lease, LEADER)
    assert lease is not None
    return lease


OTHERS = [
    pytest.param({"token": 2}, id="token"),
    pytest.param({"holder": "other"}, id="holder"),
    pytest.param({"expires_at": NOW + timedelta(hours=1)}, id="expires_at"),
]


@pytest.mark.parametrize("now_there", OTHERS)
def test_of_two_that_see_the_lease_free_one_leads(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, now_there: dict[str, Any]
) -> None:
    """Between the look at the lease and the write, another one took it, or its holder came back and renewed it."""
    assert engine_on(store, clock, "first").lead()
    clock.advance(60)
    monkeypatch.setattr(store, "end_session", lambda lease: write_lease(store, **now_there))  # in between
    late = engine_on(store, clock, "late")
    assert not late.lead()
    assert late.lease is None
    taken = lease_in(store)
    assert taken.holder != "late"
    assert {key: getattr(taken, key) for key in now_there} == now_there


@pytest.mark.parametrize("now_there", OTHERS[:2])
def test_who_steps_down_after_it_was_replaced_leaves_the_lease_to_the_other(
    store: Store, clock: ManualClock, now_there: dict[str, Any]
) -> None:
    engine = engine_on(store, clock, "first")
    assert engine.lead()
    theirs = write_lease(store, **now_there)
    clock.advance(1)
    engine.step_down()
    assert lease_in(store) == theirs


@pytest.mark.parametrize("now_there", OTHERS[:2])
def test_nothing_is_saved_by_who_was_replaced(
    store: Store, clock: ManualClock, now_there: dict[str, Any]
) -> None:
    """The fence: the last write of a leader's transaction is the lease it was given, its number and its name."""
    engine = engine_on(store, clock, "first")
    assert engine.lead()
    theirs = write_lease(store, **now_there)
    with pytest.raises(LeaseLost, match="out of date"), store.transaction(engine.lease) as transaction:
        transaction.insert([JOB])
    assert store.find(Job) == []
    assert lease_in(store) == theirs


# -- that it was published ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now_there", "marked"), [(NEW, True), (replace(NEW, state="in_progress"), False)], ids=["waits", "begun"]
)
def test_only_what_still_waits_is_marked_as_published(
    store: Store, clock: ManualClock, now_there: Uow, marked: bool
) -> None:
    engine = engine_on(store, clock, "first")
    assert engine.lead()
    engine.turn([])
    with store.transaction() as transaction:
        transaction.insert([now_there])
    engine.outbox.send([Outgoing("default", NEW.id)])
    clock.advance(MARK_AFTER_S)
    engine.turn([])
    uow = store.get(Uow, NEW.id)
    assert uow is not None
    assert (uow.published_at is not None) == marked
