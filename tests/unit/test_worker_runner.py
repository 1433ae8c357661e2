"""The runner, pass by pass: real store and broker in memory, a clock moved by hand, played executions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import open_store
from mq import open_broker
from scheduler.clock import ManualClock
from scheduler.core.command import Command
from scheduler.core.errors import BrokerUnavailable, StoreUnavailable
from scheduler.core.event import history_entries
from scheduler.core.lifecycle import UOW
from scheduler.core.ports import REPORT_QUEUE, Change, Outgoing, Where, control_queue
from scheduler.core.process import Process, Readiness, managed
from scheduler.core.records import LogChunk
from scheduler.core.uow import Uow, uow_id
from worker.executor import LateData, LogText, Note, Outcome, ProgressNote
from worker.runner import Runner

NOW = datetime(2020, 5, 1, 12, tzinfo=UTC)


class PlayedExecutor:
    """Runs nothing: the test ends executions."""

    def __init__(self, capacity: int = 2) -> None:
        self.capacity = capacity
        self.running: dict[str, Uow] = {}
        self.stops: list[tuple[str, bool]] = []
        self.leases: dict[str, float] = {}
        self.ended: list[Outcome] = []
        self.said: list[Note] = []
        self.waited: list[float] = []

    def start(self, uow: Uow, process: Process) -> None:
        assert len(self.running) < self.capacity and uow.token
        self.running[uow.token] = uow

    def end(self, uow_id: str, verb: str = "succeed", **values: Any) -> None:
        uow = next(u for u in self.running.values() if u.id == uow_id)
        assert uow.token
        del self.running[uow.token]
        self.ended.append(Outcome(uow_id=uow.id, token=uow.token, verb=verb, **values))  # type: ignore[arg-type]

    def poll(self, timeout_s: float, also: Sequence[int] = ()) -> list[Outcome]:
        self.waited.append(timeout_s)
        ended, self.ended = self.ended, []
        return ended

    def is_ready(self, fd: int) -> bool:
        return True

    def notes(self) -> list[Note]:
        said, self.said = self.said, []
        return said

    def stop(self, token: str, *, hard: bool = False) -> None:
        self.stops.append((token, hard))
        if token in self.running:
            self.end(self.running[token].id, "stopped")

    def lease(self, token: str, seconds_left: float) -> None:
        self.leases[token] = seconds_left

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class Faulty:
    """A store whose next transactions fail: before the commit, or after it (the answer is lost)."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.faults: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    @contextmanager
    def transaction(self, lease: Any = None) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        with self.store.transaction() as transaction:
            yield transaction
            if fault == "before":
                raise StoreUnavailable("the line is cut")
        if fault == "after":
            raise StoreUnavailable("no answer to the commit")


class Stage:
    """A runner and everything around it."""

    def __init__(self, *processes: Process, slots: int = 2, **options: Any) -> None:
        self.clock = ManualClock(NOW)
        self.store = Faulty(open_store("sqlite:///:memory:", clock=self.clock))
        self.store.init()
        self.broker = open_broker("embedded:///:memory:")
        self.executor = PlayedExecutor(slots)
        tokens = itertools.count(1)
        self.processes = {p.name: p for p in processes or (hourly(),)}
        self.runner = Runner(
            store=self.store,
            broker=self.broker,
            clock=self.clock,
            executor=self.executor,
            processes=self.processes,
            queues=["default"],
            owner="w1",
            box="here",
            new_token=lambda: f"t{next(tokens)}",
            **options,
        )
        self.reports = self.broker.consume([REPORT_QUEUE], 1000)

    def request(self, n: int = 0, process: str = "hourly", *, send: bool = True, **values: Any) -> str:
        start = NOW + timedelta(hours=n)
        label = start.strftime("%Y%m%d%H")
        fields: dict[str, Any] = {"published_at": NOW, "requested_at": NOW, "created_at": NOW, **values}
        uow = Uow(
            id=uow_id(f"{process}@{label}", 1),
            process=process,
            timeperiod=label,
            run=1,
            start=start,
            end=start + timedelta(hours=1),
            queue="default",
            **fields,
        )
        with self.store.transaction() as transaction:
            transaction.insert([uow])
        if send:
            self.send(uow.id)
        return uow.id

    def send(self, *ids: str, priority: int = 5) -> None:
        self.broker.publish([Outgoing("default", uow_id, priority) for uow_id in ids])

    def uow(self, uow_id: str) -> Uow:
        found = self.store.get(Uow, uow_id)
        assert isinstance(found, Uow)
        return found

    def leader(self, uow_id: str, verb: str, **values: Any) -> None:
        """A change by the leading scheduler."""
        uow = self.uow(uow_id)
        state = UOW.successor(uow_id, uow.state, verb)
        change = Change(
            Uow, uow_id, {"version": uow.version}, {"state": state, "version": uow.version + 1, **values}
        )
        with self.store.transaction() as transaction:
            assert transaction.update([change]) == 1

    def reported(self) -> list[str]:
        messages = self.reports.receive(1000, 0)
        self.reports.ack([message.tag for message in messages])
        return [message.body for message in messages]


def hourly(**options: Any) -> Process:
    return managed("hourly", "worker.ready_made:nothing", "hourly", **options)


def verbs(uow: Uow) -> list[str]:
    return [entry["verb"] for entry in history_entries(uow.history)]


def test_a_unit_of_work_is_accepted_executed_finished_and_reported() -> None:
    stage = Stage()
    uow_id = stage.request()
    assert stage.runner.step(1).accepted == [uow_id]
    uow = stage.uow(uow_id)
    assert (uow.state, uow.owner, uow.box, uow.token, uow.version) == ("in_progress", "w1", "here", "t1", 1)
    assert uow.lease_until == uow.due_at == NOW + timedelta(seconds=60) and uow.is_held
    assert stage.executor.running["t1"].version == 1
    stage.clock.advance(5)
    stage.executor.end(uow_id, result={"rows": 3}, cursor="17", more=True)
    assert stage.runner.step(1).finished == [uow_id]
    uow = stage.uow(uow_id)
    assert (uow.state, uow.result, uow.cursor_end, uow.more, uow.version) == (
        "processed",
        {"rows": 3},
        "17",
        True,
        2,
    )
    assert uow.dirty and not uow.is_held and uow.finished_at == uow.due_at == NOW + timedelta(seconds=5)
    assert verbs(uow) == ["accept", "succeed"] and uow.history_n == 2
    assert stage.reported() == [uow_id]


def test_32_only_free_slots_take_messages_and_higher_priorities_go_first() -> None:
    stage = Stage(slots=2)
    ids = [stage.request(n, send=False) for n in range(4)]
    for unit, priority in zip(ids, (1, 10, 5, 10), strict=True):
        stage.send(unit, priority=priority)
    assert stage.runner.step(1).accepted == [ids[1], ids[3]]
    assert not stage.runner.step(1)
    stage.executor.end(ids[1])
    did = stage.runner.step(1)
    assert (did.finished, did.accepted) == ([ids[1]], [ids[2]])  # in one pass


def test_29_a_double_for_a_running_or_finished_one_is_dropped_and_it_goes_on() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.send(uow_id)
    assert stage.runner.step(1).dropped == [uow_id]
    assert stage.runner.running == [uow_id] and stage.executor.stops == []
    stage.executor.end(uow_id)
    stage.runner.step(1)
    stage.send(uow_id)
    assert stage.runner.step(1).dropped == [uow_id]
    assert stage.uow(uow_id).version == 2
    assert stage.broker.depth(["default"]) == {"default": 0}


def test_29_two_doubles_in_one_batch_are_one_accept() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.send(uow_id)
    assert stage.runner.step(1).accepted == [uow_id]
    assert not stage.runner.step(1)
    assert stage.broker.depth(["default"]) == {"default": 0}


def test_a_failure_keeps_error_and_traceback_and_counts() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.end(
        uow_id, "fail", error="ValueError: no\nsecond line", traceback="Traceback…", permanent=True
    )
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.error, uow.traceback) == ("invalid", "ValueError: no", "Traceback…")
    assert (uow.failures, uow.permanent, uow.timed_out) == (1, True, False)


@pytest.mark.parametrize(("verb", "state"), [("no_data", "noop"), ("cancel", "canceled")])
def test_noop_and_cancel_keep_their_reason(verb: str, state: str) -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.end(uow_id, verb, error="nothing there")
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.error, uow.failures, uow.is_held) == (state, "nothing there", 0, False)


def test_28_a_renewed_lease_holds_for_hours() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    for _ in range(3 * 60 * 6):
        stage.clock.advance(10)
        assert stage.runner.renew() == 1
        stage.runner.step(0)
    uow = stage.uow(uow_id)
    assert uow.lease_until == stage.store.now() + timedelta(seconds=60)
    assert (uow.version, uow.state) == (1, "in_progress") and stage.executor.stops == []
    stage.executor.end(uow_id)
    assert stage.runner.step(1).finished == [uow_id]


def test_a_lease_that_could_not_be_renewed_ends_the_work_before_it_ends() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.clock.advance(50)
    stage.store.faults = ["before"]
    with pytest.raises(StoreUnavailable):
        stage.runner.renew()
    stage.clock.advance(8)
    did = stage.runner.step(1)
    assert stage.executor.stops == [("t1", True)] and stage.executor.waited[-1] == 0
    did = stage.runner.step(1)
    assert did.lost == [uow_id] and not stage.runner.running
    assert stage.uow(uow_id).state == "in_progress"  # nothing was written: the leader calls it lost


def test_25_a_cancel_found_by_the_renewal_stops_the_work_and_says_so() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.leader(uow_id, "cancel")
    assert stage.runner.renew() == 0
    stage.runner.step(1)
    assert stage.executor.stops == [("t1", False)]
    assert stage.runner.step(1).stopped == [uow_id]
    uow = stage.uow(uow_id)
    assert (uow.state, uow.stopped_at, uow.dirty, uow.is_held) == ("canceled", NOW, True, False)
    assert verbs(uow) == ["accept", "stopped"] and uow.version == 2
    assert stage.reported() == [uow_id]


def test_25_the_control_queue_tells_the_worker_at_once() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.leader(uow_id, "cancel")
    stage.broker.publish([Outgoing(control_queue("w1"), uow_id)])
    stage.runner.step(1)
    assert stage.executor.stops == [("t1", False)]
    assert stage.runner.step(1).stopped == [uow_id]


def test_25_a_success_after_the_cancel_changes_nothing() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.leader(uow_id, "cancel")
    stage.executor.end(uow_id, result={"n": 1})
    stage.runner.step(1)
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.result) == ("canceled", None) and uow.stopped_at is not None


def test_work_taken_away_is_stopped_and_writes_nothing() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.leader(uow_id, "fail", losses=1)
    stage.leader(uow_id, "retry", attempt=2, token=None, owner=None, lease_until=None)
    stage.runner.renew()
    stage.runner.step(1)
    assert stage.executor.stops == [("t1", True)]
    assert stage.runner.step(1).lost == [uow_id]
    assert stage.uow(uow_id).state == "requested"


def test_55_a_time_out_stops_the_work_and_counts_as_a_failure() -> None:
    stage = Stage(hourly(timeout_s=5))
    uow_id = stage.request()
    stage.runner.step(1)
    stage.clock.advance(5)
    stage.runner.step(1)
    assert stage.executor.stops == [("t1", False)]
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.timed_out, uow.failures) == ("invalid", True, 1)
    assert uow.error == "ran longer than timeout_s=5"


def test_55_an_end_after_the_time_out_is_a_failure_too() -> None:
    stage = Stage(hourly(timeout_s=5))
    uow_id = stage.request()
    stage.runner.step(1)
    stage.clock.advance(6)
    stage.executor.end(uow_id)
    stage.executor.ended, late = [], stage.executor.ended
    stage.runner.step(1)  # it is told to stop, and its end comes now
    stage.executor.ended = late
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.timed_out) == ("invalid", True)


def test_41_a_drain_lets_work_finish_gives_messages_back_and_releases_the_rest() -> None:
    stage = Stage(grace_s=30)
    ids = [stage.request(n) for n in range(3)]
    stage.runner.step(1)
    stage.runner.drain()
    stage.runner.step(1)
    assert stage.broker.depth(["default"]) == {"default": 1} and not stage.runner.is_done
    stage.executor.end(ids[0])
    assert stage.runner.step(1).finished == [ids[0]]
    stage.clock.advance(30)
    stage.runner.step(1)
    assert stage.runner.step(1).released == [ids[1]]
    uow = stage.uow(ids[1])
    assert (uow.state, uow.attempt, uow.owner, uow.token, uow.lease_until) == (
        "requested",
        1,
        None,
        None,
        None,
    )
    assert uow.due_at is not None and uow.published_at is None and uow.failures == 0
    assert stage.runner.is_done and stage.reported() == [ids[0], ids[1]]


def test_41_a_second_word_does_not_wait() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.runner.drain()
    stage.runner.step(1)
    stage.runner.drain(now=True)
    stage.runner.step(1)
    assert stage.executor.stops == [("t1", True)]
    assert stage.runner.step(1).released == [uow_id] and stage.runner.is_done


def test_31_a_store_outage_keeps_the_work_and_finishes_afterwards() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.end(uow_id)
    stage.store.faults = ["before"] * 3
    for _ in range(3):
        assert not stage.runner.step(1)
        assert not stage.runner.step(1)  # too early to try again
        stage.clock.advance(1)
    assert stage.runner.step(1).finished == [uow_id]
    assert stage.uow(uow_id).state == "processed"


def test_an_accept_whose_answer_was_lost_is_found_by_its_token() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.store.faults = ["after"]
    assert not stage.runner.step(1)
    assert stage.uow(uow_id).state == "in_progress" and not stage.executor.running
    stage.clock.advance(1)
    assert stage.runner.step(1).accepted == [uow_id]
    assert list(stage.executor.running) == ["t1"]
    assert stage.broker.depth(["default"]) == {"default": 0}


def test_an_accept_whose_answer_comes_after_its_lease_is_not_started() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.store.faults = ["after"]
    stage.runner.step(1)
    stage.clock.advance(58)
    assert stage.runner.step(1).lost == [uow_id]
    assert not stage.executor.running and not stage.runner.step(1)
    assert stage.broker.depth(["default"]) == {"default": 0}


def test_28_work_ended_by_the_guard_is_lost_and_no_failure() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.clock.advance(58)  # the whole worker was stopped
    stage.executor.end(uow_id, "fail", error="worker code ended its process (signal SIGKILL)")
    assert stage.runner.step(1).lost == [uow_id]
    assert (stage.uow(uow_id).state, stage.uow(uow_id).failures) == ("in_progress", 0)


def test_an_accept_that_never_arrived_is_made_again() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.store.faults = ["before"]
    assert not stage.runner.step(1)
    stage.clock.advance(1)
    assert stage.runner.step(1).accepted == [uow_id]
    assert list(stage.executor.running) == ["t2"]


def test_a_finish_whose_answer_was_lost_is_not_written_twice() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.said = [LogText("t1", "hello\n")]
    stage.executor.end(uow_id)
    stage.store.faults = ["after"]
    assert not stage.runner.step(1)
    stage.clock.advance(1)
    assert stage.runner.step(1).finished == [uow_id]
    uow = stage.uow(uow_id)
    assert verbs(uow) == ["accept", "succeed"] and stage.reported() == [uow_id]
    assert [chunk.text for chunk in stage.store.find(LogChunk)] == ["hello\n"]


def test_31_a_broker_outage_delays_the_report_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)

    def fail(*_: Any) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(stage.broker, "publish", fail)
    stage.executor.end(uow_id)
    assert stage.runner.step(1).finished == [uow_id]
    monkeypatch.undo()
    assert stage.reported() == []
    stage.clock.advance(1)
    stage.runner.step(1)
    assert stage.reported() == [uow_id]
    other = stage.request(1)
    assert other in stage.runner.step(1).accepted + stage.runner.step(1).accepted


def test_log_progress_and_late_data_are_written_while_it_runs_and_not_more_often_than_needed() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.said = [
        LogText("t1", "one\n"),
        ProgressNote("t1", 3, 10, "third"),
        LateData("t1", "hourly", "2020050107", "2 rows"),
    ]
    stage.runner.step(1)
    assert stage.uow(uow_id).progress == {"done": 3, "total": 10, "note": "third"}
    (command,) = stage.store.find(Command)
    assert (command.verb, command.actor, command.target) == (
        "late_data",
        "hourly",
        {"jobs": ["hourly@2020050107"]},
    )
    stage.executor.said = [ProgressNote("t1", 4, 10, "")]
    stage.clock.advance(0.5)
    stage.runner.step(1)
    assert stage.uow(uow_id).progress == {"done": 3, "total": 10, "note": "third"}
    stage.executor.said = [LogText("t1", "two\n"), ProgressNote("t1", 10, 10, "")]
    stage.executor.end(uow_id)
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert uow.progress == {"done": 10, "total": 10, "note": ""} and uow.version == 2
    chunks = stage.store.find(LogChunk, [Where("uow", "=", uow_id)])
    assert [(chunk.attempt, chunk.text) for chunk in chunks] == [(1, "one\n"), (1, "two\n")]
    assert len(stage.store.find(Command)) == 1


def test_a_released_attempt_goes_on_with_its_log() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.executor.said = [LogText("t1", "first\n")]
    stage.runner.drain(now=True)
    while not stage.runner.is_done:
        stage.runner.step(1)
    runner = Runner(
        store=stage.store,
        broker=stage.broker,
        clock=stage.clock,
        executor=stage.executor,
        processes=stage.processes,
        queues=["default"],
        owner="w2",
        box="here",
    )
    stage.send(uow_id)
    assert runner.step(1).accepted == [uow_id]
    (token,) = stage.executor.running
    stage.executor.said = [LogText(token, "second\n")]
    stage.executor.end(uow_id)
    runner.step(1)
    assert [chunk.text for chunk in stage.store.find(LogChunk)] == ["first\n", "second\n"]


@pytest.mark.parametrize(
    ("verb", "state", "error"),
    [("succeed", "processed", None), ("no_data", "noop", "no file"), ("fail", "noop", "KeyError: 'x'")],
)
def test_a_readiness_check_is_answered_not_failed(verb: str, state: str, error: str | None) -> None:
    stage = Stage(hourly(readiness=Readiness("a:b", timeout_s=7)))
    uow_id = stage.request(kind="check")
    stage.runner.step(1)
    assert stage.executor.waited[-1] <= 1
    stage.executor.end(uow_id, verb, error=error)
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.error, uow.failures) == (state, error, 0)


def test_a_check_that_takes_too_long_is_not_ready() -> None:
    stage = Stage(hourly(readiness=Readiness("a:b", timeout_s=7)))
    uow_id = stage.request(kind="check")
    stage.runner.step(1)
    stage.clock.advance(7)
    stage.runner.step(1)
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert (uow.state, uow.error) == ("noop", "ran longer than timeout_s=7")


def test_a_process_the_worker_does_not_know_fails_with_what_to_do() -> None:
    stage = Stage()
    uow_id = stage.request(process="daily")
    stage.runner.step(1)
    stage.runner.step(1)
    uow = stage.uow(uow_id)
    assert uow.state == "invalid"
    assert uow.error == "the process 'daily' is not in this worker's context; reload it"
    stage.runner.processes = {"daily": managed("daily", "a:b", "daily")}
    other = stage.request(1, process="daily")
    assert stage.runner.step(1).accepted == [other]
