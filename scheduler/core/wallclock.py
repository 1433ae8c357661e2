"""Rules that fire by the wall clock of a time zone, and the way from its readings to instants and back.

Pure. Readings of the wall clock ("walls") are naive datetimes, instants are aware UTC; years 1970 to 9998.

The theory: a rule searches the wall clock alone, where every day has 24 hours; `instant_of` maps a wall to
an instant. That map never goes backwards, so the order is kept: a wall skipped in spring fires once, at the
first instant after the gap, and one that comes twice in autumn fires once, at its first occurrence. What
names no hour of the day (every hour, every five minutes) is about elapsed time and runs through both changes
undisturbed, as Debian's cron has it.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

LAST_YEAR = 9998

_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Days:
    """Some minutes of some days. `times`: for each weekday the sorted minutes of the day."""

    times: Sequence[Sequence[int]]
    months: frozenset[int] = frozenset(range(1, 13))
    days: frozenset[int] | None = None  # None: not restricted; restricted together, one of the two is enough
    weekdays: frozenset[int] | None = None
    through: bool = False  # it names no hour of the day

    def at_or_after(self, wall: datetime) -> datetime | None:
        wall = _next_minute(wall)
        day, minute = wall.date(), wall.hour * 60 + wall.minute
        while day.year <= LAST_YEAR:
            if day.month not in self.months:
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
                minute = 0
                continue
            if self._fits_day(day):
                times = self.times[day.weekday()]
                index = bisect_left(times, minute)
                if index < len(times):
                    return datetime.combine(day, time(times[index] // 60, times[index] % 60))
            day, minute = day + _DAY, 0
        return None

    def fits(self, wall: datetime) -> bool:
        """Does it fire at this minute?"""
        minutes = self.times[wall.weekday()]
        return (
            wall.month in self.months
            and self._fits_day(wall.date())
            and wall.hour * 60 + wall.minute in minutes
        )

    def _fits_day(self, day: date) -> bool:
        if self.days is None:
            return self.weekdays is None or day.weekday() in self.weekdays
        return day.day in self.days or (self.weekdays is not None and day.weekday() in self.weekdays)


@dataclass(frozen=True, slots=True)
class EveryDays:
    """Each `step` from the wall time `anchor` on (and before it)."""

    anchor: datetime
    step: timedelta

    def at_or_after(self, wall: datetime) -> datetime:
        return self.anchor - (self.anchor - wall) // self.step * self.step


@dataclass(frozen=True, slots=True)
class EveryMonths:
    """Each `step` months from the wall time `anchor` on; a day that a month lacks is its last one."""

    anchor: datetime
    step: int

    def at_or_after(self, wall: datetime) -> datetime:
        first = self.anchor.year * 12 + self.anchor.month - 1
        month = wall.year * 12 + wall.month - 1
        month += (first - month) % self.step
        found = self._in(month)
        return found if found >= wall else self._in(month + self.step)

    def _in(self, month: int) -> datetime:
        year, month = month // 12, month % 12 + 1
        day = min(self.anchor.day, monthrange(year, month)[1])
        return self.anchor.replace(year=year, month=month, day=day)


Rule = Days | EveryDays | EveryMonths


def first_fire(rule: Rule, instant: datetime, zone: tzinfo) -> datetime | None:
    """The first instant at or after `instant` at which `rule` fires by the wall clock of `zone`."""
    if zone is UTC:
        found = rule.at_or_after(instant.replace(tzinfo=None))
        return None if found is None else found.replace(tzinfo=UTC)
    if isinstance(rule, Days) and rule.through:
        return _search_through(rule, instant, zone)
    return _search_once(rule, instant, zone)


def wall_of(instant: datetime, zone: tzinfo) -> datetime:
    """What the wall clock in `zone` shows at `instant`."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return wall_of(instant, zone) - instant.replace(tzinfo=None)


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the wall clock in `zone` shows `wall` or, if it skips that, more."""
    late = wall.replace(tzinfo=zone).astimezone(UTC)
    if wall_of(late, zone) == wall:
        return late
    # In a gap. The change is between the two readings; find it to the second.
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    before, low, high = _offset(early, zone), 0, int((late - early).total_seconds()) + 1
    first = early.replace(microsecond=0)
    while low + 1 < high:
        middle = (low + high) // 2
        if _offset(first + timedelta(seconds=middle), zone) == before:
            low = middle
        else:
            high = middle
    return first + timedelta(seconds=high)


def _search_once(rule: Rule, instant: datetime, zone: tzinfo) -> datetime | None:
    """The first fire time not before `instant`, every wall time firing once."""
    wall = wall_of(instant, zone)
    just_before = wall_of(instant - _MICROSECOND, zone)
    if wall - just_before > _MICROSECOND:
        wall = just_before + _MICROSECOND  # the gap ends here, and what was skipped in it fires now
    found = rule.at_or_after(wall)
    while found is not None:
        fire = instant_of(found, zone)
        if fire >= instant:
            return fire
        found = rule.at_or_after(found + _MICROSECOND)  # `instant` is in a second occurrence
    return None


def _search_through(rule: Days, instant: datetime, zone: tzinfo) -> datetime | None:
    """The first instant not before `instant` whose wall time fits, however often it comes."""
    while instant.year <= LAST_YEAR:
        wall = wall_of(instant, zone)
        found = rule.at_or_after(wall)
        if found is None:
            return None
        wait = found - wall
        if _offset(instant, zone) == _offset(instant + _DAY, zone):
            if wait <= _DAY:
                return instant + wait
            instant += max(_DAY, wait - 2 * _DAY)
            continue
        # The clock changes within a day: go minute by minute.
        candidate = instant + (_next_minute(wall) - wall)
        for _ in range(24 * 60):
            if rule.fits(wall_of(candidate, zone)):
                return candidate
            candidate += _MINUTE
        instant = candidate
    return None


def _next_minute(wall: datetime) -> datetime:
    whole = wall.replace(second=0, microsecond=0)
    return whole if whole == wall else whole + _MINUTE
