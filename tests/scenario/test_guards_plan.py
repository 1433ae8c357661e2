"""What a reprocess and a skip would touch, and what not; and when a failed unit of work is given up (§4)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import control
from scheduler.core.job import Job
from scheduler.core.process import After, Retry, after, managed, tree
from scheduler.core.slice import Slice
from scheduler.core.timetable import Span
from tests.scenario.worlds import pyramid
from tests.world import World

DAY = "2020-05-01T00:10:00"


def plan(w: World, verb: str, *jobs: str) -> dict[str, tuple[str, str]]:
    """What would happen to each job, and the state it is in now."""
    effects = control.Reader(w.store, w.timetable, w.clock).plan(verb, list(jobs))
    return {e.job: (e.effect, e.state) for e in effects}


def days(**more: Any) -> World:
    """`a`, and `b` that depends on it; two processes of days."""
    return World(
        [managed("a", "m:f", "daily"), managed("b", "m:f", "daily", depends_on=[after("a")], **more)],
        start="2020050100",
        now=DAY,
    )


# -- a reprocess --------------------------------------------------------------------------------------


def test_a_reprocess_of_what_has_not_begun_changes_nothing_and_says_so() -> None:
    w = days()
    w.command("hold", {"scope": "*"})
    w.wait(24 * 3600)
    assert plan(w, "reprocess", "a@2020050200") == {
        "a@2020050200": ("none", "embryo"),
        "b@2020050200": ("none", "embryo"),
    }
    done = w.command("reprocess", "a@2020050200")
    assert (done.message, (done.outcome or {})["changed"]) == ("nothing to change", False)
    assert w.job("a@2020050200").generation == 0


def test_a_reprocess_says_what_is_canceled_by_it_and_how_many_jobs_change() -> None:
    """Only what changes is counted: the day had not begun."""
    w = pyramid()
    w.work("h@2020050100")
    assert plan(w, "reprocess", "h@2020050101") == {
        "h@2020050101": ("reset and cancel", "in_progress"),
        "d@2020050100": ("none", "embryo"),
    }
    assert plan(w, "reprocess", "h@2020050100")["h@2020050100"] == ("reset", "processed")
    assert w.command("reprocess", "h@2020050101").message == "1 job changed"
    assert w.command("reprocess", ["h@2020050101", "h@2020050102"]).message == "2 jobs changed"


# -- a skip -------------------------------------------------------------------------------------------


def test_a_skip_of_a_day_skips_its_hours_made_and_not_yet_made_and_leaves_the_finished() -> None:
    w = World(
        [
            managed("h", "m:f", "hourly", max_active=2),
            managed("d", "m:f", "daily", blocking="children"),
        ],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now="2020-05-01T03:10:00",
    )
    w.work("h@2020050100")
    found = plan(w, "skip", "d@2020050100")
    assert len(found) == 25
    assert {job: found[job] for job in list(found)[:6]} == {
        "d@2020050100": ("skip", "embryo"),
        "h@2020050100": ("none", "processed"),
        "h@2020050101": ("skip and cancel", "in_progress"),
        "h@2020050102": ("skip and cancel", "in_progress"),
        "h@2020050103": ("skip", "embryo"),
        "h@2020050104": ("made", ""),
    }
    assert w.command("skip", "d@2020050100").message == "24 jobs changed"
    assert w.states("h") == ["processed", *23 * ["skipped"]]


@pytest.mark.parametrize(
    ("blocking", "touched"),
    [("normal", {"a@2020050100"}), ("dependencies", {"a@2020050100", "b@2020050100"})],
)
def test_a_skip_takes_only_those_along_that_cannot_be_without(blocking: str, touched: set[str]) -> None:
    """Who depends on a day that is skipped goes on without it, unless its blocking is `dependencies`."""
    assert set(plan(days(blocking=blocking), "skip", "a@2020050100")) == touched


def test_a_skip_of_an_hour_leaves_its_day_that_is_strict_about_its_dependencies() -> None:
    """An hour is a child of the day, and no dependency: what the day does without it is for its own rules."""
    w = World(
        [managed("h", "m:f", "hourly"), managed("d", "m:f", "daily", blocking="dependencies")],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now=DAY,
    )
    assert set(plan(w, "skip", "h@2020050100")) == {"h@2020050100"}
    assert w.command("skip", "h@2020050100").message == "1 job changed"
    assert w.job("d@2020050100").state != "skipped"


def test_a_skip_ends_at_a_strict_dependant_that_is_finished() -> None:
    """It had what it needed; nothing is said of it, nor of what stands on it."""
    w = World(
        [
            managed("a", "m:f", "daily"),
            managed("b", "m:f", "daily", blocking="dependencies", depends_on=[after("a")]),
            managed("c", "m:f", "daily", blocking="dependencies", depends_on=[after("b")]),
        ],
        start="2020050100",
        now=DAY,
    )
    w.command("mark_done", "b@2020050100")
    assert set(plan(w, "skip", "a@2020050100")) == {"a@2020050100"}


def test_a_skip_looks_at_a_job_once_however_many_ways_lead_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight diamonds, one on the other: 256 ways from the first day to the last one."""

    def strict(name: str, *on: str) -> Any:
        edges: list[After] = [after(other) for other in on]
        return managed(name, "m:f", "daily", blocking="dependencies", depends_on=edges)

    processes = [managed("a0", "m:f", "daily")]
    for n in range(8):
        processes += [
            strict(f"b{n}", f"a{n}"),
            strict(f"c{n}", f"a{n}"),
            strict(f"a{n + 1}", f"b{n}", f"c{n}"),
        ]
    w = World(processes, start="2020050100", now=DAY)
    looks: list[Span] = []
    jobs_in = Slice.jobs_in

    def seen(s: Slice, span: Span) -> list[Job]:
        looks.append(span)
        return jobs_in(s, span)

    monkeypatch.setattr(Slice, "jobs_in", seen)
    assert len(plan(w, "skip", "a0@2020050100")) == 25
    assert len(looks) < 400


def test_a_skip_along_a_chain_is_gathered_by_doubling() -> None:
    """What stands on a job is read layers ahead: sixty layers take no sixty reads."""
    w = World(
        [managed("c", "m:f", "hourly", blocking="dependencies", depends_on=[after("c", -1)])],
        start="2020050100",
        now="2020-05-03T12:10:00",
    )
    reads = w.engine.gatherer.reads
    assert w.command("skip", "c@2020050100").message == "61 jobs changed"
    assert w.engine.gatherer.reads - reads < 40


# -- when it is given up ------------------------------------------------------------------------------


def failing(retry: Retry) -> World:
    """One day, in progress."""
    w = World([managed("a", "m:f", "daily", retry=retry)], start="2020050100", now="2020-05-02T00:10:00")
    w.accept("a@2020050100#1")
    return w


@pytest.mark.parametrize(
    ("retry", "told", "reason"),
    [
        (Retry(max_retries=0), {}, "failed"),
        (Retry(max_retries=0), {"timed_out": True}, "timed_out"),
        (Retry(max_retries=1), {"failures": 2}, "retries_exhausted"),
        (Retry(max_retries=1), {"failures": 2, "timed_out": True}, "timed_out"),
        (Retry(max_retries=1), {"failures": 1, "permanent": True}, "failed"),
        (Retry(max_retries=1), {"failures": 1}, None),
    ],
)
def test_the_reason_of_a_job_says_why_its_unit_of_work_was_given_up(
    retry: Retry, told: dict[str, Any], reason: str | None
) -> None:
    w = failing(retry)
    w.work("a@2020050100#1", "fail", **told)
    assert w.job("a@2020050100").reason == reason
    assert w.uow("a@2020050100#1").state == ("canceled" if reason else "invalid")


@pytest.mark.parametrize(("losses", "reason"), [(2, None), (3, "lost")])
def test_a_unit_of_work_that_takes_its_worker_with_it_is_given_up(losses: int, reason: str | None) -> None:
    w = failing(Retry(max_lost=2))
    for n in range(losses):
        if n:
            w.accept("a@2020050100#1")
        w.wait(60)
        w.settle()
    assert w.uow("a@2020050100#1").losses == losses
    assert w.job("a@2020050100").reason == reason
