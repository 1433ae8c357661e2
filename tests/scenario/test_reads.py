"""What a turn asks of the store: little, and never less than the truth."""

from __future__ import annotations

from scheduler.core.process import after, managed
from scheduler.core.slice import Item
from tests.world import World


def world() -> World:
    """Hours that stand on the hour before; the first is requested, the others wait for it."""
    w = World(
        [managed("c", "m:f", "hourly", blocking="children", depends_on=[after("c", -1)])],
        start="2020050100",
        now="2020-05-01T00:00:30",
    )
    w.clock.advance(5 * 3600)
    w.settle()
    return w


def test_a_report_in_a_chain_is_decided_with_three_reads() -> None:
    w = world()
    w.accept("c@2020050100#1")
    w.finish("c@2020050100#1")
    reads = w.engine.gatherer.reads
    w.engine.turn([Item("uow", "c@2020050100#1")])
    assert w.engine.gatherer.reads - reads == 3, "the unit of work; its job and who waits for it; the active"
    assert w.job("c@2020050100").state == "processed"
    assert w.uow("c@2020050101#1").state == "requested"


def test_an_input_at_hand_that_is_unfinished_is_waited_for() -> None:
    w = world()
    w.accept("c@2020050100#1")
    items = [Item("job", f"c@202005010{hour}") for hour in range(4)]  # all rows are in the slice
    w.engine.turn(items)
    assert w.states("c")[:4] == ["in_progress", "embryo", "embryo", "embryo"]
    assert w.explain("c@2020050102").own[0].job == "c@2020050101"
    w.work("c@2020050100#1")
    assert w.states("c")[:3] == ["processed", "in_progress", "embryo"]
