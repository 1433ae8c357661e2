"""What the pages ask of the store: through the port alone, by index, and never without a bound.

A page's cost follows what is active and what it shows, not the length of the history. The one count
over all jobs (by state) reads rows but loads none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mx.present import BRIEF, FAILURES, Brief
from mx.site import Site
from scheduler.core.command import PENDING, Command
from scheduler.core.errors import Unavailable
from scheduler.core.event import Event
from scheduler.core.job import Job, job_id
from scheduler.core.ports import Where
from scheduler.core.records import LEADER, BoxProcess, Hold, Lease, LogChunk, ProcessRow
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow

UNFINISHED = ("in_progress", "invalid", "requested")
ALARMING = ("critical", "error", "warning")
SCHEDULER = "scheduler"  # source of the leading scheduler's events
UNFINISHED_MAX = 500  # units of work looked at for marks; there are as many as places
ALARMS_MAX = 300  # alarming events looked at for causes
STRIP = 24  # periods in a strip
LOG_CHUNKS = 400  # pieces of a log shown, the newest


@dataclass(frozen=True, slots=True)
class Now:
    """The two times a page is made at, and who leads."""

    real: datetime
    business: datetime
    leader: Lease | None

    @property
    def leading(self) -> bool:
        """Whether a scheduler is in charge at this moment."""
        return self.leader is not None and self.leader.expires_at > self.real


def now(site: Site) -> Now:
    """The store's time, business time, and the leader."""
    return Now(site.store.now(), site.clock.business(), site.store.get(Lease, LEADER))


def briefs(
    site: Site, process: str, where: Iterable[Where], order: tuple[str, ...], limit: int
) -> list[Brief]:
    """Jobs of a process, as briefs."""
    rows = site.store.select(Job, BRIEF, [Where("process", "=", process), *where], order, limit)
    return [Brief(*row) for row in rows]


def between(site: Site, span: Span, limit: int = 400) -> list[Brief]:
    """The jobs of a process that begin in [start, end), oldest first."""
    return briefs(
        site,
        span.process,
        (Where("start", ">=", span.start), Where("start", "<", span.end)),
        ("start",),
        limit,
    )


def newest(site: Site, process: str, until: datetime, limit: int = STRIP) -> list[Brief]:
    """The newest jobs of a process that began before `until`, oldest first."""
    return briefs(site, process, (Where("start", "<", until),), ("-start",), limit)[::-1]


def next_after(site: Site, process: str, start: datetime) -> Brief | None:
    """The job of a process that began next after `start`."""
    return next(iter(briefs(site, process, (Where("start", ">", start),), ("start",), 1)), None)


def oldest_open(site: Site, process: str, limit: int = 1) -> list[Brief]:
    """The oldest unfinished jobs of a process."""
    return briefs(site, process, (Where("open", "=", True),), ("start",), limit)


def count_open(site: Site, process: str, until: datetime, since: datetime | None = None) -> int:
    """How many unfinished jobs of a process began before `until`, and not before `since`."""
    where = [Where("process", "=", process), Where("open", "=", True), Where("start", "<", until)]
    if since is not None:
        where.append(Where("start", ">=", since))
    return site.store.count(Job, where)[()] if where else 0


def rows_of_processes(site: Site) -> dict[str, ProcessRow]:
    """What the store remembers of each process."""
    return {row.name: row for row in site.store.find(ProcessRow)}


def unfinished_uows(site: Site, process: str | None = None) -> list[Uow]:
    """Units of work that are requested, running or failed."""
    where = [Where("state", "in", UNFINISHED)]
    if process:
        where.insert(0, Where("process", "=", process))
    return site.store.find(Uow, where, limit=UNFINISHED_MAX)


def failed_jobs(site: Site) -> list[tuple[Job, Event]]:
    """Jobs of the newest alarming events that are skipped because they failed, newest first."""
    where = [Where("source", "=", SCHEDULER), Where("severity", "in", ALARMING)]
    latest: dict[str, Event] = {}
    for event in site.store.find(Event, where, ("-seq",), ALARMS_MAX):
        if event.process and event.timeperiod:
            latest.setdefault(job_id(event.process, event.timeperiod), event)
    if not latest:
        return []
    jobs = {job.id: job for job in site.store.find(Job, [Where("id", "in", list(latest))])}
    return [
        (jobs[key], event)
        for key, event in latest.items()
        if key in jobs and jobs[key].state == "skipped" and jobs[key].reason in FAILURES
    ]


def holds(site: Site) -> list[Hold]:
    """All holds that stand."""
    return site.store.find(Hold, limit=200)


def boxes(site: Site) -> list[BoxProcess]:
    """The OS processes of all boxes."""
    return site.store.find(BoxProcess, order=("box", "name"), limit=500)


def pending_commands(site: Site) -> list[Command]:
    """Commands without an outcome, oldest first."""
    return site.store.find(Command, [Where("state", "=", PENDING)], ("submitted_at",), 64)


def depth(site: Site) -> dict[str, int] | None:
    """Messages that wait, per queue; None if the broker cannot be reached."""
    try:
        return site.broker.depth(sorted(site.timetable.queues))
    except Unavailable:
        return None


def waiting_for(site: Site, process: str, start: datetime, end: datetime) -> list[tuple[Span, int]]:
    """Who stands on a period, directly or not, and is not done: spans with how many jobs of each."""
    timetable, found = site.timetable, list[tuple[Span, int]]()
    todo, seen = [Span(process, start, end)], {process}
    while todo:
        here = todo.pop(0)
        for edge in timetable.dependants(here.process):
            if edge.of in seen:
                continue
            seen.add(edge.of)
            span = timetable.dependant_span(edge, here.start, here.end)
            todo.append(span)
            n = count_open(site, edge.of, span.end, span.start)
            if n:
                found.append((span, n))
    return found


# -- one job --------------------------------------------------------------------------------------


def uows_of(site: Site, process: str, timeperiod: str, limit: int = 20) -> list[Uow]:
    """The units of work of a job, newest first."""
    where = [Where("process", "=", process), Where("timeperiod", "=", timeperiod)]
    return site.store.find(Uow, where, ("-requested_at",), limit)


def events_of(site: Site, process: str, timeperiod: str, limit: int = 60) -> list[Event]:
    """The events of a job, newest first."""
    where = [Where("process", "=", process), Where("timeperiod", "=", timeperiod)]
    return site.store.find(Event, where, ("-seq",), limit)


def log_of(site: Site, uow: str, limit: int = LOG_CHUNKS) -> tuple[list[LogChunk], bool]:
    """The newest pieces of a unit of work's log in order, and whether older ones were left out."""
    chunks = site.store.find(LogChunk, [Where("uow", "=", uow)], ("-attempt", "-n"), limit + 1)
    return chunks[:limit][::-1], len(chunks) > limit


def jobs_by_id(site: Site, ids: Iterable[str]) -> Mapping[str, Job]:
    """Some jobs, by id."""
    wanted = list(ids)
    return {job.id: job for job in site.store.find(Job, [Where("id", "in", wanted)])} if wanted else {}


# -- what tells a page that it is out of date -----------------------------------------------------


def fingerprint(site: Site) -> Any:
    """Changes when anything changes that every page shows."""
    store = site.store
    lease = store.get(Lease, LEADER)
    return (
        store.select(Event, ("seq",), [Where("source", "=", SCHEDULER)], ("-seq",), 1),
        lease and (lease.holder, lease.expires_at > store.now()),
        store.select(Uow, ("id", "state", "attempt"), [Where("state", "in", UNFINISHED)], limit=100),
        store.select(BoxProcess, ("id", "state", "pid"), limit=500),
        store.select(Hold, ("scope",), limit=200),
        site.clock.business().replace(second=0, microsecond=0),
    )


def job_fingerprint(site: Site, process: str, timeperiod: str) -> Any:
    """Changes when anything changes that the page of this job shows besides."""
    store = site.store
    job = store.get(Job, job_id(process, timeperiod))
    if job is None or job.uow is None:
        return job and job.version
    where = [Where("uow", "=", job.uow)]
    return (
        job.version,
        store.select(Uow, ("version", "state", "progress"), [Where("id", "=", job.uow)]),
        store.select(LogChunk, ("attempt", "n"), where, ("-attempt", "-n"), 1),
    )
