"""The self-check of a store: rows in, findings out, each with the rows that would set it right.

Nothing is read or written here. `suspects` looks at light rows of many jobs and names those worth a second look;
`examine` looks at one with everything there is about it. What a job must be stands in `relink`. The shell that
reads and repairs is `scheduler.storekeeper`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from scheduler.core.event import Event, history_line
from scheduler.core.job import Job, job_id
from scheduler.core.lifecycle import JOB, JOB_FINISHED, UOW_FINISHED
from scheduler.core.ports import Change
from scheduler.core.records import Lease, ProcessRow
from scheduler.core.relink import Evidence, Link, linked, period_of
from scheduler.core.timeperiod import Qualifier, timeperiods_between
from scheduler.core.uow import Uow

LEASE_MOST = timedelta(days=1)  # no setting allows a longer lease


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: what it is about, what is wrong, and what repair does (nothing, if `remedy` is "")."""

    code: str  # job.lost, job.missing, job.behind, uow.two, …
    about: str  # an id, a name
    says: str
    remedy: str = ""
    job: Job | None = None  # the row as it should be
    was: Job | None = None  # the row that is there
    changes: tuple[Change, ...] = ()  # of other rows
    inserts: tuple[Any, ...] = ()

    @property
    def line(self) -> str:
        """One line for people."""
        return f"{self.about}: {self.says}"


class LightJob(NamedTuple):
    """What `suspects` reads of a job."""

    id: str
    timeperiod: str
    start: datetime
    state: str
    version: int
    open: bool
    run: int
    uow: str | None
    uow_open: bool
    stopping: str | None


class LightUow(NamedTuple):
    """What `suspects` reads of a unit of work."""

    id: str
    timeperiod: str
    run: int
    kind: str
    state: str
    dirty: bool
    copied: int
    history_n: int
    due_at: datetime | None
    lease_until: datetime | None


class LightEvent(NamedTuple):
    """What `suspects` reads of a job's events."""

    timeperiod: str
    seq: int
    kind: str
    data: dict[str, Any] | None


# -- many jobs ----------------------------------------------------------------------------------------------


def suspects(
    row: ProcessRow | None,
    process: str,
    jobs: Sequence[LightJob],
    uows: Iterable[LightUow],
    events: Iterable[LightEvent],
    labels: Iterable[str],
    now: datetime,
) -> list[str]:
    """Ids of the jobs of `process` that may be wrong; `labels` are the periods that must have a row."""
    rows = {job.timeperiod: job for job in jobs}
    found = dict.fromkeys(label for label in labels if label not in rows)
    work: dict[str, list[LightUow]] = {}
    for uow in uows:
        if _is_odd(uow, row, now):
            found[uow.timeperiod] = None
        if uow.kind == "work":
            work.setdefault(uow.timeperiod, []).append(uow)
    told: dict[str, tuple[str, int]] = {}
    for event in sorted(events, key=lambda event: event.seq):
        if event.timeperiod is not None:
            told[event.timeperiod] = _tell(told.get(event.timeperiod, ("embryo", 0)), event)
    for label, job in rows.items():
        if _disagrees(job, work.get(label, []), told.get(label)):
            found[label] = None
    found |= dict.fromkeys(
        label for label in (*work, *told) if label not in rows and not _archived(row, label)
    )
    return [job_id(process, label) for label in found]


def _tell(before: tuple[str, int], event: LightEvent | Event) -> tuple[str, int]:
    """State and version after an event."""
    verb, data = event.kind.partition(".")[2], event.data or {}
    if verb == "snapshot":
        return str(data.get("state", "embryo")), int(data.get("version", 0))
    if verb in JOB.all_verbs:
        return str(data.get("state", before[0])), before[1] + 1
    return before


def _is_odd(uow: LightUow, row: ProcessRow | None, now: datetime) -> bool:
    return (
        (not uow.dirty and uow.copied < uow.history_n)
        or _is_asleep(uow, row)
        or (uow.lease_until is not None and uow.lease_until > now + LEASE_MOST)
    )


def _is_asleep(uow: LightUow | Uow, row: ProcessRow | None) -> bool:
    """Unfinished, and nobody will ever look at it; invalid ones of a process that stands still are meant to."""
    if uow.state in UOW_FINISHED or uow.due_at is not None or uow.dirty:
        return False
    return uow.state != "invalid" or row is None or row.state == "scheduled"


def _disagrees(job: LightJob, uows: Sequence[LightUow], told: tuple[str, int] | None) -> bool:
    unfinished = [uow for uow in uows if uow.state not in UOW_FINISHED]
    named = next((uow for uow in uows if uow.id == job.uow), None)
    last = max((uow.run for uow in uows), default=0)
    return (
        last > job.run
        or len(unfinished) > 1
        or (bool(unfinished) and (not job.uow_open or unfinished[0].id != job.uow))
        or (job.uow_open and (named is None or (named.state in UOW_FINISHED and not named.dirty)))
        or job.open != (job.state not in JOB_FINISHED or job.stopping is not None)
        or (job.stopping is not None and job.stopping not in {uow.id for uow in uows})
        or (told is not None and (told[1] > job.version or (told[1] == job.version and told[0] != job.state)))
    )


def labels_between(row: ProcessRow, begin: datetime, end: datetime) -> list[str]:
    """The periods of a managed process that begin within [begin, end) and must have a row."""
    floor = floor_of(row)
    if floor is None or row.frontier is None:
        return []
    begin, end = max(begin, floor), min(end, row.frontier)
    if begin >= end:
        return []
    found = timeperiods_between(begin, end, Qualifier(row.qualifier), row.grouping)
    return [period.label for period in found]


def floor_of(row: ProcessRow) -> datetime | None:
    """From where on a managed process has rows; None if it has no timetable."""
    if row.kind != "managed" or row.start is None:
        return None
    return row.start if row.horizon is None else max(row.start, row.horizon)


def _archived(row: ProcessRow | None, label: str) -> bool:
    """Behind the horizon rows are gone on purpose; what cannot be read is left alone."""
    if row is None or not row.qualifier:
        return False
    horizon = row.horizon
    return horizon is not None and period_of(row, label).start < horizon


# -- one job ------------------------------------------------------------------------------------------------


def examine(e: Evidence) -> list[Finding]:
    """What is wrong with one job and its units of work."""
    if e.row is None:
        there = "a job" if e.job is not None else f"{_count(len(e.uows), 'unit')} of work"
        return [Finding("process.unknown", e.id, f"there is {there}, and no process of this name")]
    link = linked(e)
    found = [_cancel(e, uow, link) for uow in link.surplus]
    odd = [finding for uow in e.uows if uow not in link.surplus for finding in _sleeping(e, uow)]
    says = code = ""
    if e.job is None:
        code, says = _lost(e)
    elif difference := _difference(e.job, link.job):
        code, says = "job.behind", f"its row says {difference}"
    nudges = tuple(_nudge(uow, e.now) for uow in (link.undecided,) if uow is not None)
    if says:
        wanted = link.job
        if e.job is not None:
            wanted = replace(wanted, version=max(e.job.version + 1, wanted.version))
        found.insert(0, Finding(code, e.id, says, _remedy(wanted, link.undecided), wanted, e.job, nudges))
    elif link.undecided is not None:
        says = f"{link.undecided.id} is {link.undecided.state}, and its job was never decided by it"
        found.append(Finding("job.undecided", e.id, says, "have the scheduler decide it", changes=nudges))
    return [*found, *odd]


def _lost(e: Evidence) -> tuple[str, str]:
    if e.uows:
        return "job.lost", f"its row is lost, {_count(len(e.uows), 'unit')} of work of it kept"
    if any(event.kind.startswith("job.") for event in e.events):
        return "job.lost", "its row is lost, its events are kept"
    return "job.missing", "the frontier has passed it, and it has no row"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _remedy(job: Job, undecided: Uow | None) -> str:
    if job.uow is None and job.state == "embryo":
        return "put it back as an embryo"
    if undecided is not None:
        return f"link it to run {job.run}, and have the scheduler decide it ({undecided.state})"
    return f"link it to run {job.run} as {job.state}{f', at work in {job.uow}' if job.uow_open else ''}"


_LINKS = ("state", "run", "uow", "uow_open", "stopping", "open")


def _difference(job: Job, wanted: Job) -> str:
    """What the row says and what it should say; "" if they agree."""
    return ", ".join(
        f"{name} {_said(getattr(job, name))} instead of {_said(getattr(wanted, name))}"
        for name in _LINKS
        if getattr(job, name) != getattr(wanted, name)
    )


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _cancel(e: Evidence, uow: Uow, link: Link) -> Finding:
    """A unit of work that its job knows nothing of would run a second time."""
    job = link.job
    if job.uow_open:
        code, says = "uow.two", f"its job has another unfinished unit of work, {job.uow}"
    else:
        code, says = "uow.stray", f"it is {uow.state}, its job is {job.state} by run {job.run}"
    line = history_line("cancel", "canceled", e.now, e.actor, says)
    sets = {"state": "canceled", "version": uow.version + 1, "due_at": uow.lease_until, "dirty": True}
    change = Change(Uow, uow.id, {"state": uow.state, "version": uow.version}, sets, line)
    return Finding(code, uow.id, says, "cancel it", changes=(change,))


def _nudge(uow: Uow, now: datetime) -> Change:
    return Change(Uow, uow.id, {"version": uow.version}, {"dirty": True, "due_at": now})


def _sleeping(e: Evidence, uow: Uow) -> list[Finding]:
    seen = {"version": uow.version, "history_n": uow.history_n}
    if uow.lease_until is not None and uow.lease_until > e.now + LEASE_MOST:
        says = f"its lease ends at {uow.lease_until.isoformat(timespec='seconds')}, far in the future"
        soon: dict[str, Any] = {"lease_until": e.now + timedelta(minutes=1)}
        if not uow.is_finished or uow.due_at is not None:
            soon["due_at"] = soon["lease_until"]
        change = Change(Uow, uow.id, seen, soon)
        return [Finding("uow.lease", uow.id, says, "let it end in a minute", changes=(change,))]
    if not uow.dirty and uow.copied < uow.history_n:
        says = (
            f"{_count(uow.history_n - uow.copied, 'line')} of its history in no event, and nobody will look"
        )
        change = Change(Uow, uow.id, seen, {"dirty": True})
        return [Finding("uow.uncopied", uow.id, says, "have the scheduler look at it", changes=(change,))]
    if _is_asleep(uow, e.row):
        says = f"it is {uow.state}, and nobody will ever look at it"
        change = Change(Uow, uow.id, seen, {"due_at": e.now})
        return [Finding("uow.asleep", uow.id, says, "have the scheduler look at it", changes=(change,))]
    return []


# -- what is no job's -----------------------------------------------------------------------------------------


def lease_findings(leases: Iterable[Lease], now: datetime) -> list[Finding]:
    """Leases that end so far in the future that nobody would ever take over."""
    found = []
    for lease in leases:
        if lease.expires_at > now + LEASE_MOST:
            expect = {"token": lease.token, "holder": lease.holder}
            change = Change(Lease, lease.name, expect, {"expires_at": now})
            until = lease.expires_at.isoformat(timespec="seconds")
            says = f"it ends at {until}, far in the future: nobody could take over from {lease.holder}"
            found.append(
                Finding("lease.future", f"lease {lease.name}", says, "end it now", changes=(change,))
            )
    return found


def gap_findings(source: str, numbers: Sequence[tuple[int, datetime]], before: datetime) -> list[Finding]:
    """Numbers that are missing between two events; `before` it retention may have taken some."""
    found = []
    for (last, at), (following, _) in pairwise(numbers):
        if following > last + 1 and at >= before:
            what = f"{last + 1}" if following == last + 2 else f"{last + 1} to {following - 1}"
            found.append(Finding("events.gap", f"events of {source}", f"number {what} is missing"))
    return found


def numbering_finding(last: int, named: int) -> list[Finding]:
    """`named` is the highest number that a job speaks of; events that are younger are lost."""
    if named <= last:
        return []
    says = f"the last one is {last}, a job speaks of number {named}: the newest events are lost"
    return [Finding("events.behind", "events of scheduler", says, f"go on numbering at {named + 1}")]
