"""What a reprocess or a skip would do, job by job, before it is done.

`commands` carries out exactly this list, so what is shown is what happens. A cascade of more than
`CASCADE_MAX` jobs, rows to be made included, is refused with the number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from scheduler.core.errors import Refused
from scheduler.core.facts import Absent
from scheduler.core.inputs import ahead, gather_above
from scheduler.core.job import Job, job_id
from scheduler.core.slice import Slice
from scheduler.core.timeperiod import Timeperiod, count_between
from scheduler.core.timetable import Span

CASCADE_MAX = 10_000
EFFECTS = ("none", "reset", "reset and cancel", "skip", "skip and cancel", "made", "again", "left")


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one job."""

    job: str
    effect: str
    state: str  # the state it is in now; "" where its row is made


def outcome_of(effects: list[Effect]) -> dict[str, Any]:
    """What a command's outcome says of its jobs."""
    rows = [{"job": e.job, "effect": e.effect, "state": e.state} for e in effects]
    return {"changed": any(e.effect != "none" for e in effects), "jobs": rows}


def touched(effects: list[Effect]) -> str:
    """The same in a few words."""
    number = sum(1 for e in effects if e.effect not in ("none", "left"))
    return f"{number} job{'' if number == 1 else 's'} changed" if number else "nothing to change"


def plan_reprocess(s: Slice, roots: list[Job], clip: Callable[[Span], Span] | None = None) -> list[Effect]:
    """Job, ancestors and dependants that are not embryo go back to embryo; running ones are canceled.

    `clip` narrows it: what of a span is followed, all that exists without it.
    """
    effects: dict[str, Effect] = {}
    for job in (*roots, *gather_above(s, roots, clip, most=CASCADE_MAX)):
        effects.setdefault(job.id, Effect(job.id, _reset(job), job.state))
    return _bounded(list(effects.values()), "or more ")


def _reset(job: Job) -> str:
    if job.state == "embryo":
        return "none"
    return "reset and cancel" if job.uow_open else "reset"


def plan_skip(s: Slice, roots: list[Job]) -> list[Effect]:
    """Job, unfinished descendants (rows not yet there are made), and strict dependants, transitively."""
    effects: dict[str, Effect] = {}
    layer: list[tuple[str, Timeperiod]] = [(job.process, s.span_of(job)) for job in roots]
    for job in roots:
        effects[job.id] = Effect(job.id, _skip(job), job.state)
    walked = 0
    while layer:
        down, side = [], []
        for name, p in layer:
            down += _below(s, name, p.start, p.end)
            side += _beside(s, name, p.start, p.end)
        _check_size(s, len(effects), down)
        missing = [span for span in dict.fromkeys((*down, *side)) if span not in s.ranges]
        if missing:
            raise Absent(*[("range", span) for span in ahead(s, missing, partial(_beside, s), walked)])
        walked += 1
        layer = []
        for span in down:
            there = {job.timeperiod: job for job in s.jobs_in(span)}
            for period in s.timetable.periods(span):
                job_there = there.get(period.label)
                id_ = job_id(span.process, period.label)
                if id_ not in effects:
                    state = job_there.state if job_there is not None else ""
                    effects[id_] = Effect(id_, _skip(job_there) if job_there is not None else "made", state)
                    layer.append((span.process, period))
        for span in side:
            for job in s.jobs_in(span):
                if job.id not in effects and not job.is_finished:
                    effects[job.id] = Effect(job.id, _skip(job), job.state)
                    layer.append((job.process, s.span_of(job)))
    return _bounded(list(effects.values()))


def _below(s: Slice, process: str, start: datetime, end: datetime) -> list[Span]:
    """The children of a period that exist."""
    child = s.timetable.child(process)
    return [s.clip(Span(child, start, end))] if child is not None else []


def _beside(s: Slice, process: str, start: datetime, end: datetime) -> list[Span]:
    """What cannot be without a period: dependants whose blocking is `dependencies`."""
    return [
        s.clip(s.timetable.dependant_span(edge, start, end))
        for edge in s.timetable.dependants(process)
        if edge.kind == "dependency" and s.timetable.processes[edge.of].blocking == "dependencies"
    ]


def _skip(job: Job) -> str:
    if job.is_finished:
        return "none"
    return "skip and cancel" if job.uow_open else "skip"


def _check_size(s: Slice, so_far: int, spans: list[Span]) -> None:
    """Refuse before thousands of rows are read: the arithmetic knows how many there would be."""
    coming = 0
    for span in spans:
        process = s.timetable.processes[span.process]
        coming += count_between(span.start, span.end, process.qualifier, process.grouping)
    check_number(so_far + coming)


def _bounded(effects: list[Effect], more: str = "") -> list[Effect]:
    check_number(len(effects), more)
    return effects


def check_number(number: int, more: str = "") -> None:
    """The one limit of commands, plans and cascades. Raises Refused with the number."""
    if number > CASCADE_MAX:
        raise Refused(f"this would touch {number:,} {more}jobs; at most {CASCADE_MAX:,} at once: narrow it")
