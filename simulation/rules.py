"""The rules of a job: when it may be dispatched, and how it may end. What `Checker` asks event by event."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from scheduler.core.event import Event
from scheduler.core.ports import Store
from scheduler.core.process import Process
from scheduler.core.trigger import parse_trigger
from scheduler.core.uow import Uow
from simulation.almanac import Almanac, Need
from simulation.model import GONE, Broken, JobView, Model

if TYPE_CHECKING:
    from simulation.world import World

SLICED = ("continuous", "recomputing")


class JobRules:
    """What is allowed to a job, by the design's words; each raises Broken."""

    world: World
    store: Store
    almanac: Almanac
    model: Model
    rows: dict[str, Uow]  # those that this commit touched
    at_once: set[str]  # jobs that a run_now of this commit requested
    came: set[str]  # processes that this commit registered anew
    frontiers: dict[str, datetime | None]  # before this commit

    def related(
        self, job: JobView, *, up: bool = False, gone: bool = False
    ) -> Iterator[tuple[Need, list[tuple[str, JobView | None]]]]:
        """What a job stands on (or, `up`, what stands on it), edge by edge; None where no row is.

        Processes that expired or were deleted are nobody's input; `gone`: all the same.
        """
        for need in (self.almanac.served if up else self.almanac.needs).get(job.process, ()):
            other = need.of if up else need.on
            if not gone and self.model.processes.get(other) in GONE:
                continue
            found = self.almanac.dependants(need, job.period) if up else self.almanac.inputs(need, job.period)
            ids = [f"{other}@{p.label}" for p in found]
            yield need, [(id_, self.model.jobs.get(id_)) for id_ in ids]

    def _inputs_finished(
        self,
        job: JobView,
        what: str,
        kinds: Sequence[str] = ("child", "dependency"),
        besides: Collection[str] = (),
    ) -> None:
        for need, rows in self.related(job):
            if need.kind in kinds and need.on not in besides:
                for id_, row in rows:
                    if row is None or not row.finished:
                        state = (
                            "not there"
                            if row is None
                            else row.state + (" and stopping" if row.stopping else "")
                        )
                        raise Broken(
                            3, f"{what} of {job.id}, and its {need.kind} {id_} is {state}", job.id, id_
                        )

    def _newer_than_inputs(self, job: JobView, what: str, besides: Collection[str] = ()) -> None:
        for need, rows in self.related(job):
            for id_, row in rows:
                if row is not None and row.settled > job.requested and need.on not in besides:
                    raise Broken(
                        3,
                        f"{what} of {job.id} by a run requested at event {job.requested},"
                        f" its input {id_} finished at {row.settled}",
                        job.id,
                        id_,
                    )

    def closes(self, process: Process, job: JobView) -> datetime:
        """When its period counts as closed."""
        return job.period.end + timedelta(seconds=process.lag_s)

    def _dispatched(self, event: Event, job: JobView, verb: str) -> None:
        process = self.world.context.processes[job.process]
        if process.kind != "managed":
            return
        now = event.business_at
        if job.period.start > now:
            raise Broken(4, f"{job.id} was dispatched before it began", job.id)
        if process.blocking == "children":
            self._inputs_finished(job, verb)
        elif process.blocking == "dependencies":
            self._inputs_finished(job, verb, ("dependency",))
            self._no_skipped_dependency(job, verb)
        closed = now >= self.closes(process, job)
        if verb == "dispatch_final":
            if not closed:
                raise Broken(3, f"the final run of {job.id} was requested before its close", job.id)
            self._inputs_finished(job, verb)
        elif process.machine in SLICED:
            if closed:
                raise Broken(3, f"a slice of {job.id} was requested after its close", job.id)
            self._tick(event, process, job)
        else:
            if not closed:
                raise Broken(3, f"{job.id} was dispatched before its close", job.id)
            if job.reopened or process.blocking != "normal" or job.state != "embryo":
                self._inputs_finished(job, verb)
        self._fired(event, process, job)
        self._worth_it(process, job)

    def _worth_it(self, process: Process, job: JobView) -> None:
        """Its readiness was confirmed, and not all its children are skipped."""
        if process.readiness is not None and not job.ready:
            raise Broken(3, f"{job.id} was dispatched, and its readiness was never confirmed", job.id)
        children = [row for need, rows in self.related(job) for _, row in rows if need.kind == "child"]
        if (
            children
            and not job.produced
            and all(row is not None and row.finished and row.state == "skipped" for row in children)
            and all(row is not None and self._is_behind_frontier(row) for row in children)
        ):
            raise Broken(3, f"{job.id} was dispatched, and all its children are skipped", job.id)

    def _is_behind_frontier(self, job: JobView) -> bool:
        """Its row was due. Rows may be made ahead, to be skipped: such children are not all there are yet."""
        frontier = self.frontiers.get(job.process)
        return frontier is not None and job.period.start < frontier

    def _no_skipped_dependency(self, job: JobView, what: str) -> None:
        for need, rows in self.related(job):
            for id_, row in rows:
                if need.kind == "dependency" and row is not None and row.state == "skipped":
                    raise Broken(3, f"{what} of {job.id}, whose dependency {id_} is skipped", job.id, id_)

    def _is_hurried(self, job: JobView) -> bool:
        """An operator said run now: its trigger is not waited for, its readiness and its inputs are."""
        return job.hurried or job.id in self.at_once

    def _tick(self, event: Event, process: Process, job: JobView) -> None:
        trigger = process.trigger
        if trigger is None or trigger.kind != "every" or job.process in self.model.triggers:
            return
        if self._is_hurried(job):
            return
        row = self.rows.get(job.before or "") or (self.store.get(Uow, job.before) if job.before else None)
        if row is not None and row.more:
            return
        every = int(trigger.interval_s or 1)
        if (
            job.ticked is not None
            and int(job.ticked.timestamp()) // every == int(event.business_at.timestamp()) // every
        ):
            raise Broken(3, f"{job.id} ran twice in one tick of {trigger.text}", job.id)

    def _fired(self, event: Event, process: Process, job: JobView) -> None:
        text = self.model.triggers.get(job.process)
        trigger = parse_trigger(text) if text is not None else process.trigger
        if trigger is None or trigger.kind == "every" or self._is_hurried(job):
            return
        fire = trigger.first_at_or_after(job.period.end)
        if fire is None or fire > event.business_at:
            raise Broken(3, f"{job.id} was dispatched before {trigger.text!r} fired", job.id)

    def _decided(self, event: Event, job: JobView, verb: str) -> None:
        """complete and no_data: by the last unit of work, after all inputs, over all inputs."""
        process = self.world.context.processes[job.process]
        uow = self.model.uows.get(job.uow or "")
        if uow is None or uow.state not in ("processed", "noop"):
            state = uow.state if uow is not None else "not there"
            raise Broken(3, f"{verb} of {job.id}, and its last unit of work {job.uow} is {state}", job.id)
        if (verb == "complete") != (uow.state == "processed" or job.produced):
            raise Broken(3, f"{verb} of {job.id} by {uow.id}, which is {uow.state}", job.id)
        if process.kind != "managed":
            return
        if process.machine in SLICED and job.state != "final_run":
            raise Broken(3, f"{verb} of {job.id} without a final run", job.id)
        self._over_its_inputs(job, verb)

    def _over_its_inputs(self, job: JobView, what: str) -> None:
        """What ends it was requested after all inputs were finished; not so if late data was narrowed around it.

        A process that is registered anew in this very commit is none yet: it comes into view after this end.
        """
        if not job.kept:
            self._inputs_finished(job, what, besides=self.came)
            self._newer_than_inputs(job, what, besides=self.came)

    def _skipped(self, event: Event, job: JobView, reason: str) -> None:
        process = self.world.context.processes[job.process]
        if reason == "catchup":
            if process.catchup == "all" or event.business_at < self.closes(process, job):
                raise Broken(3, f"{job.id} was skipped as catchup", job.id)
        elif reason == "dependency":
            rows = [row for need, found in self.related(job) for _, row in found if need.kind == "dependency"]
            if not any(row is not None and row.state == "skipped" for row in rows):
                raise Broken(3, f"{job.id} was skipped, and none of its dependencies is", job.id)
        elif reason == "children":
            rows = [row for need, found in self.related(job) for _, row in found if need.kind == "child"]
            if (
                not rows
                or any(row is None or row.state != "skipped" or row.stopping for row in rows)
                or job.produced
            ):
                raise Broken(3, f"{job.id} was skipped, and not all its children are", job.id)
        elif reason == "timed_out" and process.readiness is not None and job.state != "final_run":
            return
        else:
            uow = self.model.uows.get(job.uow or "")
            if uow is None or uow.state != "canceled":
                raise Broken(3, f"{job.id} was skipped as {reason}, and {job.uow} is not canceled", job.id)
            if process.kind == "managed":
                if process.machine in SLICED and job.state != "final_run":
                    raise Broken(3, f"{job.id} was skipped as {reason} by a slice", job.id)
                self._over_its_inputs(job, f"skip ({reason})")

    def held(self, job: JobView, event: Event | None = None) -> str | None:
        """The scope of a hold over a job, or None."""
        tree = self.almanac.tree_of.get(job.process)
        now = event.at if event is not None else self.world.clock.real()
        for scope in ("*", f"tree:{tree}", f"process:{job.process}", f"job:{job.id}"):
            if scope in self.model.holds:
                until = self.model.holds[scope]
                if until is None or until > now:
                    return scope
        return None
