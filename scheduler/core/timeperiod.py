"""Timeperiods: the half-open intervals `[start, end)` that time is cut into, and their labels.

Pure arithmetic: no clock, no I/O. Everything is aware UTC; years 1970 to 9998.

A label reads `YYYYMMDDHH` with zeros for whatever is finer than the qualifier (`2013070400` a day,
`2013070000` a month, `2013000000` a year); a week carries the date of its Monday, a minute has 12 digits,
an instant 17. A label means something only together with its qualifier.

Grouping is even: `grouping=3` hourly is [00,03), [03,06) … Groups restart with the natural parent (minutes
in the hour, hours in the day, days in the month, months in the year), so the last group of a parent may be
shorter and no group crosses its parent's border. The label of a group is the label of its first unit.

The theory: for each (qualifier, grouping) the periods tile the line of time, so they can be numbered by
consecutive integers (`_number`, and its inverse `_numbered`). Stepping is adding, counting is subtracting;
nothing is searched. Parsing is on the hottest path of the scheduler: hence the two bounded caches and no
`strptime`.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from scheduler.core.errors import ConfigError, InvalidRequest

FIRST_YEAR, LAST_YEAR = 1970, 9998
MILLISECOND = timedelta(milliseconds=1)
CACHE = 65536

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Qualifier(StrEnum):
    """How long a timeperiod is, before grouping."""

    MINUTELY = "minutely"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    INSTANT = "instant"

    @property
    def rank(self) -> int:
        """Order by coarseness: an instant is 0, a year is the highest."""
        return _RANKS[self]


_RANKS = {
    Qualifier.INSTANT: 0,
    Qualifier.MINUTELY: 1,
    Qualifier.HOURLY: 2,
    Qualifier.DAILY: 3,
    Qualifier.WEEKLY: 4,
    Qualifier.MONTHLY: 5,
    Qualifier.YEARLY: 6,
}

# qualifier: (greatest grouping, nominal milliseconds, unit in words, pattern of the label, an example)
_SHAPES: dict[Qualifier, tuple[int, int, str, str, str]] = {
    Qualifier.INSTANT: (1, 1, "instant", "YYYYMMDDHHMMSSmmm", "20130704051530250"),
    Qualifier.MINUTELY: (59, 60_000, "minute", "YYYYMMDDHHMM", "201307040515"),
    Qualifier.HOURLY: (23, 3_600_000, "hour", "YYYYMMDDHH", "2013070405"),
    Qualifier.DAILY: (28, 86_400_000, "day", "YYYYMMDD00", "2013070400"),
    Qualifier.WEEKLY: (1, 604_800_000, "week", "YYYYMMDD00 with the date of its Monday", "2013070100"),
    Qualifier.MONTHLY: (12, 2_629_746_000, "month", "YYYYMM0000", "2013070000"),
    Qualifier.YEARLY: (1, 31_556_952_000, "year", "YYYY000000", "2013000000"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Timeperiod:
    """One half-open interval `[start, end)`, aware UTC. Made by the functions below, never by hand."""

    qualifier: Qualifier
    grouping: int
    label: str
    start: datetime
    end: datetime

    # The label stands for the start, and a string remembers its hash.
    def __hash__(self) -> int:
        return hash((self.label, self.qualifier, self.grouping))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Timeperiod):
            return NotImplemented
        return (
            self.label == other.label
            and self.qualifier is other.qualifier
            and self.grouping == other.grouping
        )


def check_grouping(qualifier: Qualifier, grouping: int) -> None:
    """Raise ConfigError unless timeperiods of this qualifier can be grouped by `grouping`."""
    most, _, unit, _, _ = _SHAPES[_qualifier(qualifier)]
    if type(grouping) is int and 1 <= grouping <= most:
        return
    right = f"1 to {most}" if most > 1 else f"1 ({unit}s are not grouped)"
    raise ConfigError(
        f"time_grouping {grouping!r} is not possible with {qualifier} timeperiods; right is {right}"
    )


def timeperiod_of(label: str, qualifier: Qualifier, grouping: int = 1) -> Timeperiod:
    """The timeperiod with this label; InvalidRequest if there is none, or it does not begin its group."""
    return _parsed(label, qualifier, grouping)


def timeperiod_at(instant: datetime, qualifier: Qualifier, grouping: int = 1) -> Timeperiod:
    """The timeperiod that contains `instant` (aware). InvalidRequest outside the years 1970 to 9998."""
    if instant.tzinfo is not UTC:
        instant = _utc(instant)
    if grouping < 1:
        check_grouping(qualifier, grouping)
    if qualifier == Qualifier.INSTANT:
        check_grouping(qualifier, grouping)
        return _instant(instant)
    hour = minute = 0
    year, month, day = instant.year, instant.month, instant.day
    if qualifier == Qualifier.HOURLY:
        hour = instant.hour // grouping * grouping
    elif qualifier == Qualifier.DAILY:
        day = (day - 1) // grouping * grouping + 1
    elif qualifier == Qualifier.MINUTELY:
        hour, minute = instant.hour, instant.minute // grouping * grouping
    elif qualifier == Qualifier.MONTHLY:
        month, day = (month - 1) // grouping * grouping + 1, 1
    elif qualifier == Qualifier.WEEKLY:
        monday = date.fromordinal(max(1, instant.toordinal() - instant.weekday()))
        year, month, day = monday.year, monday.month, monday.day
    else:
        month = day = 1
    return _made(qualifier, grouping, year, month, day, hour, minute)


def following(tp: Timeperiod, n: int = 1) -> Timeperiod:
    """The n-th timeperiod after `tp` (before it, for a negative n); InvalidRequest out of the years."""
    if n == 1:
        return timeperiod_at(tp.end, tp.qualifier, tp.grouping)
    if n == 0:
        return tp
    return _numbered(_number(tp) + n, tp.qualifier, tp.grouping)


def timeperiods_between(
    start: datetime, end: datetime, qualifier: Qualifier, grouping: int = 1
) -> Iterator[Timeperiod]:
    """All timeperiods that intersect `[start, end)`, oldest first; none if the interval is empty."""
    if start >= end:
        return
    period = timeperiod_at(start, qualifier, grouping)
    yield period
    while period.end < end:
        period = timeperiod_at(period.end, qualifier, grouping)
        yield period


def count_between(start: datetime, end: datetime, qualifier: Qualifier, grouping: int = 1) -> int:
    """How many timeperiods intersect `[start, end)`: as many as `timeperiods_between`, without the walk."""
    if start >= end:
        return 0
    first = timeperiod_at(start, qualifier, grouping)
    last = timeperiod_at(end - timedelta(microseconds=1), qualifier, grouping)
    return _number(last) - _number(first) + 1


def nests(
    child_qualifier: Qualifier, child_grouping: int, parent_qualifier: Qualifier, parent_grouping: int
) -> bool:
    """Does every child period lie wholly inside one parent period? (Every kind nests in itself.)"""
    child, parent = _qualifier(child_qualifier), _qualifier(parent_qualifier)
    if child is parent:
        whole_year = child is Qualifier.MONTHLY and parent_grouping == 12
        return parent_grouping % child_grouping == 0 or whole_year
    if child is Qualifier.YEARLY:
        return parent is Qualifier.MONTHLY and parent_grouping == 12
    if child is Qualifier.WEEKLY:
        return False  # weeks cross the borders of months and years
    if parent is Qualifier.WEEKLY and child is Qualifier.DAILY:
        return child_grouping == 1  # groups of days restart with the month, not with the week
    return child.rank < parent.rank


def is_coarser(q1: Qualifier, g1: int, q2: Qualifier, g2: int) -> bool:
    """Is the first kind of period nominally longer than the second? (12 months are finer than a year.)"""
    first, second = _qualifier(q1), _qualifier(q2)
    return (g1 * _SHAPES[first][1], first.rank) > (g2 * _SHAPES[second][1], second.rank)


def spoken(tp: Timeperiod) -> str:
    """The timeperiod as people say it: `12 Dec 2013 22:00–23:00`, `week of 9 Dec 2013`, `Dec 2013`."""
    start, last = tp.start, tp.end - MILLISECOND
    month = _MONTHS[start.month - 1]
    the_day = f"{start.day} {month} {start.year}"
    if tp.qualifier is Qualifier.YEARLY:
        return f"{start.year}"
    if tp.qualifier is Qualifier.MONTHLY:
        until = "" if start.month == last.month else f"–{_MONTHS[last.month - 1]}"
        return f"{month}{until} {start.year}"
    if tp.qualifier is Qualifier.WEEKLY:
        return f"week of {the_day}"
    if tp.qualifier is Qualifier.DAILY:
        return the_day if start.day == last.day else f"{start.day}–{last.day} {month} {start.year}"
    if tp.qualifier is Qualifier.INSTANT:
        return f"{the_day} {start:%H:%M:%S}.{start.microsecond // 1000:03d}"
    until = "24:00" if tp.end.date() != start.date() else f"{tp.end:%H:%M}"
    return f"{the_day} {start:%H:%M}–{until}"


def _qualifier(value: str) -> Qualifier:
    """`value` as a Qualifier, also from its text; InvalidRequest with the choices."""
    try:
        return Qualifier(value)
    except ValueError:
        raise InvalidRequest(
            f"{value!r} is no time qualifier; right is one of {', '.join(Qualifier)}"
        ) from None


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise InvalidRequest(f"instant {instant} has no time zone; right is an aware UTC datetime")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(
            f"instant {instant} is out of range; right is {FIRST_YEAR} to {LAST_YEAR}"
        ) from None


@lru_cache(CACHE)
def _made(
    qualifier: Qualifier, grouping: int, year: int, month: int, day: int, hour: int, minute: int
) -> Timeperiod:
    """The period that begins at these parts; they are the first of their group already."""
    qualifier = _qualifier(qualifier)
    check_grouping(qualifier, grouping)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise InvalidRequest(
            f"no {qualifier} timeperiod begins in the year {year}; right is {FIRST_YEAR} to {LAST_YEAR}"
        )
    start = end = datetime(year, month, day, hour, minute, tzinfo=UTC)
    label = f"{year:04d}{month:02d}{day:02d}{hour:02d}"
    if qualifier is Qualifier.MINUTELY:
        label += f"{minute:02d}"
        end = start + timedelta(minutes=min(grouping, 60 - minute))
    elif qualifier is Qualifier.HOURLY:
        end = start + timedelta(hours=min(grouping, 24 - hour))
    elif qualifier is Qualifier.DAILY:
        end = start + timedelta(days=min(grouping, monthrange(year, month)[1] - day + 1))
    elif qualifier is Qualifier.WEEKLY:
        end = start + timedelta(days=7)
    elif qualifier is Qualifier.MONTHLY:
        label = f"{year:04d}{month:02d}0000"
        past = month + grouping
        end = start.replace(month=past) if past <= 12 else start.replace(year=year + 1, month=1)
    else:
        label = f"{year:04d}000000"
        end = start.replace(year=year + 1)
    return Timeperiod(qualifier, grouping, label, start, end)


def _instant(instant: datetime) -> Timeperiod:
    if not FIRST_YEAR <= instant.year <= LAST_YEAR:
        raise InvalidRequest(
            f"instant {instant} is out of range; right are the years {FIRST_YEAR} to {LAST_YEAR}"
        )
    millis = instant.microsecond // 1000
    start = instant.replace(microsecond=millis * 1000, fold=0)
    date_part = start.year * 10_000 + start.month * 100 + start.day
    time_part = start.hour * 10_000 + start.minute * 100 + start.second
    label = f"{date_part:08d}{time_part:06d}{millis:03d}"
    return Timeperiod(Qualifier.INSTANT, 1, label, start, start + MILLISECOND)


@lru_cache(CACHE)
def _parsed(label: object, qualifier: Qualifier, grouping: int) -> Timeperiod:
    qualifier = _qualifier(qualifier)
    check_grouping(qualifier, grouping)
    _, _, unit, pattern, example = _SHAPES[qualifier]
    article = "an" if qualifier in (Qualifier.HOURLY, Qualifier.INSTANT) else "a"
    reads = f"{article} {unit} reads {pattern}, like {example}"
    if not isinstance(label, str) or len(label) != len(example) or not (label.isascii() and label.isdigit()):
        raise InvalidRequest(f"timeperiod {label!r} is not {qualifier}: {reads}")
    month_text = "01" if qualifier is Qualifier.YEARLY and label[4:6] == "00" else label[4:6]
    whole_days = qualifier in (Qualifier.YEARLY, Qualifier.MONTHLY) and label[6:8] == "00"
    day_text = "01" if whole_days else label[6:8]
    rest = label[8:].ljust(9, "0")
    try:
        instant = datetime(
            int(label[:4]),
            int(month_text),
            int(day_text),
            int(rest[:2]),
            int(rest[2:4]),
            int(rest[4:6]),
            int(rest[6:9]) * 1000,
            tzinfo=UTC,
        )
    except ValueError as error:
        raise InvalidRequest(f"timeperiod {label!r} is no date ({error}); {reads}") from None
    found = timeperiod_at(instant, qualifier, grouping)
    if found.label != label:
        what = f"the first {unit} of a group of {grouping}" if grouping > 1 else f"a whole {unit}"
        raise InvalidRequest(f"timeperiod {label!r} is not {what}; right is {found.label}")
    return found


def _number(tp: Timeperiod) -> int:
    """The number of `tp` on the line of time: consecutive periods have consecutive numbers."""
    q, g, start = tp.qualifier, tp.grouping, tp.start
    if q is Qualifier.INSTANT:
        return (start - _EPOCH) // MILLISECOND
    if q is Qualifier.MINUTELY:
        return (start.toordinal() * 24 + start.hour) * -(-60 // g) + start.minute // g
    if q is Qualifier.HOURLY:
        return start.toordinal() * -(-24 // g) + start.hour // g
    if q is Qualifier.WEEKLY:
        return start.toordinal() // 7
    if q is Qualifier.MONTHLY:
        return start.year * -(-12 // g) + (start.month - 1) // g
    if q is Qualifier.YEARLY:
        return start.year
    if g == 1:
        return start.toordinal()
    return _day_groups_before(start.year, start.month, g) + (start.day - 1) // g


def _numbered(number: int, q: Qualifier, g: int) -> Timeperiod:
    """The period with this number: the inverse of `_number`. InvalidRequest out of the years."""
    try:
        return timeperiod_at(_start_of(number, q, g), q, g)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"there is no such {q} timeperiod; right are the years {FIRST_YEAR} to {LAST_YEAR}"
        ) from None


def _start_of(number: int, q: Qualifier, g: int) -> datetime:
    if q is Qualifier.INSTANT:
        return _EPOCH + number * MILLISECOND
    if q is Qualifier.MINUTELY:
        hours, group = divmod(number, -(-60 // g))
        return _midnight(hours // 24) + timedelta(hours=hours % 24, minutes=group * g)
    if q is Qualifier.HOURLY:
        days, group = divmod(number, -(-24 // g))
        return _midnight(days) + timedelta(hours=group * g)
    if q is Qualifier.WEEKLY:
        return _midnight(number * 7 + 1)
    if q is Qualifier.MONTHLY:
        year, group = divmod(number, -(-12 // g))
        return datetime(year, group * g + 1, 1, tzinfo=UTC)
    if q is Qualifier.YEARLY:
        return datetime(number, 1, 1, tzinfo=UTC)
    if g == 1:
        return _midnight(number)
    year = number * 400 // _day_groups_before(401, 1, g) + 1  # within one of the right year
    year += _day_groups_before(year + 1, 1, g) <= number
    year -= _day_groups_before(year, 1, g) > number
    month = next(m for m in range(12, 0, -1) if _day_groups_before(year, m, g) <= number)
    return datetime(year, month, (number - _day_groups_before(year, month, g)) * g + 1, tzinfo=UTC)


def _midnight(ordinal: int) -> datetime:
    return datetime.fromordinal(ordinal).replace(tzinfo=UTC)


@lru_cache(CACHE)
def _day_groups_before(year: int, month: int, g: int) -> int:
    """How many groups of `g` days lie between the first day of year 1 and the first day of this month."""
    years = year - 1
    leap_years = years // 4 - years // 100 + years // 400
    short, leap, thirty, long = (-(-days // g) for days in (28, 29, 30, 31))
    before = years * (short + 4 * thirty + 7 * long) + leap_years * (leap - short)
    return before + sum(-(-monthrange(year, m)[1] // g) for m in range(1, month))
