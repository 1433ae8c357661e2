"""A world that lives for some days, passes of retention over it, and the replay of what its events still say.

The engine and its lease are real, the passes are called as the daemon calls them, between turns. Ages are days,
so the worlds live for some days of hourly work.
"""

from __future__ import annotations

from typing import Any

from db.schema import TABLES
from scheduler.core.event import Event, history_line
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB
from scheduler.core.ports import Change, Where
from scheduler.core.process import freerun, managed, tree
from scheduler.core.records import Hold, LogChunk, ProcessRow
from scheduler.core.timeperiod import timeperiod_of, timeperiods_between
from scheduler.core.uow import Uow
from scheduler.retention import Policy, Pruned, prune
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


def events_of(world: World, process: str, timeperiod: str) -> list[Event]:
    """The events of a job."""
    where = (Where("process", "=", process), Where("timeperiod", "=", timeperiod))
    return world.store.find(Event, where, ("seq",))
