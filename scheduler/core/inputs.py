"""What a job stands on, and whether that is finished.

To a parent or dependant a job counts as finished when its row is not open: processed, noop or
skipped, and let go of by every worker. A period without a row counts as unfinished until the
frontier has passed it, and as not there before the start of its process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice

from scheduler.core.facts import LOOK, Absent, OpenRow
from scheduler.core.job import Job, job_id
from scheduler.core.slice import Slice
from scheduler.core.timeperiod import spoken
from scheduler.core.timetable import Edge, Span, Timetable

AHEAD = 2048  # spans that are named beyond what is missing


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


@lru_cache(4096)  # a job is assessed several times in a turn, and each time asks for the same few spans
def _input_span(timetable: Timetable, edge: Edge, start: datetime, end: datetime) -> Span:
    return timetable.input_span(edge, start, end)


@lru_cache(4096)  # asked when a report is gathered for, and again when it is decided
def dependant_span(timetable: Timetable, edge: Edge, start: datetime, end: datetime) -> Span:
    """As `Timetable.dependant_span`, which is arithmetic on calendars and costs more than a look-up."""
    return timetable.dependant_span(edge, start, end)


def input_spans(s: Slice, job: Job) -> list[tuple[Edge, Span]]:
    """The spans of everything a job stands on that exists."""
    spans = []
    for edge in s.timetable.inputs(job.process):
        row = s.known.rows.get(edge.on)
        if row is None or row.state in ("expired", "deleted"):
            continue
        span = s.clip(_input_span(s.timetable, edge, job.start, job.end))
        if span.start < span.end:
            spans.append((edge, span))
    return spans


def hidden_spans(s: Slice, job: Job) -> list[tuple[Edge, Span]]:
    """What a job would stand on, had the start of its inputs not been raised above it."""
    spans = []
    for edge in s.timetable.inputs(job.process):
        row = s.known.rows.get(edge.on)
        if row is None or row.start is None or row.state in ("expired", "deleted"):
            continue
        span = _input_span(s.timetable, edge, job.start, job.end)
        start = span.start if row.horizon is None else max(span.start, row.horizon)
        if start < min(span.end, row.start):
            spans.append((edge, Span(edge.on, start, min(span.end, row.start))))
    return spans


def still_busy(s: Slice, edge: Edge, span: Span) -> list[Blocker]:
    """A hidden job is finished once no unit of work of it is unfinished or held by a worker."""
    return [_unfinished_job(s, edge, span, row) for row in s.busy_rows(span)]


def all_unfinished(s: Slice, edge: Edge, span: Span) -> Iterator[Blocker]:
    """Everything of a span that is not finished, the oldest first; at most as much as one look shows."""
    for row in islice(s.open_rows(span), LOOK):
        yield _unfinished_job(s, edge, span, row)
    if not s.is_made(span):
        yield _not_begun(s, edge, span)


def unfinished(s: Slice, edge: Edge, span: Span) -> Blocker | None:
    """The first thing of a span that is not finished, as a blocker; None if all of it is."""
    return next(all_unfinished(s, edge, span), None)


def _code(edge: Edge) -> str:
    return "children" if edge.kind == "child" else "dependency"


def _unfinished_job(s: Slice, edge: Edge, span: Span, row: OpenRow) -> Blocker:
    return Blocker(
        _code(edge),
        f"{_name(s, span, row.start)} is not finished",
        job=row.id,
        process=span.process,
        unblock="it finishes, or is skipped",
    )


def _not_begun(s: Slice, edge: Edge, span: Span) -> Blocker:
    frontier = s.row(span.process).frontier
    begin = max(frontier, span.start) if frontier is not None else span.start
    period = s.timetable.containing(span.process, begin)
    return Blocker(
        _code(edge),
        f"{_name(s, span, begin)} has not begun",
        job=job_id(span.process, period.label),
        process=span.process,
        until=period.start,
        unblock="time passes",
    )


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


def gather_above(
    s: Slice, roots: list[Job], clip: Callable[[Span], Span] | None = None, *, most: int | None = None
) -> list[Job]:
    """Every existing job that stands on any of `roots`, gathered layer by layer, not root by root.

    It goes no further once there are more than `most`.
    """
    return list(_above(s, roots, clip, most).values())


def stands_on(s: Slice, root: Job, clip: Callable[[Span], Span] | None = None) -> list[Job]:
    """Every existing job that stands on `root`: ancestors and dependants, transitively, nearest first.

    `clip` says what of a span is followed; without it, all that exists.
    """
    return [job for id_, job in _above(s, [root], clip).items() if id_ != root.id]


def _above(
    s: Slice, roots: list[Job], clip: Callable[[Span], Span] | None = None, most: int | None = None
) -> dict[str, Job]:
    clipped = clip or s.clip

    def follow(process: str, start: datetime, end: datetime) -> list[Span]:
        edges = s.timetable.dependants(process)
        spans = [clipped(s.timetable.dependant_span(edge, start, end)) for edge in edges]
        return [span for span in spans if span.start < span.end]

    found: dict[str, Job] = {}
    layer, walked = roots, 0
    while layer and (most is None or len(found) <= most):
        spans = dict.fromkeys(span for job in layer for span in follow(job.process, job.start, job.end))
        missing = [span for span in spans if span not in s.ranges]
        if missing:
            raise Absent(*[("range", span) for span in ahead(s, missing, follow, walked)])
        layer, walked = [], walked + 1
        for span in spans:
            for job in s.jobs_in(span):
                if job.id not in found:
                    found[job.id] = job
                    layer.append(job)
    return found


def ahead(
    s: Slice, missing: list[Span], follow: Callable[[str, datetime, datetime], list[Span]], layers: int
) -> list[Span]:
    """`missing`, and what a walk over edges asks for in as many layers after it as it has come through.

    By arithmetic alone, and so only where the frontier has been: a chain of thousands of periods is gathered
    by doubling, where period by period the walk would begin anew for each.
    """
    named = dict.fromkeys(missing)
    layer = missing
    for _ in range(min(layers, AHEAD)):
        further: dict[Span, None] = {}
        for span in layer:
            row = s.known.rows.get(span.process)
            if row is None or row.frontier is None:
                continue
            for period in islice(s.timetable.periods(span), LOOK):
                if period.start >= row.frontier:
                    break
                further.update(dict.fromkeys(follow(span.process, period.start, period.end)))
        layer = [span for span in further if span not in named and span not in s.ranges]
        if not layer or len(named) >= AHEAD:
            break
        named.update(dict.fromkeys(layer))
    return list(named)
