"""When the demo may end: nothing of its year is left to do, and nothing else is in anybody's hands."""

from __future__ import annotations

import pytest

from commands.demo_year import Year
from scheduler.core.process import Retry, managed
from tests.world import World, at

NEW_YEAR = at("2020-05-01T01:00")  # of a small calendar: one hour before it, and one after
SLICE = "h@2020050101#2"


@pytest.fixture
def world() -> World:
    """The hour before is processed, and the one after has a slice with nobody yet."""
    retry = Retry(max_retries=3, delay_s=60)
    w = World(
        [managed("h", "m:f", "hourly", trigger="every 900", state_machine="continuous", retry=retry)],
        start="2020050100",
        now="2020-05-01T00:00",
    )
    w.go(NEW_YEAR)
    w.work_all()
    w.wait(900)
    w.work("h@2020050100")
    assert (w.states("h"), [uow.id for uow in w.open_uows()]) == (["processed", "in_progress"], [SLICE])
    return w


def is_at_rest(w: World) -> bool:
    return Year(w.store, w.timetable, w.clock).is_at_rest(NEW_YEAR)


def test_a_slice_of_the_new_year_that_waits_for_a_worker_is_no_rest(world: World) -> None:
    assert not is_at_rest(world)


def test_an_outcome_that_the_scheduler_has_not_seen_is_no_rest(world: World) -> None:
    world.work(SLICE, settle=False)
    assert world.uow(SLICE).state == "processed"
    assert not is_at_rest(world)  # the worker may want to be called again
    world.settle()
    assert is_at_rest(world)


def test_a_retry_that_waits_is_no_rest(world: World) -> None:
    world.work(SLICE, "fail")
    assert world.uow(SLICE).state == "invalid" and not is_at_rest(world)


def test_what_is_to_be_stopped_and_was_not_yet_is_no_rest(world: World) -> None:
    world.accept(SLICE)
    assert world.command("kill", "h@2020050101").state == "done"
    assert world.job("h@2020050101").stopping == SLICE and not is_at_rest(world)
    world.stopped(SLICE)
    assert is_at_rest(world)
