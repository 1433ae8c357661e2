"""The runner, pass by pass: over an outage, or an answer that was lost, work is neither lost nor doubled."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import BrokerUnavailable
from scheduler.core.records import LogChunk
from tests.unit.runner_stage import Stage, verbs
from worker.executor import LogText


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
