"""What a decision may know: the facts that were gathered for a turn, under everything decided since.

Asking for a fact that was not gathered raises `Absent`, which names it; the engine gathers it and decides that
input again (`mark` and `back_to` undo what it had begun). So the core reads as if it could ask the store, and
never does. What is decided is in `slice`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.known import Known
from scheduler.core.ports import Change, Outgoing
from scheduler.core.process import Process
from scheduler.core.records import Fact, Hold, ProcessRow
from scheduler.core.timeperiod import Qualifier, Timeperiod, timeperiod_of
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow

LOOK = 64  # rows a look at the store is bounded to
_MISSING: Any = object()


class Absent(Exception):
    """A fact that was not gathered. `wants` are tuples: ("job", id), ("uow", id), ("open", span, n), …"""

    def __init__(self, *wants: tuple[Any, ...]) -> None:
        super().__init__(wants)
        self.wants = wants


class OpenRow(NamedTuple):
    """What is known of an open job from a look at the index."""

    id: str
    start: datetime


class Facts:
    """One turn's facts. `now` is business time, `real` real time on the store's clock."""

    def __init__(
        self, known: Known, now: datetime, real: datetime, *, lost_from: datetime | None = None
    ) -> None:
        self.known = known
        self.timetable = known.timetable
        self.now, self.real = now, real
        self.lost_from = lost_from or real  # before it nobody is called lost: a take-over, or a store outage
        self.jobs: dict[str, Job | None] = {}
        self.uows: dict[str, Uow | None] = {}
        self.active: dict[str, int] | None = None
        self.looks: dict[tuple[Any, ...], tuple[list[OpenRow], bool]] = {}  # open spans: rows, complete?
        self.ranges: dict[Span, list[str]] = {}
        self.owned: dict[str, list[str]] = {}
        self.dead: set[str] = set()  # workers that a supervisor saw die
        self.asked: dict[str, Any] = {}  # other commands that one is about
        self._base_jobs: dict[str, Job | None] = {}
        self._base_uows: dict[str, Uow | None] = {}
        self._touched: dict[str, dict[str, None]] = {}  # process -> jobs changed in this turn
        self._orders: dict[str, list[tuple[datetime, str]]] = {}  # the same by start, where they are many
        self._entries: dict[str, tuple[str, int]] = {}
        self.events: list[Event] = []
        self.published: list[Outgoing] = []
        self.inserts: list[Any] = []
        self.commands: list[Change] = []
        self.facts: list[Fact] = []
        self.durations: list[tuple[str, int]] = []  # process, milliseconds of an execution that succeeded
        self.rows_base: dict[str, ProcessRow | None] = {}
        self.holds_base: dict[str, Hold | None] = {}
        self._journal: list[tuple[dict[Any, Any], Any, Any]] = []

    # -- undo -------------------------------------------------------------------------------------

    def mark(self) -> tuple[int, ...]:
        """A point to come back to."""
        return (
            len(self._journal),
            len(self.events),
            len(self.published),
            len(self.inserts),
            len(self.commands),
            len(self.facts),
            len(self.durations),
            self.known.seq,
        )

    def back_to(self, mark: tuple[int, ...]) -> None:
        """Undo everything decided since `mark`."""
        journal, events, published, inserts, commands, facts, durations, seq = mark
        if len(self._journal) > journal:
            self._orders.clear()
        while len(self._journal) > journal:
            where, key, old = self._journal.pop()
            if old is _MISSING:
                where.pop(key, None)
            else:
                where[key] = old
        del self.events[events:], self.published[published:], self.inserts[inserts:]
        del self.commands[commands:], self.facts[facts:], self.durations[durations:]
        self.known.seq = seq

    def _put(self, where: dict[Any, Any], key: Any, value: Any) -> None:
        self._journal.append((where, key, where.get(key, _MISSING)))
        where[key] = value

    def _drop(self, where: dict[Any, Any], key: Any) -> None:
        self._journal.append((where, key, where.get(key, _MISSING)))
        where.pop(key, None)

    # -- reading ----------------------------------------------------------------------------------

    def process(self, name: str) -> Process | None:
        """The definition in force, or None if it is registered no more."""
        return self.known.process(name)

    def row(self, name: str) -> ProcessRow:
        """What the store remembers of a process."""
        return self.known.rows[name]

    def job(self, id_: str) -> Job | None:
        """The job, as decided so far; None if there is none."""
        try:
            return self.jobs[id_]
        except KeyError:
            raise Absent(("job", id_)) from None

    def uow(self, id_: str) -> Uow | None:
        """The unit of work, as decided so far; None if there is none."""
        try:
            return self.uows[id_]
        except KeyError:
            raise Absent(("uow", id_)) from None

    def ask(self, id_: str, command: Any) -> None:
        """A command that another one is about, as decided so far."""
        self._put(self.asked, id_, command)

    def active_of(self, process: str) -> int:
        """Unfinished units of work of a process."""
        if self.active is None:
            raise Absent(("active",))
        return self.active.get(process, 0)

    def clip(self, span: Span) -> Span:
        """The part of a span that exists: not before the start, not archived."""
        row = self.known.rows.get(span.process)
        if row is None or row.start is None:
            return span
        floor = row.start if row.horizon is None else max(row.start, row.horizon)
        return span if span.start >= floor else Span(span.process, floor, max(span.end, floor))

    def is_made(self, span: Span) -> bool:
        """Every period of the span that exists has, or had, a row."""
        row = self.known.rows.get(span.process)
        if row is None or (
            row.state in ("expired", "deleted") and span.process not in self.timetable.processes
        ):
            return True
        return span.start >= span.end or (row.frontier is not None and row.frontier >= span.end)

    def first_open(self, span: Span) -> OpenRow | None:
        """The oldest open job that begins in the span, if any."""
        for row in self.open_rows(span):
            return row
        return None

    def _near(self, span: Span) -> Iterable[str]:
        """The jobs changed in this turn that may begin in the span: all of them while they are few."""
        touched = self._touched.get(span.process, {})
        if len(touched) <= LOOK:
            return touched
        order = self._orders.get(span.process)
        if order is None or len(order) != len(touched):  # only undoing takes any away, and forgets the orders
            starts = ((job.start, id_) for id_ in touched if (job := self.jobs[id_]) is not None)
            order = self._orders[span.process] = sorted(starts)
        first = bisect_left(order, (span.start, ""))
        return [id_ for _, id_ in order[first : bisect_left(order, (span.end, ""), first)]]

    def busy_rows(self, span: Span) -> list[OpenRow]:
        """The jobs of a span whose unit of work is unfinished, or held by a worker; oldest first, some at most."""
        look = self.looks.get(("busy", span))
        if look is None:
            raise Absent(("busy", span))
        rows = {row.id: row for row in look[0]}
        for id_ in self._near(span):
            job = self.jobs[id_]
            if job is not None and span.start <= job.start < span.end:
                rows[id_] = OpenRow(id_, job.start)
        busy = []
        for row in sorted(rows.values(), key=lambda r: r.start):
            job = self.jobs.get(row.id)
            if row.id not in self.jobs or (job is not None and (job.uow_open or job.stopping is not None)):
                busy.append(row)
        return busy

    def open_rows(self, span: Span) -> Iterator[OpenRow]:
        """The open jobs that begin in the span, oldest first, as far as was looked."""
        touched = self._near(span)
        key = ("open", span)
        look = self.looks.get(key)
        if look is None:
            raise Absent(("open", span, LOOK))
        rows, complete = look
        candidates = {row.id: row for row in rows}
        for id_ in touched:
            job = self.jobs[id_]
            if job is not None and span.start <= job.start < span.end:
                candidates[id_] = OpenRow(id_, job.start)
        none = True
        for row in sorted(candidates.values(), key=lambda r: r.start):
            job = self.jobs.get(row.id)
            if job is not None and not job.open:
                continue
            none = False
            yield row
        if none and not complete:
            raise Absent(("open", span, 4 * len(rows) + LOOK))

    def jobs_in(self, span: Span) -> list[Job]:
        """All jobs that begin in the span, in order, as decided so far."""
        ids = self.ranges.get(span)
        if ids is None:
            raise Absent(("range", span))
        found = {id_: self.jobs[id_] for id_ in ids}
        for id_ in self._near(span):
            job = self.jobs[id_]
            if job is not None and span.start <= job.start < span.end:
                found[id_] = job
        return sorted((job for job in found.values() if job is not None), key=lambda j: j.start)

    def window(self, process: str, after: datetime | None, size: int) -> tuple[list[str], bool]:
        """Ids of the next open jobs of a process that begin after `after`, and whether these are all.

        Those with an unfinished unit of work are left out: what is under way is decided when it ends.
        """
        key = ("window", process, after, size)
        look = self.looks.get(key)
        if look is None:
            raise Absent(key)
        rows = {row.id: row for row in look[0]}
        last = look[0][-1].start if look[0] and not look[1] else None
        for id_ in self._touched.get(process, {}):
            job = self.jobs[id_]
            if (
                job is not None
                and job.open
                and not job.uow_open
                and (after is None or job.start > after)
                and (last is None or job.start < last)
            ):
                rows[id_] = OpenRow(id_, job.start)
        return [row.id for row in sorted(rows.values(), key=lambda r: r.start)], look[1]

    def span_of(self, job: Job) -> Timeperiod:
        """The timeperiod of a job."""
        process = self.timetable.processes.get(job.process)
        row = self.known.rows.get(job.process)
        if process is None and row is not None and row.qualifier:  # retired: its row knows
            return timeperiod_of(job.timeperiod, Qualifier(row.qualifier), row.grouping)
        if process is None or process.qualifier is Qualifier.INSTANT:
            return timeperiod_of(job.timeperiod, Qualifier.INSTANT)
        return timeperiod_of(job.timeperiod, process.qualifier, process.grouping)

    def hold_on(self, job: Job) -> Hold | None:
        """The hold that stands over a job, the widest first."""
        return next(iter(self.holds_on(job)), None)

    def holds_on(self, job: Job) -> list[Hold]:
        """All holds that stand over a job, the widest first."""
        holds = self.known.holds
        if not holds:
            return []
        tree = self.timetable.tree_of(job.process)
        scopes = ["*", f"process:{job.process}", f"job:{job.id}"]
        if tree is not None:
            scopes.insert(1, f"tree:{tree.name}")
        found = [hold for scope in scopes if (hold := holds.get(scope)) is not None]
        return [hold for hold in found if hold.until is None or hold.until > self.real]
