"""Operators at random: every verb, at bad moments, and holds that are forgotten for long."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from scheduler import control
from scheduler.core.command import Command
from scheduler.core.ports import Where
from scheduler.core.uow import job_of
from simulation.model import FINISHED

if TYPE_CHECKING:
    from simulation.world import World

VERBS = {
    "reprocess": 10,
    "skip": 4,
    "kill": 4,
    "mark_done": 3,
    "retry": 3,
    "run_now": 3,
    "hold": 4,
    "release": 3,
    "suspend": 2,
    "resume": 4,
    "set_trigger": 1,
    "set_max_active": 2,
    "set_priority": 1,
    "submit": 3,
    "reset": 1,
    "late_data": 5,
}


# Of those few who end processes, and answer late data that waits: not in every seed, for little is left after them.
ENDINGS = {
    "expire": 2,
    "delete": 3,
    "submit": 4,
    "late_data": 6,
    "narrow_late": 5,
    "drop_late": 3,
    "reset": 1,
}


class Operator:
    """Submits a command every now and then, and remembers them for the final accounting."""

    verbs = VERBS
    name, prefix = "operator", "c"

    def __init__(self, world: World, mean_s: float = 4000.0) -> None:
        self.world, self.mean_s = world, mean_s
        self.rng = Random(f"{world.seed}/{self.name}")
        self.submitted: list[str] = []
        self.on = True
        self._appoint()

    def _appoint(self) -> None:
        self.world.at(self.rng.expovariate(1 / self.mean_s), self._act)

    def _act(self) -> None:
        if not self.on:
            return
        self._appoint()
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            verb = self.rng.choices(list(self.verbs), list(self.verbs.values()))[0]
            target, arguments = self._target(verb)
            if target is not None:
                self.submit(verb, target, arguments)

    def submit(
        self, verb: str, target: dict[str, Any], arguments: dict[str, Any] | None = None, **more: Any
    ) -> str:
        """One command, by the shipped way in."""
        key = f"{self.prefix}{len(self.submitted)}"
        self.submitted.append(key)
        control.submit(
            self.world.store,
            _Post(self.world),  # type: ignore[arg-type]
            verb,
            target,
            actor="late" if verb == "late_data" else "anna",
            arguments=arguments,
            reason=f"because {key}",
            key=key,
            expiry_s=None if verb == "late_data" else 7200.0,
            **more,
        )
        return key

    def worker_died(self, owner: str) -> None:
        """What a supervisor says that saw it."""
        self.submit("worker_died", {"owner": owner})

    def _target(self, verb: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        rng, processes = self.rng, self.world.context.processes
        match verb:
            case "hold":
                until = None
                if rng.random() < 0.5:
                    until = (self.world.clock.real() + timedelta(seconds=rng.uniform(60, 40_000))).isoformat()
                return {"scope": self._scope()}, {"until": until} if until else None
            case "release":
                holds = sorted(self.world.checker.model.holds) if self.world.checker else []
                return ({"scope": rng.choice(holds)}, None) if holds else (None, None)
            case "suspend" | "resume":
                names = [
                    n
                    for n, s in self._states().items()
                    if s == ("scheduled" if verb == "suspend" else "suspended")
                ]
                return ({"process": rng.choice(sorted(names))}, None) if names else (None, None)
            case "set_max_active":
                return {"process": rng.choice(sorted(processes))}, {"value": rng.randint(1, 4)}
            case "set_priority":
                return {"process": rng.choice(sorted(processes))}, {"value": rng.randint(1, 10)}
            case "set_trigger":
                value = rng.choice(("every 2400", "every 7200", "at 05:00", "cron 0 */2 * * *"))
                return {"process": rng.choice(sorted(processes))}, {"value": value}
            case "reset":
                return {"process": rng.choice(sorted(processes))}, None
            case "submit":
                names = sorted(n for n, p in processes.items() if p.kind == "freerun")
                return ({"process": rng.choice(names)}, None) if names else (None, None)
        return self._jobs(verb), None

    def _states(self) -> dict[str, str]:
        return self.world.checker.model.processes if self.world.checker else {}

    def _scope(self) -> str:
        rng, processes, trees = self.rng, self.world.context.processes, self.world.context.trees
        kind = rng.choice(("*", "tree", "process", "process", "job"))
        if kind == "tree":
            return f"tree:{rng.choice(sorted(trees))}"
        if kind == "process":
            return f"process:{rng.choice(sorted(processes))}"
        jobs = self._jobs("hold")
        return f"job:{jobs['jobs'][0]}" if kind == "job" and jobs else "*"

    def _jobs(self, verb: str) -> dict[str, Any] | None:
        checker = self.world.checker
        assert checker is not None
        jobs = [
            j
            for j in checker.at_hand()
            if self.world.context.processes[j.process].kind == "managed" or verb in ("kill", "retry", "hold")
        ]
        if verb in ("kill", "retry"):
            wanted = [j for j in jobs if j.state in ("in_progress", "final_run")]
        elif verb in ("skip", "run_now"):
            wanted = [j for j in jobs if j.state not in FINISHED]
        elif verb == "mark_done":
            wanted = [j for j in jobs if j.state != "processed"]
        elif verb in ("reprocess", "late_data"):
            wanted = [j for j in jobs if j.state != "embryo"]
        else:
            wanted = jobs
        if not wanted:
            return None
        number = self.rng.choice((1, 1, 1, 2))
        return {"jobs": [self.rng.choice(wanted).id for _ in range(number)]}

    def release_all(self) -> None:
        """Lift every hold and resume every process: then nothing may be left waiting."""
        model = self.world.checker.model if self.world.checker else None
        assert model is not None
        for scope in sorted(model.holds):
            self.submit("release", {"scope": scope})
        for name, state in sorted(model.processes.items()):
            if state == "suspended":
                self.submit("resume", {"process": name})

    def unresolved(self) -> list[Command]:
        """Commands without an outcome, except late data that waits for a person."""
        found = self.world.store.find(Command, (Where("state", "=", "pending"), Where("status", "null")))
        return list(found)


class Registrar(Operator):
    """Expires and deletes processes, registers deleted ones anew, drops and narrows late data that waits."""

    verbs = ENDINGS
    name, prefix = "registrar", "r"

    def __init__(self, world: World) -> None:
        super().__init__(world, mean_s=9000.0)

    def _target(self, verb: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        assert self.world.checker is not None
        model, rng = self.world.checker.model, self.rng
        match verb:
            case "expire" | "delete" | "submit":
                wanted = {
                    "expire": ("scheduled", "suspended"),
                    "delete": ("scheduled", "suspended", "expired"),
                    "submit": ("deleted",),
                }[verb]
                names = sorted(name for name, state in model.processes.items() if state in wanted)
                if verb != "submit" and rng.random() < 0.5:
                    self._at_a_bad_moment(verb, set(names), 240)
                    return None, None
                return ({"process": rng.choice(names)}, None) if names else (None, None)
            case "drop_late" | "narrow_late":
                waiting = sorted(model.waits)
                if not waiting:
                    return None, None
                id_ = rng.choice(waiting)
                return {"command": id_}, self._narrower(id_) if verb == "narrow_late" else None
        return super()._target(verb)

    def _at_a_bad_moment(self, verb: str, names: set[str], looks: int) -> None:
        """Do it to one of these processes once a unit of work of it has failed and waits for its retry."""
        assert self.world.checker is not None
        uows = self.world.checker.model.uows.values()
        failed = {job_of(uow.id).partition("@")[0] for uow in uows if uow.state == "invalid"} & names
        if failed and self.on:
            self.submit(verb, {"process": self.rng.choice(sorted(failed))})
        elif looks:
            self.world.at(30.0, lambda: self._at_a_bad_moment(verb, names, looks - 1))

    def _narrower(self, late: str) -> dict[str, Any]:
        """Some processes, an interval around a job it is about, or both."""
        assert self.world.checker is not None
        rng, model = self.rng, self.world.checker.model
        command = self.world.store.get(Command, late)
        assert command is not None
        found: dict[str, Any] = {}
        roots = [model.jobs[id_] for id_ in command.target["jobs"] if id_ in model.jobs]
        if rng.random() < 0.6:
            names = sorted(self.world.context.processes)
            chosen = rng.sample(names, rng.randint(1, len(names)))
            found["processes"] = sorted({*chosen, *(root.process for root in roots if rng.random() < 0.6)})
        if not found or rng.random() < 0.5:
            period = rng.choice(roots).period
            for key, at, away in (("from", period.start, -1), ("to", period.end, 1)):
                if rng.random() < 0.7:
                    found[key] = (at + away * timedelta(hours=rng.choice((0, 1, 5, 30)))).isoformat()
        return found


class _Post:
    """The broker in an operator's hands: a nudge that may be lost."""

    def __init__(self, world: World) -> None:
        self.world = world

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`."""
        if self.world.rng.random() >= self.world.odds.drop:
            self.world.wake_queue(queue)
