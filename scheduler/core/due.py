"""What becomes due as time passes: pure arithmetic over the registered processes.

`due_items` names what to look at because an instant in (since, now] passed; `next_due` is the next
such instant. A look that is missed (a crash, a clock jump) is made up for by the sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from scheduler.core.facts import LOOK
from scheduler.core.job import job_id
from scheduler.core.known import Known
from scheduler.core.process import Process
from scheduler.core.records import ProcessRow
from scheduler.core.slice import Item
from scheduler.core.strategy import SLICED, is_by_event
from scheduler.core.timeperiod import Timeperiod, following, timeperiod_at


def due_items(known: Known, since: datetime, now: datetime) -> list[Item]:
    """What to look at for instants in (since, now], business time."""
    items: list[Item] = []
    for name, row in known.rows.items():
        process = known.process(name)
        if process is None or row.state in ("expired", "deleted"):
            continue
        if process.kind == "managed" and name in known.timetable.processes:
            if row.frontier is not None and _is_quiet(known, row, process, since, now):
                continue
            if row.frontier is not None and row.frontier <= now:
                items.append(Item("advance", name))
            items += _managed(process, since, now)
        elif process.kind == "freerun" and process.trigger is not None and row.state == "scheduled":
            fire = process.trigger.next_after(row.last_fire or since)
            if row.last_fire is None or (fire is not None and fire <= now):
                items.append(Item("fire", name))
    return items


def _managed(process: Process, since: datetime, now: datetime) -> Iterator[Item]:
    lag = timedelta(seconds=process.lag_s)
    period = timeperiod_at(since - lag, process.qualifier, process.grouping)
    closed: list[Timeperiod] = []
    while period.end + lag <= now and len(closed) <= LOOK:
        if period.end + lag > since:
            closed.append(period)
        period = following(period)
    if len(closed) > LOOK:
        yield Item("fill", process.name)
    else:
        for p in closed:
            yield Item("job", job_id(process.name, p.label))
    trigger = process.trigger
    if trigger is None:
        return
    fire = trigger.next_after(since)
    if fire is None or fire > now:
        return
    if not is_by_event(process):
        yield Item("fill", process.name)
    elif process.machine in SLICED:
        period = timeperiod_at(now - lag, process.qualifier, process.grouping)
        while period.start <= now:
            yield Item("job", job_id(process.name, period.label))
            period = following(period)


def next_due(known: Known, now: datetime) -> datetime | None:
    """The next instant after `now` at which something becomes due, business time."""
    found: list[datetime] = []
    for name, row in known.rows.items():
        process = known.process(name)
        if process is None or row.state in ("expired", "deleted"):
            continue
        instant = _next_of(known, row, process, now)
        if instant is not None:
            found.append(instant)
    return min(found, default=None)


def _is_quiet(known: Known, row: ProcessRow, process: Process, since: datetime, now: datetime) -> bool:
    """Whether no instant of it is in (since, now]."""
    instant = _next_of(known, row, process, since)
    return instant is None or instant > now


def _next_of(known: Known, row: ProcessRow, process: Process, now: datetime) -> datetime | None:
    """Its next instant after `now`; remembered, for it stays the same until it comes or the row changes."""
    kept = known.instants.get(row.name)
    if kept is not None:
        of_row, of_process, since, instant = kept
        same = of_row is row and of_process is process
        if same and since <= now and (instant is None or now < instant):
            return instant
    instant = min(_instants(row, process, now), default=None)
    known.instants[row.name] = (row, process, now, instant)
    return instant


def _instants(row: ProcessRow, process: Process, now: datetime) -> Iterator[datetime]:
    if process.kind == "managed" and row.frontier is not None:
        yield row.frontier
        lag = timedelta(seconds=process.lag_s)
        yield timeperiod_at(now - lag, process.qualifier, process.grouping).end + lag
    ticks = process.kind == "freerun" or process.machine in SLICED or not is_by_event(process)
    if process.trigger is not None and ticks:
        fire = process.trigger.next_after(now)
        if fire is not None:
            yield fire
