"""What the trigger of a freerun process leads to when it fires: a job at that instant, or none while one is busy.

A person who submits one gets the same job, by the same function.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from scheduler.core.facts import Absent
from scheduler.core.job import Job, job_id
from scheduler.core.process import Process
from scheduler.core.slice import Item, Slice
from scheduler.core.timeperiod import Qualifier, timeperiod_at
from scheduler.core.timetable import Span

FIRINGS_A_TURN = 1000


def fire(s: Slice, name: str) -> list[Item]:
    """The trigger of a freerun process fired since it was last looked at."""
    process, row = s.process(name), s.row(name)
    if process is None or process.trigger is None or row.state != "scheduled":
        return []
    if row.last_fire is None:
        s.change_row(row, last_fire=s.now)
        return []
    fires = process.trigger.fires_between(row.last_fire, s.now, FIRINGS_A_TURN)
    if not fires:
        return []
    more = len(fires) == FIRINGS_A_TURN
    if more and process.catchup != "all":  # newer ones are to come: none of these is the last
        s.change_row(row, last_fire=fires[-1])
        return [Item("fire", name)]
    held = s.known.holds.get("*") or s.known.holds.get(f"process:{name}")
    if process.catchup != "all":
        fires = fires[-1:]
    if process.catchup == "none":  # one that came a moment ago was not missed
        fires = [f for f in fires if f > s.now - timedelta(seconds=60)]
    ids = [job_id(name, timeperiod_at(instant, Qualifier.INSTANT).label) for instant in fires]
    missing = [("job", id_) for id_ in ids if id_ not in s.jobs]
    if missing:
        raise Absent(*missing)
    items: list[Item] = []
    s.change_row(row, last_fire=fires[-1] if fires else s.now)
    for instant in fires:
        busy = process.overlap == "skip" and (held is not None or _is_busy(s, name))
        if busy:
            s.emit(
                "process.fire_skipped",
                f"the firing of {instant.isoformat()} was skipped: the last one is unfinished",
                process=name,
            )
            continue
        job = submit(s, process, instant)
        items.append(Item("job", job.id))
    if more:
        items.append(Item("fire", name))
    return items


def _is_busy(s: Slice, name: str) -> bool:
    far = Span(name, datetime(1970, 1, 1, tzinfo=s.now.tzinfo), datetime(9998, 1, 1, tzinfo=s.now.tzinfo))
    return s.first_open(far) is not None


def submit(s: Slice, process: Process, instant: datetime, arguments: dict[str, Any] | None = None) -> Job:
    """A job of a freerun process at the next free millisecond from `instant` on."""
    while True:
        period = timeperiod_at(instant, Qualifier.INSTANT)
        id_ = job_id(process.name, period.label)
        if id_ not in s.jobs:  # look at some at once
            labels = (
                timeperiod_at(instant + timedelta(milliseconds=n), Qualifier.INSTANT).label for n in range(32)
            )
            raise Absent(*[("job", job_id(process.name, label)) for label in labels])
        if s.job(id_) is None:
            break
        instant = instant + timedelta(milliseconds=1)
    job = Job(
        id=id_,
        process=process.name,
        timeperiod=period.label,
        start=period.start,
        end=period.end,
        arguments={**process.arguments, **arguments} if arguments else None,
        created_at=s.real,
    )
    s.add_job(job)
    s.emit("job.submit", process=process.name, timeperiod=period.label, severity="debug")
    return job
