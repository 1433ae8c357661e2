"""The loop of the engine: it reads anew after a failure, never spins, and yields to another leader (§5, §8.12)."""

from __future__ import annotations

from datetime import timedelta

from scheduler.core.ports import Change
from scheduler.core.process import Retry
from scheduler.core.slice import Item
from tests.scenario.worlds import hourly, pyramid


def test_an_input_that_always_conflicts_does_not_spin_the_loop() -> None:
    """64: a job row that was lost and made anew meets its old uow; nothing runs twice and nothing spins."""
    w = hourly()
    w.work("h@2020050100")
    job = w.job("h@2020050100")
    lost = {"state": "embryo", "run": 0, "uow": None, "uow_open": False, "open": True, "version": 0}
    with w.store.transaction() as tx:
        tx.update([Change(type(job), job.id, {}, lost)])
    w.engine.turn([Item("uow", "h@2020050101#1")])
    w.command("set_max_active", {"process": "h"}, arguments={"value": 2})
    for _ in range(20):
        items = w.engine.due()
        if items:
            w.engine.turn(items)
    assert w.engine.sleep_s() > 0
    assert len(w.uows()) >= 2


def test_reload_after_an_outage_reads_anew_first() -> None:
    """§5: what is kept between turns is read anew after every failed commit."""
    w = hourly()
    w.engine.outage()
    w.engine.known.seq = 0
    w.engine.known.rows = {}
    w.engine.reload_context(w.timetable)
    w.settle()
    seqs = [event.seq for event in w.events()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_at_rest_nothing_is_due() -> None:
    """§5: the loop sleeps; no state of the world keeps it busy."""
    w = pyramid(retry=Retry(delay_s=10, jitter=0))
    w.work("h@2020050100", "fail")
    w.accept("h@2020050101#1")
    w.accept("h@2020050102#1")
    w.command("kill", "h@2020050102")
    w.command("suspend", {"process": "h"})
    w.command("hold", {"scope": "*"})
    for _ in range(6):
        w.wait(3600)
        assert w.engine.due() == []
        assert w.engine.sleep_s() > 0


def test_34_a_paused_leader_whose_hold_ended_steps_back() -> None:
    """§8.12: two schedulers never both commit, also outside a turn."""
    from scheduler.core.errors import Conflict, LeaseLost
    from scheduler.engine import Engine

    w = hourly()
    until = (w.clock.real() + timedelta(seconds=30)).isoformat()
    w.command("hold", {"scope": "*"}, arguments={"until": until})
    w.clock.advance(60)
    other = Engine(w.store, w.broker, w.clock, w.timetable, holder="other")
    assert other.lead()
    other.turn(other.due())
    other.turn(other.due())
    before = w.events()
    for _ in range(3):
        try:
            w.engine.turn(w.engine.due())
        except Conflict:
            continue
        except LeaseLost:
            break
    assert w.engine.lease is None
    assert w.events() == before
