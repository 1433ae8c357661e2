"""What the checker must allow, and what it must not: rules of the design that it once read too strictly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from scheduler.core.process import Context, Readiness, context, managed, tree
from simulation.contexts import Stage
from simulation.operator import Operator
from simulation.run import Result, Run, run_seed

HOUR = 3600.0


def play(
    found: Context, begin: datetime, days: float, acts: list[tuple[float, Callable[[Operator], object]]]
) -> Result:
    """A calm world in which an operator does `acts`, each so many seconds after the beginning."""
    run = Run(11, given=Stage(found, begin, days, 64), calm=True)
    run.world.habits.ready, run.world.habits.fails, run.world.habits.cancels = 0.9, 0.0, 0.0

    def do(act: Callable[[Operator], object]) -> None:
        assert run.operator is not None
        act(run.operator)

    for seconds, act in acts:
        run.world.at(seconds, lambda act=act: do(act))  # type: ignore[misc]
    return run.play()


def test_run_now_stands_while_its_readiness_is_asked() -> None:
    """The command is one commit, the unit of work it asks for comes in a later one, before the trigger fires."""
    hourly = managed(
        "h", "m:f", "hourly", trigger="at 05:00", lag_s=0, readiness=Readiness("m:ready", every_s=120.0)
    )
    begin = datetime(2026, 3, 2, 0, 10, tzinfo=UTC)
    found = context([hourly], (), (), "2026030200")
    result = play(found, begin, 0.1, [(HOUR, lambda o: o.submit("run_now", {"jobs": ["h@2026030200"]}))])
    assert result.ok, result.text
    assert result.counts["executions"] >= 2  # the check, and the work


def test_rows_made_ahead_are_not_all_the_children_there_are() -> None:
    """The rest of a day is skipped ahead of time, and the day itself marked done and driven again: its slices go on
    until all its hours are due, and then it is skipped by its own rule."""
    begin = datetime(2026, 3, 2, 0, 10, tzinfo=UTC)
    members = [
        managed("h", "m:f", "hourly", trigger="every 3600"),
        managed("d", "m:f", "daily", state_machine="recomputing", trigger="every 3600"),
    ]
    found = context(members, [tree("t", ["h", "d"])], (), "2026030200")
    day = {"jobs": ["d@2026030200"]}
    result = play(
        found,
        begin,
        1.2,
        [
            (600.0, lambda o: o.submit("skip", day)),
            (HOUR, lambda o: o.submit("reprocess", day)),
        ],
    )
    assert result.ok, result.text
    assert result.counts["executions"] >= 1


# seeds that the checker called broken, the program being right
@pytest.mark.parametrize("seed", [700, 928, 2024, 2040, 2489])
def test_a_seed_that_was_reported_in_error(seed: int) -> None:
    result = run_seed(seed, endings=False)
    assert result.ok, f"{result.text}\n" + "\n".join(result.story)


# 288: a final run in the place of its slice; 907: late data after a narrowed one in the same commit; 1729: a run
# that is outside of narrowed late data; 1740: an input that is registered anew in the commit of an end; 2371:
# max_active is lowered after a request of the same commit; 2433: late data for a job that does not end, its process
# is suspended; 4107: a skip ends at what the command before it, in the same commit, had marked done; 7417: a
# question of readiness, which takes no place, is asked after max_active was lowered below what runs
@pytest.mark.parametrize("seed", [288, 907, 1729, 1740, 2371, 2433, 4107, 7417])
def test_a_seed_that_was_reported_in_error_with_all_it_plays(seed: int) -> None:
    result = run_seed(seed)
    assert result.ok, f"{result.text}\n" + "\n".join(result.story)


# 706: asking for more passed a calendar trigger; the others: what stands on what a shown row reopens was left
@pytest.mark.parametrize("seed", [706, 1116, 1240])
def test_a_seed_that_found_a_fault_of_the_program(seed: int) -> None:
    result = run_seed(seed)
    assert result.ok, f"{result.text}\n" + "\n".join(result.story)
