"""The runner, pass by pass: what it takes, executes, answers, logs and reports."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.core.command import Command
from scheduler.core.ports import Where
from scheduler.core.process import Readiness, managed
from scheduler.core.records import LogChunk
from tests.unit.runner_stage import NOW, Stage, hourly, verbs
from worker.executor import LateData, LogText, ProgressNote
from worker.runner import Runner


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
