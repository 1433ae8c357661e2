"""Retention: what is not over, not old, or the word of a person stays."""

from __future__ import annotations

from typing import Any

from scheduler.core.command import Command
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.process import freerun
from scheduler.core.records import LogChunk, ProcessRow
from scheduler.core.uow import Uow
from scheduler.retention import Policy, Pruned
from tests.scenario.retention_world import (
    DAY,
    HOUR,
    check_replay,
    dump,
    events_of,
    let_go,
    live,
    log,
    make_world,
    prune_all,
)
from tests.world import World, at


def test_nothing_unfinished_is_touched_however_old() -> None:
    world = make_world()
    world.wait(4 * 3600)
    world.accept(str(world.job(HOUR).uow), lease_s=30 * 86400)  # it runs for a month
    log(world, f"{HOUR}#1")
    world.command("hold", {"scope": "process:sweeper"}, reason="month end")
    world.go("2020-05-20T00:10")
    jobs, uows = dump(world, Job), dump(world, Uow)
    open_ones = [job for job in world.store.find(Job) if job.open]
    events = {job.id: events_of(world, job.process, job.timeperiod) for job in open_ones}
    assert HOUR in events
    assert DAY in events
    prune_all(world)
    assert dump(world, Job) == jobs
    assert dump(world, Uow) == uows
    assert {j.id: events_of(world, j.process, j.timeperiod) for j in open_ones} == events
    assert world.store.count(LogChunk) == {(): 1}
    check_replay(world)

    world.work(HOUR)
    world.go("2020-05-23T00:10")  # three days after it ended at last
    prune_all(world)
    assert world.store.get(Uow, f"{HOUR}#1") is None
    assert [e.kind for e in events_of(world, "hourly", "2020050100")] == ["job.snapshot"]


def test_what_a_canceled_worker_still_holds_is_not_touched() -> None:
    world = make_world()
    world.wait(4 * 3600)
    uow = str(world.job(HOUR).uow)
    world.accept(uow, lease_s=30 * 86400)
    log(world, uow)
    world.command("kill", HOUR)
    assert world.job(HOUR).stopping == uow
    world.go("2020-05-20T00:10")
    prune_all(world)
    assert world.uow(uow).state == "canceled"
    assert world.store.count(LogChunk) == {(): 1}
    assert len(events_of(world, "hourly", "2020050100")) > 3
    let_go(world, uow)
    world.go("2020-05-23T00:10")
    prune_all(world)
    assert world.store.get(Uow, uow) is None
    assert world.store.count(LogChunk) == {(): 0}
    assert world.job(HOUR).reason == "killed"


def test_a_job_that_was_done_again_lately_is_not_old() -> None:
    world = make_world()
    live(world, "2020-05-03T20:10")
    world.command("reprocess", HOUR)
    live(world, "2020-05-05T00:10")
    events, uows = events_of(world, "hourly", "2020050100"), dump(world, Uow)
    assert prune_all(world).uows > 0
    assert events_of(world, "hourly", "2020050100") == events
    assert uows.count(f"id='{HOUR}#") == dump(world, Uow).count(f"id='{HOUR}#") == 2


def test_events_do_not_go_before_their_unit_of_work_nor_a_log_after_it() -> None:
    world = make_world()
    live(world, "2020-05-03T12:10")
    assert prune_all(world, policy=Policy(log_days=30, uow_days=4, event_days=1)) == Pruned()
    world.command("hold", {"scope": "*"})
    world.go("2020-05-10T00:10")
    prune_all(world, policy=Policy(log_days=1, uow_days=30, event_days=1))
    assert world.store.count(LogChunk) == {(): 0}
    log(world, str(world.job(HOUR).uow))  # written late
    prune_all(world, policy=Policy(log_days=30, uow_days=4, event_days=30))
    assert world.store.get(Uow, str(world.job(HOUR).uow)) is None
    assert world.store.count(LogChunk) == {(): 0}


def test_events_of_a_long_job_stay_while_its_unit_of_work_does() -> None:
    world = make_world()
    world.wait(4 * 3600)
    world.accept(f"{HOUR}#1", lease_s=30 * 86400)
    world.go("2020-05-08T00:10")
    world.work(HOUR)
    world.go("2020-05-10T00:10")
    policy = Policy(log_days=1, uow_days=4, event_days=1)
    prune_all(world, policy=policy)
    assert world.uow(f"{HOUR}#1").state == "processed"
    check_replay(world)
    world.go("2020-05-13T00:10")
    prune_all(world, policy=policy)
    assert world.store.get(Uow, f"{HOUR}#1") is None
    check_replay(world)


def test_a_unit_of_work_that_is_not_over_keeps_its_freerun_job() -> None:
    world = make_world()
    live(world, "2020-05-01T14:10")
    first, second, *_ = world.jobs("sweeper")
    common = {"process": "sweeper", "run": 2, "created_at": first.start, "requested_at": first.start}
    asked: list[Uow] = []
    for job, state, dirty in ((first, "requested", False), (second, "processed", True)):
        span = {"timeperiod": job.timeperiod, "start": job.start, "end": job.end}
        more: dict[str, Any] = {**common, **span, "kind": "check", "state": state, "dirty": dirty}
        asked.append(Uow(id=f"{job.id}#check-1", **more))
    with world.store.transaction() as tx:
        tx.insert(asked)
    world.command("hold", {"scope": "*"})
    world.clock.advance(30 * 86400)
    prune_all(world)
    assert {job.id for job in world.jobs("sweeper")} == {first.id, second.id}
    assert {uow.id for uow in world.store.find(Uow, (Where("process", "=", "sweeper"),))} == {
        uow.id for uow in asked
    }


def test_a_raised_start_leaves_a_gap_that_no_event_hides() -> None:
    world = make_world()
    live(world, "2020-05-01T06:10")
    world.redefine(world.timetable.processes.values(), world.timetable.trees.values(), start="2020050200")
    live(world, "2020-05-06T12:10")
    assert world.store.get(Job, "hourly@2020050120") is None
    prune_all(world)
    check_replay(world)


def test_what_people_did_is_kept() -> None:
    world = make_world()
    live(world, "2020-05-01T04:10")
    world.command("hold", {"scope": "tree:t"}, arguments={"until": "2020-05-01T05:00:00+00:00"})
    world.command("hold", {"scope": "process:daily"}, reason="month end")
    world.command("release", {"scope": "process:daily"})
    world.command("suspend", {"process": "hourly"})
    world.command("resume", {"process": "hourly"})
    world.command("reprocess", HOUR, reason="wrong prices")
    live(world, "2020-05-01T06:10")
    assert world.command("skip", "hourly@2020050104").status == 200
    world.command("late_data", HOUR, actor="hourly", reason="a late row")
    live(world, "2020-05-06T12:00")
    audit = [event for event in world.events() if event.actor == "anna"]
    commands = dump(world, Command)
    assert world.events("hold.end")
    assert {"hold.set", "hold.release", "process.suspend", "command.done", "job.reprocess"} <= {
        event.kind for event in audit
    }
    prune_all(world)
    assert [event for event in world.events() if event.actor == "anna"] == audit
    assert dump(world, Command) == commands
    old = [e for e in world.events() if e.at < at("2020-05-04T00:00")]
    assert not [e for e in old if e.actor == "hourly"], "code that speaks as its process is no person"
    check_replay(world)


def test_the_newest_event_stays_so_that_no_number_is_given_twice() -> None:
    world = World([freerun("f", "x.y:z", trigger="every 86400")], now="2020-05-01T00:10")
    for _ in range(3):
        world.wait(86400)
        world.work_all()
    world.command("suspend", {"process": "f"})
    world.command("late_data", "f@20200101000000000", actor="f")
    last = world.events()[-1]
    assert last.actor == "f"
    world.go("2020-06-01T00:10")
    prune_all(world)
    assert world.events()[-1] == last
    world.restart()
    world.command("resume", {"process": "f"})
    assert world.events("process.resume")[0].seq == last.seq + 1


def test_a_freerun_job_whose_event_is_the_newest_goes_when_it_is_not() -> None:
    world = World([freerun("f", "x.y:z")], now="2020-05-01T00:10")
    world.command("submit", {"process": "f"})
    world.work_all()
    (job,) = world.jobs("f")
    last = world.events()[-1]
    assert last.timeperiod == job.timeperiod
    world.go("2020-06-01T00:10")
    prune_all(world)
    assert world.jobs("f") == [job]
    assert world.events()[-1].seq == last.seq
    world.command("hold", {"scope": "*"})
    prune_all(world)
    assert world.jobs("f") == []
    check_replay(world)


def test_process_rows_are_as_they_were() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    rows = dump(world, ProcessRow)
    prune_all(world)
    assert dump(world, ProcessRow) == rows
