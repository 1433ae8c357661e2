"""Forced fail-overs, one after another: whoever leads dies or stands still for longer than its lease, at any point.

Two schedulers, and a timetable that fires all the time. Each time the leader is struck at the n-th point from now at
which it can be (inside a turn, inside a commit, right after it took over), the other one must lead within a lease and
one look, and at the end nothing is missing and nothing was done twice: each tick of the trigger is one job, and each
job one execution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.core.process import Context, after, context, freerun, managed, tree
from scheduler.core.records import LEADER, Lease
from scheduler.core.uow import job_of
from simulation.actors import SchedulerActor, WorkerActor
from simulation.checker import Checker
from simulation.contexts import Stage
from simulation.executor import Execution, Habits
from simulation.faults import Odds, Script
from simulation.model import Broken
from simulation.operator import Operator
from simulation.rest import check_rest
from simulation.run import Run, window_of
from simulation.world import World

LEASE_S = 60.0
LOOK_S = LEASE_S / 4  # a standby looks at the lease so often
TICK_S = 300
FARTHEST = 40  # the leader is struck at a point from the next to this
LOOK = 3


@dataclass(slots=True)
class Failovers:
    """How it went. `slowest_s`: from the blow to the moment at which another one leads."""

    wanted: int
    lease_s: float = LEASE_S
    look_s: float = LOOK_S
    done: int = 0
    deaths: int = 0
    freezes: int = 0
    slowest_s: float = 0.0
    hours: float = 0.0
    jobs: int = 0
    executions: int = 0
    ticks: int = 0
    missed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    broken: str | None = None
    story: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": self.ok, **asdict(self)}

    @property
    def ok(self) -> bool:
        """All of them happened in time, nothing is missing, nothing was doubled."""
        in_time = self.slowest_s <= LEASE_S + LOOK_S + 0.01
        return (
            self.broken is None and self.done == self.wanted and in_time and not (self.missed or self.doubled)
        )


class _Watcher(Checker):
    """A checker that notes when somebody else leads, and how often each job is executed."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.token, self.leader, self.since = 0, "", 0.0
        self.executions: Counter[str] = Counter()

    def committed(self, holder: str, wrote: set[type]) -> None:
        """As `Checker.committed`."""
        lease = self.store.get(Lease, LEADER)
        if lease is not None and lease.token != self.token:
            self.token, self.leader, self.since = lease.token, lease.holder, self.world.clock.monotonic()
        super().committed(holder, wrote)

    def started(self, execution: Execution) -> None:
        """As `Checker.started`."""
        super().started(execution)
        self.executions[job_of(execution.uow.id)] += 1


class _Series(Run):
    """The world: two schedulers, two workers whose code does what it should, and a post that loses and doubles."""

    checker: _Watcher

    def __init__(self, seed: int) -> None:
        begin = datetime(2026, 1, 31, 20, 2, tzinfo=UTC)
        super().__init__(seed, given=Stage(timetable(), begin, 0.0, LOOK), calm=True)
        self.world.actors.clear()
        self.world.checker = self.checker = _Watcher(self.world)
        self.world.odds = Odds(drop=0.05, double=0.05, delay=0.1)
        self.world.habits = Habits(
            fails=0.0, noop=0.0, cancels=0.0, more=0.0, late_data=0.0, mean_s=30.0, slow=0.0
        )
        self.schedulers = [SchedulerActor(self.world, f"s{n}", LEASE_S, LEASE_S) for n in (1, 2)]
        self.workers = [WorkerActor(self.world, f"w{n}", ("default",), 4) for n in (1, 2)]

    def standby(self) -> bool:
        """One leads, and another one is there to follow it."""
        leads = [s for s in self.schedulers if s.alive and s.engine.lease is not None and not s.busy]
        return len(leads) == 1 and all(s.alive and not s.busy for s in self.schedulers)

    def strike(self, found: Failovers) -> None:
        """One fail-over. Raises Broken if nobody follows in time."""
        world, rng = self.world, self.rng
        while not self.standby():
            world.run(1.0)
        world.run(rng.choice((0.0, rng.uniform(0, 120), rng.uniform(0, 600))))
        while not self.standby():
            world.run(1.0)
        token, leader = self.checker.token, self.checker.leader
        freeze_s = rng.choice((0.0, 0.0, rng.uniform(1.5, 5.0) * LEASE_S))
        script = world.script = Script("scheduler", rng.randint(1, FARTHEST), freeze_s)
        while script.hit_at is None:
            world.run(1.0)
        while self.checker.token == token:
            if world.clock.monotonic() > script.hit_at + 4 * LEASE_S:
                raise Broken(4, f"nobody leads {4 * LEASE_S:.0f} s after {leader} was struck")
            world.run(1.0)
        world.script = None
        if self.checker.leader == leader:
            raise Broken(12, f"{leader} took over from itself")
        found.done += 1
        found.slowest_s = max(found.slowest_s, self.checker.since - script.hit_at)
        found.freezes += freeze_s > 0
        found.deaths += freeze_s == 0


def timetable() -> Context:
    """Hours, their day, a neighbour that stands on the hours, and a trigger that fires every five minutes."""
    processes = [
        managed("hourly", "simulated:worker", "hourly", blocking="children", max_active=4),
        managed("daily", "simulated:worker", "daily", blocking="children"),
        managed(
            "beside",
            "simulated:worker",
            "hourly",
            blocking="dependencies",
            depends_on=[after("hourly")],
            max_active=4,
        ),
        freerun(
            "ticks",
            "simulated:worker",
            trigger=f"every {TICK_S}",
            overlap="allow",
            catchup="all",
            max_active=8,
        ),
    ]
    return context(processes, [tree("pyramid", ["hourly", "daily"])], (), "2026013120")


def fail_over(
    number: int, seed: int = 0, progress: Callable[[float], None] = lambda share: None
) -> Failovers:
    """Force so many fail-overs in a row, then let everything come to rest and count."""
    run, found = _Series(seed), Failovers(number)
    try:
        with window_of(LOOK):
            for actor in (*run.schedulers, *run.workers):
                actor.begin()
            run.operator = Operator(run.world)
            run.operator.on = False
            for n in range(number):
                run.strike(found)
                progress(n + 1)
            run._stop_time()
            run.rest()
            check_rest(run.checker)
            _count(run, found)
    except Broken as broken:
        found.broken, found.story = str(broken), run.story(broken.jobs)
    found.hours = run.world.clock.monotonic() / 3600
    run.world.close()
    return found


def _count(run: _Series, found: Failovers) -> None:
    """Each period that closed and each tick is one job, and each job one execution."""
    jobs, done = run.checker.model.jobs, run.checker.executions
    found.jobs, found.executions = len(jobs), sum(done.values())
    found.missed = sorted(id_ for id_, job in jobs.items() if job.state == "processed" and not done[id_])
    found.doubled = sorted(id_ for id_, number in done.items() if number > 1)
    begin, now = run.stage.begin, run.world.clock.business()
    step = timedelta(seconds=TICK_S)
    first = begin + (step - (begin - datetime(1970, 1, 1, tzinfo=UTC)) % step)
    wanted = {first + n * step for n in range((now - first) // step + 1)}
    labels = [id_.partition("@")[2] for id_, job in jobs.items() if job.process == "ticks"]
    ticks = Counter(
        datetime.strptime(f"{label}000", "%Y%m%d%H%M%S%f").replace(tzinfo=UTC) for label in labels
    )
    found.ticks = len(wanted)
    found.missed += [f"the tick of {at:%d %H:%M}" for at in sorted(wanted - ticks.keys())]
    found.doubled += [
        f"the tick of {at:%d %H:%M}" for at, n in sorted(ticks.items()) if n > 1 or at not in wanted
    ]
