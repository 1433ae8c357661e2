"""Records to words: states, numbers, durations, times and periods as people say them. Pure.

Words are lower case, as in the code. Times are UTC and absolute first; the year is left out while it
is the current one of the business clock. Squares are states, rounds are marks, points severities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from scheduler.core.lifecycle import JobState
from scheduler.core.timeperiod import Qualifier

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)

# the order of a legend; a job's state, its word
STATES = {
    JobState.EMBRYO: "embryo",
    JobState.IN_PROGRESS: "in progress",
    JobState.FINAL_RUN: "final run",
    JobState.PROCESSED: "processed",
    JobState.NOOP: "noop",
    JobState.SKIPPED: "skipped",
}
MARKS = ("late", "retrying", "lost", "held")
SEVERITIES = ("critical", "error", "warning", "info", "success")
NONE = "none"  # a period without a row: not due, or before the start

# which state of several stands for all of them: the one that needs a look most
WORST = ("skipped", "in_progress", "final_run", "embryo", "none", "processed", "noop")

REASONS = {
    "failed": "it failed",
    "retries_exhausted": "it failed too often",
    "timed_out": "it ran out of time",
    "lost": "its workers were lost too often",
    "killed": "it was killed",
    "canceled": "its work gave it up",
    "dependency": "something it stands on was skipped",
    "children": "all it is made of was skipped",
    "catchup": "it was past when it was first seen",
    "manual": "a person decided so",
    "skipped": "a person decided so",
    "expired": "its process expired",
}
FAILURES = ("failed", "retries_exhausted", "timed_out", "lost")  # of `skipped`: nobody wanted these

# a unit of work's state: its word, and the shape it is shown with (s: a state's, v: a severity's)
UOW_STATES = {
    "requested": ("requested", "s", "embryo"),
    "in_progress": ("running", "s", "in_progress"),
    "processed": ("processed", "s", "processed"),
    "noop": ("noop", "s", "noop"),
    "invalid": ("failed", "v", "error"),
    "canceled": ("canceled", "v", "warning"),
}

UNITS = {
    Qualifier.YEARLY: "year",
    Qualifier.MONTHLY: "month",
    Qualifier.WEEKLY: "week",
    Qualifier.DAILY: "day",
    Qualifier.HOURLY: "hour",
    Qualifier.MINUTELY: "minute",
    Qualifier.INSTANT: "run",
}


@dataclass(frozen=True, slots=True)
class Badge:
    """A coloured word with its glyph: `kind` is s (state), m (mark) or v (severity)."""

    kind: str
    name: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Brief:
    """A job, as much as a cell of the timetable needs."""

    id: str
    process: str
    timeperiod: str
    start: datetime
    end: datetime
    state: str
    open: bool
    reason: str | None


BRIEF = ("id", "process", "timeperiod", "start", "end", "state", "open", "reason")


_STRANGE = {code: f"⟨{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_STRANGE |= {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10, 13)}
_ODD = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\u202a-\\u202e\\u2066-\\u2069]")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def safe_text(text: str) -> str:
    """Text of unknown origin as it can be shown: colour codes of terminals are left out, characters that
    turn the direction of what follows, or that cannot be seen, are named. (Markup is escaped elsewhere.)
    """
    if _ODD.search(text) is None:  # nearly always
        return text
    return _ANSI.sub("", text).translate(_STRANGE)


def state_word(state: str) -> str:
    """`in_progress` as people say it."""
    return state.replace("_", " ")


def state_badge(state: str) -> Badge:
    """The badge of a job's state."""
    return Badge("s", state, state_word(state))


def reason_words(reason: str | None) -> str:
    """Why a job ended as it did; an unknown reason is said as it is."""
    return REASONS.get(reason or "", (reason or "").replace("_", " "))


def number(value: int | None) -> str:
    """8302 as "8,302"; None as "none"."""
    return "none" if value is None else f"{value:,}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`3 jobs`, `1 job`, `no jobs`."""
    word = one if count == 1 else many or one + "s"
    return f"{number(count) if count else 'no'} {word}"


SMALL = (
    "No",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
)


def count_word(count: int) -> str:
    """A count that begins a sentence."""
    return SMALL[count] if 0 <= count < len(SMALL) else number(count)


def duration_words(seconds: float) -> str:
    """A duration in at most two units: 0.8 ms, 340 ms, 3.4 s, 38 s, 6 min 12 s, 4 h 2 min, 3 days 4 h."""
    if seconds < 0:
        seconds = 0.0
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86400:
        return _two(whole // 60, 60, "h", 1, "min")
    return _two(whole // 3600, 24, "days" if whole >= 172800 else "day", 1, "h")


def _two(value: int, big: int, big_word: str, small: int, small_word: str) -> str:
    head, rest = divmod(value, big)
    return f"{head} {big_word}" + (f" {rest // small} {small_word}" if rest else "")


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in words."""
    return "never" if at is None else f"{duration_words((now - at).total_seconds())} ago"


def _day(at: datetime) -> str:
    return f"{at.day} {at:%b}"


def clock_words(at: datetime) -> str:
    """The header's clock: Fri 13 Dec 2013 03:07:42."""
    return f"{at:%a} {at.day} {at:%b %Y %H:%M:%S}"


def time_words(at: datetime | None, now: datetime, *, seconds: bool = True) -> str:
    """An instant, as short as it can be beside `now`: 05:06:41, 12 Dec 05:06:41, 12 Dec 2012 05:06:41."""
    if at is None:
        return "never"
    clock = f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}"
    if at.date() == now.date():
        return clock
    return f"{_day(at)} {clock}" if at.year == now.year else f"{_day(at)} {at.year} {clock}"


def iso(at: datetime) -> str:
    """For a machine: 2013-12-13T03:07:42Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _year(at: datetime, now: datetime) -> str:
    return "" if at.year == now.year else f" {at.year}"


def period_words(qualifier: Qualifier, start: datetime, end: datetime, now: datetime) -> str:
    """A period as people say it: 12 Dec 22:00–23:00, 12 Dec, Dec 2013, 9–15 Dec, 2013, Jan–Mar 2013."""
    last = end - MILLISECOND
    if qualifier == Qualifier.YEARLY:
        return str(start.year)
    if qualifier == Qualifier.MONTHLY:
        same = (start.year, start.month) == (last.year, last.month)
        return f"{start:%b %Y}" if same else f"{start:%b}–{last:%b %Y}"
    if qualifier == Qualifier.INSTANT:
        exact = f"{start:%H:%M:%S}" + (f".{start.microsecond // 1000:03d}" if start.microsecond else "")
        return f"{_day(start)}{_year(start, now)} {exact}"
    if qualifier in (Qualifier.DAILY, Qualifier.WEEKLY):
        if start.date() == last.date():
            return _day(start) + _year(start, now)
        if start.month == last.month:
            return f"{start.day}–{_day(last)}{_year(last, now)}"
        return f"{_day(start)} – {_day(last)}{_year(last, now)}"
    finish = "24:00" if end.date() != start.date() else f"{end:%H:%M}"
    return f"{_day(start)}{_year(start, now)} {start:%H:%M}–{finish}"


def cell_words(qualifier: Qualifier, start: datetime, end: datetime) -> str:
    """What stands in a cell of the timetable, where the row above says the rest: 2013, Dec, 12, 22, :35."""
    if qualifier == Qualifier.YEARLY:
        return str(start.year)
    if qualifier == Qualifier.MONTHLY:
        last = end - MILLISECOND
        return f"{start:%b}" if start.month == last.month else f"{start:%b}–{last:%b}"
    if qualifier == Qualifier.WEEKLY:
        return _day(start)
    if qualifier == Qualifier.DAILY:
        return str(start.day)
    return f"{start:%H}" if qualifier == Qualifier.HOURLY else f"{start:%H:%M}"


def worst(states: list[str]) -> str:
    """The state that stands for several."""
    return min(states, key=WORST.index) if states else NONE


def worker_words(owner: str | None) -> str:
    """Who holds a unit of work, without the number of its incarnation: vm/worker.flights.1."""
    return "/".join((owner or "").split("/")[:2])


def first_line(text: str | None, limit: int = 240) -> str:
    """The first line, cut to `limit` characters."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def usual_words(usual_ms: int | None, p95_ms: int | None) -> str:
    """The usual duration of a process, as a span: 3.4 s, 6.1–11 s."""
    if usual_ms is None:
        return "not known yet"
    low = duration_words(usual_ms / 1000)
    if p95_ms is None or p95_ms <= usual_ms:
        return low
    high = duration_words(p95_ms / 1000)
    low_number, _, low_unit = low.partition(" ")
    high_unit = high.partition(" ")[2]
    return f"{low_number}–{high}" if low_unit == high_unit else f"{low} – {high}"
