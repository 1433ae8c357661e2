"""The rules of cascades: what a reprocess, a skip and late data must reach, and what may not be reached.

Beyond a limit a cascade is refused. Late data is not: it waits, until a person drops it or narrows it to some
processes, or to an interval; what is outside is left alone. What `Checker` asks command by command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from scheduler.core.command import Command
from scheduler.core.event import Event
from scheduler.core.job import Job
from simulation.almanac import Period
from simulation.model import FINISHED, GONE, PEOPLE, Broken, JobView
from simulation.rules import JobRules

Inside = Callable[[JobView], bool]


class Done(NamedTuple):
    """A command that was carried out, and what it found: the states of processes, and of the jobs it is about."""

    seq: int
    command: str
    verb: str
    target: dict[str, Any]
    processes: dict[str, str]
    states: dict[str, str]
    changed: dict[str, str]  # the same of the jobs that this commit had changed by then


class CascadeRules(JobRules):
    """What is reached by what people and late data ask for; each raises Broken."""

    before: dict[str, str]  # job -> its state before this commit, for those that changed
    reopened: set[str]  # by this commit
    done: list[Done]  # the commands of this commit
    told: list[Event]  # what was done by others than the scheduler since the last command of this commit
    was: dict[str, str]  # job -> its state before that

    def _command_event(self, event: Event, verb: str, data: dict[str, Any]) -> None:
        """The end of a command, or late data that has to wait. The model is as it was when that was decided."""
        if verb not in ("done", "refused", "expired", "waits"):
            return
        told, self.told = self.told, []
        was, self.was = self.was, {}
        id_, target = str(data.get("command")), dict(data.get("target") or {})
        if verb == "done":
            asked = str(data.get("verb"))
            self.model.acts[asked] = self.model.acts.get(asked, 0) + 1
            states = {id_: was.get(id_, job.state) for id_, job in self._named(asked, target)}
            changed = {id_: was.get(id_, self.model.jobs[id_].state) for id_ in self.before}
            self.done.append(Done(event.seq, id_, asked, target, dict(self.model.processes), states, changed))
            if asked == "reprocess":
                self._within_limit(event, [str(job) for job in target.get("jobs", ())])
            elif asked in ("drop_late", "narrow_late"):
                self._answered(id_, str(target.get("command")), asked, told)
            return
        for other in told:
            if other.actor == event.actor:
                raise Broken(5, f"command {id_}: {verb}, and yet {other.kind} of {other.process} by it")
        if verb == "waits":
            self._waits(event, id_)
        elif data.get("verb") == "late_data":
            raise Broken(5, f"late data {id_} was {verb}: {event.message}")

    def _named(self, verb: str, target: dict[str, Any]) -> Iterator[tuple[str, JobView]]:
        """The jobs that a command, or the late data it is about, names."""
        if verb == "narrow_late":
            late = self.store.get(Command, str(target.get("command")))
            target = late.target if late is not None else {}
        return ((id_, self.model.jobs[id_]) for id_ in target.get("jobs", ()) if id_ in self.model.jobs)

    def _size(self, event: Event, roots: Sequence[JobView]) -> int:
        """How many jobs a cascade upwards from these comes to; those of processes that are gone are counted."""
        reached = {root.id for root in roots}
        for root in roots:
            reached |= {job.id for job in self.above(root, event.seq, gone=True)}
        return len(reached)

    def _within_limit(self, event: Event, ids: Sequence[str]) -> None:
        size = self._size(event, [self.model.jobs[id_] for id_ in ids if id_ in self.model.jobs])
        if size > self.world.cascade_max:
            raise Broken(5, f"reprocess of {ids} reached {size} jobs, the limit is {self.world.cascade_max}")

    def _waits(self, event: Event, id_: str) -> None:
        late = self.store.get(Command, id_)
        if late is None or late.verb != "late_data":
            raise Broken(5, f"command {id_} waits, and it is no late data")
        jobs = [self.model.jobs[job] for job in late.target.get("jobs", ()) if job in self.model.jobs]
        size = self._size(event, [job for job in jobs if job.state != "embryo" or job.stopping is not None])
        if size <= self.world.cascade_max:
            raise Broken(
                5,
                f"late data {id_} waits: {size} jobs, {self.world.cascade_max} are allowed",
                *late.target["jobs"],
            )
        self.model.waits[id_] = event.seq

    def _answered(self, id_: str, late_id: str, verb: str, told: Sequence[Event]) -> None:
        """A person dropped late data that waited, or narrowed it: nothing outside is reopened."""
        if self.model.waits.pop(late_id, None) is None:
            raise Broken(5, f"{verb} of {late_id}, which did not wait")
        late = self.store.get(Command, late_id)
        status = (late.state, late.status) if late is not None else ("not there", 0)
        if status != (("refused", 409) if verb == "drop_late" else ("done", 200)):
            raise Broken(8, f"after {verb} late data {late_id} is {status[0]} ({status[1]})")
        assert late is not None
        inside = self._inside(id_) if verb == "narrow_late" else None
        for event in told:
            if event.kind != "job.reprocess" or event.actor != late.actor:
                continue
            job = self.model.jobs[f"{event.process}@{event.timeperiod}"]
            if inside is None or not inside(job):
                raise Broken(5, f"{verb} of {late_id} reopened {job.id}, which is outside", job.id)

    def _inside(self, id_: str) -> Inside:
        """What a narrow_late is narrowed to, read from its row by this file's own arithmetic."""
        command = self.store.get(Command, id_)
        assert command is not None
        arguments = command.arguments
        names = arguments.get("processes")
        begin, end = (
            datetime.fromisoformat(arguments[key]) if arguments.get(key) else None for key in ("from", "to")
        )

        def inside(job: JobView) -> bool:
            return not (
                (names is not None and job.process not in names)
                or (begin is not None and job.period.end <= begin)
                or (end is not None and job.period.start >= end)
            )

        return inside

    def _cascades(self) -> None:
        """Invariant 5 for every command of this commit, each by the processes that there were then."""
        present = self.model.processes
        for done in self.done:
            self.model.processes = done.processes
            if done.verb == "narrow_late":
                self._narrowed(done)
            else:
                self._cascade(done)
        self.model.processes = present

    def _narrowed(self, done: Done) -> None:
        """All that is inside is reached; what is outside keeps what it has, though it is older by now."""
        inside = self._inside(done.command)
        for id_, was in done.states.items():
            root = self.model.jobs[id_]
            if inside(root) and was != "embryo" and not self._by_person(root):
                reached = [root, *self.above(root, done.seq, inside)]
                for job in reached:
                    self._late(root, job)
                for job in self.above(root, done.seq, gone=True):
                    job.kept = job.kept or job not in reached

    def _cascade(self, done: Done) -> None:
        """Invariant 5: all of a cascade is in this commit, or nothing. Rows made after it are no part of it."""
        seq, verb = done.seq, done.verb
        for id_, was in done.states.items():
            root = self.model.jobs[id_]
            if verb == "reprocess" or (verb == "mark_done" and was == "skipped"):
                above = self.above(root, seq)
                for job in [root, *above] if verb == "reprocess" else above:
                    if self.before.get(job.id, job.state) != "embryo" and job.id not in self.reopened:
                        raise Broken(5, f"{verb} of {root.id} left {job.id} as {job.state}", root.id, job.id)
            elif verb == "skip":
                for id_ in self._below(root, done):
                    found = self.model.jobs.get(id_)
                    if (found is None or found.state not in FINISHED) and id_ not in self.reopened:
                        state = found.state if found is not None else "not there"
                        raise Broken(5, f"skip of {root.id} left {id_} as {state}", root.id, id_)
            elif verb == "late_data" and was != "embryo" and not self._by_person(root):
                for job in [root, *self.above(root, seq)]:
                    self._late(root, job)

    def _late(self, root: JobView, job: JobView) -> None:
        if self.before.get(job.id, job.state) == "embryo" or self._by_person(job) or job.id in self.reopened:
            return
        if job.state == "embryo":
            return
        row = self.store.get(Job, job.id)
        if row is None or row.again is None:
            raise Broken(5, f"late data for {root.id} left {job.id} as {job.state}", root.id, job.id)
        self.model.late[job.id] = self.model.seq

    def _by_person(self, job: JobView) -> bool:
        return job.state in FINISHED and job.reason in PEOPLE

    def above(
        self, root: JobView, seq: int, inside: Inside = lambda job: True, *, gone: bool = False
    ) -> list[JobView]:
        """Ancestors and dependants that had rows at event `seq`, transitively; `gone`: as `related` has it."""
        found: dict[str, JobView] = {}
        layer = [root]
        while layer:
            layer_next = []
            for job in layer:
                for _, rows in self.related(job, up=True, gone=gone):
                    for id_, row in rows:
                        if row is None or row.made >= seq or id_ in found or id_ == root.id:
                            continue
                        if inside(row):
                            found[id_] = row
                            layer_next.append(row)
            layer = layer_next
        return list(found.values())

    def _below(self, root: JobView, done: Done) -> list[str]:
        """What a skip covers: the job, its descendants, and strict dependants that have rows."""
        found = {root.id: None}
        layer: list[tuple[str, Period]] = [(root.process, root.period)]
        while layer:
            name, period = layer.pop()
            for need in self.almanac.needs.get(name, ()):
                if need.kind == "child" and self.model.processes.get(need.on) not in GONE:
                    for p in self.almanac.inputs(need, period):
                        if f"{need.on}@{p.label}" not in found:
                            found[f"{need.on}@{p.label}"] = None
                            layer.append((need.on, p))
            for need in self.almanac.served.get(name, ()):
                if (
                    need.kind == "dependency"
                    and self.model.processes.get(need.of) not in GONE
                    and self.world.context.processes[need.of].blocking == "dependencies"
                ):
                    for p in self.almanac.dependants(need, period):
                        id_ = f"{need.of}@{p.label}"
                        row = self.model.jobs.get(id_)
                        if row is None or row.made > done.seq or id_ in found:
                            continue
                        if done.changed.get(id_, self.before.get(id_, row.state)) in FINISHED:
                            continue  # what ended before on its own is not touched, nor what stands on it
                        found[id_] = None
                        layer.append((need.of, p))
        return list(found)
