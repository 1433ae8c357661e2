"""The slice: what a decision may know, and what was decided on it.

`Known` is what the leading scheduler keeps between turns: process rows, holds, the last event number.
It is the only writer of those, and reads them anew at take-over and after every failed commit.

A `Slice` is one turn: the facts that were gathered, and an overlay of everything decided since, so
that each input sees what those before it decided. Asking for a fact that was not gathered raises
`Absent`, which names it; the engine gathers it and decides that input again (`mark` and `back_to`
undo what it had begun). So the core reads as if it could ask the store, and never does.

`drain` turns the overlay into net changes: one compare-and-set a record, however often it changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from scheduler.core.event import Event, history_entries, history_line
from scheduler.core.evolve import difference, evolve, made
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB, JOB_FINISHED, UOW
from scheduler.core.ports import Change, Outgoing
from scheduler.core.process import Process
from scheduler.core.records import Fact, Hold, ProcessRow
from scheduler.core.timeperiod import Qualifier, Timeperiod, timeperiod_of
from scheduler.core.timetable import Span, Timetable
from scheduler.core.trigger import parse_trigger
from scheduler.core.uow import Uow, uow_id

SOURCE = "scheduler"
LOOK = 64  # rows a look at the store is bounded to


class Absent(Exception):
    """A fact that was not gathered. `wants` are tuples: ("job", id), ("uow", id), ("open", span, n), …"""

    def __init__(self, *wants: tuple[Any, ...]) -> None:
        super().__init__(wants)
        self.wants = wants


class Item(NamedTuple):
    """One input of a turn: `kind` says which rule looks at `what`."""

    kind: str  # uow, resend, job, fill, scan, advance, fire, command
    what: Any
    after: Any = None  # fill: where the last look ended


class OpenRow(NamedTuple):
    """What is known of an open job from a look at the index."""

    id: str
    start: datetime


@dataclass(slots=True)
class Known:
    """What the leader keeps between turns."""

    timetable: Timetable
    rows: dict[str, ProcessRow] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    seq: int = 0  # number of the last event
    crowded: set[str] = field(default_factory=set)  # a ready job of these found no place
    ask_again: dict[str, datetime] = field(
        default_factory=dict
    )  # job -> when its readiness is asked next (real)
    definitions: dict[str, tuple[Any, Process]] = field(default_factory=dict)
    triggers: dict[str, str] = field(default_factory=dict)  # of freerun processes, as the last context said

    def process(self, name: str) -> Process | None:
        """The definition in force: the context's (or the entry's base), under the operator's overrides."""
        row = self.rows.get(name)
        cached = self.definitions.get(name)
        if cached is not None and cached[0] is row:
            return cached[1]
        base = self.timetable.processes.get(name)
        if row is None:
            return base
        if base is None and row.definition is not None:
            base = self._entry(row)
        if base is None:
            return None
        process = _overridden(base, row)
        self.definitions[name] = (row, process)
        return process

    def _entry(self, row: ProcessRow) -> Process | None:
        definition = row.definition or {}
        base = self.timetable.processes.get(str(definition.get("base")))
        if base is None:
            return None
        zone = base.trigger.time_zone if base.trigger is not None else "UTC"
        text = definition.get("trigger")
        trigger = parse_trigger(text, time_zone=zone) if text else None
        arguments = {**base.arguments, **(definition.get("arguments") or {})}
        return replace(base, name=row.name, arguments=arguments, trigger=trigger)


def _overridden(process: Process, row: ProcessRow) -> Process:
    changes: dict[str, Any] = {}
    for key, override in row.overrides.items():
        if key == "trigger":
            old = process.trigger
            start = old.start if old else None
            end = old.end if old else None
            zone = old.time_zone if old else "UTC"
            changes["trigger"] = parse_trigger(override["value"], start=start, end=end, time_zone=zone)
        elif key in ("priority", "max_active"):
            changes[key] = override["value"]
        elif key == "tags":
            changes[key] = tuple(override["value"])
    return replace(process, **changes) if changes else process


class Slice:
    """One turn's facts and decisions. `now` is business time, `real` real time, `store_now` the store's."""

    def __init__(
        self, known: Known, now: datetime, real: datetime, *, lost_from: datetime | None = None
    ) -> None:
        self.known = known
        self.timetable = known.timetable
        self.now, self.real = now, real
        self.lost_from = lost_from  # before it nobody is called lost: a take-over, or a store outage
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

    # -- deciding ---------------------------------------------------------------------------------

    def emit(
        self, kind: str, message: str = "", *, severity: str = "info", actor: str = SOURCE, **about: Any
    ) -> int:
        """Append an event; returns its number. `about`: process, timeperiod, uow, ref, data, at."""
        self.known.seq += 1
        name = about.get("process")
        process = self.known.process(name) if name else None
        event = {
            "source": SOURCE,
            "seq": self.known.seq,
            "at": self.real,
            "business_at": self.now,
            "kind": kind,
            "actor": actor,
            "tags": " ".join(process.tags) if process is not None else "",
            "severity": severity,
            "message": message,
        }
        event.update(about)
        self.events.append(made(Event, event))
        return self.known.seq

    def add_job(self, job: Job) -> Job:
        """A row that was not there."""
        self._put(self._base_jobs, job.id, None)
        self._set_job(job)
        return job

    def change_job(
        self,
        job: Job,
        verb: str | None = None,
        *,
        message: str = "",
        severity: str = "info",
        actor: str = SOURCE,
        data: dict[str, Any] | None = None,
        **sets: Any,
    ) -> Job:
        """A job after `verb` (checked against the table, recorded as an event), or with marks set."""
        assert self.jobs.get(job.id) is job, f"{job.id} was decided on an outdated copy"
        if verb is not None:
            state = JOB.successor(f"job {job.id}", job.state, verb)
            finished = state in JOB_FINISHED
            note = {
                "state": state,
                "reason": sets.get("reason"),
                "run": sets.get("run", job.run),
                **(data or {}),
            }
            seq = self.emit(
                f"job.{verb}",
                message,
                severity=severity,
                actor=actor,
                process=job.process,
                timeperiod=job.timeperiod,
                data={key: value for key, value in note.items() if value is not None},
            )
            sets.update(state=state, version=job.version + 1)
            if finished:
                sets.setdefault("settled_seq", seq)
                sets.setdefault("settled_at", self.real)
        if job.id not in self._base_jobs:
            self._put(self._base_jobs, job.id, job)
        state, stopping = sets.get("state", job.state), sets.get("stopping", job.stopping)
        sets["open"] = state not in JOB_FINISHED or stopping is not None
        changed = evolve(job, sets)
        self._set_job(changed)
        return changed

    def _set_job(self, job: Job) -> None:
        self._put(self.jobs, job.id, job)
        self._put(self._touched.setdefault(job.process, {}), job.id, None)

    def add_uow(self, job: Job, process: Process, *, final: bool, kind: str = "work") -> Uow:
        """A new unit of work of a job, requested and to be published."""
        run = job.run + 1 if kind == "work" else job.checks + 1
        id_ = uow_id(job.id, run) if kind == "work" else f"{job.id}#check-{run}"
        cursor = job.cursor if process.machine == "continuous" and kind == "work" else None
        entry = self.known.rows[job.process].definition if job.process in self.known.rows else None
        arguments = job.arguments
        if entry and arguments is None:  # workers know the base, not the entry
            arguments = dict(process.arguments)
        line = history_line("request", "requested", self.real, SOURCE, attempt=1)
        uow = Uow(
            id=id_,
            process=job.process,
            timeperiod=job.timeperiod,
            run=run,
            kind=kind,
            queue=process.queue,
            priority=process.priority,
            final=final,
            start=job.start,
            end=job.end,
            cursor=cursor,
            arguments=arguments,
            definition=entry.get("base") if entry else None,
            created_at=self.real,
            requested_at=self.real,
            history=line,
            history_n=1,
            copied=1,
        )
        self._put(self._base_uows, id_, None)
        self._put(self.uows, id_, uow)
        self._copy_line(uow, 1, "request", self.real, SOURCE, "", {"state": "requested", "attempt": 1})
        if kind == "work":
            self._count(job.process, 1)
        return uow

    def change_uow(
        self, uow: Uow, verb: str | None = None, *, actor: str = SOURCE, message: str = "", **sets: Any
    ) -> Uow:
        """A unit of work after `verb` (one history line, one event), or with marks set."""
        assert self.uows.get(uow.id) is uow, f"{uow.id} was decided on an outdated copy"
        if uow.id not in self._base_uows:
            self._put(self._base_uows, uow.id, uow)
        if verb is None:
            changed = evolve(uow, sets)
            self._put(self.uows, uow.id, changed)
            return changed
        state = UOW.successor(f"unit of work {uow.id}", uow.state, verb)
        note = {"attempt": sets.get("attempt", uow.attempt)}
        line = history_line(verb, state, self.real, actor, message, **note)
        old, n = self._entries.get(uow.id, ("", 0))
        self._put(self._entries, uow.id, (old + line, n + 1))
        sets.update(
            state=state,
            version=uow.version + 1,
            history=uow.history + line,
            history_n=uow.history_n + 1,
        )
        changed = evolve(uow, sets)
        self._put(self.uows, uow.id, changed)
        if changed.is_finished and uow.kind == "work":
            self._count(uow.process, -1)
        return self.copy_history(changed)

    def _count(self, process: str, by: int) -> None:
        if self.active is None:
            raise Absent(("active",))
        self._put(self.active, process, self.active.get(process, 0) + by)

    def copy_history(self, uow: Uow) -> Uow:
        """Turn the history lines that are not in `events` yet into events; move the mark."""
        if uow.copied >= uow.history_n:
            return uow
        self._copy(uow, uow.copied)
        if uow.id not in self._base_uows:
            self._put(self._base_uows, uow.id, uow)
        changed = evolve(uow, {"copied": uow.history_n, "dirty": False})
        self._put(self.uows, uow.id, changed)
        return changed

    def _copy(self, uow: Uow, after: int) -> None:
        for n, line in enumerate(history_entries(uow.history, after), start=after + 1):
            verb, at = line.pop("verb"), datetime.fromisoformat(line.pop("at"))
            self._copy_line(uow, n, verb, at, line.pop("actor"), line.pop("message", ""), line)

    def _copy_line(
        self, uow: Uow, n: int, verb: str, at: datetime, actor: str, message: str, data: dict[str, Any]
    ) -> None:
        self.emit(
            f"uow.{verb}",
            message,
            severity=_SEVERITIES.get(data["state"], "debug"),
            actor=actor,
            at=at,
            process=uow.process,
            timeperiod=uow.timeperiod,
            uow=uow.id,
            ref=f"{uow.id}/{n}",
            data=data,
        )

    def publish(self, queue: str, body: str, priority: int = 5) -> None:
        """Send a message once this turn is saved."""
        self.published.append(Outgoing(queue, body, priority))

    def change_row(self, row: ProcessRow, **sets: Any) -> ProcessRow:
        """A process row with fields set."""
        assert self.known.rows.get(row.name) is row, f"process row {row.name} was decided on an outdated copy"
        if row.name not in self.rows_base:
            self._put(self.rows_base, row.name, row)
        changed = evolve(row, sets)
        self._put(self.known.rows, row.name, changed)
        return changed

    def add_row(self, row: ProcessRow) -> ProcessRow:
        """A process row that was not there."""
        self._put(self.rows_base, row.name, None)
        self._put(self.known.rows, row.name, row)
        return row

    def set_hold(self, scope: str, hold: Hold | None) -> None:
        """Put a hold, or lift it with None."""
        if scope not in self.holds_base:
            self._put(self.holds_base, scope, self.known.holds.get(scope))
        if hold is None:
            self._journal.append((self.known.holds, scope, self.known.holds.get(scope, _MISSING)))
            self.known.holds.pop(scope, None)
        else:
            self._put(self.known.holds, scope, hold)

    # -- the outcome ------------------------------------------------------------------------------

    def drain(self) -> Decision:
        """Everything decided, as net changes."""
        inserts: list[Any] = list(self.inserts)
        changes: list[Change] = []
        marks: list[Change] = []
        for id_, before in self._base_jobs.items():
            after = self.jobs[id_]
            assert after is not None
            if before is None:
                inserts.append(after)
            elif sets := difference(before, after):
                expect = {"state": before.state, "version": before.version}
                changes.append(Change(Job, id_, expect, sets))
        for id_, uow_before in self._base_uows.items():
            uow_after = self.uows[id_]
            assert uow_after is not None
            if uow_before is None:
                inserts.append(uow_after)
            elif sets := difference(uow_before, uow_after):
                self._drain_uow(uow_before, sets, changes, marks)
        self._drain_rows(inserts, changes)
        lifted = []
        for scope, hold_before in self.holds_base.items():
            hold_after = self.known.holds.get(scope)
            if hold_before is not None:
                lifted.append(scope)
            if hold_after is not None:
                inserts.append(hold_after)
        return Decision(
            inserts=inserts,
            changes=changes,
            marks=marks,
            lifted=lifted,
            commands=self.commands,
            facts=list({fact.key: fact for fact in self.facts}.values()),  # the last one wins
            events=self.events,
            messages=self.published,
        )

    def _drain_rows(self, inserts: list[Any], changes: list[Change]) -> None:
        for name, before in self.rows_base.items():
            after = self.known.rows[name]
            if before is None:
                inserts.append(after)
            elif sets := difference(before, after):
                changes.append(Change(ProcessRow, name, {}, sets))

    def _drain_uow(
        self, before: Uow, sets: dict[str, Any], changes: list[Change], marks: list[Change]
    ) -> None:
        entry, n = self._entries.get(before.id, (None, 0))
        sets.pop("history", None)
        sets.pop("history_n", None)
        if entry is None:
            # marks: nothing of the state changes. `copied` is the leader's alone, and its events are saved with
            # it; the others hold only as long as the history is no longer than was seen
            if before.state in _SILENT:
                marks.append(Change(Uow, before.id, {}, sets))
                return
            copied = sets.pop("copied", None)
            if (
                copied is not None
            ):  # first of all: changes of one shape that follow each other are one statement
                marks.insert(0, Change(Uow, before.id, {}, {"copied": copied}))
            if sets:
                seen = {"version": before.version, "history_n": before.history_n}
                marks.append(Change(Uow, before.id, seen, sets))
            return
        expect: dict[str, Any] = {"state": before.state, "version": before.version}
        if before.state == "in_progress":
            expect["lease_until"] = before.lease_until  # a renewal since then proves the worker alive
        changes.append(Change(Uow, before.id, expect, sets, entry, n))


_MISSING: Any = object()
_SILENT = ("processed", "noop")  # nobody writes another line to these
# of an event, by a unit of work's new state
_SEVERITIES = {"processed": "success", "invalid": "warning", "canceled": "warning"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a turn decided: writes, to be saved in one transaction; then messages, to be sent."""

    inserts: list[Any]
    changes: list[Change]
    marks: list[Change]
    lifted: list[str]  # scopes of holds to delete
    commands: list[Change]
    facts: list[Fact]
    events: list[Event]
    messages: list[Outgoing]

    def is_empty(self) -> bool:
        """Nothing to save."""
        return not (
            self.inserts
            or self.changes
            or self.marks
            or self.lifted
            or self.commands
            or self.facts
            or self.events
        )
