"""The runner, pass by pass: leases, cancels, time-outs and drains end work, and nothing is written after it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.core.errors import StoreUnavailable
from scheduler.core.ports import Outgoing, control_queue
from tests.unit.runner_stage import NOW, Stage, hourly, verbs


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


def test_28_work_ended_by_the_guard_is_lost_and_no_failure() -> None:
    stage = Stage()
    uow_id = stage.request()
    stage.runner.step(1)
    stage.clock.advance(58)  # the whole worker was stopped
    stage.executor.end(uow_id, "fail", error="worker code ended its process (signal SIGKILL)")
    assert stage.runner.step(1).lost == [uow_id]
    assert (stage.uow(uow_id).state, stage.uow(uow_id).failures) == ("in_progress", 0)
