"""Years of a tree of hours, days, months and years, on the virtual clock, with some faults all along.

What a seed of `run` does in three days to a small context, done for as long as an installation runs: a hundred
thousand jobs, with retention on as an operator sets it. The checker follows each commit, and looks at everything that
is stored once a simulated day (`everything`). Faults are rarer than in a seed, for the years have to pass: each
day some executions fail and some messages are lost, each week something dies, stands still or is away.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scheduler.core.process import Context, context, managed, tree
from scheduler.retention import Policy
from simulation.actors import SchedulerActor, WorkerActor
from simulation.everything import Everything
from simulation.executor import Habits
from simulation.faults import Odds
from simulation.model import Broken
from simulation.operator import Operator
from simulation.rest import check_late, check_newest, check_periods, check_reason, check_units
from simulation.run import Run, window_of
from simulation.world import World

DAY_S = 86400.0
# Of leader and workers, and twice as long between sweeps: with leases of seconds the years were all renewals.
LEASE_S = 14_400.0
SWEEP_S = 28_800.0
LONGEST_S = 7200.0  # away: the leader tries once a second, and who steps without end is called broken
AWAY_S = 600.0  # on the average
KEEP_DAYS = 14
KEPT_EVERY = 10  # days; each day it would be a good part of the whole
WORKER = "simulated:worker"
LOOK = 64
VERBS = {
    "reprocess": 8,
    "late_data": 8,
    "hold": 2,
    "release": 8,
    "suspend": 1,
    "resume": 4,
    "skip": 1,
    "mark_done": 1,
    "kill": 1,
    "retry": 2,
    "run_now": 1,
    "set_priority": 1,
}
ODDS = Odds(crash=2e-5, unknown=1e-4, freeze=5e-4, long_freeze=1e-5, drop=0.01, double=0.01, delay=0.03)
HABITS = Habits(
    fails=0.02, permanent=0.02, noop=0.02, cancels=0.002, more=0.02, late_data=0.002, mean_s=120.0, slow=0.003
)


@dataclass(slots=True)
class Story:
    """How it went."""

    begin: datetime
    end: datetime
    jobs: int = 0
    uows: int = 0
    events: int = 0
    looks: int = 0  # at everything: one a day, and one at rest
    rows: int = 0  # that were compared in these looks
    seconds: float = 0.0  # of real time
    cpu_s: float = 0.0  # of this process
    digest: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    broken: str | None = None
    story: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "begin": self.begin.isoformat(), "end": self.end.isoformat()}


def pyramid(begin: datetime) -> Context:
    """Hours, their day, the month of these days with a slice a day, and the year."""
    strict: dict[str, Any] = {"blocking": "children", "lag_s": 0, "max_active": 4}
    members = [
        managed("hourly", WORKER, "hourly", **strict),
        managed("daily", WORKER, "daily", **strict),
        managed("monthly", WORKER, "monthly", state_machine="recomputing", trigger="every 86400", lag_s=0),
        managed("yearly", WORKER, "yearly", **strict),
    ]
    names = [process.name for process in members]
    return context(members, [tree("pyramid", names)], (), begin.strftime("%Y%m%d%H"))


class _Owner(Operator):
    """An operator who every other day does something about the last weeks."""

    verbs = VERBS


class Years(Run):
    """The course of it: faults, a look at everything each day, and rest at the end."""

    checker: Everything

    def __init__(self, begin: datetime, days: int, seed: int = 0) -> None:
        self.seed, self.begin, self.days = seed, begin, days
        self.world = World(seed, pyramid(begin), begin)
        self.world.checker = self.checker = Everything(self.world, timedelta(days=KEEP_DAYS))
        self.world.odds, self.world.habits, self.world.lease_s = ODDS, HABITS, LEASE_S
        self.world.idle_s, self.world.wakes_one = LEASE_S, True
        self.rng = self.world.rng
        self.policy = Policy(log_days=KEEP_DAYS, uow_days=KEEP_DAYS, event_days=KEEP_DAYS)
        self.schedulers = [SchedulerActor(self.world, f"s{n}", LEASE_S, SWEEP_S) for n in (1, 2)]
        self.workers = [WorkerActor(self.world, f"w{n}", ("default",), 2) for n in (1, 2)]
        self.operator = None
        self.registrar = None
        self.endings = False

    def play_all(self, progress: Callable[[int], None] = lambda day: None) -> Story:
        """All of it; `progress` is told each day that is done."""
        found = Story(self.begin, self.begin + timedelta(days=self.days))
        since, cpu = time.perf_counter(), time.process_time()
        try:
            with window_of(LOOK), _garbage_seldom():
                self._years(progress)
        except Broken as broken:
            found.broken, found.story = str(broken), self.story(broken.jobs)
        except Exception as error:  # noqa: BLE001 - whatever the product raised is a finding
            found.broken = f"{type(error).__name__}: {error}"
            found.story = [*traceback.format_exc().splitlines()[-14:], *self.story(())]
        found.seconds, found.cpu_s = time.perf_counter() - since, time.process_time() - cpu
        found.jobs, found.events = len(self.checker.model.jobs), self.checker.model.seq
        found.looks, found.rows, found.uows = (
            self.checker.looks,
            self.checker.rows_looked_at,
            self.checker.requests,
        )
        found.counts = {
            **self.world.counts,
            **{f"commands: {v}": n for v, n in self.checker.model.acts.items()},
        }
        found.digest = self.checker.digest.hexdigest()[:16]
        self.world.close()
        return found

    def _years(self, progress: Callable[[int], None]) -> None:
        for actor in (*self.schedulers, *self.workers):
            actor.begin()
        self.operator = _Owner(self.world, mean_s=1.5 * DAY_S)
        for day in range(self.days):
            if day % 7 == 0:
                self._week()
            self.world.run(DAY_S)
            if day % KEPT_EVERY == 0:
                for scheduler in self.schedulers:
                    scheduler.keep_house(self.policy)
            self.checker.look()
            progress(day + 1)
        self._calm_down()
        self.operator.release_all()
        self._stop_time()
        self.world.run(2 * SWEEP_S)  # whoever died as the last: another one leads, and sweeps
        self.rest()
        self.checker.look()
        self.checker.jobs(every=True)
        check_units(self.checker)
        check_periods(self.checker)
        for job in self.checker.model.jobs.values():
            check_reason(self.checker, job)
            check_newest(self.checker, job)
        check_late(self.checker)

    def _week(self) -> None:
        """What goes wrong in a week, beside what goes wrong at any write and any message."""
        rng, seconds, at = self.rng, 7 * DAY_S, self.world.at
        at(rng.uniform(0, seconds), self._kill)
        at(rng.uniform(0, seconds), self._pause)
        if rng.random() < 0.5:
            at(rng.uniform(0, seconds), lambda: self._outage("store_away", rng.expovariate(1 / AWAY_S)))
        if rng.random() < 0.5:
            away_s = min(rng.expovariate(1 / AWAY_S), LONGEST_S)
            at(rng.uniform(0, seconds), lambda: self._outage("broker_away", away_s))
        if rng.random() < 0.3:
            at(rng.uniform(0, seconds), lambda: rng.choice(self.workers).leave())
        if rng.random() < 0.05:
            at(rng.uniform(0, seconds), lambda: self.world.jump(rng.choice((30, 3000))))


@contextmanager
def _garbage_seldom() -> Iterator[None]:
    """As the daemon has it: what is loaded stays, and cycles are looked for seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
