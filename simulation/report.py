"""What would happen between two dates: a user's own context on the virtual clock, with virtual workers.

Nothing goes wrong in it but what the user asks for (`fail`). The answer is counts and lateness, process by
process, and the checker's opinion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from scheduler.core.errors import Refused
from scheduler.core.job import Job
from scheduler.core.process import Context
from scheduler.core.uow import Uow
from simulation.actors import SchedulerActor, WorkerActor
from simulation.checker import Checker
from simulation.contexts import Stage
from simulation.executor import Habits
from simulation.model import Broken
from simulation.run import Run, window_of

STEP_S = 3600.0
LOOK = 64


@dataclass(slots=True)
class Line:
    """One process of the report. Lateness is seconds from a period's close to its end."""

    process: str
    jobs: dict[str, int] = field(default_factory=dict)
    uows: int = 0
    failures: int = 0
    late_median_s: float | None = None
    late_most_s: float | None = None


@dataclass(slots=True)
class Report:
    """What would happen."""

    begin: datetime
    end: datetime
    lines: list[Line] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "from": self.begin.isoformat(),
            "to": self.end.isoformat(),
            "violations": self.violations,
            "processes": {
                line.process: {
                    "jobs": line.jobs,
                    "uows": line.uows,
                    "failures": line.failures,
                    "late_median_s": line.late_median_s,
                    "late_most_s": line.late_most_s,
                }
                for line in self.lines
            },
        }


def from_there(context: Context, begin: datetime) -> Context:
    """The context, as if its timetable began at `begin`."""
    processes = {name: replace(process, start=None) for name, process in context.processes.items()}
    trees = {name: replace(tree, start=None) for name, tree in context.trees.items()}
    return replace(context, processes=processes, trees=trees, start=begin.strftime("%Y%m%d%H"))


def rehearse(
    context: Context,
    begin: datetime,
    end: datetime,
    *,
    duration_s: float | None = None,
    fail: float = 0.0,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Report:
    """Play `context` from `begin` to `end`. Raises Refused if `end` is not after `begin`."""
    if end <= begin:
        raise Refused(f"--to {end:%Y-%m-%d %H:%M} must be after --from {begin:%Y-%m-%d %H:%M}")
    stage = Stage(from_there(context, begin), begin, (end - begin) / timedelta(days=1), LOOK)
    run = _Rehearsal(seed, stage)
    run.world.habits = Habits(
        fails=fail,
        permanent=0.0,
        noop=0.0,
        cancels=0.0,
        more=0.0,
        late_data=0.0,
        slow=0.0,
        ready=0.9,
        fixed_s=duration_s,
        mean_s=60.0,
    )
    report = Report(begin, end)
    with window_of(LOOK):
        try:
            for actor in (*run.schedulers, *run.workers):
                actor.begin()
            seconds = (end - begin).total_seconds()
            done = 0.0
            while done < seconds:
                step = min(STEP_S, seconds - done)
                run.world.run(step)
                done += step
                progress(done / seconds)
            run.world.run(1.0)
        except Broken as broken:
            report.violations.append(str(broken))
    report.lines = _lines(run.checker)
    run.world.close()
    return report


class _Rehearsal(Run):
    """A run with one scheduler, and the workers that the context's queues ask for."""

    def __init__(self, seed: int, stage: Stage) -> None:
        super().__init__(seed, given=stage, calm=True)
        self.world.actors.clear()
        self.schedulers = [SchedulerActor(self.world, "scheduler", 600.0, 900.0)]
        self.workers = [
            WorkerActor(self.world, f"{queue.name}.{n}", (queue.name,), queue.slots)
            for queue in stage.context.queues.values()
            for n in range(1, queue.workers + 1)
        ]


def _lines(checker: Checker) -> list[Line]:
    lines = {name: Line(name) for name, p in checker.world.context.processes.items() if p.kind != "daemon"}
    late: dict[str, list[float]] = {}
    for job in checker.store.find(Job):
        line = lines[job.process]
        line.jobs[job.state] = line.jobs.get(job.state, 0) + 1
        if job.is_finished and job.settled_at is not None:
            process = checker.world.context.processes[job.process]
            closed = job.end + timedelta(seconds=process.lag_s)
            late.setdefault(job.process, []).append(max(0.0, (job.settled_at - closed).total_seconds()))
    for uow in checker.store.find(Uow):
        if uow.kind == "work":
            lines[uow.process].uows += 1
            lines[uow.process].failures += uow.failures
    for name, found in late.items():
        lines[name].late_median_s, lines[name].late_most_s = statistics.median(found), max(found)
    return list(lines.values())
