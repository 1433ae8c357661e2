"""What a job stands on, and whether that is finished.

To a parent or dependant a job counts as finished when its row is not open: processed, noop or
skipped, and let go of by every worker. A period without a row counts as unfinished until the
frontier has passed it, and as not there before the start of its process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from scheduler.core.job import Job, job_id
from scheduler.core.slice import Slice
from scheduler.core.timeperiod import spoken
from scheduler.core.timetable import Edge, Span


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a job is not dispatched or ended now."""

    code: str  # see `CODES` in strategy.py
    sentence: str
    job: str | None = None  # the job that blocks, where one does
    process: str | None = None
    uow: str | None = None
    until: datetime | None = (
        None  # when it ends by itself, if that is known; business or real as the code says
    )
    unblock: str = ""  # what would unblock it


def input_spans(s: Slice, job: Job) -> list[tuple[Edge, Span]]:
    """The spans of everything a job stands on that exists."""
    spans = []
    for edge in s.timetable.inputs(job.process):
        row = s.known.rows.get(edge.on)
        if row is None or row.state in ("expired", "deleted"):
            continue
        span = s.clip(s.timetable.input_span(edge, job.start, job.end))
        if span.start < span.end:
            spans.append((edge, span))
    return spans


def unfinished(s: Slice, edge: Edge, span: Span) -> Blocker | None:
    """The first thing of a span that is not finished, as a blocker; None if all of it is."""
    code = "children" if edge.kind == "child" else "dependency"
    first = s.first_open(span)
    if first is not None:
        name = _name(s, span, first.start)
        return Blocker(
            code,
            f"{name} is not finished",
            job=first.id,
            process=span.process,
            unblock="it finishes, or is skipped",
        )
    if not s.is_made(span):
        frontier = s.row(span.process).frontier
        begin = max(frontier, span.start) if frontier is not None else span.start
        period = s.timetable.containing(span.process, begin)
        return Blocker(
            code,
            f"{_name(s, span, begin)} has not begun",
            job=job_id(span.process, period.label),
            process=span.process,
            until=period.start,
            unblock="time passes",
        )
    return None


def _name(s: Slice, span: Span, instant: datetime) -> str:
    return f"{span.process} {spoken(s.timetable.containing(span.process, instant))}"


def skipped_dependency(s: Slice, spans: list[tuple[Edge, Span]]) -> Job | None:
    """The first skipped job among the finished dependencies."""
    for edge, span in spans:
        if edge.kind == "dependency" and unfinished(s, edge, span) is None:
            for other in s.jobs_in(span):
                if other.state == "skipped":
                    return other
    return None


def all_children_skipped(s: Slice, spans: list[tuple[Edge, Span]]) -> bool:
    """Every child is there, finished and skipped, and there is at least one."""
    children = [(edge, span) for edge, span in spans if edge.kind == "child"]
    if not children or any(unfinished(s, edge, span) is not None for edge, span in children):
        return False
    rows = [row for _, span in children for row in s.jobs_in(span)]
    return bool(rows) and all(row.state == "skipped" for row in rows)


def last_settled(s: Slice, spans: list[tuple[Edge, Span]]) -> int:
    """The event number at which the last of the inputs finished; 0 without inputs."""
    return max((row.settled_seq for _, span in spans for row in s.jobs_in(span)), default=0)
