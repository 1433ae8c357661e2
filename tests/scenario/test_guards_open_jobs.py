"""The walk over what is unfinished: how far it looks, what it passes over, and that it forgets nobody."""

from __future__ import annotations

import pytest

from scheduler.core.decide import decide
from scheduler.core.facts import LOOK, Absent, OpenRow
from scheduler.core.open_jobs import fill, scan
from scheduler.core.process import after, managed
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import assess
from tests.scenario.worlds import hourly
from tests.world import World


def slice_of(w: World) -> Slice:
    """A turn's facts, none of them gathered yet."""
    return Slice(w.engine.known, w.clock.business(), w.clock.real())


def test_a_release_of_everything_passes_over_what_is_registered_no_more() -> None:
    """The row of a retired process is still known: it gets no place, and takes nobody's."""
    w = World(
        [managed("h", "m:f", "hourly"), managed("x", "m:f", "hourly")],
        start="2020050100",
        now="2020-05-01T03:10:00",
    )
    w.command("hold", {"scope": "*"})
    w.redefine([managed("h", "m:f", "hourly")], start="2020050100")
    w.command("reprocess", "h@2020050100")
    assert scan(slice_of(w), "x", None) == [], "nor is anything of it asked for"
    assert w.command("release", {"scope": "*"}).status == 200
    assert "x" not in w.engine.known.crowded
    assert [uow.timeperiod for uow in w.open_uows("h")] == ["2020050100"]


def test_the_first_look_for_a_free_place_is_short_and_those_after_it_are_long() -> None:
    """Most often the oldest few are ready; where they are not, the rest is walked in few looks."""
    w = hourly(max_active=3)
    s = slice_of(w)
    s.active = {"h": 1}
    with pytest.raises(Absent) as lack:
        fill(s, "h", None)
    assert lack.value.wants == (("window", "h", None, 2 + 8),)
    with pytest.raises(Absent) as lack:
        fill(s, "h", w.clock.business())
    assert lack.value.wants == (("window", "h", w.clock.business(), LOOK),)


def test_a_row_that_another_leader_made_meanwhile_is_left_to_it() -> None:
    """Read as absent, and then there: we lead no more, and will hear it when we save. Until then nothing breaks."""
    w = hourly()
    second = w.job("h@2020050101")
    s = slice_of(w)
    s.active = {"h": 0}
    s.jobs = {"h@2020050100": None, second.id: second}
    rows = [OpenRow(id_, second.start) for id_ in s.jobs]
    for size in (9, LOOK):
        s.looks["window", "h", None, size] = (rows, True)
    w.engine.known.crowded.add("h")
    assert fill(s, "h", None) == []
    assert list(s.uows) == ["h@2020050101#1"]
    assert scan(s, "h", None) == []
    for size in (8, LOOK):
        s.looks["window", "h", None, size] = (rows[:1], False)
    assert fill(s, "h", None) == scan(s, "h", None) == [], "nor is the same look taken again and again"


@pytest.mark.parametrize("walk", ["fill", "scan"])
def test_a_walk_ends_at_the_first_period_that_has_not_begun(walk: str) -> None:
    """Rows made ahead of their time are not walked to their end, turn by turn."""
    w = hourly()
    w.command("hold", {"scope": "*"})
    w.wait(10 * 3600)
    s = slice_of(w)
    s.now = w.job("h@2020050104").start
    s.active = {"h": 0}
    jobs = w.jobs("h")[1:]
    s.jobs = {job.id: job for job in jobs}
    for size in (9, LOOK):
        s.looks["window", "h", None, size] = ([OpenRow(job.id, job.start) for job in jobs], False)
    w.engine.known.crowded.add("h")
    assert decide(s, Item(walk, "h")) == []
    assert ("h" in w.engine.known.crowded) == (walk == "scan"), "nobody of them waits for a place"


def test_a_free_place_waits_until_all_is_known_of_the_oldest() -> None:
    """What is known of younger ones already does not let them overtake an older one that must be read about."""
    waits = managed("d", "m:f", "hourly", blocking="dependencies", depends_on=[after("h")])
    w = World([managed("h", "m:f", "hourly"), waits], start="2020050100", now="2020-05-01T04:10:00")
    w.command("hold", {"scope": "process:d"})
    w.work_all("h")
    w.engine.known.holds.clear()
    s = slice_of(w)
    jobs = w.jobs("d")[:3]
    s.active = {"d": 0}
    s.jobs = {job.id: job for job in jobs}
    s.looks["window", "d", None, 9] = ([OpenRow(job.id, job.start) for job in jobs], True)
    for job in jobs[1:]:
        _know(w, s, job.id)
    with pytest.raises(Absent) as lack:
        fill(s, "d", None)
    assert {want[1].start for want in lack.value.wants} == {jobs[0].start}


def _know(w: World, s: Slice, id_: str) -> None:
    """Gather everything that is asked of one job."""
    while True:
        job = s.job(id_)
        assert job is not None
        try:
            assess(s, job)
        except Absent as lack:
            w.engine.gatherer.gather(s, lack.wants)
        else:
            return


def test_the_sweep_comes_to_the_last_of_many() -> None:
    """More than one look shows: a job whose turn was missed is found behind all that still wait."""
    late = managed("d", "m:f", "hourly", blocking="dependencies", depends_on=[after("h")])
    w = World(
        [managed("h", "m:f", "hourly", max_active=100), late],
        start="2020050100",
        now="2020-05-01T00:10:00",
    )
    w.wait(90 * 3600)
    w.command("hold", {"scope": "process:d"})
    last = w.jobs("h")[-2]
    w.work(last.id)
    w.engine.known.holds.clear()  # as if its end had been missed
    items = [Item("scan", "d")]
    for _ in range(5):
        w.engine.turn(items)
        items = w.engine.left()
    assert items == []
    assert [uow.timeperiod for uow in w.open_uows("d")] == [last.timeperiod]


def test_a_walk_ends_at_the_first_that_finds_no_place_and_remembers_it() -> None:
    """The younger ones find none either; when the place frees, the oldest gets it without a sweep."""
    w = hourly(now="2020-05-02T00:10:00")
    w.engine.turn([Item("fill", "h")])
    assert w.engine.left() == [], "the other hours are not walked"
    assert "h" in w.engine.known.crowded
    w.work("h@2020050100")
    assert [uow.timeperiod for uow in w.open_uows()] == ["2020050101"]
