"""Retention: what is over and old leaves the store, each kind at its age, and leaves a record behind."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.process import Retry, managed
from scheduler.core.records import BoxProcess, LogChunk
from scheduler.core.uow import Uow
from scheduler.retention import Policy, Pruned, snapshot
from tests.scenario.retention_world import HOUR, check_replay, events_of, live, make_world, prune_all
from tests.world import World, at


def test_each_kind_goes_at_its_age() -> None:
    world = make_world()
    live(world, "2020-05-01T03:10")
    uow = str(world.job(HOUR).uow)
    ages = Policy(log_days=1, uow_days=3, event_days=5)
    assert prune_all(world, policy=ages) == Pruned()

    live(world, "2020-05-02T12:00")
    done = prune_all(world, policy=ages)
    assert done.logs > 0
    assert (done.uows, done.events, done.jobs) == (0, 0, 0)
    assert world.store.get(Uow, uow) is not None
    assert not world.store.find(LogChunk, (Where("uow", "=", uow),))
    newest = str(world.job("hourly@2020050204").uow)
    assert world.store.find(LogChunk, (Where("uow", "=", newest),)), "this one is of today"

    live(world, "2020-05-04T12:00")
    done = prune_all(world, policy=ages)
    assert done.uows > 0
    assert done.snapshots == 0
    assert world.store.get(Uow, uow) is None
    assert len(events_of(world, "hourly", "2020050100")) > 3, "its events are younger than theirs may be"

    live(world, "2020-05-06T12:00")
    prune_all(world, policy=ages)
    (only,) = events_of(world, "hourly", "2020050100")
    assert only.kind == "job.snapshot"
    assert only.data == snapshot(world.job(HOUR))
    check_replay(world)


def test_a_snapshot_says_all_that_the_row_says() -> None:
    world = make_world()
    live(world, "2020-05-04T12:00")
    prune_all(world)
    (only,) = events_of(world, "hourly", "2020050100")
    job, data = world.job(HOUR), only.data or {}
    whole: dict[str, Any] = {
        name: getattr(job, name) for name in ("id", "process", "timeperiod", "start", "end")
    }
    assert job == Job(**whole, **{name: as_kept(name, value) for name, value in data.items()})


def as_kept(name: str, value: Any) -> Any:
    """A value of a snapshot as the record has it."""
    kind = next(str(field.type) for field in fields(Job) if field.name == name)
    return datetime.fromisoformat(value) if "datetime" in kind else value


def test_a_job_keeps_one_event_and_opened_periods_share_one() -> None:
    world = make_world()
    live(world, "2020-05-05T12:00")
    before = world.store.count(Event)[()]
    done = prune_all(world)
    after = world.store.count(Event)[()]
    assert before - after == done.events
    for hour in range(0, 24, 4):
        assert len(events_of(world, "hourly", f"20200501{hour:02}")) == 1
    where = (Where("kind", "=", "process.advance"), Where("process", "=", "hourly"))
    first = world.store.find(Event, where, ("seq",))[0]
    assert (first.data or {})["from"] == "2020050100"
    assert (first.data or {})["jobs"] > 6
    check_replay(world)
    assert prune_all(world) == Pruned(), "nothing is left to do"


def test_an_old_freerun_job_goes_altogether_and_its_process_stays() -> None:
    world = make_world()
    live(world, "2020-05-04T12:00")
    before, row = len(world.jobs("sweeper")), world.row("sweeper")
    oldest = world.jobs("sweeper")[0]
    done = prune_all(world)
    assert done.jobs == before - len(world.jobs("sweeper")) > 4
    assert world.store.get(Job, oldest.id) is None
    assert world.store.get(Uow, str(oldest.uow)) is None
    assert not world.store.find(LogChunk, (Where("uow", "=", str(oldest.uow)),))
    assert not events_of(world, "sweeper", oldest.timeperiod)
    assert world.row("sweeper") == row
    left = len(world.jobs("sweeper"))
    world.restart()
    assert len(world.jobs("sweeper")) == left, "what had fired does not fire again"
    world.wait(6 * 3600)
    assert len(world.jobs("sweeper")) == left + 1
    check_replay(world)


def test_a_failed_job_is_summed_up_with_its_reason() -> None:
    world = World(
        [managed("hourly", "x.y:z", "hourly", retry=Retry(max_retries=0))],
        start="2020050100",
        now="2020-05-01T01:10",
    )
    world.work(HOUR, "fail")
    assert world.job(HOUR).state == "skipped"
    world.command("hold", {"scope": "*"})
    world.go("2020-05-04T12:10")
    prune_all(world)
    (only,) = events_of(world, "hourly", "2020050100")
    assert (only.data or {})["reason"] == "failed"
    assert (only.data or {})["detail"] == "ValueError: no"
    check_replay(world)


def test_events_of_supervisors_go_by_age_and_the_newest_stays() -> None:
    world = make_world()
    box = BoxProcess(id="b1/scheduler", box="b1", name="scheduler", kind="scheduler")
    told = [
        Event(
            source="box:b1",
            seq=n,
            at=at("2020-05-01T00:00"),
            business_at=at("2020-05-01T00:00"),
            kind="box.x",
        )
        for n in range(1, 6)
    ]
    with world.store.transaction() as tx:
        tx.insert([box, *told])
    world.command("hold", {"scope": "*"})
    world.go("2020-05-10T00:10")
    assert prune_all(world).events >= 4
    assert [e.seq for e in world.store.find(Event, (Where("source", "=", "box:b1"),), ("seq",))] == [5]
