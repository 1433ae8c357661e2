"""Acceptance scenarios 1-3, 5, 7-11, 14 and 19: time, trees, and the discrete machine."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.process import Retry, context, managed, tree
from scheduler.core.timetable import Timetable
from tests.world import World, at

HOURLY = managed("h", "m:f", "hourly")


def hourly(**more: object) -> World:
    return World([managed("h", "m:f", "hourly", **more)], start="2020050100", now="2020-05-01T03:10:00")  # type: ignore[arg-type]


def test_1_periods_exist_from_the_start_and_one_more_opens() -> None:
    w = World([HOURLY], start="2020050100", now="2020-05-01T00:00:01")
    assert w.states("h") == ["embryo"]
    w.go("2020-05-01T00:59:59")
    assert w.states("h") == ["embryo"]
    w.go("2020-05-01T03:10:00")
    assert [job.timeperiod for job in w.jobs("h")] == ["2020050100", "2020050101", "2020050102", "2020050103"]
    w.go("2020-05-01T04:00:00")
    assert len(w.jobs("h")) == 5
    w.wait(10)
    assert len(w.jobs("h")) == 5


def test_2_every_hour_has_one_day_month_and_year_above_it() -> None:
    names = ["h", "d", "m", "y"]
    kinds = ["hourly", "daily", "monthly", "yearly"]
    processes = [managed(n, "m:f", q) for n, q in zip(names, kinds, strict=True)]
    table = Timetable(context(processes, [tree("t", names)], (), "2020010100"))
    for instant in (
        "2020-02-29T23:00:00",
        "2020-12-31T23:00:00",
        "2021-02-28T23:00:00",
        "2020-03-01T00:00:00",
    ):
        period = table.containing("h", at(instant))
        for below, above in itertools.pairwise(names):
            edge = next(e for e in table.dependants(below) if e.kind == "child")
            spans = list(table.periods(table.dependant_span(edge, period.start, period.end)))
            assert len(spans) == 1, (below, above)
            assert spans[0].start <= period.start < period.end <= spans[0].end
            period = spans[0]


@pytest.mark.parametrize("levels", [("hourly", "daily"), ("hourly", "yearly"), ("monthly",)])
def test_3_trees_with_missing_levels_work(levels: tuple[str, ...]) -> None:
    processes = [managed(q, "m:f", q, blocking="children") for q in levels]
    w = World(processes, [tree("t", levels)], start="2020010100", now="2020-01-01T01:10:00")
    w.work_all()
    assert w.states(levels[0])[0] == ("processed" if levels[0] == "hourly" else "embryo")


def test_3_weeks_nest_days_and_not_into_months() -> None:
    days_and_weeks = [
        managed("d", "m:f", "daily"),
        managed("w", "m:f", "weekly"),
        managed("m", "m:f", "monthly"),
    ]
    Timetable(context(days_and_weeks, [tree("t", ["d", "w"])], (), "2020010100"))
    with pytest.raises(ConfigError, match=r"do not nest"):
        Timetable(context(days_and_weeks, [tree("t", ["w", "m"])], (), "2020010100"))


def test_5_a_restart_changes_nothing() -> None:
    w = hourly(max_active=2)
    w.work("h@2020050100")
    w.work("h@2020050101", "fail")
    before = (w.jobs("h"), w.uows(), [e.kind for e in w.events()])
    messages = w.messages()
    w.restart()
    assert (w.jobs("h"), w.uows(), [e.kind for e in w.events()]) == before
    assert set(w.messages()) == set(messages)


def test_7_one_uow_after_the_close_and_not_before() -> None:
    w = World([HOURLY], start="2020050103", now="2020-05-01T03:10:00")
    w.go("2020-05-01T04:04:59")
    assert w.uows() == []
    w.go("2020-05-01T04:05:00")
    assert [u.id for u in w.uows()] == ["h@2020050103#1"]
    assert w.messages() == ["h@2020050103#1"]
    assert w.job("h@2020050103").state == "in_progress"


def test_8_a_second_tick_sends_nothing_more() -> None:
    w = World(
        [managed("h", "m:f", "hourly", trigger="every 5")], start="2020050103", now="2020-05-01T04:05:00"
    )
    w.wait(30)
    assert len(w.uows()) == 1
    assert w.messages() == ["h@2020050103#1"]


@pytest.mark.parametrize(
    ("verb", "state"), [("succeed", "processed"), ("no_data", "noop"), ("cancel", "skipped")]
)
def test_9_the_outcome_decides_the_job_at_once(verb: str, state: str) -> None:
    w = hourly()
    w.work("h@2020050100", verb, error="because")
    assert w.job("h@2020050100").state == state


def test_10_a_failure_is_retried_as_the_same_uow() -> None:
    w = hourly(retry=Retry(max_retries=3, delay_s=10, jitter=0))
    w.work("h@2020050100", "fail", error="ValueError: broken", traceback="Traceback: …")
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.error, uow.traceback) == ("invalid", "ValueError: broken", "Traceback: …")
    w.wait(9)
    assert w.uow("h@2020050100#1").state == "invalid"
    w.wait(1)
    uow = w.uow("h@2020050100#1")
    assert (uow.state, uow.attempt) == ("requested", 2)
    w.work("h@2020050100")
    assert w.job("h@2020050100").state == "processed"


def test_54_retries_are_exhausted_after_max_retries() -> None:
    w = hourly(retry=Retry(max_retries=2, delay_s=1, backoff=2, jitter=0))
    began = w.clock.real()
    tries = []
    for _ in range(3):
        tries.append((w.clock.real() - began).total_seconds())
        w.work("h@2020050100#1", "fail")
        w.go(w.clock.real() + timedelta(seconds=1 if len(tries) == 1 else 2))
    assert tries == [0, 1, 3]
    job = w.job("h@2020050100")
    assert (job.state, job.reason) == ("skipped", "retries_exhausted")
    assert w.uow("h@2020050100#1").state == "canceled"


def test_54_where_nothing_is_retried_it_failed() -> None:
    w = hourly(retry=Retry(max_retries=0))
    w.work("h@2020050100#1", "fail", error="ValueError: bad row")
    job = w.job("h@2020050100")
    assert (job.state, job.reason, job.detail) == ("skipped", "failed", "ValueError: bad row")


@pytest.mark.parametrize("verb", ["expire", "delete"])
@pytest.mark.parametrize("failures", [1, 2])
def test_what_is_given_up_with_retries_left_has_failed(verb: str, failures: int) -> None:
    w = hourly(retry=Retry(max_retries=3, delay_s=1, jitter=0))
    for n in range(failures):
        w.work("h@2020050100#1", "fail")
        if n + 1 < failures:
            w.wait(60)
    assert w.uow("h@2020050100#1").state == "invalid"
    w.command(verb, {"process": "h"})
    job = w.job("h@2020050100")
    assert (w.uow("h@2020050100#1").state, job.state, job.reason) == ("canceled", "skipped", "failed")


@pytest.mark.parametrize("outcome", ["succeed", "no_data"])
@pytest.mark.parametrize("verb", ["expire", "delete"])
def test_what_ran_when_its_process_expired_is_decided(verb: str, outcome: str) -> None:
    """§4: running ones end and are decided, also where inputs may come after the run."""
    w = hourly()
    w.accept("h@2020050100#1")
    w.command(verb, {"process": "h"})
    assert w.job("h@2020050100").state == "in_progress"
    w.finish("h@2020050100#1", outcome)
    w.settle()
    assert w.job("h@2020050100").state == {"succeed": "processed", "no_data": "noop"}[outcome]
    assert w.open_uows("h") == []


def test_what_its_own_code_cancels_after_a_failure_is_canceled() -> None:
    w = hourly(retry=Retry(max_retries=3, delay_s=1, jitter=0))
    w.work("h@2020050100#1", "fail")
    w.wait(60)
    w.work("h@2020050100#1", "cancel", error="given up")
    job = w.job("h@2020050100")
    assert (job.state, job.reason) == ("skipped", "canceled")


def test_a_permanent_error_is_not_retried() -> None:
    w = hourly()
    w.work("h@2020050100", "fail", permanent=True, error="no such table")
    job = w.job("h@2020050100")
    assert (job.state, job.reason, job.detail) == ("skipped", "failed", "no such table")


def test_11_oldest_first_one_after_another() -> None:
    w = hourly()
    assert [u.timeperiod for u in w.open_uows()] == ["2020050100"]
    w.work("h@2020050100")
    assert [u.timeperiod for u in w.open_uows()] == ["2020050101"]
    assert [u.timeperiod for u in hourly(max_active=3).open_uows()] == [
        "2020050100",
        "2020050101",
        "2020050102",
    ]


def test_19_no_counterpart_does_not_block_and_a_suspended_dependant_does_not_fire() -> None:
    w = World(
        [managed("a", "m:f", "hourly"), managed("b", "m:f", "daily", blocking="dependencies"), HOURLY],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"]), tree("th", ["h"], depends_on=["ta"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )
    assert w.job("b@2020050100").state == "in_progress"
    w.command("suspend", {"process": "h"})
    w.work_all("a")
    assert len(w.uows(Where("process", "=", "h"))) == 1  # the one that was there
