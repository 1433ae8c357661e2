"""The checker's own arithmetic of periods and of who stands on whom.

Written from the words of the design and not from the core's code, on purpose: two opinions that agree are
worth more than one. Slow and plain. Reads only the user's definitions (`Context`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from scheduler.core.process import Context, Process

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_LENGTH = {
    "minutely": 60.0,
    "hourly": 3600.0,
    "daily": 86400.0,
    "weekly": 604800.0,
    "monthly": 2.6e6,
    "yearly": 3.2e7,
}


class Period(NamedTuple):
    """[start, end) and the label of a period of some process."""

    start: datetime
    end: datetime
    label: str


class Need(NamedTuple):
    """`of` stands on `on`: `kind` is "child" or "dependency"."""

    of: str
    on: str
    kind: str
    offset: int


def _midnight(t: datetime) -> datetime:
    return t.replace(hour=0, minute=0, second=0, microsecond=0)


def _month(t: datetime, n: int = 0) -> datetime:
    months = t.year * 12 + t.month - 1 + n
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


@lru_cache(200_000)
def period_at(t: datetime, qualifier: str, g: int) -> Period:
    """The period that contains an instant. Groups restart with each hour, day, month, year."""
    day = _midnight(t)
    if qualifier == "minutely":
        hour = day + HOUR * t.hour
        start = hour + timedelta(minutes=t.minute // g * g)
        return Period(start, min(start + timedelta(minutes=g), hour + HOUR), f"{start:%Y%m%d%H%M}")
    if qualifier == "hourly":
        start = day + HOUR * (t.hour // g * g)
        return Period(start, min(start + g * HOUR, day + DAY), f"{start:%Y%m%d%H}")
    if qualifier == "daily":
        month = _month(t)
        start = month + DAY * ((t.day - 1) // g * g)
        return Period(start, min(start + g * DAY, _month(t, 1)), f"{start:%Y%m%d}00")
    if qualifier == "weekly":
        start = day - DAY * t.weekday()
        return Period(start, start + 7 * DAY, f"{start:%Y%m%d}00")
    if qualifier == "monthly":
        start = _month(t, -((t.month - 1) % g))
        end = min(_month(start, g), datetime(t.year + 1, 1, 1, tzinfo=UTC))
        return Period(start, end, f"{start:%Y%m}0000")
    assert qualifier == "yearly", qualifier
    start = datetime(t.year, 1, 1, tzinfo=UTC)
    return Period(start, datetime(t.year + 1, 1, 1, tzinfo=UTC), f"{t.year}000000")


def periods(start: datetime, end: datetime, qualifier: str, g: int) -> Iterator[Period]:
    """All periods that meet [start, end)."""
    while start < end:
        found = period_at(start, qualifier, g)
        yield found
        start = found.end


class Almanac:
    """Who stands on whom, and which periods there are, of one context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.managed = {n: p for n, p in context.processes.items() if p.kind == "managed"}
        self.tree_of = {n: tree.name for tree in context.trees.values() for n in tree.processes}
        needs: list[Need] = []
        for tree in context.trees.values():
            members = sorted((self.managed[n] for n in tree.processes), key=_length)
            needs += [Need(up.name, low.name, "child", 0) for low, up in pairwise(members)]
            for other in tree.depends_on:
                needs += [
                    Need(mine, theirs, "dependency", 0)
                    for mine in tree.processes
                    for theirs in context.trees[other].processes
                    if self.managed[mine].qualifier == self.managed[theirs].qualifier
                ]
        for process in self.managed.values():
            needs += [Need(process.name, d.process, "dependency", d.offset) for d in process.depends_on]
        self.needs: dict[str, list[Need]] = {n: [] for n in context.processes}
        self.served: dict[str, list[Need]] = {n: [] for n in context.processes}
        for need in needs:
            self.needs[need.of].append(need)
            self.served[need.on].append(need)
        self.start = {n: self._start(p) for n, p in self.managed.items()}
        self._cache: dict[tuple[Need, datetime, bool], tuple[Period, ...]] = {}

    def _start(self, process: Process) -> datetime:
        tree = self.context.trees.get(self.tree_of.get(process.name, ""))
        text = process.start or (tree.start if tree else None) or self.context.start
        assert text is not None
        instant = datetime.strptime(text, "%Y%m%d%H").replace(tzinfo=UTC)
        return period_at(instant, str(process.qualifier), process.grouping).start

    def at(self, process: str, instant: datetime) -> Period:
        """The period of a process that contains an instant."""
        p = self.managed[process]
        return period_at(instant, str(p.qualifier), p.grouping)

    def between(self, process: str, start: datetime, end: datetime) -> Iterator[Period]:
        """The periods of a process that meet [start, end) and exist."""
        p = self.managed[process]
        floor = self.start[process]
        return periods(max(start, floor), end, str(p.qualifier), p.grouping)

    def inputs(self, need: Need, period: Period) -> tuple[Period, ...]:
        """The existing periods of `need.on` that a period of `need.of` stands on."""
        return self._related(need, period, False)

    def dependants(self, need: Need, period: Period) -> tuple[Period, ...]:
        """The existing periods of `need.of` that stand on a period of `need.on`."""
        return self._related(need, period, True)

    def _related(self, need: Need, period: Period, up: bool) -> tuple[Period, ...]:
        key = (need, period.start, up)
        found = self._cache.get(key)
        if found is None:
            here, there = (need.on, need.of) if up else (need.of, need.on)
            found = self._cache[key] = tuple(
                self._meet(here, there, -need.offset if up else need.offset, period)
            )
        return found

    def _meet(self, here: str, there: str, offset: int, period: Period) -> Iterator[Period]:
        """`offset` counts periods of the coarser of the two; equal kinds: either."""
        start, end = period.start, period.end
        if _length(self.managed[there]) > _length(self.managed[here]):
            covering = [self.at(there, start), self.at(there, end - timedelta(milliseconds=1))]
            covering = [self._moved(there, p, offset) for p in covering]
            start, end = covering[0].start, covering[-1].end
        elif offset:
            moved = self._moved(here, period, offset)
            start, end = moved.start, moved.end
        return self.between(there, start, end)

    def _moved(self, process: str, period: Period, offset: int) -> Period:
        step = timedelta(milliseconds=1)
        for _ in range(abs(offset)):
            period = self.at(process, period.end if offset > 0 else period.start - step)
        return period


def _length(process: Process) -> float:
    return _LENGTH[str(process.qualifier)] * process.grouping
