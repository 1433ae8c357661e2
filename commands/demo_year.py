"""How far the demo's timetable is: what is to be done by an instant, what is done, and what is in the way.

What is to be done is counted by the calendar and not by the rows that the scheduler made: a job that nobody made is
missed here. Nothing is decided or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from scheduler.control import Reader
from scheduler.core.command import PENDING, RUNNING, Command
from scheduler.core.errors import NotFound
from scheduler.core.job import Job
from scheduler.core.ports import Clock, Store, Where
from scheduler.core.timeperiod import count_between, timeperiod_at
from scheduler.core.timetable import Timetable

GOOD = ("processed", "noop")
BAD = ("embryo", "in_progress", "final_run", "skipped")
NAMED = 5  # so many culprits are named, and counted beyond


@dataclass(frozen=True, slots=True)
class Amount:
    """Jobs of periods that end by an instant: how many there are to be, and how many are in which state."""

    expected: int
    states: dict[str, int]

    @property
    def done(self) -> int:
        """How many are processed or noop."""
        return sum(self.states.get(state, 0) for state in GOOD)

    @property
    def ended(self) -> int:
        """How many are finished, well or not."""
        return self.done + self.states.get("skipped", 0)


class Year:
    """The jobs of the managed processes, as the store has them. All instants are aware UTC."""

    def __init__(self, store: Store, timetable: Timetable, clock: Clock) -> None:
        self.store, self.timetable, self.clock = store, timetable, clock
        self.managed = [p for p in timetable.processes.values() if p.kind == "managed" and p.is_on]

    def amount(self, until: datetime) -> Amount:
        """Of all periods that end by `until`. Raises StoreUnavailable."""
        expected = 0
        for process in self.managed:
            last = timeperiod_at(until, process.qualifier, process.grouping).start
            start = self.timetable.start_of(process.name)
            expected += count_between(start, last, process.qualifier, process.grouping)
        names = [process.name for process in self.managed]
        where = (Where("process", "in", names), Where("end", "<=", until))
        found = self.store.count(Job, where, ("state",))
        return Amount(expected, {str(state): number for (state,), number in found.items()})

    def is_at_rest(self, until: datetime) -> bool:
        """No command waits, of no period that ends by `until` anything is to run, and nothing else is in hand now."""
        if self.store.count(Command, (Where("state", "in", (PENDING, RUNNING)),))[()]:
            return False
        for in_hand in (Where("stopping", "notnull"), Where("uow_open", "=", True)):
            # a freerun job, or an hour of the new year; by the leader's own word, in which an outcome that it has not
            # taken in yet and a retry that waits are still to come
            if self.store.count(Job, (Where("open", "=", True), in_hand))[()]:
                return False
        unfinished = (Where("open", "=", True), Where("end", "<=", until))
        found = self.amount(until)
        return found.ended == found.expected and not self.store.count(Job, unfinished)[()]

    def not_done(self, until: datetime) -> list[str]:
        """A line for each of the first jobs that are not processed, with the reason, and how many more."""
        where = (Where("end", "<=", until), Where("state", "in", BAD))
        ids = self.store.select(Job, ("id", "state", "detail"), where, ("start",))
        lines = [f"{id_} is {state}: {self._why(id_, detail)}" for id_, state, detail in ids[:NAMED]]
        return [*lines, f"and {len(ids) - NAMED:,} more"] if len(ids) > NAMED else lines

    def _why(self, id_: str, detail: str | None) -> str:
        if detail:
            return detail
        reader = Reader(self.store, self.timetable, self.clock)
        try:
            found = reader.explain(id_)
        except NotFound as error:
            return str(error)
        blockers = [blocker.sentence for _job, blocker in found.roots] or ["nothing is in its way"]
        return blockers[0]
