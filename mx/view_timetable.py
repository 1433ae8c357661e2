"""The timetable as a funnel: each row opens the chosen period of the row above. Pure.

However long the history, a tree costs some 1 + 12 + 31 + 24 cells. Below it, one process's year as a
heat map: months by days, the worst state of each day.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mx.marks import Marks
from mx.present import NONE, Brief, cell_words, number, period_words, state_word, worst
from mx.view_overview import Cell, unit_words
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.process import Process
from scheduler.core.timeperiod import Qualifier, count_between, timeperiod_at, timeperiods_between
from scheduler.core.timetable import Span

YEARS_MAX = 12
# digits of `at` -> the finest level they open
DEPTHS = {4: Qualifier.MONTHLY, 6: Qualifier.DAILY, 8: Qualifier.HOURLY, 10: Qualifier.MINUTELY}
# how many digits of `at` choose a period of a level; 10 below the day
DIGITS = {Qualifier.YEARLY: 4, Qualifier.MONTHLY: 6, Qualifier.WEEKLY: 8, Qualifier.DAILY: 8}


@dataclass(frozen=True, slots=True)
class At:
    """What is looked at: an instant, and how deep the funnel is open."""

    instant: datetime
    digits: int
    text: str

    @property
    def finest(self) -> Qualifier:
        """The finest level that is open."""
        return DEPTHS[self.digits]


@dataclass(frozen=True, slots=True)
class Row:
    """One process on one level of the funnel."""

    process: str
    unit: str
    done: str
    columns: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """The processes of one qualifier, and the wedge that leads to it from the level above."""

    qualifier: str
    rows: tuple[Row, ...]
    wedge: tuple[float, float] | None  # left and right end of the chosen cell above, of 100


@dataclass(frozen=True, slots=True)
class Month:
    """A row of the year's heat map."""

    word: str
    href: str
    is_chosen: bool
    cells: tuple[Cell | None, ...]
    done: str
    due: str


def parse_at(text: str, business: datetime, start: datetime) -> At:
    """`2013` to `2013121222`. Raises InvalidRequest, or NotFound outside the timetable."""
    if not text:
        here = max(business, start)
        return At(here, 8, f"{here:%Y%m%d}")
    if not (text.isascii() and text.isdigit()) or len(text) not in DEPTHS:
        raise InvalidRequest(f"at={text!r} is no period; use 2013, 201312, 20131212 or 2013121222")
    parts = [int(text[:4]), *(int(text[i : i + 2]) for i in range(4, len(text), 2))]
    while len(parts) < 3:
        parts.append(1)
    try:
        instant = datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError as error:
        raise InvalidRequest(f"at={text!r} is no period: {error}") from None
    if instant > business and instant > start:
        raise NotFound(f"{text} has not begun yet; the timetable ends at {business:%Y-%m-%d %H:%M} UTC")
    if _end(instant, len(text)) <= start:
        raise NotFound(f"{text} is before the timetable, which begins at {start:%Y-%m-%d %H:%M} UTC")
    return At(instant, len(text), text)


def _end(instant: datetime, digits: int) -> datetime:
    if digits == 4:
        return instant.replace(year=instant.year + 1)
    if digits == 6:
        return (instant + timedelta(days=32)).replace(day=1)
    return instant + (timedelta(days=1) if digits == 8 else timedelta(hours=1))


def window(qualifier: Qualifier, at: At, start: datetime) -> tuple[datetime, datetime] | None:
    """Which periods of a level are shown: those of the chosen year, month, day or hour."""
    here = at.instant
    if qualifier == Qualifier.YEARLY:
        first = max(start.year, here.year - YEARS_MAX + 1)
        return datetime(first, 1, 1, tzinfo=UTC), datetime(here.year + 1, 1, 1, tzinfo=UTC)
    above = {
        Qualifier.MONTHLY: Qualifier.YEARLY,
        Qualifier.WEEKLY: Qualifier.MONTHLY,
        Qualifier.DAILY: Qualifier.MONTHLY,
        Qualifier.HOURLY: Qualifier.DAILY,
        Qualifier.MINUTELY: Qualifier.HOURLY,
    }.get(qualifier)
    if above is None or qualifier.rank < at.finest.rank:
        return None
    period = timeperiod_at(here, above, 1)
    if qualifier == Qualifier.WEEKLY:
        first_week = timeperiod_at(period.start, qualifier, 1)
        return first_week.start, period.end
    return period.start, period.end


def span_of(process: Process, at: At, start: datetime) -> Span | None:
    """The periods of a process that the funnel shows, or None if its level is not open."""
    shown = window(process.qualifier, at, start)
    return Span(process.name, *shown) if shown else None


def levels(
    processes: Iterable[Process],
    jobs: Mapping[str, Sequence[Brief]],
    at: At,
    start: datetime,
    business: datetime,
    marks: Marks,
    chosen: str,
    base: str,
) -> list[Level]:
    """The funnel, coarsest level first. `chosen` is the job that is selected; `base` the page's address."""
    by_level: dict[Qualifier, list[Process]] = {}
    for process in processes:
        by_level.setdefault(process.qualifier, []).append(process)
    found: list[Level] = []
    above: tuple[float, float] | None = None
    for qualifier in sorted(by_level, key=lambda q: -q.rank):
        rows = []
        for process in by_level[qualifier]:
            span = span_of(process, at, start)
            if span is not None:
                rows.append(
                    _row(process, span, jobs.get(process.name, ()), at, business, marks, chosen, base)
                )
        if rows:
            found.append(Level(str(qualifier), tuple(rows), above))
            above = _chosen_part(rows[0])
    return found


def _chosen_part(row: Row) -> tuple[float, float] | None:
    for i, cell in enumerate(row.cells):
        if cell.is_current:
            width = 100 / len(row.cells)
            return round(i * width, 2), round((i + 1) * width, 2)
    return None


def _row(
    process: Process,
    span: Span,
    jobs: Sequence[Brief],
    at: At,
    business: datetime,
    marks: Marks,
    chosen: str,
    base: str,
) -> Row:
    there = {job.start: job for job in jobs}
    cells, done, due = [], 0, 0
    for period in timeperiods_between(span.start, span.end, process.qualifier, process.grouping):
        job = there.get(period.start)
        words = period_words(process.qualifier, period.start, period.end, business)
        due += period.end <= business and job is not None
        done += job is not None and not job.open
        mark = marks.of(job) if job else ""
        title = (
            f"{process.name} {words}: {state_word(job.state)}" if job else f"{process.name} {words}: not due"
        )
        if job and job.reason:
            title += f", {job.reason.replace('_', ' ')}"
        cells.append(
            Cell(
                state=job.state if job else NONE,
                mark=mark,
                title=title + (f", {mark}" if mark else ""),
                href=cell_href(base, process, period.start, period.label, at) if job else "",
                text=cell_words(process.qualifier, period.start, period.end),
                is_current=at.digits >= DIGITS.get(process.qualifier, 10)
                and period.start <= at.instant < period.end,
                is_chosen=job is not None and job.id == chosen,
            )
        )
    unit = unit_words(process)
    return Row(process.name, unit, f"{done} of {due} done" if due else "none due", len(cells), tuple(cells))


def cell_href(base: str, process: Process, start: datetime, label: str, at: At) -> str:
    """Choosing a cell opens its row and selects its job."""
    digits = DIGITS.get(process.qualifier, 10)
    text = f"{start:%Y%m%d%H}"[:digits]
    if digits == 10 and at.digits < 10:
        text = f"{start:%Y%m%d}"
    return f"{base}?at={text}&job={process.name}@{label}"


def crumbs(at: At, base: str) -> list[tuple[str, str]]:
    """2013 › December › 12 › 22:00, each with its address."""
    here = at.instant
    found = [(f"{here:%Y}", f"{base}?at={here:%Y}")]
    if at.digits >= 6:
        found.append((f"{here:%B}", f"{base}?at={here:%Y%m}"))
    if at.digits >= 8:
        found.append((str(here.day), f"{base}?at={here:%Y%m%d}"))
    if at.digits >= 10:
        found.append((f"{here:%H}:00", f"{base}?at={here:%Y%m%d%H}"))
    return found


def neighbours(at: At, base: str, business: datetime, start: datetime) -> tuple[str, str]:
    """The addresses of the period before and after the chosen one; "" where there is none."""
    begin = at.instant.replace(minute=0, second=0, microsecond=0)
    begin = begin.replace(hour=0) if at.digits <= 8 else begin
    begin = begin.replace(day=1) if at.digits <= 6 else begin
    begin = begin.replace(month=1) if at.digits == 4 else begin
    before, after = begin - timedelta(milliseconds=1), _end(begin, at.digits)
    earlier = f"{base}?at={before:%Y%m%d%H}"[: len(base) + 4 + at.digits] if begin > start else ""
    later = f"{base}?at={after:%Y%m%d%H}"[: len(base) + 4 + at.digits] if after <= business else ""
    return earlier, later


def heat(
    process: Process,
    year: int,
    rows: Sequence[tuple[datetime, str]],
    frontier: datetime | None,
    start: datetime,
    at: At,
    base: str,
) -> list[Month]:
    """Months by days of a year. `rows` are (start, state) of the jobs that are not processed.

    A day without such a row is processed where all its periods have rows, that is before the
    frontier, and not due after it.
    """
    days: dict[tuple[int, int], list[str]] = {}
    for began, state in rows:
        days.setdefault((began.month, began.day), []).append(state)
    new_year = datetime(year, 1, 1, tzinfo=UTC)
    whole_day = count_between(new_year, new_year + timedelta(days=1), process.qualifier, process.grouping)
    months = []
    for month in range(1, 13):
        cells: list[Cell | None] = []
        done = due = 0
        for day in range(1, 32):
            if day > calendar.monthrange(year, month)[1]:
                cells.append(None)
                continue
            begin = datetime(year, month, day, tzinfo=UTC)
            made = frontier is not None and start < begin + timedelta(days=1) and begin < frontier
            state = _of_day(days.get((month, day), []), made, whole_day)
            due += state != NONE
            done += state in ("processed", "noop", "skipped")
            cells.append(
                Cell(
                    state=state,
                    mark="",
                    title=f"{day} {begin:%b}: {'not due' if state == NONE else state_word(state)}",
                    href=f"{base}?at={begin:%Y%m%d}&heat={process.name}" if state != NONE else "",
                    is_chosen=begin.date() == at.instant.date() and at.digits >= 8,
                )
            )
        first = datetime(year, month, 1, tzinfo=UTC)
        months.append(
            Month(
                word=f"{first:%b}",
                href=f"{base}?at={first:%Y%m}&heat={process.name}" if due else "",
                is_chosen=at.instant.month == month and at.digits >= 6,
                cells=tuple(cells),
                done=number(done) if done else "0",
                due=number(due) if due else "0",
            )
        )
    return months


def _of_day(states: list[str], made: bool, whole_day: int) -> str:
    """The state of a day, from those of its jobs that are not processed; `noop` only if all of it is."""
    grave = [state for state in states if state != "noop"]
    if grave:
        return worst(grave)
    if states:
        return "noop" if len(states) >= whole_day else "processed"
    return "processed" if made else NONE
