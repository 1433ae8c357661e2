"""Acceptance 26-31 and 34 on the engine: lost workers, lost messages, doubled reports, two schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from scheduler.core.errors import BrokerUnavailable, LeaseLost
from scheduler.core.ports import REPORT_QUEUE, Change, Outgoing
from scheduler.core.process import Readiness, Retry, managed
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from scheduler.engine import Engine
from tests.world import World

NOW = "2020-05-01T03:10:00"


def hourly(**more: Any) -> World:
    more.setdefault("max_active", 1)
    return World([managed("h", "m:f", "hourly", **more)], start="2020050100", now=NOW)


def test_27_a_lost_worker_is_retried_at_once_and_not_counted() -> None:
    w = hourly(retry=Retry(max_retries=0))
    w.accept("h@2020050100#1")
    w.wait(59)
    assert w.uow("h@2020050100#1").state == "in_progress"
    w.wait(1)
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.attempt, uow.losses, uow.failures) == ("requested", 2, 1, 0)
    w.work("h@2020050100")
    assert w.job("h@2020050100").state == "processed"


def test_27_where_a_supervisor_saw_it_die_nobody_waits_for_the_lease() -> None:
    w = hourly()
    w.accept("h@2020050100#1", owner="b1/worker/1")
    w.command("worker_died", {"owner": "b1/worker/1"}, actor="box:b1")
    assert (w.uow("h@2020050100#1").state, w.uow("h@2020050100#1").attempt) == ("requested", 2)


def test_a_uow_lost_too_often_is_given_up() -> None:
    w = hourly(retry=Retry(max_lost=2))
    for _ in range(3):
        w.accept("h@2020050100#1")
        w.wait(60)
    job = w.job("h@2020050100")
    assert (job.state, job.reason) == ("skipped", "lost")


def test_28_a_renewed_lease_is_never_given_to_anybody_else() -> None:
    w = hourly()
    w.accept("h@2020050100#1")
    for _ in range(30):
        w.clock.advance(50)
        until = w.store.now() + timedelta(seconds=60)
        with w.store.transaction() as tx:
            assert (
                tx.update(
                    [
                        Change(
                            Uow,
                            "h@2020050100#1",
                            {"state": "in_progress"},
                            {"lease_until": until, "due_at": until},
                        )
                    ]
                )
                == 1
            )
        w.settle()
    assert (w.uow("h@2020050100#1").attempt, w.uow("h@2020050100#1").losses) == (1, 0)


def test_29_doubled_and_stale_reports_change_nothing() -> None:
    w = hourly()
    w.work("h@2020050100")
    before = (w.jobs("h"), w.uows(), len(w.events()))
    w.broker.publish(
        [Outgoing(REPORT_QUEUE, "h@2020050100#1")] * 3 + [Outgoing(REPORT_QUEUE, "h@2020050199#7")]
    )
    w.settle()
    assert (w.jobs("h"), w.uows(), len(w.events())) == before


def test_a_lost_report_delays_by_a_tick_only() -> None:
    w = hourly()
    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    w.settle()
    assert w.job("h@2020050100").state == "processed"


def test_30_a_message_without_consumer_waits_and_is_published_again_when_nobody_answers() -> None:
    w = hourly()
    assert w.broker.purge("default") == 1
    w.wait(59)
    assert w.messages() == []
    w.wait(1)
    assert w.messages() == ["h@2020050100#1"]
    w.broker.purge("default")
    w.wait(60)
    assert w.messages() == []
    w.wait(60)
    assert w.messages() == ["h@2020050100#1"]


def finish_while_the_broker_is_away(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first hour ends, the next one is requested, and its message goes nowhere."""

    def refuse(messages: Sequence[Outgoing]) -> None:
        raise BrokerUnavailable("no broker")

    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    monkeypatch.setattr(w.broker, "publish", refuse)
    w.settle()


def test_31_broker_down_at_publish_the_uow_is_saved_and_published_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = hourly()
    publish = w.broker.publish

    finish_while_the_broker_is_away(w, monkeypatch)
    assert w.uow("h@2020050101#1").state == "requested"
    monkeypatch.setattr(w.broker, "publish", publish)
    w.clock.advance(w.engine.sleep_s())
    w.engine.outbox.flush()
    assert w.messages()[-1] == "h@2020050101#1"


def test_31_a_broker_that_is_away_for_long_is_asked_once_a_second_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    w = hourly()
    publish, tries = w.broker.publish, []

    def refuse(messages: Sequence[Outgoing]) -> None:
        tries.append(w.clock.monotonic())
        raise BrokerUnavailable("no broker")

    monkeypatch.setattr(w.broker, "publish", refuse)
    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    w.settle()
    begin = w.clock.monotonic()
    while w.clock.monotonic() < begin + 60:
        w.clock.advance(max(0.001, w.engine.sleep_s()))
        w.settle()
        w.engine.outbox.flush()
    gaps = [b - a for a, b in pairwise(tries)]
    assert 0.05 <= gaps[0] < 0.06 and 1.0 <= gaps[-1] < 1.1 and len(tries) < 70
    assert [r.message for r in caplog.records if "away" in r.message] == [
        "the broker is away (no broker); 1 messages wait"
    ]
    monkeypatch.setattr(w.broker, "publish", publish)
    w.clock.advance(1)
    w.engine.outbox.flush()
    assert w.messages()[-1] == "h@2020050101#1"


def test_who_leads_again_sends_nothing_of_its_former_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker was away, and another scheduler led meanwhile: what waited to be sent ended long ago."""
    w = hourly()
    publish, first = w.broker.publish, w.engine

    finish_while_the_broker_is_away(w, monkeypatch)
    assert first.outbox.waits_until() is not None
    monkeypatch.setattr(w.broker, "publish", publish)
    w.restart()
    w.work_all()
    w.broker.purge("default")
    w.engine.step_down()
    first.outage()
    first.lease = None
    assert first.lead()
    first.turn(first.due())
    w.clock.advance(1)
    first.outbox.flush()
    assert w.messages() == []


def test_a_scheduler_that_died_between_commit_and_publish_is_made_up_for() -> None:
    w = hourly()
    w.broker.purge("default")
    w.restart()
    assert w.messages() == ["h@2020050100#1"]


def second(w: World) -> Engine:
    return Engine(w.store, w.broker, w.clock, w.timetable, holder="other")


def test_34_one_leads_and_the_other_takes_over_within_the_lease() -> None:
    w = hourly()
    other = second(w)
    assert not other.lead()
    w.clock.advance(4.9)
    assert not other.lead()
    w.clock.advance(0.1)
    assert other.lead()
    other.turn(other.due())
    with pytest.raises(LeaseLost):
        w.engine.turn([Item("job", "h@2020050101")])
    assert w.engine.lease is None
    assert len(w.uows()) == 1


def test_34_a_paused_leader_cannot_commit_what_it_decided_before(monkeypatch: pytest.MonkeyPatch) -> None:
    w = hourly(max_active=2)
    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    other = second(w)
    send = Engine._apply

    def paused(self: Engine, decision: Any) -> int:
        if self is w.engine:
            w.clock.advance(10)
            assert other.lead()
            other.turn(other.due())
        return send(self, decision)

    monkeypatch.setattr(Engine, "_apply", paused)
    with pytest.raises(LeaseLost):
        w.engine.turn([Item("uow", "h@2020050100#1")])
    assert [job.state for job in w.jobs("h")] == ["processed", "in_progress", "in_progress", "embryo"]
    seqs = [event.seq for event in w.events()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_compare_and_set_that_misses_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    w = hourly()
    drain = type(w.engine)._apply
    raced: list[Any] = []

    def race(self: Engine, decision: Any) -> int:
        if decision.changes and not raced:
            raced.append(w.accept("h@2020050100#1"))
        return drain(self, decision)

    monkeypatch.setattr(Engine, "_apply", race)
    result = w.command("kill", "h@2020050100")
    assert raced
    assert result.status == 200
    assert w.job("h@2020050100").stopping == "h@2020050100#1"
    assert w.uow("h@2020050100#1").state == "canceled"


def test_after_a_take_over_nobody_is_called_lost_for_one_lease() -> None:
    w = hourly()
    w.accept("h@2020050100#1")
    w.clock.advance(120)
    w.engine.step_down()
    w.engine = Engine(w.store, w.broker, w.clock, w.timetable, holder="s9")
    assert w.engine.lead()
    w.settle()
    assert w.uow("h@2020050100#1").state == "in_progress"
    w.wait(60)
    assert w.uow("h@2020050100#1").attempt == 2


def test_a_wait_that_is_too_long_ends() -> None:
    w = hourly(wait_timeout_s=3600)
    w.wait(3600)
    job = w.job("h@2020050100")
    assert (job.state, job.reason) == ("skipped", "timed_out")


def test_readiness_is_asked_and_asked_again() -> None:
    w = hourly(readiness=Readiness("m:ready", every_s=300, wait_timeout_s=1000))
    check = w.open_uows()[0]
    assert (check.kind, check.id) == ("check", "h@2020050100#check-1")
    assert w.job("h@2020050100").state == "embryo"
    w.work(check.id, "no_data", error="no file yet")
    found = w.explain("h@2020050100").own[0]
    assert (found.code, "no file yet" in found.sentence) == ("readiness", True)
    w.wait(300)
    again = next(u for u in w.open_uows() if u.timeperiod == "2020050100")
    assert again.id == "h@2020050100#check-2"
    w.work(again.id)
    assert w.job("h@2020050100").uow == "h@2020050100#1"
    w.work("h@2020050100")
    assert w.job("h@2020050100").state == "processed"


def test_the_next_question_wakes_the_loop() -> None:
    """Readiness is asked again when it was promised, not when something else happens."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    w.work(w.open_uows()[0].id, "no_data")
    asked_again = w.clock.real() + timedelta(seconds=300)
    while "h@2020050100#check-2" not in [uow.id for uow in w.uows()]:
        assert w.clock.real() <= asked_again
        w.clock.advance(max(0.001, w.engine.sleep_s(1000.0)))
        w.settle()
    assert w.clock.real() - asked_again < timedelta(seconds=0.01)


def test_readiness_that_never_comes_skips() -> None:
    w = hourly(readiness=Readiness("m:ready", every_s=300, wait_timeout_s=500))
    for _ in range(3):
        for uow in w.open_uows():
            w.work(uow.id, "no_data")
        w.wait(300)
    job = w.job("h@2020050100")
    assert (job.state, job.reason) == ("skipped", "timed_out")


def test_the_end_of_a_hold_wakes_the_loop() -> None:
    w = hourly()
    w.work_all()
    until = w.clock.real() + timedelta(seconds=40)
    w.command("hold", {"scope": "*"}, arguments={"until": until.isoformat()})
    w.command("reprocess", "h@2020050100")
    while w.clock.real() < until:
        assert w.open_uows() == []
        w.clock.advance(max(0.001, w.engine.sleep_s(1000.0)))
        w.settle()
    assert w.clock.real() - until < timedelta(seconds=0.01)
    assert [u.timeperiod for u in w.open_uows()] == ["2020050100"]
