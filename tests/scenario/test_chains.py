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
