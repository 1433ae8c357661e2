"""How long something may wait: for a worker to take it, for its predicate to say yes.

Under a hold that time stands still. A hold says nothing while it stands; when it ends, what waited
under it gets the time back, once, however many holds there were at the same time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.core.facts import Absent
from scheduler.core.job import Job
from scheduler.core.records import Hold
from scheduler.core.slice import Item, Slice
from scheduler.core.uow import Uow, job_of


def wait_ends(s: Slice, uow: Uow) -> datetime | None:
    """When a requested unit of work has waited too long (real time)."""
    process = s.process(uow.process)
    if process is None or process.wait_timeout_s is None:
        return None
    return uow.requested_at + timedelta(seconds=process.wait_timeout_s)


def thaw(s: Slice, hold: Hold) -> list[Item]:
    """A hold ended: give back the time that stood still under it. May raise Absent.

    Returns the failed units of work it stood over: a final run may take their range now.
    """
    names = [name for name in s.known.rows if _may_cover(s, hold.scope, name)]
    kinds = ("requested", "asking", "invalid")
    missing = [(kind, name) for name in names for kind in kinds if f"{kind}:{name}" not in s.owned]
    if missing:
        raise Absent(*missing)
    uows = [id_ for name in names for id_ in s.owned[f"requested:{name}"]]
    jobs = {job_of(id_) for id_ in uows} | {id_ for name in names for id_ in s.owned[f"asking:{name}"]}
    lacks = [("uow", id_) for id_ in uows if id_ not in s.uows] + [
        ("job", i) for i in sorted(jobs) if i not in s.jobs
    ]
    if lacks:
        raise Absent(*lacks)
    for id_ in uows:
        uow, job = s.uow(id_), s.job(job_of(id_))
        if uow is None or job is None or uow.state != "requested":
            continue
        stood = _stood(s, hold, job, uow.requested_at)
        ends = wait_ends(s, uow)
        if stood > timedelta(0) and ends is not None:
            due = min(uow.due_at, ends + stood) if uow.due_at is not None else None
            s.change_uow(uow, requested_at=uow.requested_at + stood, due_at=due)
    for name in names:
        for id_ in s.owned[f"asking:{name}"]:
            job = s.job(id_)
            if job is None or job.ready_since is None or not job.open:
                continue
            stood = _stood(s, hold, job, job.ready_since)
            if stood > timedelta(0):
                s.change_job(job, ready_since=job.ready_since + stood)
    return [Item("uow", id_) for name in names for id_ in s.owned[f"invalid:{name}"]]


def _may_cover(s: Slice, scope: str, process: str) -> bool:
    kind, _, name = scope.partition(":")
    tree = s.timetable.tree_of(process)
    return (
        scope == "*"
        or (kind == "tree" and tree is not None and tree.name == name)
        or (kind == "process" and process == name)
        or (kind == "job" and name.partition("@")[0] == process)
    )


def _stood(s: Slice, hold: Hold, job: Job, since: datetime) -> timedelta:
    """How long `hold` alone has stopped the clock of something that waits since `since`."""
    if hold.scope.startswith("job:") and hold.scope != f"job:{job.id}":
        return timedelta(0)
    ended = s.real if hold.until is None else min(s.real, hold.until)
    others = [other.since for other in s.holds_on(job)]
    return min([ended, *others]) - max(hold.since, since)
