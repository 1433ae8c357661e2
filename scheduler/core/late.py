"""Late data: rows came for periods that may be finished. They and what stands on them are driven again, gently.

Late data is never lost, and has neither a seen state nor an expiry: a cascade beyond the limit leaves the command
pending, with a critical event, until an operator drops it or narrows it to some processes, or to an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.core.act import reopen
from scheduler.core.command import DONE, PENDING, REFUSED, Command
from scheduler.core.errors import InvalidRequest, NotFound, Refused, SchedulerError
from scheduler.core.evolve import evolve
from scheduler.core.facts import Absent
from scheduler.core.holds import instant
from scheduler.core.job import Job
from scheduler.core.plan import Effect, outcome_of, plan_reprocess, touched
from scheduler.core.ports import Change
from scheduler.core.rule import Result
from scheduler.core.slice import Item, Slice
from scheduler.core.timetable import Span

BY_PEOPLE = frozenset({"manual", "killed"})  # reasons that late data does not reopen
UNSAID = "no reason given"

Clip = Callable[[Span], Span]


def late_data(s: Slice, command: Command) -> Result:
    """Data came for periods that may be finished: drive them and what stands on them again, gently."""
    items, effects = _spread(s, command, _jobs_there(s, command), None)
    return items, outcome_of(effects), touched(effects)


def _spread(
    s: Slice, command: Command, roots: list[Job], clip: Clip | None
) -> tuple[list[Item], list[Effect]]:
    effects: list[Effect] = []
    items: list[Item] = []
    plan_reprocess(s, [root for root in roots if root.state != "embryo" or root.stopping], clip)
    for named in roots:
        root = s.job(named.id)  # as those before it left it
        assert root is not None
        if root.state == "embryo" and not root.stopping:
            effects.append(Effect(root.id, "none", root.state))
            continue
        if _closed_by_person(s, root, command):
            effects.append(Effect(root.id, "left", root.state))
            continue
        for job in (root, *_late_above(s, root, command, clip)):
            job_now = s.job(job.id)
            assert job_now is not None
            if job_now.state == "embryo":
                continue
            if job_now.uow_open:
                if job_now.again is None:
                    s.change_job(job_now, again=command.reason or UNSAID)
                effects.append(Effect(job.id, "again", job.state))
            else:
                reopen(s, job_now, message=f"late data: {command.reason or UNSAID}", actor=command.actor)
                items.append(Item("job", job.id))
                effects.append(Effect(job.id, "reset", job.state))
    return items, effects


def _jobs_there(s: Slice, command: Command) -> list[Job]:
    """Late data may name a period that has no row yet: nothing has to be done for it."""
    ids = command.target.get("jobs")
    if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
        raise InvalidRequest(f"late data needs jobs, such as ['flights_daily@2013070400'], got {ids!r}")
    missing = [("job", id_) for id_ in ids if id_ not in s.jobs]
    if missing:
        raise Absent(*missing)
    return [job for id_ in dict.fromkeys(ids) if (job := s.job(id_)) is not None]


def _closed_by_person(s: Slice, job: Job, command: Command) -> bool:
    if not (job.is_finished and job.reason in BY_PEOPLE):
        return False
    s.emit(
        "job.left",
        f"late data ({command.reason or UNSAID}) does not reopen what a person ended",
        severity="warning",
        actor=command.actor,
        process=job.process,
        timeperiod=job.timeperiod,
    )
    return True


def _late_above(s: Slice, root: Job, command: Command, clip: Clip | None) -> list[Job]:
    """What stands on the root; what a person ended is left alone."""
    above = plan_reprocess(s, [root], clip)[1:]
    found = []
    for effect in above:
        job = s.job(effect.job)
        if job is not None and not _closed_by_person(s, job, command):
            found.append(job)
    return found


# -- beyond the limit -----------------------------------------------------------------------------


def postpone(s: Slice, command: Command, error: SchedulerError) -> list[Item]:
    """Late data is never lost: too large a cascade waits for an operator to narrow or drop it."""
    if command.status != 409:
        s.commands.append(
            Change(Command, command.id, {"state": PENDING}, {"status": 409, "message": str(error)})
        )
        s.emit(
            "command.waits",
            f"late data: {error}",
            severity="critical",
            actor=command.actor,
            data={"command": command.id},
        )
    return []


def drop_late(s: Slice, command: Command) -> Result:
    """Late data that waits is given up: nothing is driven again for it."""
    late = _that_waits(s, command)
    jobs = late.target.get("jobs") or []
    effects = [Effect(id_, "left", job.state) for id_ in jobs if (job := s.jobs.get(id_)) is not None]
    why = f": {command.reason}" if command.reason else ""
    _resolve(s, late, REFUSED, 409, f"dropped by {command.actor}{why}", outcome_of([]))
    s.emit(
        "command.dropped",
        f"late data ({late.reason or UNSAID}) for {_some(jobs)} was dropped{why}",
        severity="warning",
        actor=command.actor,
        data={"command": late.id},
    )
    return [], {**outcome_of(effects), "changed": True}, f"the late data for {_some(jobs)} was dropped"


def narrow_late(s: Slice, command: Command) -> Result:
    """Late data that waits is carried out for some processes or an interval; what is outside keeps what it has."""
    late = _that_waits(s, command)
    within = _within(s, command)
    named = _jobs_there(s, late)
    roots = [job for job in named if within.covers(job)]
    if not roots:
        raise Refused(f"none of {_some([job.id for job in named])} is within {within}; nothing was changed")
    items, effects = _spread(s, late, roots, lambda span: within.clip(s, span))
    effects += [Effect(job.id, "left", job.state) for job in named if not within.covers(job)]
    said = f"{touched(effects)}, narrowed by {command.actor} to {within}"
    _resolve(s, late, DONE, 200, said, outcome_of(effects))
    s.emit(
        "command.narrowed",
        f"late data ({late.reason or UNSAID}): {said}; what is outside keeps its result",
        severity="warning",
        actor=command.actor,
        data={"command": late.id, "target": late.target},
    )
    return items, outcome_of(effects), touched(effects)


def _that_waits(s: Slice, command: Command) -> Command:
    """The late data that a command is about."""
    id_ = command.target.get("command")
    if not isinstance(id_, str) or not id_:
        raise InvalidRequest(f"{command.verb} needs a command, the id of late data that waits, got {id_!r}")
    if id_ not in s.asked:
        raise Absent(("command", id_))
    late: Command | None = s.asked[id_]
    if late is None:
        raise NotFound(f"there is no command {id_!r}")
    if late.verb != "late_data":
        raise Refused(f"command {id_} is a {late.verb}; only late data that waits is dropped or narrowed")
    if late.state != PENDING or late.status != 409:
        state = late.state if late.state != PENDING else "not decided yet"
        raise Refused(f"late data {id_} is {state}; only what waits is dropped or narrowed")
    return late


def _resolve(s: Slice, late: Command, state: str, status: int, message: str, outcome: dict[str, Any]) -> None:
    sets = {"state": state, "status": status, "message": message, "outcome": outcome, "resolved_at": s.real}
    s.commands.append(Change(Command, late.id, {"state": PENDING}, sets))
    s.ask(late.id, evolve(late, sets))


def _some(jobs: list[str]) -> str:
    return jobs[0] if len(jobs) == 1 else f"{len(jobs):,} jobs"


@dataclass(frozen=True, slots=True)
class Within:
    """What a narrowed cascade may touch: jobs of these processes, in periods that overlap [begin, end)."""

    processes: frozenset[str] | None = None
    begin: datetime | None = None
    end: datetime | None = None

    def covers(self, job: Job) -> bool:
        """Whether a job is in it."""
        return (
            (self.processes is None or job.process in self.processes)
            and (self.begin is None or job.end > self.begin)
            and (self.end is None or job.start < self.end)
        )

    def clip(self, s: Slice, span: Span) -> Span:
        """The part of a span that is in it, and exists; empty if it begins where it ends."""
        span = s.clip(span)
        start, end = span.start, span.end
        if self.processes is not None and span.process not in self.processes:
            end = start
        if self.begin is not None and start < self.begin:
            start = max(start, s.timetable.containing(span.process, self.begin).start)
        if self.end is not None:
            end = min(end, self.end)
        return Span(span.process, start, max(start, end))

    def __str__(self) -> str:
        words = [", ".join(sorted(self.processes))] if self.processes is not None else []
        words += [f"from {self.begin:%Y-%m-%d %H:%M}"] if self.begin is not None else []
        words += [f"to {self.end:%Y-%m-%d %H:%M}"] if self.end is not None else []
        return " ".join(words)


def _within(s: Slice, command: Command) -> Within:
    names = command.arguments.get("processes")
    if names is not None:
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InvalidRequest(f"processes must be a list of names, got {names!r}")
        for name in names:
            if name not in s.timetable.processes:
                raise NotFound(f"there is no process {name!r}")
    begin = instant("from", command.arguments.get("from"))
    end = instant("to", command.arguments.get("to"))
    if names is None and begin is None and end is None:
        raise InvalidRequest("narrow_late needs processes, from or to: what the late data is narrowed to")
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(
            f"from {begin.isoformat()} to {end.isoformat()}: its end is before its beginning"
        )
    return Within(frozenset(names) if names is not None else None, begin, end)
