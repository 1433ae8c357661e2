"""Long chains of periods, each on the one before: a cascade along one is gathered by doubling, not step by step."""

from __future__ import annotations

import pytest

from scheduler.core import plan
from scheduler.core.job import Job
from scheduler.core.ports import Change
from scheduler.core.process import after, managed
from tests.world import World

LENGTH = 1300  # more than the rounds a turn may take


def chain(*, processed: bool = True) -> World:
    """Hours that stand on the hour before, all processed or all waiting, and their neighbours two by two."""
    w = World(
        [
            managed("c", "m:f", "hourly", blocking="dependencies", depends_on=[after("c", -1)]),
            managed("n", "m:f", "hourly", time_grouping=2, blocking="dependencies", depends_on=[after("c")]),
        ],
        start="2020050100",
        now="2020-05-01T00:00:30",
    )
    w.clock.advance(LENGTH * 3600)
    w.settle()
    if processed:
        done = {"state": "processed", "open": False, "uow_open": False}
        with w.store.transaction() as tx:
            tx.update([Change(Job, job.id, {}, done) for name in ("c", "n") for job in w.jobs(name)])
        w.restart()
    return w


@pytest.mark.parametrize("verb", ["reprocess", "late_data"])
def test_what_stands_on_the_first_of_a_long_chain_is_driven_again(verb: str) -> None:
    w = chain()
    done = w.command(verb, "c@2020050100", actor="anna")
    assert done.state == "done", done.message
    assert {job.generation for name in ("c", "n") for job in w.jobs(name)} == {1}


def test_a_skip_along_a_long_chain() -> None:
    w = chain(processed=False)
    done = w.command("skip", "c@2020050100")
    assert done.state == "done", done.message
    assert {job.state for name in ("c", "n") for job in w.jobs(name)} == {"skipped"}


def test_a_chain_beyond_the_limit_is_refused_before_all_of_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = chain()
    monkeypatch.setattr(plan, "CASCADE_MAX", 20)
    reads = w.engine.gatherer.reads
    done = w.command("reprocess", "c@2020050100")
    assert (done.state, done.status) == ("refused", 409)
    assert "or more jobs; at most 20 at once: narrow it" in done.message
    assert w.engine.gatherer.reads - reads < 40


def test_the_plan_of_a_long_chain_is_what_happens() -> None:
    from scheduler.control import Reader

    w = chain()
    effects = Reader(w.store, w.timetable, w.clock).plan("reprocess", ["c@2020050100"])
    assert {effect.effect for effect in effects} == {"reset"}
    assert len(effects) == len(w.jobs("c")) + len(w.jobs("n"))


def test_many_jobs_changed_in_one_turn_are_found_by_their_start() -> None:
    """What a slice answers of a span does not depend on how many jobs were changed before."""
    from scheduler.core.facts import LOOK
    from scheduler.core.slice import Slice
    from scheduler.core.timetable import Span

    w = chain(processed=False)
    jobs = w.jobs("c")
    s = Slice(w.engine.known, w.clock.business(), w.clock.real())
    span = Span("c", jobs[70].start, jobs[75].start)
    s.ranges[span] = []
    s.looks["open", span] = ([], True)
    for job in reversed(jobs[: 2 * LOOK]):
        s.jobs[job.id] = job
        s.change_job(job, warning="seen")
    mark = s.mark()
    assert [job.id for job in s.jobs_in(span)] == [job.id for job in jobs[70:75]]
    s.change_job(s.jobs_in(span)[0], "skip", reason="manual")
    assert [row.id for row in s.open_rows(span)] == [job.id for job in jobs[71:75]]
    s.jobs[jobs[200].id] = jobs[200]
    s.change_job(jobs[200], warning="seen")
    s.back_to(mark)
    assert [row.id for row in s.open_rows(span)] == [job.id for job in jobs[70:75]]
