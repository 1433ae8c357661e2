"""The checker: follows the events of every commit and says which invariant is broken.

It believes the events and its own arithmetic. Rows of the store are read only to be compared with what the
events say, and for what no event tells (cursors, how many units of work are unfinished).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scheduler.core.command import Command
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Outgoing, Where
from scheduler.core.records import LEADER, Hold, Lease, ProcessRow
from scheduler.core.uow import Uow, job_of
from simulation.almanac import Almanac, Period
from simulation.cascades import CascadeRules, Done
from simulation.executor import Execution
from simulation.model import (
    FINISHED,
    GONE,
    JOB_MOVES,
    PEOPLE,
    UOW_FINISHED,
    UOW_MOVES,
    Broken,
    JobView,
    Model,
    UowView,
)

if TYPE_CHECKING:
    from simulation.world import World

UNFINISHED = ("requested", "in_progress", "invalid")


class Checker(CascadeRules):
    """One run's conscience."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.almanac = Almanac(world.context)
        self.model = Model()
        self.frontiers: dict[str, datetime | None] = {}  # as the last commit left them; no event tells
        self._begin_commit()

    def at_hand(self) -> Iterable[JobView]:
        """The jobs that people and late data are about."""
        return self.model.jobs.values()

    def _begin_commit(self) -> None:
        self.before: dict[str, str] = {}  # job -> its state before this commit, for those that changed
        self.reopened: set[str] = set()
        self.touched_uows: dict[str, None] = {}
        self.done: list[Done] = []
        self.told: list[Event] = []
        self.was: dict[str, str] = {}
        self.rows: dict[str, Uow] = {}
        self.at_once: set[str] = set()  # jobs that a run_now of this commit requested
        self.came: set[str] = set()
        self.limits: dict[int, int] = {}  # request (its event) -> max_active when it was made
        self.submitted = False

    # -- a commit ---------------------------------------------------------------------------------

    def committed(self, holder: str, wrote: set[type]) -> None:
        """A scheduler's transaction is in the store: everything about it must be right; its lease, if it is all.

        `wrote`: the kinds of records.
        """
        lease = self.store.get(Lease, LEADER)
        if lease is not None and lease.holder != holder:
            raise Broken(12, f"{holder} committed while {lease.holder} leads (token {lease.token})")
        if not wrote:
            return
        where = (Where("source", "=", "scheduler"), Where("seq", ">", self.model.seq))
        events = self.store.find(Event, where, ("seq",))
        if events:
            self._follow(events)
        if ProcessRow in wrote:
            self.frontiers = dict(self.store.select(ProcessRow, ("name", "frontier")))

    def _follow(self, events: Sequence[Event]) -> None:
        self._begin_commit()
        ids = sorted({e.uow for e in events if e.uow is not None})
        if ids:
            self.rows = {u.id: u for u in self.store.find(Uow, (Where("id", "in", ids),))}
        verbs = {(e.data or {}).get("verb") for e in events if e.kind == "command.done"}
        self.submitted = bool(verbs & {"run_now", "submit"})
        hurried = self._run_now(events) if "run_now" in verbs else {}
        for event in events:
            if event.seq != self.model.seq + 1:
                raise Broken(8, f"event {event.seq} follows event {self.model.seq}")
            self.model.seq = event.seq
            self._event(event)
            for id_ in hurried.get(event.seq, ()):
                self.model.jobs[id_].hurried = True
        self._compare()
        self._in_flight(events)
        self._cascades()

    def _run_now(self, events: Sequence[Event]) -> dict[int, list[str]]:
        """What each run_now of this commit came to: jobs requested at once, and those whose readiness is asked
        first, by the number of the command's event; no event tells which, the command's row does."""
        asked: dict[int, list[str]] = {}
        for event in events:
            data = event.data or {}
            if event.kind == "command.done" and data.get("verb") == "run_now":
                command = self.store.get(Command, str(data.get("command")))
                rows = (command.outcome or {}).get("jobs", ()) if command is not None else ()
                self.at_once |= {row["job"] for row in rows if row["effect"] != "check"}
                asked[event.seq] = [row["job"] for row in rows if row["effect"] == "check"]
        return asked

    def _event(self, event: Event) -> None:
        entity, _, verb = event.kind.partition(".")
        data = event.data or {}
        match entity:
            case "job" if verb in JOB_MOVES:
                self._job_event(event, verb, data)
            case "job" if verb in ("make", "submit"):
                assert event.process is not None and event.timeperiod is not None
                self._made(event.process, event.timeperiod, event)
            case "uow":
                self._uow_event(event, verb, data)
            case "process":
                self._process_event(event, verb, data)
            case "hold":
                self._hold_event(verb, str(data.get("scope")))
            case "command":
                self._command_event(event, verb, data)
                return
        if event.actor != "scheduler" and entity in ("job", "process", "hold"):
            self.told.append(event)

    # -- rows come into being -----------------------------------------------------------------------

    def _made(self, process: str, label: str, event: Event) -> JobView:
        id_ = f"{process}@{label}"
        if id_ in self.model.jobs:
            raise Broken(8, f"{id_} is made a second time", id_)
        if process in self.almanac.managed:
            period = self._period(process, label)
        else:
            period = Period(event.business_at, event.business_at, label)
        definition = self.world.context.processes[process]
        if definition.kind == "freerun" and definition.overlap == "skip" and not self.submitted:
            for other in self.model.jobs.values():
                if other.process == process and not other.finished:
                    raise Broken(2, f"{id_} was fired while {other.id} is {other.state}", id_, other.id)
        found = self.model.jobs[id_] = JobView(id_, process, period, event.seq)
        return found

    def _period(self, process: str, label: str) -> Period:
        text = label.ljust(12, "0")
        month, day = max(1, int(text[4:6])), max(1, int(text[6:8]))
        instant = datetime(int(text[:4]), month, day, int(text[8:10]), int(text[10:12]), tzinfo=UTC)
        period = self.almanac.at(process, instant)
        if period.label != label:
            raise Broken(4, f"{process} has no period {label}; it would be {period.label}")
        return period

    def _process_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        name = event.process or ""
        if self.model.processes.get(name) in GONE and verb in ("advance", "fire_skipped"):
            raise Broken(4, f"{verb} of {name}, which is {self.model.processes[name]}")
        if verb == "advance":
            if data.get("labels") is not None:
                labels = list(data["labels"])
            else:
                first, last = self._period(name, data["from"]), self._period(name, data["to"])
                labels = [p.label for p in self.almanac.between(name, first.start, last.end)]
            if len(labels) != data["jobs"]:
                raise Broken(4, f"{name}: {data['jobs']} rows were made, there are {len(labels)} periods")
            for label in labels:
                self._made(name, label, event)
            return
        if "state" in data:
            if self.model.processes.get(name) == "deleted" != data["state"]:  # the name begins anew
                self.model.max_active.pop(name, None)
                self.model.triggers.pop(name, None)
                self.model.came[name] = event.seq
                self.came.add(name)
            self._process_moves(name, verb, data["state"])
        if verb == "set_max_active":
            self.model.max_active[name] = data["max_active"]
        elif verb == "set_trigger":
            self.model.triggers[name] = data["trigger"]
        elif verb == "reset":
            self.model.max_active.pop(name, None)
            self.model.triggers.pop(name, None)

    def _process_moves(self, name: str, verb: str, state: str) -> None:
        """What is over stays over: an expired process can only be deleted, a deleted one registered anew."""
        old = self.model.processes.get(name, "new")
        left = {"expired": ("deleted",), "deleted": ("scheduled", "suspended")}.get(old)
        if left is not None and state not in (old, *left):
            raise Broken(4, f"{name} was {old}, and {verb} made it {state}")
        self.model.processes[name] = state

    def _hold_event(self, verb: str, scope: str) -> None:
        if verb == "set":
            hold = self.store.get(Hold, scope)
            self.model.holds[scope] = hold.until if hold is not None else None
        else:
            self.model.holds.pop(scope, None)

    # -- units of work ------------------------------------------------------------------------------

    def _uow_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        assert event.uow is not None
        id_, job = event.uow, self.model.jobs.get(job_of(event.uow))
        if job is None:
            raise Broken(8, f"{id_} belongs to no job")
        uow = self.model.uows.setdefault(id_, UowView(id_, job.id))
        self.touched_uows[id_] = None
        if verb == "let_go":
            if job.stopping == id_:
                job.stopping = None
            return
        old = self._line(event, job, uow, verb, data)
        match verb:
            case "request" | "retry":
                uow.attempt = data["attempt"]
                self._requested(event, job, uow, verb)
                process = self.world.context.processes[job.process]
                self.limits[event.seq] = self.model.max_active.get(job.process, process.max_active)
            case "accept":
                uow.owner, uow.accepted = event.actor, data["version"]
            case "succeed" | "no_data" | "release":
                self._by_holder(event, uow, data)
            case "fail":
                self._fail(event, uow, old, data)
            case "cancel":
                if old == "in_progress" and event.actor != uow.owner and "#check-" not in id_:
                    job.stopping = id_
            case "stopped":
                self._stopped(event, job, uow)
        if verb == "succeed":
            self._succeeded(job, uow)

    def _line(self, event: Event, job: JobView, uow: UowView, verb: str, data: dict[str, Any]) -> str:
        """Invariants 7 and 8 for one line of its history; returns the state before it."""
        uow.lines += 1
        if event.ref != f"{uow.id}/{uow.lines}":
            raise Broken(8, f"line {uow.lines} of {uow.id} is {event.ref}", job.id)
        sources, state = UOW_MOVES.get(verb, (set(), ""))
        if uow.state not in sources:
            raise Broken(7, f"{uow.id} was {uow.state or 'not there'}, and then came {verb}", job.id)
        old, uow.state = uow.state, state
        if data.get("state") != state:
            raise Broken(8, f"{uow.id}: {verb} leads to {state}, its line says {data.get('state')}", job.id)
        return old

    def _stopped(self, event: Event, job: JobView, uow: UowView) -> None:
        if event.actor != uow.owner:
            raise Broken(1, f"{event.actor} says it let go of {uow.id}, which {uow.owner} held", job.id)
        if job.stopping == uow.id:
            job.stopping = None

    def _succeeded(self, job: JobView, uow: UowView) -> None:
        if "#check-" in uow.id:
            job.ready = True
        elif job.uow == uow.id:
            job.produced = True
            row = self.rows[uow.id]
            if row.cursor_end is not None:
                job.cursor = row.cursor_end

    def _by_holder(self, event: Event, uow: UowView, data: dict[str, Any]) -> None:
        if event.actor != uow.owner or data.get("version") != uow.accepted + 1:
            raise Broken(
                1,
                f"{event.kind} of {uow.id} by {event.actor} (version {data.get('version')}),"
                f" it was accepted by {uow.owner} (version {uow.accepted})",
                uow.job,
            )

    def _fail(self, event: Event, uow: UowView, old: str, data: dict[str, Any]) -> None:
        if event.actor == "scheduler":
            if old == "in_progress":
                uow.losses += 1
            return
        self._by_holder(event, uow, data)
        uow.failures += 1
        row = self.rows.get(uow.id)
        uow.permanent = row is not None and row.permanent and row.history_n == uow.lines

    def _requested(self, event: Event, job: JobView, uow: UowView, verb: str) -> None:
        is_work = "#check-" not in uow.id
        if is_work:
            job.requested = event.seq
        state = self.model.processes.get(job.process)
        if state != "scheduled" and (event.actor == "scheduler" or state in GONE):
            raise Broken(4, f"{verb} of {uow.id} while {job.process} is {state}", job.id)
        process = self.world.context.processes[job.process]
        if verb == "retry":
            retry = process.retry
            over = uow.permanent or uow.failures > retry.max_retries or uow.losses > retry.max_lost
            if over and event.actor == "scheduler":
                raise Broken(
                    3, f"{uow.id} is retried after {uow.failures} failures and {uow.losses} losses", job.id
                )
            return
        hold = self.held(job, event)
        if hold is not None:
            raise Broken(4, f"{uow.id} was requested under the hold on {hold}", job.id)
        if job.state in FINISHED:
            raise Broken(6, f"{uow.id} was requested, and {job.id} is {job.state}", job.id)
        if not is_work:
            return
        if job.stopping is not None:
            raise Broken(2, f"{uow.id} was requested while {job.stopping} still stops", job.id)
        last = self.model.uows.get(job.uow or "")
        if last is not None and last.state not in UOW_FINISHED:
            raise Broken(2, f"{uow.id} was requested while {last.id} is {last.state}", job.id)
        row = self.rows[uow.id]
        wanted = job.cursor if process.machine == "continuous" else None
        if row.cursor != wanted:
            raise Broken(3, f"{uow.id} begins at {row.cursor}, the last one ended at {wanted}", job.id)
        job.before, job.uow = job.uow, uow.id

    # -- jobs ---------------------------------------------------------------------------------------

    def _job_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        id_ = f"{event.process}@{event.timeperiod}"
        job = self.model.jobs.get(id_)
        if job is None:
            raise Broken(8, f"{verb} of {id_}, which was never made", id_)
        sources, state = JOB_MOVES[verb]
        if job.state not in sources:
            raise Broken(6, f"{id_} was {job.state}, and then came {verb}", id_)
        self.before.setdefault(id_, job.state)
        by_people = event.actor != "scheduler"
        if by_people or data.get("reason") in PEOPLE:
            self.was.setdefault(id_, job.state)
        if verb.startswith("dispatch"):
            self._dispatched(event, job, verb)
        elif verb in ("complete", "no_data"):
            self._decided(event, job, verb)
        elif verb == "skip" and not by_people and data.get("reason") not in PEOPLE:
            self._skipped(event, job, str(data.get("reason")))
        job.hurried = False
        job.kept = job.kept and not verb.startswith("dispatch")
        ended_by_person = self._by_person(job)
        job.state, job.version, job.reason = state, job.version + 1, data.get("reason")
        if verb.startswith("dispatch"):
            job.run = data["run"]
            job.ticked = event.business_at
        elif verb == "reprocess":
            if ended_by_person and event.message.startswith("late data"):
                raise Broken(6, f"late data reopened {id_}, which a person ended", id_)
            job.ready = False
            self.model.late.pop(id_, None)
            self.reopened.add(id_)
            job.reopened += 1
            job.first_run, job.produced, job.cursor = job.run, False, None
        elif state in FINISHED:
            late = self.model.late.pop(id_, None)
            if late is not None and job.reason not in PEOPLE:
                raise Broken(3, f"{id_} is {state}, though late data came at event {late}", id_)
            job.settled, job.settled_at = event.seq, event.at

    # -- after the events of a commit ---------------------------------------------------------------

    def _compare(self) -> None:
        """Invariant 8 for what this commit touched: the events give the rows."""
        if self.before:
            for row in self.store.find(Job, (Where("id", "in", sorted(self.before)),)):
                self.same_job(row)
        for id_ in self.touched_uows:
            self.same_uow(self.rows[id_])

    def same_job(self, row: Job) -> None:
        """A stored job is what its events say."""
        view = self.model.jobs.get(row.id)
        if view is None:
            raise Broken(8, f"{row.id} is stored, and no event made it", row.id)
        stored = (row.state, row.run, row.version, row.open)
        told = (view.state, view.run, view.version, not view.finished)
        if stored != told:
            raise Broken(8, f"{row.id} is stored as {stored}, its events give {told}", row.id)
        if view.state in FINISHED and row.reason != view.reason:
            raise Broken(8, f"{row.id} is stored with {row.reason}, its events give {view.reason}", row.id)

    def same_uow(self, row: Uow) -> None:
        """A stored unit of work is what its events say, as far as they were copied."""
        view = self.model.uows.get(row.id)
        if view is None:
            raise Broken(8, f"{row.id} is stored, and no event tells of it", job_of(row.id))
        if row.copied != view.lines:
            raise Broken(
                8, f"{row.id}: {view.lines} lines are events, {row.copied} are marked so", job_of(row.id)
            )
        if row.history_n == view.lines and (row.state, row.attempt) != (view.state, view.attempt):
            raise Broken(
                8,
                f"{row.id} is stored as {row.state}, attempt {row.attempt}; its events give {view.state}",
                view.job,
            )

    def _in_flight(self, events: Sequence[Event]) -> None:
        """At most one unfinished unit of work a job, none of a job that ended, and max_active a process."""
        kinds = {e.kind for e in events}
        if not kinds & {"uow.request", "job.reprocess", "job.skip", "job.mark_done", "job.complete"}:
            return
        where = (Where("state", "in", UNFINISHED), Where("kind", "=", "work"))
        per_process: dict[str, int] = {}
        for id_, process in self.store.select(Uow, ("id", "process"), where, ("id",)):
            job = self.model.jobs[job_of(id_)]
            per_process[process] = per_process.get(process, 0) + 1
            if job.uow != id_:
                raise Broken(2, f"{id_} is unfinished beside {job.uow}", job.id)
            if job.state not in ("in_progress", "final_run"):
                raise Broken(2, f"{id_} is unfinished, and {job.id} is {job.state}", job.id)
        for name, limit in self._newly_taken(events).items():
            process = self.world.context.processes[name]
            if per_process.get(name, 0) > limit and not (
                process.kind == "freerun" and process.overlap == "allow"
            ):
                raise Broken(
                    2, f"{name} has {per_process[name]} unfinished units of work; max_active is {limit}"
                )

    def _newly_taken(self, events: Sequence[Event]) -> dict[str, int]:
        """The processes of which a place was taken, with their max_active when the last was; it may be lowered later
        in the same commit. A final run in the place of the slice it replaces takes none."""
        replaced = {job_of(e.uow) for e in events if e.kind == "uow.cancel" and e.uow} - self.reopened
        asked = [e for e in events if e.kind == "uow.request" and job_of(e.uow or "") not in replaced]
        asked = [e for e in asked if "#check-" not in (e.uow or "")]  # a question takes none
        return {e.process or "": self.limits[e.seq] for e in asked}

    # -- messages and executions ----------------------------------------------------------------------

    def publishing(self, kind: str, messages: Sequence[Outgoing]) -> None:
        """Invariant 9: nothing is published that was not saved."""
        ids = sorted({m.body for m in messages if "#" in m.body})
        if not ids:
            return
        saved = {row[0] for row in self.store.select(Uow, ("id",), (Where("id", "in", ids),))}
        for id_ in ids:
            if id_ not in saved:
                raise Broken(9, f"a {kind} published {id_}, which is not in the store", job_of(id_))

    def started(self, execution: Execution) -> None:
        """Invariants 1 and 2: nothing else of this job is executed now."""
        job = job_of(execution.uow.id)
        now = self.world.clock.monotonic()
        if execution.uow.kind != "work":
            return
        others = []
        for other in self.world.live.get(job, []):
            if other.over is not None or other.ends_at <= now or other.lease_ends <= now:
                continue
            others.append(other)
            if other.jumps == self.world.jumps:  # a clock that jumps ends leases before their time
                raise Broken(
                    1 if other.uow.id == execution.uow.id else 2,
                    f"{execution.uow.id} begins on {execution.owner} while {other.uow.id} runs on {other.owner}",
                    job,
                )
        self.world.live[job] = [*others, execution]

    def ended(self, execution: Execution) -> None:
        """It is over."""
        job = job_of(execution.uow.id)
        self.world.live[job] = [e for e in self.world.live.get(job, []) if e is not execution]
