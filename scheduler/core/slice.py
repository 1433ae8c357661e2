"""The slice: one turn's facts, and an overlay of everything decided on them since.

Each input sees what those before it decided. `drain` turns the overlay into net changes: one compare-and-set a
record, however often it changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from scheduler.core.event import Event, history_entries, history_line
from scheduler.core.evolve import difference, evolve, made
from scheduler.core.facts import Absent, Facts
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB, JOB_FINISHED, UOW
from scheduler.core.ports import Change, Outgoing
from scheduler.core.process import Process
from scheduler.core.records import Fact, Hold, ProcessRow
from scheduler.core.uow import Uow, uow_id

SOURCE = "scheduler"


class Item(NamedTuple):
    """One input of a turn: `kind` says which rule looks at `what`."""

    kind: str  # uow, resend, job, fill, scan, advance, fire, command
    what: Any
    after: Any = None  # fill: where the last look ended


class Slice(Facts):
    """One turn: what may be known, and what was decided."""

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
        touched = self._touched.setdefault(job.process, {})
        if job.id not in touched:
            self._put(touched, job.id, None)

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
            self._drop(self.known.holds, scope)
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
