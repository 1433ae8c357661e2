"""Triggers: a line of text becomes fire times. Pure, without state or clock: same question, same answer.

    every 300                        every 300 seconds, counted from `start`, or from 1970-01-01 00:00 UTC
    at 06:00,18:30                   each day; at mon-09:00,fri-17:30 on some days (0-09:00 is Monday too)
    cron 0 9 * * 1                   as in POSIX: 0 and 7 are Sunday, 1 is Monday; when day-of-month and
                                     day-of-week are both restricted (not `*`), either is enough
    hourly daily weekly monthly quarterly yearly
                                     counted from `start` (a 31st becomes the last day of a short month);
                                     without it at the beginning of each hour, day, Monday, month …

`start` is inclusive, `end` exclusive; all instants are aware UTC, in the years 1970 to 9998.

What a change of the clocks does to the wall-clock ones (all but `every`) is told in `wallclock`.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from scheduler.core.errors import ConfigError
from scheduler.core.wallclock import LAST_YEAR, Days, EveryDays, EveryMonths, Rule, first_fire, wall_of

MOST_SECONDS = 10**9  # some 31 years
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as date.weekday() counts
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTHS_OF_WORD = {"monthly": 1, "quarterly": 3, "yearly": 12}
DAYS_OF_WORD = {"daily": 1, "weekly": 7}
CALENDAR_WORDS = ("hourly", *DAYS_OF_WORD, *MONTHS_OF_WORD)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = _EPOCH.replace(tzinfo=None) + timedelta(days=4)
_MICROSECOND = timedelta(microseconds=1)
_RIGHT = (
    "right is 'every 300', 'at 06:00', 'at mon-09:00,fri-17:30', 'cron 0 9 * * 1', or one of "
    + ", ".join(CALENDAR_WORDS)
)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A parsed trigger. Two are equal if their text, limits and time zone are."""

    kind: str  # every, at, cron, calendar
    text: str  # canonical: parses to the same trigger
    interval_s: int | None  # of `every`, else None
    start: datetime | None
    end: datetime | None
    time_zone: str
    _rule: Rule | _Elapsed = field(repr=False, compare=False)
    _zone: tzinfo = field(default=UTC, repr=False, compare=False)

    def first_at_or_after(self, instant: datetime) -> datetime | None:
        """The first fire time not before `instant` (aware); None if there is none."""
        assert instant.tzinfo is not None, f"{instant} has no time zone"
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
        instant = max(instant, self.start or _EPOCH, _EPOCH)
        if instant.year > LAST_YEAR:
            return None
        found = self._search(instant)
        if found is None or found.year > LAST_YEAR or (self.end is not None and found >= self.end):
            return None
        return found

    def next_after(self, instant: datetime) -> datetime | None:
        """The first fire time after `instant` (aware); None if there is none."""
        return None if instant.year > LAST_YEAR else self.first_at_or_after(instant + _MICROSECOND)

    def fires_between(self, after: datetime, until: datetime, limit: int = 1000) -> list[datetime]:
        """The fire times in `(after, until]`, oldest first, at most `limit` of them."""
        fires: list[datetime] = []
        fire = self.next_after(after)
        while fire is not None and fire <= until and len(fires) < limit:
            fires.append(fire)
            fire = self.next_after(fire)
        return fires

    def _search(self, instant: datetime) -> datetime | None:
        rule = self._rule
        if isinstance(rule, _Elapsed):
            return rule.at_or_after(instant)
        if self.kind == "calendar" and instant == self.start:
            return instant  # also where its wall time comes twice, and this is the second
        return first_fire(rule, instant, self._zone)


def parse_trigger(
    text: str, *, start: datetime | None = None, end: datetime | None = None, time_zone: str = "UTC"
) -> Trigger:
    """`text` as a Trigger; ConfigError says what is wrong with it and what would be right."""
    _check_types(text, start, end, time_zone)
    return _parse(text, start and start.astimezone(UTC), end and end.astimezone(UTC), time_zone)


def _check_types(text: object, start: object, end: object, time_zone: object) -> None:
    """A context is written by people: what it passes is not what the types say until it was looked at."""
    if not isinstance(text, str):
        raise ConfigError(f"trigger {text!r} is no text; {_RIGHT}")
    for name, limit in (("start", start), ("end", end)):
        if limit is not None and (not isinstance(limit, datetime) or limit.tzinfo is None):
            raise ConfigError(f"trigger {text!r}: its {name} {limit!r} must be a datetime with a time zone")
    if not isinstance(time_zone, str):
        raise ConfigError(
            f"trigger {text!r}: time zone {time_zone!r} is not known; right is a name like Europe/Berlin"
        )


@lru_cache(1024)
def _parse(text: str, start: datetime | None, end: datetime | None, time_zone: str) -> Trigger:
    try:
        zone = _zone(time_zone)
        if start is not None and end is not None and end <= start:
            raise ConfigError(f"its end {end.isoformat()} must be after its start {start.isoformat()}")
        kind, *words = text.lower().split() or [""]
        rest = " ".join(words)
        rule: Rule | _Elapsed
        if kind == "every":
            seconds = _seconds(rest)
            rule = _Elapsed(start or _EPOCH, timedelta(seconds=seconds))
            return Trigger("every", f"every {seconds}", seconds, start, end, time_zone, rule)
        if kind == "at":
            times, canonical = _at(rest)
            rule = Days(times)
            return Trigger("at", f"at {canonical}", None, start, end, time_zone, rule, zone)
        if kind == "cron":
            rule = _cron(words)
            return Trigger("cron", f"cron {rest}", None, start, end, time_zone, rule, zone)
        if kind not in CALENDAR_WORDS or rest:
            raise ConfigError(_RIGHT)
        rule = _calendar(kind, start, zone)
        return Trigger("calendar", kind, None, start, end, time_zone, rule, zone)
    except ConfigError as error:
        raise ConfigError(f"trigger {text!r}: {error}") from None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"time zone {name!r} is not known; right is a name like Europe/Berlin") from None


@dataclass(frozen=True, slots=True)
class _Elapsed:
    """Each `step` of elapsed time from the instant `anchor` on: instants, not wall times."""

    anchor: datetime
    step: timedelta

    def at_or_after(self, instant: datetime) -> datetime:
        return self.anchor - (self.anchor - instant) // self.step * self.step


# -- the grammar ------------------------------------------------------------------------------------


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= MOST_SECONDS:
        raise ConfigError(
            f"its interval must be a whole number of seconds, 1 to {MOST_SECONDS}; right is like 'every 300'"
        )
    return int(text)


def _at(text: str) -> tuple[list[list[int]], str]:
    """The minutes for each weekday, and the canonical text."""
    found: set[tuple[int, int]] = set()  # (weekday or -1 for each day, minute of the day)
    for part in text.split(","):
        day_text, dash, clock = part.strip().rpartition("-")
        match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", clock)
        if match is None or int(match[1]) > 23 or int(match[2]) > 59:
            raise ConfigError(
                f"{part.strip()!r} is not a time of day; right is 00:00 to 23:59,"
                " like 'at 06:00' or 'at mon-09:00,fri-17:30'"
            )
        if not dash or day_text == "*":
            day = -1
        elif day_text in WEEKDAYS:
            day = WEEKDAYS.index(day_text)
        elif re.fullmatch(r"[0-6]", day_text):
            day = int(day_text)
        else:
            raise ConfigError(
                f"{day_text!r} is no day of the week; right is one of {' '.join(WEEKDAYS)},"
                " or 0 to 6 where 0 is Monday"
            )
        found.add((day, int(match[1]) * 60 + int(match[2])))
    times = [sorted({minute for day, minute in found if day in (-1, weekday)}) for weekday in range(7)]
    names = ("", *(f"{name}-" for name in WEEKDAYS))
    canonical = ",".join(f"{names[day + 1]}{m // 60:02d}:{m % 60:02d}" for day, m in sorted(found))
    return times, canonical


_ANY = ("*", "*/1")
_CRON_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")


def _cron(fields: list[str]) -> Days:
    if len(fields) != 5:
        why = ": seconds and years are not supported" if len(fields) in (6, 7) else ""
        raise ConfigError(
            f"cron has five fields ({' '.join(_CRON_FIELDS)}), not {len(fields)}{why};"
            " right is like 'cron 0 9 * * 1'"
        )
    minutes = _values("minute", fields[0], 0, 59)
    hours = _values("hour", fields[1], 0, 23)
    days = _values("day-of-month", fields[2], 1, 31)
    months = _values("month", fields[3], 1, 12, {name: n for n, name in enumerate(MONTHS, 1)})
    weekdays = _values("day-of-week", fields[4], 0, 7, {name: n for n, name in enumerate(WEEKDAYS, 1)})
    any_day, any_weekday = fields[2] in _ANY, fields[4] in _ANY
    longest = max(monthrange(2024, month)[1] for month in months)
    if any_weekday and min(days) > longest:
        raise ConfigError(f"it would never fire: no such month has a day {min(days)}")
    times = sorted(hour * 60 + minute for hour in hours for minute in minutes)
    return Days(
        [times] * 7,
        frozenset(months),
        None if any_day else frozenset(days),
        None if any_weekday else frozenset((day - 1) % 7 for day in weekdays),  # Sunday, 0 or 7, becomes 6
        through=len(hours) == 24,
    )


def _values(name: str, text: str, low: int, high: int, words: dict[str, int] | None = None) -> set[int]:
    """The numbers that one cron field means: a list of `*`, `a`, `a-b`, each range perhaps with `/step`."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        step = int(step_text) if re.fullmatch(r"[0-9]{1,4}", step_text) else 0
        first = _number(first_text, words)
        last = _number(last_text, words) if dash else first
        if span == "*":
            first, last = low, high
        elif slash and not dash:
            raise ConfigError(
                f"{part!r} in its {name} has a step without a range; right is like */5 or 10-40/5"
            )
        if (slash and step < 1) or first is None or last is None or not (low <= first and last <= high):
            choice = f" or {next(iter(words))} to {list(words)[-1]}" if words else ""
            raise ConfigError(
                f"{part!r} in its {name} is wrong; right is {low} to {high}{choice}, *, lists, a-b, */n"
            )
        if high == 7 and first == 7 > last:
            first = 0  # sun-tue
        if first > last:
            raise ConfigError(f"{part!r} in its {name} runs backwards; right is the smaller one first")
        found.update(range(first, last + 1, step or 1))
    return found


def _number(text: str, words: dict[str, int] | None) -> int | None:
    if words and text in words:
        return words[text]
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def _calendar(word: str, start: datetime | None, zone: tzinfo) -> Rule | _Elapsed:
    """The rule of a calendar word, counted from `start` or from the beginning of its unit."""
    if word == "hourly":
        every_hour = [range(0, 24 * 60, 60)] * 7
        return _Elapsed(start, timedelta(hours=1)) if start else Days(every_hour, through=True)
    anchor = wall_of(start, zone) if start else _MONDAY if word == "weekly" else _EPOCH.replace(tzinfo=None)
    if word in DAYS_OF_WORD:
        return EveryDays(anchor, timedelta(days=DAYS_OF_WORD[word]))
    return EveryMonths(anchor, MONTHS_OF_WORD[word])
