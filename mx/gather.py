"""The facts of a page: a bounded number of reads, then only pure code.

One function a page. They also decide what is not there: 404 and 400 come from here, and nothing is
ever created by asking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mx import queries, view_attention, view_timetable
from mx.lateness import deadline_at, lateness
from mx.marks import Marks
from mx.present import Brief
from mx.site import Site
from mx.view_timetable import At
from scheduler.control import Reader
from scheduler.core.errors import InvalidRequest, NotFound, SchedulerError
from scheduler.core.event import Event
from scheduler.core.explain import Explanation
from scheduler.core.inputs import Blocker
from scheduler.core.job import Job, job_id
from scheduler.core.plan import Effect
from scheduler.core.ports import Where
from scheduler.core.process import Process
from scheduler.core.records import BoxProcess, Hold, LogChunk, ProcessRow
from scheduler.core.timeperiod import Qualifier
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow

CAUSES_MAX = 10  # causes for which those that wait are counted
PLAN_VERBS = ("reprocess", "skip", "mark_done", "kill", "hold")


@dataclass(frozen=True, slots=True)
class Common:
    """What every page needs: the clocks, the marks, and what needs a person."""

    at: queries.Now
    rows: Mapping[str, ProcessRow]
    holds: Sequence[Hold]
    uows: Sequence[Uow]
    boxes: Sequence[BoxProcess]
    marks: Marks
    attention: view_attention.Facts
    items: Sequence[view_attention.Item]

    @property
    def need(self) -> int:
        """How many things need a person."""
        return sum(not item.heals for item in self.items)


def whole_number(text: str, name: str, least: int, most: int) -> int:
    """A number from an address. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise InvalidRequest(f"{name}={text!r:.40} must be a number from {least} to {most}")
    return int(text)


def common(site: Site) -> Common:
    """Gathered for every page."""
    at, rows = queries.now(site), queries.rows_of_processes(site)
    holds, uows, boxes = queries.holds(site), queries.unfinished_uows(site), queries.boxes(site)
    marks = Marks.of_facts(site.timetable, rows, holds, uows, at.real, at.business)
    facts = view_attention.Facts(
        real=at.real,
        business=at.business,
        leading=at.leading,
        leader_seen=at.leader.expires_at if at.leader else None,
        processes=site.timetable.processes,
        rows=rows,
        failures=_failures(site),
        uows=uows,
        boxes=boxes,
        behind=_behind(site, rows, at.business),
        commands=queries.pending_commands(site),
        waiting=_waiting(site, uows),
    )
    return Common(at, rows, holds, uows, boxes, marks, facts, view_attention.items(facts))


def _failures(site: Site) -> list[view_attention.Failure]:
    found = []
    for i, (job, event) in enumerate(queries.failed_jobs(site)):
        waiting = queries.waiting_for(site, job.process, job.start, job.end) if i < CAUSES_MAX else ()
        found.append(view_attention.Failure(job, job.detail or event.message, waiting))
    return found


def _waiting(site: Site, uows: Sequence[Uow]) -> dict[str, int]:
    """For units of work that failed and wait for their retry: how many jobs stand on them."""
    failed = [uow for uow in uows if uow.state == "invalid" and uow.process in site.timetable.processes]
    return {
        uow.id: sum(n for _, n in queries.waiting_for(site, uow.process, uow.start, uow.end))
        for uow in failed[:CAUSES_MAX]
    }


def _behind(site: Site, rows: Mapping[str, ProcessRow], business: datetime) -> list[view_attention.Behind]:
    found = []
    for name, process in site.timetable.processes.items():
        row = rows.get(name)
        if process.kind != "managed" or row is None or row.state != "scheduled":
            continue
        for oldest in queries.oldest_open(site, name):
            late = lateness(process, row, oldest.end, business)
            if late is not None:
                last = site.timetable.containing(name, business).start  # this one is still open
                waiting = max(1, queries.count_open(site, name, last))
                has = deadline_at(process, oldest.end) is not None
                found.append(
                    view_attention.Behind(
                        process, oldest.start, oldest.end, oldest.timeperiod, late, waiting, has
                    )
                )
    return found


# -- the timetable --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimetableFacts:
    """What the timetable page shows."""

    at: At
    start: datetime
    processes: tuple[Process, ...]
    jobs: Mapping[str, Sequence[Brief]]


def timetable(site: Site, tree: str, text: str) -> TimetableFacts:
    """The periods of one tree or of all. Raises NotFound, InvalidRequest."""
    if tree and tree not in site.timetable.trees:
        raise NotFound(
            f"there is no tree {tree!r:.80}; there are {', '.join(site.timetable.trees) or 'none'}"
        )
    trees = [site.timetable.trees[tree]] if tree else list(site.timetable.trees.values())
    names = [name for each in trees for name in each.processes]
    if not tree:
        names += [
            name
            for name, process in site.timetable.processes.items()
            if process.kind == "managed" and site.timetable.tree_of(name) is None
        ]
    processes = tuple(site.timetable.processes[name] for name in names)
    if not processes:
        raise NotFound("no managed process is registered, so there is no timetable")
    start = min(site.timetable.start_of(name) for name in names)
    at = view_timetable.parse_at(text, site.clock.business(), start)
    jobs = {}
    for process in processes:
        span = view_timetable.span_of(process, at, start)
        if span is not None:
            jobs[process.name] = queries.between(site, span)
    return TimetableFacts(at, start, processes, jobs)


def heat(site: Site, process: Process, year: int) -> list[tuple[datetime, str]]:
    """(start, state) of the jobs of a process in a year that are not processed."""
    return [
        (row[0], row[1])
        for row in site.store.select(
            Job,
            ("start", "state"),
            [
                Where("process", "=", process.name),
                Where("start", ">=", datetime(year, 1, 1, tzinfo=UTC)),
                Where("start", "<", datetime(year + 1, 1, 1, tzinfo=UTC)),
                Where("state", "!=", "processed"),
            ],
            ("start",),
            9000,
        )
    ]


def heat_processes(processes: Sequence[Process]) -> list[Process]:
    """Those whose year can be shown day by day."""
    return [process for process in processes if process.qualifier in (Qualifier.DAILY, Qualifier.HOURLY)]


# -- one job --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Around:
    """A job that this one stands on, is part of, or is used by; `open` of `total` are not finished."""

    role: str
    span: Span
    job: Brief | None
    total: int
    open: int


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the job page shows."""

    job: Job
    process: Process | None
    row: ProcessRow | None
    at: queries.Now
    marks: Marks
    holds: Sequence[Hold]
    uows: Sequence[Uow]
    shown: Uow | None
    chunks: Sequence[LogChunk]
    is_cut: bool
    events: Sequence[Event]
    explanation: Explanation | None
    refusal: str
    jobs: Mapping[str, Job]
    siblings: Sequence[Brief]
    around: Sequence[Around]
    waiting: Sequence[tuple[Span, int]]
    before: Brief | None
    after: Brief | None

    @property
    def blockers(self) -> list[Blocker]:
        """Those at the root, then its own."""
        found = self.explanation
        return [*dict.fromkeys([*(root for _, root in found.roots), *found.own])] if found else []


def existing_job(site: Site, process: str, timeperiod: str) -> Job:
    """The job, or NotFound: a period that has not begun is not there, and is not made."""
    found = site.store.get(Job, job_id(process, timeperiod)) if len(process) + len(timeperiod) < 120 else None
    if found is not None:
        return found
    if process not in site.timetable.processes:
        raise NotFound(f"there is no process {process!r:.80}")
    period = site.timetable.timeperiod(process, timeperiod)  # InvalidRequest if it is no period of it
    if period.start > site.clock.business():
        raise NotFound(f"{process} {timeperiod} has not begun yet")
    raise NotFound(f"there is no job {job_id(process, timeperiod)!r}")


def job(site: Site, process: str, timeperiod: str, run: str = "") -> JobFacts:
    """Everything about one job. Raises NotFound, InvalidRequest."""
    found = existing_job(site, process, timeperiod)
    definition, at = site.timetable.processes.get(process), queries.now(site)
    rows, holds, uows = (
        queries.rows_of_processes(site),
        queries.holds(site),
        queries.uows_of(site, process, timeperiod),
    )
    marks = Marks.of_facts(
        site.timetable, rows, holds, [uow for uow in uows if not uow.is_finished], at.real, at.business
    )
    shown = _shown(uows, found, run)
    chunks, is_cut = queries.log_of(site, shown.id) if shown else ([], False)
    explanation, refusal = _explain(site, found)
    ids = (
        [id_ for id_, _ in explanation.roots] + [b.job for b in explanation.own if b.job]
        if explanation
        else []
    )
    return JobFacts(
        job=found,
        process=definition,
        row=rows.get(process),
        at=at,
        marks=marks,
        holds=holds,
        uows=uows,
        shown=shown,
        chunks=chunks,
        is_cut=is_cut,
        events=queries.events_of(site, process, timeperiod),
        explanation=explanation,
        refusal=refusal,
        jobs=queries.jobs_by_id(site, dict.fromkeys(ids)),
        siblings=_siblings(site, found, definition),
        around=_around(site, found) if definition is not None else (),
        before=next(iter(queries.newest(site, process, found.start, 1)), None),
        after=queries.next_after(site, process, found.start),
        waiting=queries.waiting_for(site, process, found.start, found.end)
        if found.open and definition
        else (),
    )


def _shown(uows: Sequence[Uow], found: Job, run: str) -> Uow | None:
    """The unit of work whose log is shown: the run of the address, or the job's last."""
    if run:
        wanted = whole_number(run, "run", 1, 999_999_999)
        for uow in uows:
            if uow.run == wanted and uow.kind == "work":
                return uow
        raise NotFound(f"{found.id} has no run {wanted}")
    return next((uow for uow in uows if uow.id == found.uow), uows[0] if uows else None)


def _explain(site: Site, found: Job) -> tuple[Explanation | None, str]:
    """The decision's own reasons. A page is shown without them rather than not at all."""
    try:
        return Reader(site.store, site.timetable, site.clock).explain(found.id), ""
    except SchedulerError as error:
        return None, str(error)


def _siblings(site: Site, found: Job, process: Process | None) -> list[Brief]:
    parent = site.timetable.parent(found.process)
    if process is None or parent is None:
        return queries.newest(site, found.process, found.end)
    period = site.timetable.containing(parent, found.start)
    return queries.between(site, Span(found.process, period.start, period.end), 62)


def _around(site: Site, found: Job) -> list[Around]:
    timetable, near = site.timetable, list[Around]()
    for edge in timetable.inputs(found.process):
        span = timetable.input_span(edge, found.start, found.end)
        near.append(_near(site, "made of" if edge.kind == "child" else "stands on", span))
    for edge in timetable.dependants(found.process):
        span = timetable.dependant_span(edge, found.start, found.end)
        near.append(_near(site, "part of" if edge.kind == "child" else "used by", span))
    return near


def _near(site: Site, role: str, span: Span) -> Around:
    jobs = queries.between(site, span, 800)
    first_open = next((brief for brief in jobs if brief.open), None)
    return Around(
        role, span, first_open or (jobs[0] if jobs else None), len(jobs), sum(brief.open for brief in jobs)
    )


def effects(site: Site, verb: str, found: Job) -> list[Effect]:
    """What an act would do, job by job, by the core's own plan. Raises Refused, InvalidRequest."""
    if verb not in PLAN_VERBS:
        raise InvalidRequest(f"there is no plan for {verb!r:.40}; use one of {', '.join(PLAN_VERBS)}")
    reader = Reader(site.store, site.timetable, site.clock)
    if verb in ("reprocess", "skip"):
        return reader.plan(verb, [found.id])
    effect = {"kill": "skip and cancel", "hold": "held"}.get(
        verb, "done and cancel" if found.uow_open else "done"
    )
    own = [Effect(found.id, effect, found.state)]
    if verb == "mark_done" and found.state == "skipped":
        own += [effect for effect in reader.plan("reprocess", [found.id]) if effect.job != found.id]
    return own
