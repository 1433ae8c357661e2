"""What a period that opens leads to: its row, made in the transaction that moves the frontier past it.

So the frontier says what exists. Periods that were missed are caught up with as `catchup` says, and those that
come into view again reopen what finished without them.
"""

from __future__ import annotations

from datetime import timedelta

from scheduler.core.act import cancel_uow, reopen, settle
from scheduler.core.inputs import gather_above, stands_on
from scheduler.core.job import Job, job_id
from scheduler.core.process import Process
from scheduler.core.slice import Item, Slice
from scheduler.core.timeperiod import Timeperiod, following, timeperiod_at
from scheduler.core.timetable import Span

ROWS_A_TURN = 1000


def advance(s: Slice, name: str) -> list[Item]:
    """Make the rows of periods that have opened; move the frontier past them in the same transaction."""
    process, row = s.timetable.processes.get(name), s.row(name)
    if process is None or row.state in ("expired", "deleted"):
        return []
    if row.frontier is None or row.frontier > s.now:  # None: managed no more
        return []
    period = timeperiod_at(row.frontier, process.qualifier, process.grouping)
    periods: list[Timeperiod] = []
    while period.start <= s.now and len(periods) < ROWS_A_TURN:
        periods.append(period)
        period = following(period)
    span = Span(name, periods[0].start, periods[-1].end)
    there = {job.id: job for job in s.jobs_in(span)}
    shown_again = row.passed is not None and periods[0].start < row.passed
    made = []
    for p in periods:
        id_ = job_id(name, p.label)
        if id_ not in there:
            there[id_] = s.add_job(
                Job(id=id_, process=name, timeperiod=p.label, start=p.start, end=p.end, created_at=s.real)
            )
            made.append(there[id_])
    frontier = periods[-1].end
    s.change_row(row, frontier=frontier, passed=max(frontier, row.passed or frontier))
    if made:
        s.emit(
            "process.advance",
            f"{len(made)} periods opened",
            severity="debug",
            process=name,
            data={
                "jobs": len(made),
                "from": made[0].timeperiod,
                "to": made[-1].timeperiod,
                "labels": [job.timeperiod for job in made] if len(made) < len(periods) else None,
            },
        )
    items = _catch_up(s, process, made, shown_again)
    if shown_again:
        items += _show(s, [there[job_id(name, p.label)] for p in periods])
    if len(periods) <= 4:
        items += [Item("job", job_id(name, p.label)) for p in periods]
    else:
        items.append(Item("fill", name))
    if frontier <= s.now:  # a turn makes so many rows and no more, or it would outlast the leader's lease
        items.append(Item("advance", name, frontier))
    return items


def _catch_up(s: Slice, process: Process, made: list[Job], shown_again: bool) -> list[Item]:
    """`catchup`: of rows made for periods already closed, all, the newest, or none are worked on."""
    if process.catchup == "all" or shown_again:
        return []
    closed = [job for job in made if job.end + timedelta(seconds=process.lag_s) <= s.now]
    newest = timeperiod_at(
        s.now - timedelta(seconds=process.lag_s), process.qualifier, process.grouping
    ).start
    items: list[Item] = []
    for job in closed:
        if process.catchup == "last" and job.end == newest:
            continue
        items += settle(s, job, "skip", "catchup", f"catchup is {process.catchup}")
    return items


def _show(s: Slice, jobs: list[Job]) -> list[Item]:
    """Rows that come into view again reopen what finished without them, and whatever stands on that."""
    items: list[Item] = []
    gather_above(s, jobs)
    for job in jobs:
        above = stands_on(s, job)
        older = [other for other in above if job.open or job.settled_seq > other.requested_seq]
        for id_ in [other.id for other in (*older, *gather_above(s, older))]:
            other = s.job(id_)
            assert other is not None
            if other.state == "embryo":
                continue
            other = cancel_uow(s, other, actor="scheduler", message=f"{job.id} came into view")
            items.append(Item("job", reopen(s, other, message=f"{job.id} came into view").id))
    return items
