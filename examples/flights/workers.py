"""The flights pyramid: hours from the landing area, then days, months and the year, each from the level
below; and the check.

An hour is *continuous*: while it is open, each unit of work adds up the rows that landed since the last one,
and the last one after the close takes the rest. The levels above sum up their child's rows again as a whole,
whenever they are asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from typing import Any

from examples.flights import results
from examples.flights.landing import Flight, reader
from synergy import Noop, Processed, Task, Worker


def sums(flights: Iterable[Flight]) -> dict[tuple[str, ...], list[int]]:
    """The sums of `results.FLIGHT_SUMS` by (origin, carrier)."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for flight in flights:
        group = groups.setdefault((flight.origin, flight.carrier), [0] * len(results.FLIGHT_SUMS))
        group[0] += 1
        group[1] += flight.cancelled
        if flight.dep_delay is not None:
            group[2] += 1
            group[3] += flight.dep_delay
            group[4] += flight.dep_delay**2
        if flight.arr_delay is not None:
            group[5] += 1
            group[6] += flight.arr_delay
        group[7] += flight.distance
        group[8] += flight.air_time or 0
    return groups


class Hourly(Worker):
    """Adds up the flights of an hour that landed since the cursor. Made once, it serves many hours."""

    def __init__(self, process: Any) -> None:
        super().__init__(process)
        self.landing = reader(process.source)

    def run(self, task: Task) -> Processed | Noop:
        after = int(task.cursor or 0)
        flights = self.landing.flights(results.seconds(task.start), after)
        if not flights and task.cursor is not None:
            return Noop("no new rows")
        with results.sink_of(task) as sink:
            results.clear(sink, "flights", task, after)
            results.add(sink, "flights", task, sums(flights), after)
        if not flights:
            return Noop("no flights in this hour")
        last = max(flight.seq for flight in flights)
        return Processed({"rows": len(flights)}, cursor=str(last))


def roll_up(task: Task) -> Processed | Noop:
    """A day, month or year: the sums of the process `child` in the table `table` (both are arguments)."""
    table, child = task.arguments["table"], task.arguments["child"]
    with results.sink_of(task) as sink:
        results.roll_up(sink, table, task, child)
        total = results.of_job(sink, table, task)
    if not any(total.values()):
        return Noop(f"{child} has no results in {task.timeperiod}")
    return Processed(total)


def check(task: Task) -> Processed:
    """Compare the last `days` days with their hours: which differ, because they are being driven again?"""
    midnight = task.start.replace(hour=0, minute=0, second=0, microsecond=0)
    waiting = []
    with closing(sqlite3.connect(task.sink or "", timeout=results.BUSY_S, isolation_level=None)) as sink:
        sink.execute("BEGIN")  # both levels from one snapshot
        for back in range(1, int(task.arguments["days"]) + 1):
            start = midnight - timedelta(days=back)
            begin, end = results.seconds(start), results.seconds(start + timedelta(days=1))
            hours = results.totals(sink, "flights", "flights_hourly", begin, end)
            if hours != results.totals(sink, "flights", "flights_daily", begin, end):
                waiting.append(start.strftime("%Y%m%d00"))
    return Processed({"days": int(task.arguments["days"]), "waiting": waiting})
