"""The rules: what one commit may do, checked by replaying its events over what was there before.

The words are the design's (§4, §8), written from it and not from the core; tables of what may follow what are the
simulation's, the arithmetic of periods is its almanac's. `Broken` names the invariant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scheduler.core.event import Event, history_entries
from scheduler.core.facts import Absent
from scheduler.core.job import Job
from scheduler.core.plan import Effect
from scheduler.core.process import Process
from scheduler.core.records import ProcessRow
from scheduler.core.slice import Slice
from scheduler.core.strategy import assess
from scheduler.core.uow import Uow, job_of, uow_id
from simulation.model import FINISHED, JOB_MOVES, PEOPLE, UOW_FINISHED, UOW_MOVES, Broken
from verify.memory import Memory
from verify.shape import Shape

if TYPE_CHECKING:
    from scheduler.engine import Engine

SLICED = ("continuous", "recomputing")
UNFINISHED = ("requested", "in_progress", "invalid")
_SOURCE_OF_FIRST = {  # a worker's line -> the state before it
    "accept": "requested",
    "succeed": "in_progress",
    "no_data": "in_progress",
    "fail": "in_progress",
    "release": "in_progress",
    "cancel": "in_progress",
    "stopped": "canceled",
}


@dataclass
class View:
    """A job while the events of a commit are replayed."""

    state: str = "embryo"
    reason: str | None = None
    run: int = 0
    uow: str | None = None
    stopping: str | None = None
    settled: int = 0
    requested: int = 0
    produced: bool = False
    cursor: str | None = None
    ticked: datetime | None = None
    reopened: bool = False  # since its last end, or in this commit
    again: bool = False
    more: bool = False

    @property
    def finished(self) -> bool:
        """As those that stand on it see it."""
        return self.state in FINISHED and self.stopping is None


def told_state(uow: Uow) -> str:
    """The state of a unit of work as far as its lines are events."""
    lines = history_entries(uow.history, uow.copied)
    return _SOURCE_OF_FIRST[lines[0]["verb"]] if lines else uow.state


class Commit:
    """One transaction: what was there before, what is there now, and the events between."""

    def __init__(
        self, shape: Shape, jobs: dict[str, Job], uows: dict[str, Uow], memory: Memory, now: datetime
    ) -> None:
        self.shape, self.memory, self.now = shape, memory, now
        self.jobs_before, self.uows_before = jobs, uows
        self.jobs: dict[str, Job] = memory.tables[Job]
        self.uows: dict[str, Uow] = memory.tables[Uow]
        self.views = {id_: self._view(job) for id_, job in jobs.items()}
        self.told = {id_: told_state(uow) for id_, uow in uows.items()}
        self.reset: set[str] = set()
        self.skipped: set[str] = set()  # by people
        self.canceled: set[str] = set()

    def _view(self, job: Job) -> View:
        return View(
            state=job.state,
            reason=job.reason,
            run=job.run,
            uow=job.uow,
            stopping=job.stopping,
            settled=job.settled_seq,
            requested=job.requested_seq,
            produced=job.produced,
            cursor=job.cursor,
            ticked=job.dispatched_at,
            reopened=job.generation > 0,
            again=job.again is not None,
            more=job.more,
        )

    # -- a worker's --------------------------------------------------------------------------------------

    def check_work(self, uow: str, act: str) -> None:
        """A worker's write: one line, one state further, by the table."""
        before, after = self.uows_before[uow], self.uows[uow]
        lines = history_entries(after.history, before.history_n)
        if len(lines) != 1:
            raise Broken(8, f"{act} {uow} leaves {len(lines)} lines", uow)
        verb, state = lines[0]["verb"], lines[0]["state"]
        sources, target = UOW_MOVES[verb]
        if before.state not in sources or after.state != target or state != target:
            raise Broken(7, f"{uow} was {before.state}, and {verb} made it {after.state}", uow)
        if verb != "stopped" and after.version != before.version + 1:
            raise Broken(1, f"{verb} of {uow} leaves its version at {after.version}", uow)

    # -- a scheduler's -----------------------------------------------------------------------------------

    def check(self, what: tuple[str, ...]) -> None:
        """Everything about this commit."""
        for event in self.memory.events:
            self.now = event.business_at
            self._event(event)
        self._compare()
        self._in_flight()
        if what[0] in ("reprocess", "skip", "late data"):
            self._cascade(what[0], what[1])

    def _event(self, event: Event) -> None:
        entity, _, verb = event.kind.partition(".")
        data = event.data or {}
        if entity == "uow":
            self._uow_event(event, verb, data)
        elif entity == "job" and verb in JOB_MOVES:
            self._job_event(event, verb, data)
        elif event.kind == "job.make":
            self._made(f"{event.process}@{event.timeperiod}")
        elif event.kind == "process.advance":
            for id_, job in self.jobs.items():
                told = data["labels"] is None or job.timeperiod in data["labels"]
                if told and job.process == event.process and id_ not in self.views:
                    self._made(id_)

    def _made(self, id_: str) -> None:
        if id_ in self.views:
            raise Broken(8, f"{id_} is made a second time", id_)
        if id_ not in self.shape.periods:
            raise Broken(4, f"{id_} is made, and there is no such period", id_)
        self.views[id_] = View()

    # -- units of work -----------------------------------------------------------------------------------

    def _uow_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        id_ = event.uow or ""
        job = job_of(id_)
        view = self.views[job]
        if verb == "let_go":
            view.stopping = None if view.stopping == id_ else view.stopping
            return
        sources, state = UOW_MOVES.get(verb, (set(), ""))
        old = self.told.get(id_, "")
        if old not in sources:
            raise Broken(7, f"{id_} was {old or 'not there'}, and then came {verb}", job)
        if data.get("state") != state:
            raise Broken(8, f"{id_}: {verb} leads to {state}, its line says {data.get('state')}", job)
        self.told[id_] = state
        if verb == "cancel":
            self.canceled.add(id_)
        if verb == "request":
            self._requested(event, job, view, id_)
        elif verb == "retry":
            view.requested = event.seq
            self._retried(job, id_)
        elif verb == "cancel" and old == "in_progress" and event.actor != "worker":
            view.stopping = id_
        elif verb == "stopped" and view.stopping == id_:
            view.stopping = None
        elif verb == "succeed" and view.uow == id_:
            view.produced = True
            row = self.uows[id_]
            view.cursor = row.cursor_end if row.cursor_end is not None else view.cursor

    def _requested(self, event: Event, job: str, view: View, id_: str) -> None:
        if view.state in FINISHED:
            raise Broken(6, f"{id_} was requested, and {job} is {view.state}", job)
        if view.stopping is not None:
            raise Broken(2, f"{id_} was requested while {view.stopping} still stops", job)
        last = self.told.get(view.uow or "")
        if last is not None and last not in UOW_FINISHED:
            raise Broken(2, f"{id_} was requested while {view.uow} is {last}", job)
        if id_ != uow_id(job, view.run + 1):
            raise Broken(2, f"{id_} follows run {view.run}", job)
        wanted = view.cursor if self.shape.process(job).machine == "continuous" else None
        if self.uows[id_].cursor != wanted:
            raise Broken(3, f"{id_} begins at {self.uows[id_].cursor}, the last one ended at {wanted}", job)
        view.uow, view.requested = id_, event.seq

    def _retried(self, job: str, id_: str) -> None:
        row, retry = self.uows[id_], self.shape.process(job).retry
        if row.permanent or row.failures > retry.max_retries or row.losses > retry.max_lost:
            raise Broken(
                3,
                f"{id_} is retried after {row.failures} failures and {row.losses} losses"
                + (", one of them for good" if row.permanent else ""),
                job,
            )

    # -- jobs --------------------------------------------------------------------------------------------

    def _job_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        id_ = f"{event.process}@{event.timeperiod}"
        view = self.views[id_]
        sources, state = JOB_MOVES[verb]
        if view.state not in sources:
            raise Broken(6, f"{id_} was {view.state}, and then came {verb}", id_)
        if data.get("state") != state:
            raise Broken(8, f"{id_}: {verb} leads to {state}, its event says {data.get('state')}", id_)
        by_people = data.get("reason") in PEOPLE
        if verb.startswith("dispatch"):
            self._dispatched(id_, view, verb)
            view.run, view.ticked, view.more = data["run"], self.now, False
        elif verb in ("complete", "no_data"):
            self._decided(id_, view, verb)
        elif verb == "skip" and by_people:
            self.skipped.add(id_)
        elif verb == "skip":
            self._skipped(id_, view, str(data.get("reason")))
        elif verb == "reprocess":
            if view.state in FINISHED and view.reason in PEOPLE and event.message.startswith("late data"):
                raise Broken(6, f"late data reopened {id_}, which a person ended", id_)
            view.produced, view.cursor, view.reopened, view.again = False, None, True, False
            self.reset.add(id_)
        if state in FINISHED:
            self._settled(event, id_, view, data.get("reason"))
        view.state, view.reason = state, data.get("reason")

    def _settled(self, event: Event, id_: str, view: View, reason: str | None) -> None:
        if view.again and reason not in PEOPLE:
            raise Broken(3, f"{id_} ends, though late data came for it", id_)
        view.settled = event.seq
        for _, other in self.shape.served[id_]:
            above = self.views.get(other)
            if above is not None and above.state in ("processed", "noop") and above.reason is None:
                raise Broken(3, f"{other} is {above.state}, and its input {id_} ends after it", other, id_)

    def _inputs(self, id_: str, kinds: tuple[str, ...] = ("child", "dependency")) -> list[tuple[str, View]]:
        return [(on, self.views.get(on) or View()) for kind, on in self.shape.needs[id_] if kind in kinds]

    def _finished(self, id_: str, what: str, kinds: tuple[str, ...] = ("child", "dependency")) -> None:
        for on, row in self._inputs(id_, kinds):
            if not row.finished:
                stops = " and stopping" if row.stopping is not None else ""
                raise Broken(3, f"{what} of {id_}, and {on} is {row.state}{stops}", id_, on)

    def _closed(self, process: Process, id_: str) -> bool:
        return self.now >= self.shape.periods[id_].end + timedelta(seconds=process.lag_s)

    def _dispatched(self, id_: str, view: View, verb: str) -> None:
        process = self.shape.process(id_)
        closed = self._closed(process, id_)
        if self.shape.periods[id_].start > self.now:
            raise Broken(4, f"{id_} was dispatched before it began", id_)
        if process.blocking == "children":
            self._finished(id_, verb)
        elif process.blocking == "dependencies":
            self._finished(id_, verb, ("dependency",))
        if verb == "dispatch_final":
            if not closed:
                raise Broken(3, f"the final run of {id_} was requested before its close", id_)
            self._finished(id_, verb)
        elif process.machine in SLICED:
            if closed:
                raise Broken(3, f"a slice of {id_} was requested after its close", id_)
            self._tick(process, id_, view)
        else:
            if not closed:
                raise Broken(3, f"{id_} was dispatched before its close", id_)
            if view.reopened or process.blocking != "normal" or view.state != "embryo":
                self._finished(id_, verb)
        self._worth_it(process, id_, view, verb)

    def _worth_it(self, process: Process, id_: str, view: View, verb: str) -> None:
        """Its trigger has fired, no dependency is skipped, and not all its children are."""
        trigger = process.trigger
        if trigger is not None and trigger.kind != "every" and not view.more:
            fire = trigger.first_at_or_after(self.shape.periods[id_].end)
            if fire is None or fire > self.now:
                raise Broken(3, f"{id_} was dispatched before {trigger.text!r} fired", id_)
        if process.blocking == "dependencies":
            for on, row in self._inputs(id_, ("dependency",)):
                if row.state == "skipped":
                    raise Broken(3, f"{verb} of {id_}, whose dependency {on} is skipped", id_, on)
        children = [row for _, row in self._inputs(id_, ("child",))]
        if children and not view.produced and all(c.finished and c.state == "skipped" for c in children):
            raise Broken(3, f"{id_} was dispatched, and all its children are skipped", id_)

    def _tick(self, process: Process, id_: str, view: View) -> None:
        trigger = process.trigger
        if trigger is None or trigger.kind != "every" or view.ticked is None or view.more:
            return
        every = int(trigger.interval_s or 1)
        if int(view.ticked.timestamp()) // every == int(self.now.timestamp()) // every:
            raise Broken(3, f"{id_} ran twice in one tick of {trigger.text}", id_)

    def _decided(self, id_: str, view: View, verb: str) -> None:
        process = self.shape.process(id_)
        state = self.told.get(view.uow or "", "not there")
        if state not in ("processed", "noop"):
            raise Broken(3, f"{verb} of {id_}, and its last unit of work {view.uow} is {state}", id_)
        if (verb == "complete") != (state == "processed" or view.produced):
            raise Broken(3, f"{verb} of {id_} by {view.uow}, which is {state}", id_)
        if process.machine in SLICED and view.state != "final_run":
            raise Broken(3, f"{verb} of {id_} without a final run", id_)
        self._over_all(id_, view, verb)

    def _over_all(self, id_: str, view: View, what: str) -> None:
        self._finished(id_, what)
        for on, row in self._inputs(id_):
            if row.settled > view.requested:
                raise Broken(3, f"{what} of {id_} by a run that was requested before {on} finished", id_, on)

    def _skipped(self, id_: str, view: View, reason: str) -> None:
        process = self.shape.process(id_)
        if reason == "dependency":
            if not any(row.state == "skipped" for _, row in self._inputs(id_, ("dependency",))):
                raise Broken(3, f"{id_} was skipped, and none of its dependencies is", id_)
        elif reason == "children":
            rows = [row for _, row in self._inputs(id_, ("child",))]
            if not rows or view.produced or any(not r.finished or r.state != "skipped" for r in rows):
                raise Broken(3, f"{id_} was skipped, and not all its children are", id_)
        elif reason == "catchup":
            if process.catchup == "all" or not self._closed(process, id_):
                raise Broken(3, f"{id_} was skipped as catchup", id_)
        else:
            state = self.told.get(view.uow or "", "not there")
            if state != "canceled":
                raise Broken(3, f"{id_} was skipped as {reason}, and {view.uow} is {state}", id_)
            if process.machine in SLICED and view.state != "final_run":
                raise Broken(3, f"{id_} was skipped as {reason} by a slice", id_)
            row, retry = self.uows[view.uow or ""], process.retry
            over = row.permanent or row.failures > retry.max_retries or row.losses > retry.max_lost
            if reason != "canceled" and not over:
                raise Broken(3, f"{id_} was skipped as {reason}, and its retries are not used up", id_)
            self._over_all(id_, view, f"skip ({reason})")

    # -- all of it ---------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Invariant 8: the events give what is stored."""
        if self.views.keys() != self.jobs.keys():
            raise Broken(8, f"{sorted(self.views.keys() ^ self.jobs.keys())}: stored or told, not both")
        for id_, job in self.jobs.items():
            view = self.views[id_]
            told = (view.state, view.run, view.stopping, not view.finished)
            stored = (job.state, job.run, job.stopping, job.open)
            if told != stored:
                raise Broken(8, f"{id_} is stored as {stored}, its events give {told}", id_)
            if view.state in FINISHED:
                if job.reason != view.reason:
                    raise Broken(8, f"{id_} is stored with {job.reason}, its events give {view.reason}", id_)
            elif (job.produced, job.cursor) != (view.produced, view.cursor) and not self._undecided(job):
                raise Broken(8, f"{id_} is at {job.cursor}, its events give {view.cursor}", id_)
        for id_, uow in self.uows.items():
            if self.told.get(id_) != told_state(uow):
                raise Broken(8, f"{id_} is stored as {uow.state}, its events give {self.told.get(id_)}", id_)
            if uow.copied > uow.history_n:
                raise Broken(8, f"{id_}: more lines are copied than there are", id_)
            if uow.copied < uow.history_n and not uow.dirty:
                raise Broken(8, f"{id_}: lines wait to be copied, and nobody is told", id_)

    def _undecided(self, job: Job) -> bool:
        return job.uow_open

    def _in_flight(self) -> None:
        """Invariant 2, and max_active."""
        active: dict[str, int] = {}
        for uow in self.uows.values():
            if uow.state not in UNFINISHED:
                continue
            job = self.jobs[job_of(uow.id)]
            active[uow.process] = active.get(uow.process, 0) + 1
            if job.uow != uow.id:
                raise Broken(2, f"{uow.id} is unfinished beside {job.uow}", job.id)
            if job.state not in ("in_progress", "final_run"):
                raise Broken(2, f"{uow.id} is unfinished, and {job.id} is {job.state}", job.id)
        for name, number in active.items():
            limit = self.shape.context.processes[name].max_active
            if number > limit:
                raise Broken(2, f"{name} has {number} unfinished units of work; max_active is {limit}")

    def _cascade(self, verb: str, root: str) -> None:
        """Invariant 5: all of a cascade is in one commit, or nothing of it."""
        before = self.jobs_before
        state = before[root].state
        if verb == "skip":
            for id_ in self._below(root):
                if id_ not in self.jobs or self.jobs[id_].state not in FINISHED:
                    raise Broken(5, f"skip of {root} left {id_} unfinished", root, id_)
            return
        if verb == "late data" and (state == "embryo" or self._by_person(before[root])):
            return
        for id_ in (root, *self.shape.above(root)):
            if id_ not in before or before[id_].state == "embryo" or id_ in self.reset:
                continue
            if verb == "late data" and (self._by_person(before[id_]) or self.jobs[id_].again is not None):
                continue
            raise Broken(5, f"{verb} of {root} left {id_} as {before[id_].state}", root, id_)

    def as_planned(self, verb: str, planned: list[Effect]) -> None:
        """Invariant 11: what was shown is what was done."""
        shown = {effect.job: effect.effect for effect in planned}
        if verb == "reprocess":
            ended = self.reset
            told = {id_ for id_, effect in shown.items() if effect.startswith("reset")}
        else:
            ended = self.skipped
            told = {id_ for id_, effect in shown.items() if effect.startswith("skip") or effect == "made"}
        if told != ended:
            raise Broken(11, f"the plan shows {sorted(told)}, and done is {sorted(ended)}", *(told ^ ended))
        for id_, effect in shown.items():
            before = self.jobs_before.get(id_)
            uow = self.uows.get(before.uow or "") if before is not None and before.uow_open else None
            if (uow is not None and uow.id in self.canceled) and not effect.endswith("and cancel"):
                raise Broken(11, f"the plan shows {effect!r} of {id_}, and {uow.id} was canceled", id_)

    def _by_person(self, job: Job) -> bool:
        return job.state in FINISHED and job.reason in PEOPLE

    def _below(self, root: str) -> list[str]:
        found = {root: None}
        layer = [root]
        while layer:
            below: list[str] = []
            for id_ in layer:
                below += [on for kind, on in self.shape.needs[id_] if kind == "child"]
                below += [
                    other
                    for kind, other in self.shape.served[id_]
                    if kind == "dependency"
                    and self.shape.process(other).blocking == "dependencies"
                    and other in self.jobs_before
                    and self.jobs_before[other].state not in FINISHED
                ]
            layer = [id_ for id_ in dict.fromkeys(below) if id_ not in found]
            found.update(dict.fromkeys(layer))
        return list(found)


# -- of records by themselves -------------------------------------------------------------------------------


def check_standing(shape: Shape, memory: Memory) -> None:
    """What must hold at any moment: one unfinished unit of work a job, and a finished job has none."""
    jobs = memory.tables[Job]
    for uow in memory.tables[Uow].values():
        job = jobs[job_of(uow.id)]
        if uow.state in UNFINISHED and (job.uow != uow.id or not job.uow_open):
            raise Broken(2, f"{uow.id} is {uow.state}, and {job.id} knows nothing of it", job.id)
    for job in jobs.values():
        last = memory.tables[Uow].get(job.uow or "")
        if job.uow_open and last is None:
            raise Broken(2, f"{job.id} waits for {job.uow}, which is not there", job.id)
    frontiers = {row.name: row.frontier for row in memory.tables[ProcessRow].values()}
    for id_, period in shape.periods.items():
        frontier = frontiers[shape.processes[id_]]
        if frontier is not None and period.start < frontier and id_ not in jobs:
            raise Broken(4, f"{id_} lies before the frontier and has no row", id_)


def check_explained(shape: Shape, engine: Engine, memory: Memory) -> None:
    """Invariant 10, as far as one moment shows it: what is acted on has no blocker, what is not has one."""
    for job in memory.tables[Job].values():
        if not job.open:
            continue
        s = engine._slice()
        acted, told = _asked(s, engine, job)
        if (acted.act is None) != bool(told.blockers):
            does = acted.act or "nothing is done with it"
            words = "; ".join(b.sentence for b in told.blockers) or "nothing is in the way"
            raise Broken(10, f"{job.id}: {does}, and explain says: {words}", job.id)
        if acted.act is None and not acted.blockers:
            raise Broken(10, f"{job.id}: nothing is done with it, and nothing is in the way", job.id)


def _asked(s: Slice, engine: Engine, job: Job) -> Any:
    while True:
        try:
            return assess(s, s.job(job.id) or job), assess(s, s.job(job.id) or job, everything=True)
        except Absent as lack:
            engine.gatherer.gather(s, lack.wants)
