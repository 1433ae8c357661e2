"""Everything that is stored, compared once a simulated day with everything that the events told.

The checker follows each commit and looks at what that commit was about. Here the rest is looked at: a row that nobody
should have touched. The database itself notes, by triggers, which rows of jobs any statement wrote, whoever sent it;
these are compared each day, and the others are as they were yesterday. All of them, however old, are read every
third simulated month, and at the end. Every unit of work that is kept, the processes and the holds are read each
day. What is about two jobs (a result and its inputs) is looked at again if either of them changed.

What retention takes is no gap: it may take the units of work of a job that ended before its age, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from db.sql import SqlStore
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.records import Hold, ProcessRow
from scheduler.core.uow import Uow
from simulation.almanac import Period
from simulation.checker import Checker
from simulation.model import FINISHED, UOW_FINISHED, Broken, JobView
from simulation.rest import check_newest, check_reason, check_sink

if TYPE_CHECKING:
    from simulation.world import World

Row = tuple[str, str, int, int, str | None]  # id, state, run, version, reason
JOB = ("id", "state", "run", "version", "reason")
UOW = ("id", "state", "attempt", "copied", "history_n")
NOTES = (
    "CREATE TEMP TABLE written (id TEXT)",
    "CREATE TEMP TRIGGER written_1 AFTER INSERT ON main.jobs BEGIN INSERT INTO written VALUES (NEW.id); END",
    "CREATE TEMP TRIGGER written_2 AFTER UPDATE ON main.jobs BEGIN INSERT INTO written VALUES (NEW.id); END",
    "CREATE TEMP TRIGGER written_3 AFTER UPDATE ON main.jobs BEGIN INSERT INTO written VALUES (OLD.id); END",
    "CREATE TEMP TRIGGER written_4 AFTER DELETE ON main.jobs BEGIN INSERT INTO written VALUES (OLD.id); END",
)
QUARTER = 91  # looks, of which one is at every job there is
CHUNK = 250
OPENED = timedelta(hours=12)  # long enough for another leader, where leases last for hours
IN_TIME = timedelta(days=1)  # due for so long at two looks in a row, with nothing in its way: late for good


class Everything(Checker):
    """A checker that can look at everything, for a history that is too long to keep whole."""

    def __init__(self, world: World, keep: timedelta) -> None:
        super().__init__(world)
        self.keep = keep  # units of work of jobs that ended may be gone after this
        self.changed: dict[str, None] = {}  # jobs of which an event told since the last look
        self.unfinished: dict[str, None] = {}
        self.recent: list[str] = []  # jobs that were made within `keep`, oldest first
        self.looks = self.rows_looked_at = self.requests = 0
        self.digest = hashlib.sha256()  # of the whole history
        self._active: Counter[str] = Counter()  # unfinished units of work of each process
        assert isinstance(world.store, SqlStore)
        self._written = _Written(world.store)
        self._told: dict[str, Row] = {}
        self._sealed: list[str] = []  # jobs whose output may be forgotten, oldest first
        self._idle: dict[str, Broken] = {}  # what the last look found to be overdue without a reason
        self._seen: dict[str, datetime] = {}  # up to where the periods of a process were found to be there

    def at_hand(self) -> Iterable[JobView]:
        """Hours and days, say, of the last weeks: a skip of a year would be one of nine thousand jobs."""
        jobs = (self.model.jobs[id_] for id_ in self.recent)
        return (job for job in jobs if job.period.end - job.period.start <= timedelta(days=1))

    def _made(self, process: str, label: str, event: Event) -> JobView:
        found = super()._made(process, label, event)
        self.changed[found.id] = None
        self.recent.append(found.id)
        return found

    def _event(self, event: Event) -> None:
        super()._event(event)
        self.requests += event.kind == "uow.request"
        told = (event.seq, event.kind, event.process, event.timeperiod, event.uow, event.actor, event.at)
        self.digest.update(repr(told).encode())
        if event.timeperiod is not None:
            self.changed[f"{event.process}@{event.timeperiod}"] = None

    # -- the look ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Compare all there is. Raises Broken."""
        self.looks += 1
        for id_ in self.changed:
            self._note(self.model.jobs[id_])
        self.jobs(every=self.looks % QUARTER == 0)
        self._uows()
        self._processes()
        self._periods()
        concerned = dict(self.changed)
        for id_ in self.changed:
            for _, rows in self.related(self.model.jobs[id_], up=True):
                concerned.update((other, None) for other, row in rows if row is not None)
        for id_ in concerned:
            self._job(self.model.jobs[id_])
        late = self.world.clock.business() - IN_TIME
        idle: dict[str, Broken] = {}
        for id_ in self.unfinished:
            job = self.model.jobs[id_]
            if job.period.end < late and (job.settled_at is None or job.settled_at < late):
                found = self._overdue(job)
                if found is not None:
                    idle[id_] = found
        # once may be while nobody leads: a backlog after a suspension is worked off, and the leader died just now
        for id_ in idle.keys() & self._idle.keys():
            raise idle[id_]
        self._idle = idle
        self.changed = {}
        self._forget()

    def _note(self, job: JobView) -> None:
        reason = job.reason if job.state in FINISHED else None
        self._told[job.id] = (job.id, job.state, job.run, job.version, reason)
        if job.finished:
            self.unfinished.pop(job.id, None)
        else:
            self.unfinished[job.id] = None

    def jobs(self, *, every: bool) -> None:
        """Compare the rows of jobs that were written since the last look, or every one."""
        written = self._written.taken()
        if every:
            stored = self.store.select(Job, JOB)
            ids = self._told.keys() | {row[0] for row in stored}
        else:
            ids, stored = {*written, *self.changed}, []
            wanted = sorted(ids)
            for at in range(0, len(wanted), CHUNK):
                stored += self.store.select(Job, JOB, (Where("id", "in", wanted[at : at + CHUNK]),))
        self.rows_looked_at += len(stored)
        rows = {row[0]: row if row[1] in FINISHED else (*row[:4], None) for row in stored}
        for id_ in ids:
            if rows.get(id_) != self._told.get(id_):
                raise Broken(
                    8, f"{id_} is stored as {rows.get(id_)}, its events give {self._told.get(id_)}", id_
                )
        is_open = {row[0] for row in self.store.select(Job, ("id",), (Where("open", "=", True),))}
        if is_open != self.unfinished.keys():
            wrong = sorted(is_open ^ self.unfinished.keys())
            raise Broken(8, f"stored as open and told as finished, or the other way: {wrong[:5]}", *wrong[:5])

    def _uows(self) -> None:
        told = self.model.uows
        stored = self.store.select(Uow, UOW, (), ("id",))
        self.rows_looked_at += len(stored)
        for id_, state, attempt, copied, lines in stored:
            view = told.get(id_)
            if view is None or copied != view.lines:
                known = "no event tells of it" if view is None else f"{view.lines} lines are events"
                raise Broken(8, f"{id_} is stored with {copied} of {lines} lines marked, {known}")
            if lines == copied and (state, attempt) != (view.state, view.attempt):
                raise Broken(8, f"{id_} is stored as {state}, its events give {view.state}", view.job)
        self._active = Counter(
            told[row[0]].job.partition("@")[0] for row in stored if row[1] not in UOW_FINISHED
        )
        before = self.world.clock.real() - self.keep
        for id_ in told.keys() - {row[0] for row in stored}:
            job = self.model.jobs[told[id_].job]
            is_old = job.finished and job.settled_at is not None and job.settled_at < before
            if not is_old or told[id_].state not in UOW_FINISHED:
                raise Broken(8, f"{id_} is gone, and {job.id} is {job.state} since {job.settled_at}", job.id)
            del told[id_]

    def _processes(self) -> None:
        rows = self.store.select(ProcessRow, ("name", "state"))
        if dict(rows) != self.model.processes:
            raise Broken(8, f"processes are stored as {dict(rows)}, told are {self.model.processes}")
        held = {row[0] for row in self.store.select(Hold, ("scope",))}
        if held != self.model.holds.keys():
            raise Broken(8, f"holds are stored on {sorted(held)}, told are {sorted(self.model.holds)}")

    def _periods(self) -> None:
        """Every period that began a while ago has a row; none that was there goes, so each is asked for once."""
        upto = self.world.clock.business() - OPENED
        for name in self.almanac.managed:
            since = self._seen.get(name, self.almanac.start[name])
            for period in self.almanac.between(name, since, upto):
                self._has_row(name, period)
                self._seen[name] = period.end if period.end <= upto else period.start

    def _has_row(self, name: str, period: Period) -> None:
        if f"{name}@{period.label}" not in self.model.jobs:
            raise Broken(4, f"{name} {period.label} began at {period.start} and has no row")

    def _job(self, job: JobView) -> None:
        if not any(row is None or not row.finished for _, rows in self.related(job) for _, row in rows):
            check_newest(self, job)
        if job.uow in self.model.uows and job.finished:
            check_sink(self, job)
            self._sealed.append(job.id)

    def _overdue(self, job: JobView) -> Broken | None:
        """It is due for long: there must be a reason that it is not finished. What is broken if there is none."""
        process = self.world.context.processes[job.process]
        limit = self.model.max_active.get(job.process, process.max_active)
        uow = self.model.uows.get(job.uow or "")
        is_under_way = uow is not None and uow.state not in UOW_FINISHED
        if not is_under_way and self._active[job.process] < limit:  # or it catches up, and waits for a place
            try:
                check_reason(self, job)
            except Broken as broken:
                return broken
        return None

    def _forget(self) -> None:
        """What the virtual world remembers of jobs that ended long ago, and were looked at."""
        before = self.world.clock.real() - self.keep
        for n, id_ in enumerate(self._sealed):
            job = self.model.jobs[id_]
            if job.settled_at is None or job.settled_at >= before:
                self._sealed = self._sealed[n:]
                break
            self.world.sink.rows.pop(id_, None)
            self.world.live.pop(id_, None)
        while self.recent and self.model.jobs[self.recent[0]].period.start < before:
            del self.recent[0]


class _Written:
    """The ids of the jobs that any statement inserted, updated or deleted, noted by the database itself."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        for statement in NOTES:
            self._run(statement)

    def _run(self, sql: str) -> list[tuple[str]]:
        with self._store._session() as session:
            return session.query(sql, [])

    def taken(self) -> set[str]:
        """Those since the last call."""
        found = {row[0] for row in self._run("SELECT DISTINCT id FROM written")}
        self._run("DELETE FROM written")
        return found
