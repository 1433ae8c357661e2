"""What is done with one job, and with nothing else: asked again, published again, ended, canceled, told to whom."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.clock import Mapping
from scheduler.core.ports import Where
from scheduler.core.process import Readiness, after, managed
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from tests.scenario.worlds import hourly, pyramid
from tests.world import World


def test_a_predicate_that_said_no_is_asked_when_it_is_due_and_not_with_the_next_sweep() -> None:
    """Every five seconds means every five seconds, however rarely everything is swept."""
    often = Readiness("m:ready", every_s=5)
    w = World(
        [managed("h", "m:f", "hourly", readiness=often)],
        start="2020050100",
        now="2020-05-01T01:10:00",
        sweep_s=100_000.0,
    )
    w.work("h@2020050100#check-1", "no_data", error="no file yet")
    w.wait(5)
    assert w.job("h@2020050100").checks == 2


def test_what_waits_for_business_time_is_not_looked_at_by_real_time() -> None:
    """Business time six years behind: an hour that closes then is not looked at over and over until it does."""
    w = hourly(now="2020-05-01T00:10:00")
    business = w.clock.business()
    w.clock.set_real(w.clock.real() + timedelta(days=6 * 365))
    w.clock.set_mapping(Mapping(w.clock.real(), business))
    w.settle()
    w.engine.turn([Item("job", "h@2020050100")])
    assert w.explain("h@2020050100").own[0].code == "not_closed"
    assert w.engine.due() == []


def test_under_a_hold_what_nobody_takes_is_published_less_and_less_often() -> None:
    """Its time to wait is over, but stands still under the hold: the pauses double all the same."""
    w = hourly(now="2020-05-01T01:10:00", wait_timeout_s=30)
    w.command("hold", {"scope": "process:h"})
    for _ in range(20):
        w.wait(30)
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.publishes) == ("requested", 3), "after one, three and seven minutes"


@pytest.mark.parametrize(("machine", "while_open"), [("discrete", []), ("continuous", [False])])
def test_the_code_is_told_whether_its_outcome_is_the_last(machine: str, while_open: list[bool]) -> None:
    """`final` is said of what runs over a closed period, and not of a slice of an open one."""
    w = hourly(now="2020-05-01T00:10:00", state_machine=machine, trigger="every 3600")
    assert [uow.final for uow in w.open_uows()] == while_open
    w.work_all()
    w.go("2020-05-01T01:50:00")
    assert w.uow(str(w.job("h@2020050100").uow)).final


@pytest.mark.parametrize(
    ("verb", "reason", "message"),
    [
        ("skip", "", "manual"),
        ("skip", "no use", "manual: no use"),
        ("mark_done", "by hand", "manual: by hand"),
    ],
)
def test_the_event_of_an_end_says_why_in_the_words_that_there_are(
    verb: str, reason: str, message: str
) -> None:
    w = hourly()
    w.command(verb, "h@2020050100", reason=reason)
    assert [event.message for event in w.events(f"job.{verb}")] == [message]


def test_an_end_without_data_is_told_in_the_words_of_the_code() -> None:
    """There is no reason beside them, and none is invented."""
    w = hourly()
    w.work("h@2020050100", "no_data", error="the file is empty")
    assert [event.message for event in w.events("job.no_data")] == ["the file is empty"]


def test_after_a_report_nothing_is_looked_at_that_has_not_begun() -> None:
    """What stands on an hour three hours later is not looked for in the store before its time."""
    late = managed("d", "m:f", "hourly", blocking="dependencies", depends_on=[after("h", -3)])
    w = World([managed("h", "m:f", "hourly"), late], start="2020050100", now="2020-05-01T01:10:00")
    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    assert w.engine.turn([Item("uow", "h@2020050100#1")]).decided == 2, "the report, and its own process"
    assert w.job("h@2020050100").state == "processed"


def test_72_asked_for_again_while_it_stops_it_still_starts_when_the_lease_ends() -> None:
    """A worker that never answers holds a job up for one lease, however often it is asked for meanwhile."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100")
    for _ in range(2):
        w.command("reprocess", "h@2020050100")
    assert w.uow("h@2020050100#1").due_at == w.uow("h@2020050100#1").lease_until
    w.wait(60)
    assert (w.job("h@2020050100").stopping, w.job("h@2020050100").run) == (None, 2)


def test_a_job_whose_unit_of_work_is_missing_from_the_store_is_ended_by_hand() -> None:
    """A row that somebody deleted does not make its job immortal."""
    w = hourly()
    with w.store.transaction() as tx:
        tx.delete(Uow, (Where("id", "=", "h@2020050100#1"),))
    assert [blocker.code for blocker in w.explain("h@2020050100").own] == ["uow"]
    done = w.command("skip", "h@2020050100")
    assert (done.status, w.job("h@2020050100").state) == (200, "skipped")
    assert not w.job("h@2020050100").uow_open


@pytest.mark.parametrize("verb", ["kill", "skip", "reprocess"])
def test_a_cancel_that_comes_too_late_leaves_what_ended_as_it_ended(verb: str) -> None:
    """The worker finished, its report is under way: nobody is told to stop, its history is told once."""
    w = hourly()
    w.accept("h@2020050100#1")
    w.finish("h@2020050100#1", report=False)
    assert w.command(verb, "h@2020050100").status == 200
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.due_at, w.messages("control.w1")) == ("processed", None, [])
    assert [event.kind for event in w.events() if event.uow == uow.id][:3] == [
        "uow.request",
        "uow.accept",
        "uow.succeed",
    ]
    assert w.job("h@2020050100").stopping is None


def test_whoever_runs_it_is_told_of_a_cancel() -> None:
    w = hourly()
    w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100")
    assert w.messages("control.w1") == ["h@2020050100#1"]
    assert w.job("h@2020050100").stopping == "h@2020050100#1"


def test_whoever_failed_at_it_is_told_nothing_and_waited_for_by_nobody() -> None:
    """It waits for its retry: no worker has it, though the last one is still named."""
    w = hourly()
    w.work("h@2020050100", "fail")
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.owner) == ("invalid", "w1")
    w.command("kill", "h@2020050100")
    assert w.uow(uow.id).state == "canceled"
    assert (w.messages("control.w1"), w.job("h@2020050100").stopping) == ([], None)
    assert not w.job("h@2020050100").open


@pytest.mark.parametrize("verb", ["skip", "mark_done"])
def test_the_place_of_what_is_ended_by_hand_is_given_on_at_once(verb: str) -> None:
    """One hour at a time: the next one does not wait for a sweep."""
    w = hourly()
    assert [uow.timeperiod for uow in w.open_uows()] == ["2020050100"]
    w.command(verb, "h@2020050100")
    assert [uow.timeperiod for uow in w.open_uows()] == ["2020050101"]
