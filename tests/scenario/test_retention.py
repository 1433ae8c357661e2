"""Retention: what is over and old leaves the store; nothing else changes, and nothing begins again.

The engine and its lease are real, the passes are called as the daemon calls them, between turns. Ages are days,
so the worlds live for some days of hourly work.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from werkzeug.test import Client

from db.schema import TABLES
from mx.app import App
from mx.live import Hub
from mx.security import Tokens, check_bind
from mx.site import Site
from scheduler.core.command import Command
from scheduler.core.errors import LeaseLost
from scheduler.core.event import Event, history_line
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB
from scheduler.core.ports import Change, Where
from scheduler.core.process import Retry, freerun, managed, tree
from scheduler.core.records import BoxProcess, Fact, Hold, Lease, LogChunk, ProcessRow
from scheduler.core.slice import Item
from scheduler.core.timeperiod import timeperiod_of, timeperiods_between
from scheduler.core.uow import Uow
from scheduler.daemon import PRUNE_EVERY_S, PRUNE_LATE_PASSES, PRUNE_LATE_S, Daemon
from scheduler.retention import Policy, Pruned, prune, snapshot
from tests.world import World, at

POLICY = Policy(log_days=1, uow_days=2, event_days=2)
HOUR, DAY = "hourly@2020050100", "daily@2020050100"


def make_world(**engine: Any) -> World:
    """Four hours in a day, and a freerun process every six hours."""
    return World(
        [
            managed("hourly", "x.y:z", "hourly", time_grouping=4),
            managed("daily", "x.y:z", "daily", blocking="children"),
            freerun("sweeper", "x.y:z", trigger="every 21600"),
        ],
        [tree("t", ["hourly", "daily"])],
        start="2020050100",
        now="2020-05-01T00:10",
        **engine,
    )


def live(world: World, to: str) -> None:
    """Work as hours pass: everything is requested, done, and logs its line."""
    while world.clock.business() < at(to):
        world.wait(7200)
        for id_ in world.work_all():
            log(world, id_)


def log(world: World, uow: str, n: int = 1) -> None:
    """What a worker stores of what it printed."""
    with world.store.transaction() as tx:
        tx.insert([LogChunk(uow=uow, attempt=1, n=i, at=world.clock.real(), text="done\n") for i in range(n)])


def let_go(world: World, uow: str) -> None:
    """The worker of a canceled unit of work says that it let go, as the worker runtime does."""
    now = world.store.now()
    line = history_line("stopped", "canceled", now, "w1", attempt=1)
    sets = {"stopped_at": now, "lease_until": None, "due_at": now, "dirty": True}
    with world.store.transaction() as tx:
        assert tx.update([Change(Uow, uow, {"state": "canceled", "stopped_at": None}, sets, line)]) == 1
    world.settle()


def prune_once(world: World, limit: int = 500, policy: Policy = POLICY) -> Pruned:
    """One pass under the leader's lease."""
    return prune(world.store, world.engine.lease, world.clock, policy, limit)


def prune_all(world: World, limit: int = 500, policy: Policy = POLICY) -> Pruned:
    """Passes until there is no more; what they did together."""
    total = Pruned()
    for _ in range(10_000):
        one = prune_once(world, limit, policy)
        for name in ("logs", "uows", "jobs", "events", "snapshots"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        if not one.more:
            return total
    raise AssertionError("there is always more")


def dump(world: World, *kinds: type) -> str:
    """Every row of some kinds, or of all."""
    rows: list[Any] = []
    for kind in kinds or tuple(TABLES):
        rows += world.store.find(kind)
    return "\n".join(map(repr, rows))


# -- replay: the state of every job, from its events alone (invariant 8) ---------------------------


def replay(world: World) -> dict[str, dict[str, Any]]:
    """What the events say of every job from its last snapshot on, and of the units of work since."""
    jobs: dict[str, dict[str, Any]] = {}
    begins = {f"{e.process}@{e.timeperiod}": e.seq for e in world.events("job.snapshot")}
    for event in world.events():
        entity, _, verb = event.kind.partition(".")
        data = event.data or {}
        id_ = f"{event.process}@{event.timeperiod}"
        if event.seq < begins.get(id_, 0):
            continue  # what a person did, kept for its own sake
        if event.kind == "process.advance":
            for label in opened(world, event):
                assert f"{event.process}@{label}" not in jobs, "made twice"
                jobs[f"{event.process}@{label}"] = unborn()
        elif event.kind in ("job.make", "job.submit"):
            assert id_ not in jobs
            jobs[id_] = unborn()
        elif event.kind == "job.snapshot":
            jobs[id_] = unborn() | {name: value for name, value in data.items() if name in unborn()}
        elif entity == "job" and verb in JOB.all_verbs:
            job = jobs[id_]
            job["state"] = JOB.successor(id_, job["state"], verb)
            job["version"] += 1
            job["reason"], job["run"] = data.get("reason"), data.get("run", job["run"])
            job["generation"] += verb == "reprocess"
        elif entity == "uow" and verb != "let_go":
            jobs[id_]["uows"][event.uow] = data["state"]
    return jobs


def unborn() -> dict[str, Any]:
    """A job whose period opened."""
    return {"state": "embryo", "version": 0, "reason": None, "run": 0, "generation": 0, "uows": {}}


def opened(world: World, event: Event) -> list[str]:
    """The labels of the periods that an event says have opened."""
    data = event.data or {}
    if data.get("labels"):
        return list(data["labels"])
    process = world.timetable.processes[str(event.process)]
    first = timeperiod_of(data["from"], process.qualifier, process.grouping)
    last = timeperiod_of(data["to"], process.qualifier, process.grouping)
    found = timeperiods_between(first.start, last.end, process.qualifier, process.grouping)
    labels = [period.label for period in found]
    assert len(labels) == data["jobs"]
    return labels


def check_replay(world: World) -> None:
    """The events give the stored jobs, no more and no fewer, every stored unit of work, processes and holds."""
    states, holds = {}, set()
    for event in world.events():
        data = event.data or {}
        if event.kind.startswith("process.") and "state" in data:
            states[event.process] = data["state"]
        elif event.kind == "hold.set":
            holds.add(data["scope"])
        elif event.kind in ("hold.release", "hold.end"):
            holds.remove(data["scope"])
    assert states == {row.name: row.state for row in world.store.find(ProcessRow)}
    assert holds == {hold.scope for hold in world.store.find(Hold)}
    told = replay(world)
    stored = {job.id: job for job in world.store.find(Job)}
    assert told.keys() == stored.keys()
    uows: dict[str, dict[str, str]] = {}
    for uow in world.store.find(Uow):
        uows.setdefault(f"{uow.process}@{uow.timeperiod}", {})[uow.id] = uow.state
    for id_, job in stored.items():
        seen = {name: getattr(job, name) for name in unborn() if name != "uows"}
        assert told[id_] == seen | {"uows": told[id_]["uows"]}, id_
        if not job.open or id_ in uows:
            kept = uows.get(id_, {})
            assert kept.items() <= told[id_]["uows"].items(), id_


# -- what goes -------------------------------------------------------------------------------------


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


def events_of(world: World, process: str, timeperiod: str) -> list[Event]:
    """The events of a job."""
    where = (Where("process", "=", process), Where("timeperiod", "=", timeperiod))
    return world.store.find(Event, where, ("seq",))


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


# -- what stays ------------------------------------------------------------------------------------


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


# -- after it --------------------------------------------------------------------------------------


def test_after_pruning_and_a_restart_nothing_is_made_run_or_reopened() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    jobs = dump(world, Job)
    freeruns = {job.id for job in world.jobs("sweeper")}
    prune_all(world)
    gone = freeruns - {job.id for job in world.jobs("sweeper")}
    uows, events, messages = dump(world, Uow), len(world.events()), world.messages()
    world.restart()
    world.restart()
    assert dump(world, Job) == "\n".join(
        line for line in jobs.splitlines() if not any(f"id='{id_}'" in line for id_ in gone)
    )
    assert dump(world, Uow) == uows
    assert world.messages() == messages
    assert len(world.events()) == events


def test_an_old_hour_is_reprocessed_with_a_higher_run_and_summed_up_again() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    prune_all(world)
    run, day = world.job(HOUR).run, world.job(DAY).run
    assert world.store.get(Uow, f"{HOUR}#{run}") is None
    outcome = world.command("reprocess", HOUR, reason="wrong prices")
    assert outcome.state == "done", outcome.message
    assert world.job(HOUR).state == "in_progress"
    assert world.job(HOUR).run == run + 1
    assert world.job(DAY).state == "embryo"
    world.work_all()
    assert world.job(HOUR).state == world.job(DAY).state == "processed"
    assert (world.job(HOUR).run, world.job(DAY).run) == (run + 1, day + 1)
    assert world.job(HOUR).generation == 1
    check_replay(world)

    live(world, "2020-05-09T12:10")
    prune_all(world)
    kinds = [event.kind for event in events_of(world, "hourly", "2020050100")]
    assert kinds == ["job.reprocess", "job.snapshot"], "the act of a person, and the record"
    check_replay(world)


def test_every_verb_copes_with_a_job_whose_units_of_work_are_gone() -> None:
    world = make_world()
    live(world, "2020-05-01T05:10")
    assert world.command("skip", "hourly@2020050104").status == 200
    live(world, "2020-05-05T12:10")
    gone = str(world.jobs("sweeper")[0].id)
    prune_all(world)
    assert world.store.get(Uow, str(world.job(HOUR).uow)) is None
    world.explain(HOUR)
    for verb, job, status in (
        ("kill", HOUR, 409),
        ("retry", HOUR, 409),
        ("skip", HOUR, 409),
        ("run_now", HOUR, 409),
        ("mark_done", HOUR, 409),
        ("mark_done", "hourly@2020050104", 200),
        ("late_data", HOUR, 200),
        ("reprocess", DAY, 200),
        ("reprocess", gone, 404),
        ("late_data", gone, 200),
    ):
        outcome = world.command(verb, job)
        assert outcome.status == status, (verb, job, outcome)
    world.work_all()
    assert world.job(DAY).state == "processed"
    assert world.job(HOUR).state == "processed"
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


def test_the_dashboard_copes_with_a_job_whose_units_of_work_are_gone() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    gone = world.jobs("sweeper")[0].timeperiod
    prune_all(world)
    site = Site(
        store=world.store,
        broker=world.broker,
        clock=world.clock,
        timetable=world.timetable,
        tokens=Tokens(),
        hub=Hub(world.clock, threading.Event(), cap=2, interval_s=0.01),
        hosts=check_bind("127.0.0.1"),
        wait_s=0.0,
    )
    client = Client(App(site))
    headers = {"Host": "localhost", "Accept": "text/html"}
    for path, status in (
        ("/", 200),
        ("/timetable", 200),
        ("/jobs?state=processed", 200),
        ("/jobs/hourly/2020050100", 200),
        ("/jobs/daily/2020050100", 200),
        ("/jobs/hourly/2020050100?run=1", 404),
        ("/jobs/hourly/2020050100/log", 404),
        (f"/jobs/sweeper/{gone}", 404),
        ("/api/jobs/hourly/2020050100", 200),
        ("/api/jobs/hourly/2020050100/plan?verb=reprocess", 200),
    ):
        assert client.get(path, headers=headers).status_code == status, path


VERBS = ("reprocess", "skip", "mark_done", "kill", "retry", "run_now", "late_data")
ENDINGS = ("succeed", "succeed", "succeed", "fail", "no_data")


@pytest.mark.parametrize("seed", range(4))
def test_a_world_that_is_pruned_all_the_time_decides_as_one_that_never_is(seed: int) -> None:
    """Ages of no days, a pass at every step: whatever a rule still needs would be missed here."""
    worlds = [make_mixed(), make_mixed()]
    rng = random.Random(seed)
    for _ in range(60):
        step = make_step(rng, worlds[0])
        for world in worlds:
            step(world)
        prune_all(worlds[1], policy=Policy(0, 0, 0))
        assert dump_managed(worlds[0]) == dump_managed(worlds[1])
        check_replay(worlds[1])
    check_replay(worlds[0])
    assert worlds[1].store.count(Event)[()] < worlds[0].store.count(Event)[()] / 2
    assert worlds[1].store.count(Uow)[()] < worlds[0].store.count(Uow)[()] / 2


def make_mixed() -> World:
    """All machines, and a freerun process."""
    quick = Retry(max_retries=1, delay_s=60.0, jitter=0.0)
    return World(
        [
            managed("hourly", "x.y:z", "hourly", time_grouping=4, max_active=3, retry=quick),
            managed("daily", "x.y:z", "daily", trigger="every 3600", state_machine="recomputing"),
            managed("other", "x.y:z", "hourly", time_grouping=4, state_machine="continuous", retry=quick),
            managed("strict", "x.y:z", "daily", blocking="dependencies", depends_on=["daily"]),
            freerun("sweeper", "x.y:z", trigger="every 21600"),
        ],
        [tree("t", ["hourly", "daily"])],
        start="2020050100",
        now="2020-05-01T00:10",
    )


def dump_managed(world: World) -> list[Any]:
    """The jobs, whole, and what is unfinished."""
    jobs = [job for job in world.store.find(Job) if job.process != "sweeper" or job.open]
    return [*jobs, *world.uows(Where("state", "in", ("requested", "in_progress", "invalid")))]


def make_step(rng: random.Random, world: World) -> Callable[[World], object]:
    """Something that happens, drawn by what there is in `world`."""
    waiting = [uow.id for uow in world.open_uows() if uow.state == "requested"]
    kind = rng.choice(("wait", "work", "work", "work", "command"))
    if kind == "work" and waiting:
        ends = {id_: rng.choice(ENDINGS) for id_ in rng.sample(waiting, min(3, len(waiting)))}
        return lambda w: [w.work(id_, verb) for id_, verb in ends.items() if w.uow(id_).state == "requested"]
    if kind == "command":
        jobs = [job.id for job in world.store.find(Job) if job.process != "sweeper"]
        verb, job = rng.choice(VERBS), rng.choice(jobs)
        actor = "hourly" if verb == "late_data" else "anna"
        return lambda w: w.command(verb, job, actor=actor)
    seconds = rng.choice((120, 3600, 4 * 3600))
    return lambda w: w.wait(seconds)


# -- bounds, leases, the loop ----------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 7, 50])
def test_a_pass_is_bounded_and_many_small_ones_do_what_a_large_one_does(limit: int) -> None:
    small, large = make_world(), make_world()
    for world in (small, large):
        live(world, "2020-05-04T12:10")
    total = Pruned()
    while True:
        rows = {kind: small.store.count(kind)[()] for kind in (Job, Uow, Event, LogChunk)}
        one = prune_once(small, limit)
        gone = sum(rows[kind] - small.store.count(kind).get((), 0) for kind in rows)
        assert gone == one.logs + one.uows + one.jobs + one.events <= limit
        total.events += one.events
        if not one.more:
            break
    assert total.events > limit
    prune_all(large)
    for kind in (Job, Uow, LogChunk):
        assert dump(small, kind) == dump(large, kind)
    assert [e for e in small.events() if e.kind != "process.advance"] == [
        e for e in large.events() if e.kind != "process.advance"
    ]
    check_replay(small)


def test_a_job_of_many_units_of_work_and_a_long_log_goes_piece_by_piece() -> None:
    world = World(
        [managed("daily", "x.y:z", "daily", state_machine="recomputing", trigger="every 1800")],
        start="2020050100",
        now="2020-05-01T00:10",
    )
    while world.clock.business() < at("2020-05-02T06:00"):
        world.wait(1800)
        for id_ in world.work_all():
            log(world, id_, 5)
    assert world.job(DAY).state == "processed"
    assert world.job(DAY).run > 40
    world.command("hold", {"scope": "*"})
    world.go("2020-05-06T00:10")
    for _ in range(1000):
        one = prune_once(world, 20)
        assert one.logs + one.uows + one.events <= 20
        check_replay(world)
        if not one.more:
            break
    assert not world.store.find(Uow, (Where("timeperiod", "=", "2020050100"),))
    assert [e.kind for e in events_of(world, "daily", "2020050100")] == ["job.snapshot"]


def test_a_lost_lease_prunes_nothing() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    lease = world.engine.lease
    assert lease is not None
    taken = {"holder": "another", "token": lease.token + 1}
    with world.store.transaction() as tx:
        assert tx.update([Change(Lease, lease.name, {"token": lease.token}, taken)]) == 1
    before = dump(world)
    with pytest.raises(LeaseLost):
        prune_once(world)
    assert dump(world) == before
    daemon = Daemon(world.engine, retention=POLICY)
    with pytest.raises(LeaseLost):
        daemon._prune()
    assert world.engine.lease is None, "it knows that it leads no more"
    assert dump(world) == before


def test_the_marks_survive_a_restart_and_their_loss_only_costs_a_walk() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    prune_all(world)
    fact = world.store.get(Fact, "retention")
    assert fact is not None
    assert set(fact.value) == {"logs", "uows", "events"}
    before = dump(world, Job, Uow, Event, LogChunk)
    with world.store.transaction() as tx:
        tx.delete(Fact, (Where("key", "=", "retention"),))
    done = prune_all(world)
    assert replace(done, more=False) == Pruned()
    assert dump(world, Job, Uow, Event, LogChunk) == before
    assert world.store.get(Fact, "retention") == fact


def test_the_daemon_prunes_once_a_minute_and_at_once_where_there_is_more() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    daemon, passes = Daemon(world.engine, retention=POLICY), 0
    while True:
        before = dump(world, Fact)
        daemon._prune()
        if dump(world, Fact) == before:
            break
        passes += 1
    assert passes > 1
    live(world, "2020-05-05T20:10")  # its own clock went on: an hour of events is old by now
    daemon._prune()
    first = dump(world, Fact)
    assert first != before
    world.clock.advance(PRUNE_EVERY_S / 2)
    count = world.store.counts.queries  # type: ignore[attr-defined]
    daemon._prune()
    assert world.store.counts.queries == count  # type: ignore[attr-defined]
    silent = Daemon(world.engine)
    silent._prune()
    assert dump(world, Fact) == first


def test_a_running_daemon_prunes_while_it_has_nothing_else_to_do() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    uow = str(world.job(HOUR).uow)
    daemon = Daemon(world.engine, retention=POLICY)
    loop, tick = threading.Thread(target=daemon.run, daemon=True), threading.Event()
    loop.start()
    for _ in range(3000):
        if len(events_of(world, "hourly", "2020050300")) == 1:
            break
        tick.wait(0.01)
    daemon.stop()
    loop.join(30)
    assert not loop.is_alive()
    assert world.store.get(Uow, uow) is None
    check_replay(world)


def test_without_an_idle_round_a_few_passes_are_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbroken load: each round has something to decide, and what is old goes bit by bit."""
    world = make_world()
    live(world, "2020-05-05T12:10")
    uow = str(world.job(HOUR).uow)
    daemon = Daemon(world.engine, retention=POLICY)
    monkeypatch.setattr(daemon, "_inputs", lambda: [Item("job", HOUR)])
    passes: list[float] = []
    once = daemon._prune

    def counted() -> None:
        passes.append(world.clock.monotonic())
        once()

    monkeypatch.setattr(daemon, "_prune", counted)
    for _ in range(400):
        daemon._step()
        world.clock.advance(0.25)
        world.engine.keep_lease()
    assert world.store.get(Uow, uow) is None
    assert 1 < max(passes.count(at) for at in passes) <= PRUNE_LATE_PASSES
    rounds = sorted(set(passes))
    assert all(after - before >= PRUNE_LATE_S for before, after in pairwise(rounds))
    check_replay(world)
    daemon.listener.stop()


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


def test_process_rows_are_as_they_were() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    rows = dump(world, ProcessRow)
    prune_all(world)
    assert dump(world, ProcessRow) == rows
