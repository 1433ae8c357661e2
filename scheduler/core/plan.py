"""What a reprocess or a skip would do, job by job, before it is done.

`commands` carries out exactly this list, so what is shown is what happens. A cascade of more than
`CASCADE_MAX` jobs, rows to be made included, is refused with the number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scheduler.core.errors import Refused
from scheduler.core.inputs import gather_above, stands_on
from scheduler.core.job import Job, job_id
from scheduler.core.slice import Absent, Slice
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
    gather_above(s, roots, clip)
    for root in roots:
        for job in (root, *stands_on(s, root, clip)):
            effects.setdefault(job.id, Effect(job.id, _reset(job), job.state))
    return _bounded(list(effects.values()))


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
    while layer:
        below = [
            Span(child, p.start, p.end) for name, p in layer if (child := s.timetable.child(name)) is not None
        ]
        beside = [
            s.timetable.dependant_span(edge, p.start, p.end)
            for name, p in layer
            for edge in s.timetable.dependants(name)
            if edge.kind == "dependency" and s.timetable.processes[edge.of].blocking == "dependencies"
        ]
        down = [span for span in map(s.clip, below) if span.start < span.end]
        side = [span for span in map(s.clip, beside) if span.start < span.end]
        _check_size(s, len(effects), down)
        missing = [("range", span) for span in (*down, *side) if span not in s.ranges]
        if missing:
            raise Absent(*missing)
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
    _refuse(so_far + coming)


def _bounded(effects: list[Effect]) -> list[Effect]:
    _refuse(len(effects))
    return effects


def _refuse(number: int) -> None:
    if number > CASCADE_MAX:
        raise Refused(f"this would touch {number:,} jobs; at most {CASCADE_MAX:,} at once: narrow it")
