"""Plans, limits and explanations: what is shown is what happens; what is named is what blocks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from scheduler import control
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.process import Retry, managed, tree
from scheduler.core.retry import reason_to_give_up, republish_delay, retry_delay
from scheduler.core.uow import Uow
from tests.world import World

NOW = "2020-05-02T00:10:00"


def pyramid(start: str = "2020050100", now: str = NOW) -> World:
    return World(
        [
            managed("h", "m:f", "hourly", max_active=3),
            managed("d", "m:f", "daily", blocking="children"),
            managed("x", "m:f", "daily", blocking="dependencies"),
        ],
        [tree("t", ["h", "d"]), tree("u", ["x"], depends_on=["t"])],
        start=start,
        now=now,
    )


def reader(w: World) -> control.Reader:
    return control.Reader(w.store, w.timetable, w.clock)


@pytest.mark.parametrize("verb", ["reprocess", "skip"])
def test_what_a_plan_shows_is_what_happens(verb: str) -> None:
    w = pyramid()
    if verb == "reprocess":
        w.work_all()
    w.accept(w.open_uows()[0].id) if w.open_uows() else None
    jobs = ["h@2020050105"] if verb == "reprocess" else ["d@2020050100"]
    shown = [(e.job, e.effect) for e in reader(w).plan(verb, jobs)]
    done = w.command(verb, jobs)
    assert [(row["job"], row["effect"]) for row in (done.outcome or {})["jobs"]] == shown


def test_a_cascade_of_more_than_ten_thousand_jobs_is_refused_with_the_number() -> None:
    w = World(
        [managed("n", "m:f", "minutely"), managed("m", "m:f", "monthly")],
        [tree("t", ["n", "m"])],
        start="2020050100",
        now="2020-05-01T00:05:30",
    )
    before = w.jobs("n")
    result = w.command("skip", "m@2020050000")
    assert result.status == 409
    assert "44,641 jobs; at most 10,000" in result.message
    assert w.jobs("n") == before


def test_a_plan_of_what_is_not_there() -> None:
    w = pyramid()
    with pytest.raises(NotFound, match="h@2031010100"):
        reader(w).plan("reprocess", ["h@2031010100"])
    with pytest.raises(InvalidRequest, match="use reprocess or skip"):
        reader(w).plan("explode", ["h@2020050100"])


def test_explain_goes_down_to_the_root() -> None:
    w = pyramid()
    w.command("hold", {"scope": "job:h@2020050107"}, reason="bad feed")
    found = w.explain("x@2020050100")
    assert [b.job for b in found.own] == ["d@2020050100"]
    assert found.roots[0][0].startswith("h@")
    while w.open_uows("h"):
        w.work(w.open_uows("h")[0].id)
    found = w.explain("x@2020050100")
    assert [(job, b.code) for job, b in found.roots] == [("h@2020050107", "held")]
    w.command("release", {"scope": "job:h@2020050107"})
    w.work_all()
    assert w.job("x@2020050100").state == "processed"


BLOCKERS: dict[str, tuple[Any, Any]] = {
    "held": (
        lambda w: w.command("hold", {"scope": "process:d"}),
        lambda w: w.command("release", {"scope": "process:d"}),
    ),
    "suspended": (
        lambda w: w.command("suspend", {"process": "d"}),
        lambda w: w.command("resume", {"process": "d"}),
    ),
    "children": (lambda w: None, lambda w: w.work_all("h")),
}


@pytest.mark.parametrize("order", list(itertools.permutations(BLOCKERS)))
def test_all_blockers_are_named_and_only_the_last_removal_starts_the_job(order: tuple[str, ...]) -> None:
    w = pyramid()
    for name in BLOCKERS:
        BLOCKERS[name][0](w)
    for n, name in enumerate(order):
        assert {b.code for b in w.explain("d@2020050100").own} == set(order[n:])
        assert w.job("d@2020050100").state == "embryo"
        BLOCKERS[name][1](w)
    assert w.job("d@2020050100").state == "in_progress"


def test_a_full_process_is_named_and_frees_its_place_to_the_oldest() -> None:
    w = pyramid()
    assert [b.code for b in w.explain("h@2020050110").own] == ["place"]
    w.work("h@2020050101")
    assert [u.timeperiod[-2:] for u in w.open_uows("h")] == ["00", "02", "03"]


def uow(**fields: Any) -> Uow:
    w = pyramid()
    import dataclasses

    return dataclasses.replace(w.uows()[0], **fields)


def test_the_delay_grows_is_capped_and_jitters_within_bounds() -> None:
    policy = Retry(delay_s=10, backoff=3, max_delay_s=100, jitter=0)
    assert [retry_delay(policy, uow(failures=n)).total_seconds() for n in (1, 2, 3, 9)] == [10, 30, 90, 100]
    jittered = Retry(delay_s=10, backoff=1, jitter=0.5)
    delays = {retry_delay(jittered, uow(failures=1, attempt=n)).total_seconds() for n in range(50)}
    assert len(delays) > 40
    assert all(5 <= delay <= 15 for delay in delays)


def test_when_it_is_given_up() -> None:
    policy = Retry(max_retries=2, max_lost=3)
    assert reason_to_give_up(policy, uow(failures=2)) is None
    assert reason_to_give_up(policy, uow(failures=3)) == "retries_exhausted"
    assert reason_to_give_up(policy, uow(failures=3, timed_out=True)) == "timed_out"
    assert reason_to_give_up(policy, uow(failures=1, permanent=True)) == "failed"
    assert reason_to_give_up(policy, uow(losses=3)) is None
    assert reason_to_give_up(policy, uow(losses=4)) == "lost"


def test_republishing_doubles() -> None:
    assert [republish_delay(uow(publishes=n)).total_seconds() for n in range(4)] == [60, 120, 240, 480]


def test_50_a_bulk_command_takes_as_many_jobs_as_a_cascade() -> None:
    """One limit, and the answer names the number; the event of the command does not repeat thousands of names."""
    w = World([managed("n", "m:f", "minutely")], start="2020050100", now="2020-05-01T00:00:30")
    w.clock.advance(1500 * 60)
    w.settle()
    named = [job.id for job in w.jobs("n")][:1400]
    done = w.command("skip", named)
    assert (done.state, done.message) == ("done", "1400 jobs changed")
    told = (w.events("command.done")[-1].data or {})["target"]
    assert (told["jobs"], told["number"]) == (named[:100], 1400)
    refused = w.command("skip", [f"n@{number:012}" for number in range(10_001)])
    assert (refused.status, refused.message) == (
        409,
        "this would touch 10,001 jobs; at most 10,000 at once: narrow it",
    )
