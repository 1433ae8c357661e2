"""The virtual executor: executions take drawn time, write to a virtual sink, and end by a draw.

It keeps to the contract of `worker.executor.Executor`, the guard included: an execution whose lease was not
prolonged in time ends by itself. What an execution does is drawn from the seed, the unit of work and the
version its accept made, so that it does not depend on who asks first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from scheduler.core.process import Process
from scheduler.core.uow import Uow, job_of
from worker.executor import LateData, Note, Outcome, ProgressNote

if TYPE_CHECKING:
    from simulation.world import World

WHOLE = 100  # units of data in a period; a cursor counts them


@dataclass(slots=True)
class Habits:
    """How the user's code behaves. Shares of executions; seconds."""

    fails: float = 0.10
    permanent: float = 0.2  # of those that fail
    noop: float = 0.04
    cancels: float = 0.02
    more: float = 0.15
    late_data: float = 0.01
    mean_s: float = 240.0
    slow: float = 0.03  # take up to an hour
    fixed_s: float | None = None
    ready: float = 0.6  # a readiness predicate says yes


@dataclass(slots=True)
class Execution:
    """One execution, as the world sees it: who, when, until when."""

    uow: Uow
    owner: str
    begun: float
    ends_at: float
    outcome: Outcome
    upto: int
    lease_ends: float = float("inf")
    notes: list[Note] = field(default_factory=list)
    over: float | None = None  # when it really ended
    told: bool = False
    jumps: int = 0  # clock jumps before it began


class VirtualExecutor:
    """Plays `capacity` slots of one worker."""

    def __init__(self, world: World, owner: str, capacity: int, wake: Callable[[float], None]) -> None:
        self.world, self.owner, self.capacity = world, owner, capacity
        self._wake = wake
        self._running: dict[str, Execution] = {}
        self._notes: list[Note] = []

    def start(self, uow: Uow, process: Process) -> None:
        """As `Executor.start`."""
        assert uow.token is not None
        assert len(self._running) < self.capacity, "more executions than slots"
        execution = play(self.world, uow, process, self.owner)
        self._running[uow.token] = execution
        self.world.started(execution)
        self._wake(execution.ends_at - execution.begun)

    def poll(self, timeout_s: float, also: Sequence[int] = ()) -> list[Outcome]:
        """As `Executor.poll`; never waits."""
        now = self.world.clock.monotonic()
        found = []
        for token, execution in list(self._running.items()):
            self._settle(execution, now)
            if execution.over is not None:
                del self._running[token]
                self._notes += execution.notes
                found.append(execution.outcome)
        return found

    def _settle(self, execution: Execution, now: float) -> None:
        """What became of it by now: it ended, or the guard ended it."""
        if execution.over is not None:
            return
        if execution.lease_ends < execution.ends_at and execution.lease_ends <= now:
            self._end(execution, execution.lease_ends, "its lease ended")
        elif execution.ends_at <= now:
            execution.over = execution.ends_at
            self.world.ended(execution)

    def _end(self, execution: Execution, at: float, why: str) -> None:
        old = execution.outcome
        execution.outcome = Outcome(uow_id=old.uow_id, token=old.token, verb="stopped", error=why)
        execution.over = at
        self.world.ended(execution)

    def next_s(self) -> float:
        """Seconds until the next execution ends by itself."""
        now = self.world.clock.monotonic()
        ends = [min(e.ends_at, e.lease_ends) - now for e in self._running.values()]
        return max(0.0, min(ends)) if ends else float("inf")

    def is_ready(self, fd: int) -> bool:
        """As `Executor.is_ready`."""
        return True

    def notes(self) -> list[Note]:
        """As `Executor.notes`."""
        notes, self._notes = self._notes, []
        return notes

    def stop(self, token: str, *, hard: bool = False) -> None:
        """As `Executor.stop`."""
        execution = self._running.get(token)
        now = self.world.clock.monotonic()
        if execution is None:
            return
        self._settle(execution, now)
        if execution.over is None:
            self._end(execution, now, "told to stop")
        self._wake(0.0 if hard else 0.5)

    def lease(self, token: str, seconds_left: float) -> None:
        """As `Executor.lease`."""
        execution = self._running.get(token)
        if execution is None:
            return
        now = self.world.clock.monotonic()
        self._settle(execution, now)  # the guard may have ended it before this came
        if execution.over is None:
            execution.lease_ends = now + max(0.0, seconds_left) + 1.0

    def wake(self) -> None:
        """As `Executor.wake`."""
        self._wake(0.0)

    def close(self) -> None:
        """As `Executor.close`: all of it dies now."""
        now = self.world.clock.monotonic()
        for execution in self._running.values():
            self._settle(execution, now)
            if execution.over is None:
                self._end(execution, now, "its worker died")
        self._running.clear()


def play(world: World, uow: Uow, process: Process, owner: str) -> Execution:
    """What this execution will do, by the seed."""
    habits, rng = world.habits, Random(f"{world.seed}/{uow.id}/{uow.version}")
    now = world.clock.monotonic()
    took = rng.expovariate(1 / habits.mean_s) + 1.0
    if rng.random() < habits.slow:
        took = rng.uniform(600, 3600)
    if habits.fixed_s is not None:
        took = habits.fixed_s
    begin = int(uow.cursor or 0)
    upto = WHOLE if uow.final or process.machine != "continuous" else min(WHOLE, begin + rng.randint(1, 20))
    outcome = _outcome(habits, rng, uow, process, upto, took)
    execution = Execution(uow, owner, now, now + took, outcome, upto, jumps=world.jumps)
    assert uow.token is not None
    if rng.random() < habits.late_data and uow.kind == "work":
        target = world.a_job_for(rng)
        if target is not None:
            name, _, label = target.partition("@")
            execution.notes.append(LateData(uow.token, name, label, "late rows"))
    if rng.random() < 0.1:
        execution.notes.append(ProgressNote(uow.token, 1.0, 2.0, "half"))
    return execution


def _outcome(habits: Habits, rng: Random, uow: Uow, process: Process, upto: int, took: float) -> Outcome:
    token = uow.token or ""
    draw = rng.random()
    if uow.kind == "check":
        if draw < 0.1:
            return Outcome(
                uow_id=uow.id, token=token, verb="fail", error="ValueError: no answer", duration_s=took
            )
        if draw < 0.1 + habits.ready:
            return Outcome(uow_id=uow.id, token=token, verb="succeed", duration_s=took)
        return Outcome(uow_id=uow.id, token=token, verb="no_data", error="not there yet", duration_s=took)
    if draw < habits.fails:
        return Outcome(
            uow_id=uow.id,
            token=token,
            verb="fail",
            error="ValueError: bad row",
            permanent=rng.random() < habits.permanent,
            duration_s=took,
        )
    if draw < habits.fails + habits.noop:
        return Outcome(uow_id=uow.id, token=token, verb="no_data", error="nothing there", duration_s=took)
    if draw < habits.fails + habits.noop + habits.cancels:
        return Outcome(uow_id=uow.id, token=token, verb="cancel", error="given up", duration_s=took)
    cursor = str(upto) if process.machine == "continuous" else None
    more = not uow.final and upto < WHOLE and rng.random() < habits.more
    return Outcome(
        uow_id=uow.id,
        token=token,
        verb="succeed",
        cursor=cursor,
        more=more,
        result={"upto": upto},
        duration_s=took,
    )


class Sink:
    """Where executions write: for each job what it holds, and the greatest token that wrote.

    The contract: output from a cursor on replaces what was written from there on, a smaller token is refused.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[int, int]] = {}
        self.rows: dict[str, dict[int, tuple[int, int]]] = {}  # job -> unit of data -> who wrote it

    def write(self, execution: Execution) -> bool:
        """One transaction of the user's code, as it ends. False: refused."""
        uow = execution.uow
        job, token = job_of(uow.id), (uow.run, uow.version)
        if token < self.tokens.get(job, (0, 0)):
            return False
        self.tokens[job] = token
        begin = int(uow.cursor or 0)
        kept = {n: who for n, who in self.rows.get(job, {}).items() if n < begin}
        self.rows[job] = kept | dict.fromkeys(range(begin, execution.upto), token)
        return True
