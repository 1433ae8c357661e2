"""Retention: what is over and old leaves the store, a bounded batch a pass.

The event stream is the store's own list of what happened, oldest first. So a pass does not look for what is old:
it walks the stream, from a mark of its own for each kind of age, until an event is too young. What an event names
is looked at then:

* its unit of work is over and let go of: its log goes, after `log_days`;
* its job is over (and nothing of it is `stopping`): its units of work go with their logs, after `uow_days`. A
  freerun job goes altogether. The row of a managed job stays: by it no period is made, run or reopened again;
* the same job's events go, after `event_days`: the newest of them *becomes* a `job.snapshot`, which says all that
  the row says. It keeps its number, so the order stays, the newest number is never given twice, and a replay that
  begins at the snapshot ends at the stored record. Events of periods that opened one after another become one.

What is unfinished is left alone, however old; it comes up again by the event that finishes it. What people did is
never pruned: commands, holds, what became of processes. Numbers (source, seq) have gaps afterwards.

The marks are a fact, saved in the same transaction; it bears the leader's lease, so a deposed leader prunes
nothing. No reader of this file's outcome is needed for correctness: a pass that never comes costs disk, no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.lifecycle import UOW_FINISHED
from scheduler.core.ports import Change, Clock, Store, Transaction, Where
from scheduler.core.records import BoxProcess, Fact, Lease, LogChunk, ProcessRow
from scheduler.core.slice import SOURCE
from scheduler.core.timeperiod import Qualifier, following, timeperiod_of
from scheduler.core.uow import Uow

FACT = "retention"  # {"logs": seq, "uows": seq, "events": seq}: up to where each walk came
LIMIT = 500  # rows that one pass deletes
LOOK = 100  # events that one walk looks at: a pass takes some milliseconds
SNAPSHOT = "job.snapshot"
ADVANCE = "process.advance"
ENDS = frozenset(f"uow.{verb}" for verb in ("succeed", "no_data", "give_up", "cancel", "stopped", "let_go"))
BY_WORKERS = frozenset(
    f"uow.{verb}" for verb in ("accept", "succeed", "no_data", "fail", "release", "stopped")
)
# Of what the scheduler itself did, this is told for ever: it is rare, and the state of processes follows from it.
KEPT = ("process.", "hold.", "clock.")
PASSING = frozenset({"process.fire_skipped"})
_IN_KEY = frozenset({"id", "process", "timeperiod", "start", "end"})


@dataclass(frozen=True, slots=True)
class Policy:
    """Ages in days of real time. Logs leave with their unit of work at the latest, its events not before it."""

    log_days: int = 14
    uow_days: int = 90
    event_days: int = 90


@dataclass(slots=True)
class Pruned:
    """What one pass did. `more`: the batch was full, the next pass finds more."""

    logs: int = 0
    uows: int = 0
    jobs: int = 0  # freerun ones
    events: int = 0
    snapshots: int = 0
    more: bool = False


class _Line(NamedTuple):
    """What a walk reads of an event."""

    seq: int
    at: datetime
    kind: str
    actor: str
    process: str | None
    timeperiod: str | None
    uow: str | None


def prune(
    store: Store, lease: Lease | None, clock: Clock, policy: Policy | None = None, limit: int = LIMIT
) -> Pruned:
    """One pass. Called by the leader's own thread, between turns: nobody else writes what is over.

    Raises LeaseLost, and then nothing was pruned; StoreUnavailable.
    """
    found = _Pass(store, clock.real(), policy or Policy(), limit)
    found.look()
    if not found.writes():
        return found.pruned
    with store.transaction(lease) as tx:
        found.write(tx)
    return found.pruned


def snapshot(job: Job) -> dict[str, Any]:
    """The data of a `job.snapshot`: every field of the record that is not as a new one's, times as ISO text."""
    said: dict[str, Any] = {"state": job.state}
    for field in fields(Job):
        value = getattr(job, field.name)
        if field.name not in _IN_KEY and value != field.default:
            is_time = isinstance(value, datetime)
            said[field.name] = value.isoformat(timespec="milliseconds") if is_time else value
    return said


class _Pass:
    """One pass: first it reads and notes what is to go, then all is written at once."""

    def __init__(self, store: Store, now: datetime, policy: Policy, limit: int) -> None:
        self.store, self.limit, self.left = store, limit, limit
        ages = (policy.log_days, policy.uow_days, max(policy.event_days, policy.uow_days))
        self.before_logs, self.before_uows, self.before_events = (now - timedelta(days=d) for d in ages)
        self.pruned = Pruned()
        self.marks: dict[str, int] = {}
        self.old_marks: dict[str, int] = {}
        self.last = 0  # the newest event is never deleted: numbering goes on from it
        self.kinds: dict[str, str] = {}  # process -> managed, freerun, daemon
        self.periods: dict[str, tuple[str, int]] = {}
        self.logs: list[tuple[Where, ...]] = []
        self.uows: list[str] = []
        self.jobs: list[str] = []
        self.events: dict[str, set[int]] = {SOURCE: set()}  # source -> numbers
        self.changes: dict[int, dict[str, Any]] = {}  # number -> what the event becomes

    # -- looking ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Note what is to go, within the limit."""
        last = self.store.select(Event, ("seq",), (Where("source", "=", SOURCE),), ("-seq",), 1)
        fact = self.store.get(Fact, FACT)
        self.old_marks = dict(fact.value) if fact is not None else {}
        self.marks = dict(self.old_marks)
        self.last = last[0][0] if last else 0
        for name, kind, qualifier, grouping in self.store.select(
            ProcessRow, ("name", "kind", "qualifier", "grouping")
        ):
            self.kinds[name], self.periods[name] = kind, (qualifier, grouping)
        self._walk("logs", self.before_logs, self.last, self._logs)
        self._walk("uows", self.before_uows, self.last, self._uows)
        # events are how units of work are found: those go first
        self._walk("events", self.before_events, min(self.last, self.marks.get("uows", 0) + 1), self._events)
        self._boxes()

    def _walk(self, name: str, before: datetime, below: int, handle: Any) -> None:
        """Go on in the stream; the mark moves past what needs no second look."""
        after = self.marks.get(name, 0)
        where = (Where("source", "=", SOURCE), Where("seq", ">", after), Where("seq", "<", below))
        lines = [_Line(*row) for row in self.store.select(Event, _Line._fields, where, ("seq",), LOOK)]
        old = list(takewhile(lambda line: line.at < before, lines))
        if not old:
            return
        done = handle(old)
        if done:
            self.marks[name] = old[done - 1].seq
        self.pruned.more |= done < len(old) or len(old) == LOOK

    def _logs(self, lines: Sequence[_Line]) -> int:
        ids = list(dict.fromkeys(line.uow for line in lines if line.uow is not None and line.kind in ENDS))
        if not ids:
            return len(lines)
        seen = ("id", "state", "owner", "stopped_at", "lease_until")
        busy = {
            id_
            for id_, state, owner, stopped, until in self.store.select(Uow, seen, (Where("id", "in", ids),))
            if state not in UOW_FINISHED
            or (owner is not None and stopped is None and until is not None and until >= self.before_logs)
        }
        return len(lines) if self._take_logs([id_ for id_ in ids if id_ not in busy]) else 0

    def _take_logs(self, uows: list[str]) -> bool:
        """Note the logs of these units of work; False if there are more of them than may go now."""
        if not uows:
            return True
        where = Where("uow", "in", uows)
        chunks = self.store.select(LogChunk, ("uow", "attempt", "n"), (where,), limit=self.left + 1)
        if len(chunks) <= self.left:
            self.left -= len(chunks)
            if chunks:
                self.logs.append((where,))
            return True
        upto = {(uow, attempt): n for uow, attempt, n in chunks[: self.left]}
        for (uow, attempt), n in upto.items():
            self.logs.append((Where("uow", "=", uow), Where("attempt", "=", attempt), Where("n", "<=", n)))
        self.left = 0
        return False

    def _over(self, lines: Iterable[_Line], before: datetime) -> dict[str, Job | None]:
        """The jobs that are named and are over since `before`; None: there is no row."""
        ids = list(dict.fromkeys(f"{line.process}@{line.timeperiod}" for line in lines if line.timeperiod))
        if not ids:
            return {}
        rows = {job.id: job for job in self.store.find(Job, (Where("id", "in", ids),))}
        found: dict[str, Job | None] = {}
        for id_ in ids:
            job = rows.get(id_)
            if job is None or (not job.open and (job.settled_at is None or job.settled_at < before)):
                found[id_] = job
        return found

    def _uows(self, lines: Sequence[_Line]) -> int:
        over = self._over(lines, self.before_uows)
        seen: set[str] = set()
        for n, line in enumerate(lines):
            id_ = f"{line.process}@{line.timeperiod}"
            job = over.get(id_)
            if job is None or id_ in seen:
                continue
            seen.add(id_)
            if not self._take_uows(job):
                return n
        return len(lines)

    def _take_uows(self, job: Job) -> bool:
        """Note the units of work of a job, and a freerun job itself; False if some have to wait for a pass."""
        room = self.left
        where = (Where("id", "prefix", f"{job.id}#"),)
        rows = self.store.select(Uow, ("id", "state", "dirty"), where, ("id",), room + 1)
        over = [id_ for id_, state, dirty in rows if state in UOW_FINISHED and not dirty]
        if not self._take_logs(over):
            return False
        taken = over[: self.left]
        self.left -= len(taken)
        self.uows += taken
        if len(rows) > room or len(taken) < len(over):
            return False
        is_left = len(over) < len(rows)  # a readiness check, say: it comes up again when it ends
        return True if is_left or self.kinds.get(job.process) != "freerun" else self._take_job(job)

    def _take_job(self, job: Job) -> bool:
        lines = self._events_of(job.process, job.timeperiod)
        if lines and lines[0].seq >= self.last:
            return True  # its last event is the newest of all: it comes up again when it is not
        if len(lines) >= self.left:
            self._drop([line.seq for line in lines[1:]])  # the newest stays, so that it comes up again
            return False
        self._drop([line.seq for line in lines])
        self.jobs.append(job.id)
        self.left -= 1
        return True

    def _events_of(self, process: str, timeperiod: str) -> list[_Line]:
        """The events of a job, newest first, one more than may go."""
        where = (
            Where("process", "=", process),
            Where("timeperiod", "=", timeperiod),
            Where("source", "=", SOURCE),
        )
        rows = self.store.select(Event, _Line._fields, where, ("-seq",), self.left + 1)
        gone = self.events[SOURCE]
        return [line for row in rows if (line := _Line(*row)).seq not in gone]

    def _drop(self, numbers: Sequence[int], source: str = SOURCE) -> None:
        taken = list(numbers)[: self.left]
        self.left -= len(taken)
        self.events.setdefault(source, set()).update(taken)

    # -- events -----------------------------------------------------------------------------------

    def _events(self, lines: Sequence[_Line]) -> int:
        over = self._over(lines, self.before_events)
        advances = self._advances(lines)
        seen: set[str] = set()
        for n, line in enumerate(lines):
            if self.left <= 1:
                return n
            if line.timeperiod is not None and line.process is not None:
                id_ = f"{line.process}@{line.timeperiod}"
                if id_ in seen or id_ not in over:
                    continue
                seen.add(id_)
                if not self._compact(line.process, line.timeperiod, over[id_]):
                    return n
            elif line.kind == ADVANCE:
                self._join(advances[line.seq], advances)
            elif self._by_machine(line) and self._is_passing(line.kind):
                self._drop([line.seq])
        return len(lines)

    @staticmethod
    def _is_passing(kind: str) -> bool:
        return kind in PASSING or not kind.startswith(KEPT)

    def _by_machine(self, line: _Line) -> bool:
        """The scheduler, a worker (box/name), a box, or code that speaks as its process."""
        actor = line.actor
        if actor == SOURCE or line.kind in BY_WORKERS:
            return True
        return "/" in actor or actor.startswith("box:") or actor in self.kinds

    def _compact(self, process: str, timeperiod: str, job: Job | None) -> bool:
        """Leave one event of a job that is over, as its snapshot; none if the job is gone."""
        room = self.left
        lines = self._events_of(process, timeperiod)
        old = [line for line in lines if line.at < self.before_events and self._by_machine(line)]
        if job is None:
            self._drop([line.seq for line in old if line.seq < self.last])
        elif len(old) > 1:
            newest, *others = old
            self._drop([line.seq for line in others])
            if newest.kind != SNAPSHOT:
                self._become_snapshot(newest.seq, job)
        is_stuck = room == self.limit and self.left == room  # more acts of people than a pass looks at
        return len(lines) <= room or is_stuck

    def _become_snapshot(self, seq: int, job: Job) -> None:
        self.changes[seq] = {
            "kind": SNAPSHOT,
            "uow": None,
            "ref": None,
            "actor": SOURCE,
            "severity": "debug",
            "message": "what happened before was pruned",
            "data": snapshot(job),
        }
        self.pruned.snapshots += 1

    def _advances(self, lines: Sequence[_Line]) -> dict[int, Event]:
        """The events of opened periods among these, whole."""
        numbers = [line.seq for line in lines if line.kind == ADVANCE]
        if not numbers:
            return {}
        where = (Where("source", "=", SOURCE), Where("seq", "in", numbers))
        return {event.seq: event for event in self.store.find(Event, where, ("seq",))}

    def _join(self, event: Event, advances: dict[int, Event]) -> None:
        """Periods that opened right after those of an older event: that one tells of these too."""
        first = self._advance_before(event, advances)
        if first is None or not self._follows(first, event):
            return
        told, also = self._told(first), event.data or {}
        told = {**told, "to": also["to"], "jobs": told["jobs"] + also["jobs"]}
        self.changes[first.seq] = {"data": told, "message": f"{told['jobs']} periods opened"}
        self._drop([event.seq])

    def _told(self, event: Event) -> dict[str, Any]:
        return self.changes.get(event.seq, {}).get("data") or event.data or {}

    def _advance_before(self, event: Event, advances: dict[int, Event]) -> Event | None:
        gone = self.events[SOURCE]
        here = [
            e
            for e in advances.values()
            if e.process == event.process and e.seq < event.seq and e.seq not in gone
        ]
        if here:
            return max(here, key=lambda e: e.seq)
        where = (
            Where("process", "=", event.process),
            Where("timeperiod", "null"),
            Where("source", "=", SOURCE),
            Where("seq", "<", event.seq),
        )
        rows = self.store.find(Event, where, ("-seq",), 20)
        found = next((e for e in rows if e.kind == ADVANCE and e.seq not in gone), None)
        if found is not None:
            advances[found.seq] = found
        return found

    def _follows(self, first: Event, event: Event) -> bool:
        told, also = self._told(first), event.data or {}
        if told.get("labels") or also.get("labels") or event.process not in self.periods:
            return False
        qualifier, grouping = self.periods[event.process]
        end = timeperiod_of(told["to"], Qualifier(qualifier), grouping)
        return bool(following(end).label == also["from"])

    def _boxes(self) -> None:
        """Events of the supervisors; nothing else stands on them."""
        for (box,) in dict.fromkeys(self.store.select(BoxProcess, ("box",))):
            if self.left <= 0:
                self.pruned.more = True
                return
            source = f"box:{box}"
            where = (Where("source", "=", source),)
            rows = self.store.select(Event, ("seq", "at"), where, ("seq",), self.left + 1)
            old = [seq for seq, at in takewhile(lambda row: row[1] < self.before_events, rows)]
            if len(old) == len(rows) and len(rows) <= self.left:
                old = old[:-1]  # the newest of all
            self.pruned.more |= len(old) > self.left
            self._drop(old, source)

    # -- writing ----------------------------------------------------------------------------------

    def writes(self) -> bool:
        """Anything to write, if only a mark."""
        is_moved = self.marks != self.old_marks
        return bool(is_moved or self.logs or self.uows or self.changes or any(self.events.values()))

    def write(self, tx: Transaction) -> None:
        """All of it; the transaction belongs to the leader."""
        done = self.pruned
        for where in self.logs:
            done.logs += tx.delete(LogChunk, where)
        if self.uows:
            over = Where("state", "in", tuple(UOW_FINISHED))
            done.uows = tx.delete(Uow, (Where("id", "in", self.uows), over))
        if self.jobs:
            done.jobs = tx.delete(Job, (Where("id", "in", self.jobs), Where("open", "=", False)))
        for source, numbers in self.events.items():
            if numbers:
                where = (Where("source", "=", source), Where("seq", "in", sorted(numbers)))
                done.events += tx.delete(Event, where)
        changes = [
            Change(Event, (SOURCE, seq), {}, sets)
            for seq, sets in self.changes.items()
            if seq not in self.events[SOURCE]
        ]
        if changes:
            tx.update(changes)
        if self.marks != self.old_marks and not tx.insert([Fact(key=FACT, value=self.marks)], ignore=True):
            tx.update([Change(Fact, FACT, {}, {"value": self.marks})])
