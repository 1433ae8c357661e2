"""Scenario 64, and its neighbours: parts of a store are lost or older than the rest; check names it, repair re-links.

Whatever is broken, three things must hold: a sound store has no findings, at whatever moment; after a repair there
is none left; and what was done before is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scheduler.charge import charge
from scheduler.core.errors import LeaseLost, Refused
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.process import freerun, managed, tree
from scheduler.core.records import Lease, ProcessRow
from scheduler.core.uow import Uow
from scheduler.retention import Policy, prune
from scheduler.storekeeper import Checked, Repaired, check, repair
from tests.world import World

H3 = "hourly@2020050103"


def make_world() -> World:
    """Hours in a day, in every way a job can be governed; a job that needs others; firings."""
    return World(
        [
            managed("hourly", "x.y:z", "hourly"),
            managed("slices", "x.y:z", "hourly", state_machine="continuous", trigger="every 600"),
            managed("daily", "x.y:z", "daily", blocking="children"),
            managed("rolling", "x.y:z", "daily", state_machine="recomputing", trigger="every 7200"),
            freerun("sweeper", "x.y:z", trigger="every 21600"),
        ],
        [tree("t", ["hourly", "daily"]), tree("c", ["slices", "rolling"])],
        start="2020050100",
        now="2020-05-01T00:10",
    )


def live(world: World, hours: int) -> None:
    """Work as time passes: what is requested is done."""
    for _ in range(hours * 2):
        world.wait(1800)
        world.work_all()


def look(world: World) -> Checked:
    """A check, with the retention that the tests have."""
    return check(world.store, world.clock, policy=Policy())


def codes(checked: Checked) -> set[str]:
    """What was found."""
    return set(checked.counts())


def mend(world: World) -> Repaired:
    """A repair as the command does it: the scheduler stopped, its lease taken."""
    world.engine.step_down()
    with charge(world.store, "store", world.clock.monotonic) as lead:
        findings = check(world.store, world.clock, actor="anna").findings
        return repair(lead, world.clock, findings, actor="anna")


def delete(world: World, kind: type, *where: Where) -> int:
    """Rows are lost."""
    with world.store.transaction() as tx:
        return tx.delete(kind, where)


def put_back(world: World, kind: type, old: list[Any]) -> None:
    """The rows of an older backup, instead of all that are there."""
    with world.store.transaction() as tx:
        tx.delete(kind, [])
        tx.insert(old)


# -- what is sound ------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_findings_at_any_moment() -> None:
    world = make_world()
    for step in range(60):
        world.wait(1800)
        assert look(world).findings == [], f"step {step}: requested"
        for uow in world.open_uows():
            world.accept(uow.id)
        assert look(world).findings == [], f"step {step}: accepted"
        for uow in world.open_uows():
            world.finish(uow.id, "fail" if step % 7 == 3 else "succeed", cursor_end=f"c{step}")
        assert look(world).findings == [], f"step {step}: reports wait"
        world.settle()
        assert look(world).findings == [], f"step {step}: decided"
        if step == 20:
            world.command("reprocess", H3)
        if step == 22:
            world.command("skip", "hourly@2020050110")
        if step == 30:
            world.command("suspend", {"process": "slices"})
        if step == 40:
            world.command("resume", {"process": "slices"})
    assert world.job(H3).generation == 1


def test_a_worker_that_is_stopped_is_no_finding() -> None:
    world = make_world()
    live(world, 2)
    world.wait(3600)
    (uow,) = world.open_uows("hourly")
    world.accept(uow.id)
    world.command("kill", f"{uow.process}@{uow.timeperiod}")
    assert look(world).findings == []
    world.stopped(uow.id)
    assert look(world).findings == []


def test_pruning_leaves_no_findings() -> None:
    world = make_world()
    live(world, 60)
    ages = Policy(log_days=1, uow_days=1, event_days=1)
    while prune(world.store, world.engine.lease, world.clock, ages).more:
        pass
    assert world.store.count(Uow) != {(): 0}
    assert check(world.store, world.clock, policy=ages).findings == []
    assert codes(look(world)) <= {"events.gap"}, (
        "a younger retention than is told looks like a loss of events"
    )


# -- what is broken -----------------------------------------------------------------------------------------


def lose_all_jobs(world: World, before: dict[type, list[Any]]) -> None:
    """Every job row is lost."""
    delete(world, Job)


def lose_some_jobs(world: World, before: dict[type, list[Any]]) -> None:
    """Those of one process."""
    delete(world, Job, Where("process", "=", "hourly"))


def older_jobs(world: World, before: dict[type, list[Any]]) -> None:
    """Job rows of an older backup, all else kept."""
    put_back(world, Job, before[Job])


def older_jobs_and_processes(world: World, before: dict[type, list[Any]]) -> None:
    """The frontier is older too: periods it has not passed have units of work."""
    put_back(world, Job, before[Job])
    put_back(world, ProcessRow, before[ProcessRow])


def older_uows(world: World, before: dict[type, list[Any]]) -> None:
    """Units of work of an older backup: some look unfinished that are done."""
    put_back(world, Uow, before[Uow])


def older_jobs_and_events(world: World, before: dict[type, list[Any]]) -> None:
    """Only the units of work are of today."""
    put_back(world, Job, before[Job])
    put_back(world, Event, before[Event])


DAMAGES = (
    lose_all_jobs,
    lose_some_jobs,
    older_jobs,
    older_jobs_and_processes,
    older_uows,
    older_jobs_and_events,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_was_done_is_not_done_again(damage: Callable[..., None]) -> None:
    """Scenario 64: check names it, repair re-links, nothing runs twice."""
    world = make_world()
    live(world, 20)
    world.wait(1800)  # some are requested at this moment
    before = {kind: world.store.find(kind) for kind in (Job, Uow, Event, ProcessRow)}
    world.work_all()
    live(world, 12)
    ended = {uow.id: uow.state for uow in world.uows()}
    done = {
        job.id: (job.state, job.run) for kind in ("hourly", "slices", "daily") for job in world.jobs(kind)
    }
    finished = {id_: told for id_, told in done.items() if told[0] == "processed"}
    assert len(finished) > 60

    damage(world, before)
    found = look(world)
    assert found.findings
    assert all(finding.remedy for finding in found.findings), [f.line for f in found.findings if not f.remedy]

    repaired = mend(world)
    assert repaired.missed == []
    assert look(world).findings == []
    world.restart()
    assert {id_: (world.job(id_).state, world.job(id_).run) for id_ in finished} == finished
    live(world, 6)
    assert look(world).findings == []
    assert {id_: world.uow(id_).state for id_ in ended if world.store.get(Uow, id_)}.keys() <= ended.keys()
    again = [u for u in world.uows() if u.id not in ended and f"{u.process}@{u.timeperiod}" in finished]
    assert again == [], "nothing runs twice"
    assert {"processed"} == {job.state for job in world.jobs("hourly") if job.id in finished}


def test_repair_says_what_it_did() -> None:
    world = make_world()
    live(world, 6)
    delete(world, Job, Where("id", "=", H3))
    assert codes(look(world)) == {"job.lost"}
    (finding,) = mend(world).done
    assert finding.about == H3
    (told,) = world.events("job.snapshot")
    assert (told.actor, told.timeperiod, told.severity) == ("anna", "2020050103", "warning")
    assert "its row is lost" in told.message
    assert world.job(H3).state == "processed"


def test_a_hole_under_the_frontier_becomes_an_embryo_and_runs_once() -> None:
    world = make_world()
    live(world, 6)
    for kind in (Job, Uow, Event):
        delete(world, kind, Where("process", "=", "hourly"), Where("timeperiod", "=", "2020050103"))
    assert codes(look(world)) == {"job.missing", "events.gap"}
    assert [finding.code for finding in mend(world).left] == ["events.gap"] * len(
        [f for f in look(world).findings if f.code == "events.gap"]
    )
    world.restart()
    world.work_all()
    assert (world.job(H3).state, world.job(H3).run) == ("processed", 1)


def test_lost_events_do_not_make_numbers_come_twice() -> None:
    world = make_world()
    live(world, 6)
    last = world.events()[-1].seq
    delete(world, Event, Where("seq", ">", last - 40))
    assert "events.behind" in codes(look(world))
    mend(world)
    assert world.events()[-1].seq > max(job.settled_seq for job in world.store.find(Job))
    assert codes(look(world)) <= {"events.gap"}


def test_a_unit_of_work_nobody_would_look_at_is_looked_at() -> None:
    world = make_world()
    world.wait(4500)
    (uow,) = [u for u in world.open_uows("hourly") if u.timeperiod == "2020050100"]
    with world.store.transaction() as tx:
        assert tx.update([Change(Uow, uow.id, {}, {"due_at": None})]) == 1
    assert codes(look(world)) == {"uow.asleep"}
    mend(world)
    world.restart()
    assert world.uow(uow.id).due_at is not None


def test_an_unknown_process_is_named_once() -> None:
    world = make_world()
    live(world, 6)
    delete(world, ProcessRow, Where("name", "=", "hourly"))
    found = [finding for finding in look(world).findings if finding.code == "process.unknown"]
    assert len(found) == 1
    assert found[0].about.startswith("hourly@")


# -- being in charge ----------------------------------------------------------------------------------------


def test_repair_is_refused_while_a_scheduler_leads() -> None:
    world = make_world()
    with (
        pytest.raises(Refused, match="a scheduler leads, s1: stop it first"),
        charge(world.store, "store", world.clock.monotonic),
    ):
        pass


def test_a_scheduler_stands_by_while_we_are_in_charge_and_a_paused_one_loses() -> None:
    world = make_world()
    live(world, 3)
    world.clock.advance(60)  # it was stopped, and its lease ran out
    with charge(world.store, "store", world.clock.monotonic) as lead:
        with pytest.raises(LeaseLost), world.store.transaction(world.engine.lease):
            pass
        world.engine.lease = None
        assert not world.engine.lead()
        world.clock.advance(30)
        lead.keep()
        assert not world.engine.lead()
    assert world.engine.lead(), "handed over at once"
    world.clock.advance(3600)
    with pytest.raises(LeaseLost):
        lead.keep()


def test_a_lease_in_the_far_future_is_ended() -> None:
    world = make_world()
    held = world.store.get(Lease, "leader")
    assert held is not None
    far = replace(held, name="other", expires_at=held.expires_at.replace(year=2099))
    with world.store.transaction() as tx:
        tx.insert([far])
    assert codes(look(world)) == {"lease.future"}
    mend(world)
    assert look(world).findings == []
