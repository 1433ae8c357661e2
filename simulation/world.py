"""The virtual world: one line of time, the actors on it, the post between them, and the weather.

Time is milliseconds since the simulation began, and moves from one appointment to the next. An actor that
freezes inside a call lets the others go on from there (`freeze` runs the world within that call), which is
how two of them come to act between each other's read and write.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from db import open_store
from db.schema import SCHEMA_FACT, TABLES
from scheduler.clock import ManualClock
from scheduler.core.errors import Refused
from scheduler.core.plan import CASCADE_MAX
from scheduler.core.ports import REPORT_QUEUE, Outgoing, Store, Where
from scheduler.core.process import Context
from scheduler.core.records import Fact
from scheduler.core.timetable import Timetable
from simulation.executor import Execution, Habits, Sink
from simulation.faults import Faulty, Odds, Script
from simulation.patient import empty_broker

if TYPE_CHECKING:
    from simulation.actors import Actor
    from simulation.checker import Checker

MEMORY = "sqlite:///:memory:"
IN_MEMORY = "embedded:///:memory:"  # a broker
OURS = "simulation"  # the fact that marks a store as one that simulations may empty
DEEPEST = 3  # freezes within freezes
TRACE = 4000


def opened(url: str, clock: ManualClock) -> Store:
    """The store at `url`, emptied, and told to go by `clock`. Raises Refused if it holds anything of others."""
    if not url.startswith("sqlite") and "clock=" not in url:
        url += f"{'&' if '?' in url else '?'}clock=given"
    store = open_store(url, clock=clock)
    store.init()
    if store.get(Fact, OURS) is None and any(
        store.find(kind, limit=1) for kind in TABLES if kind is not Fact
    ):
        store.close()
        raise Refused("the store is in use: a simulation empties it first, so it wants one of its own")
    with store.transaction() as tx:
        for kind in TABLES:
            tx.delete(kind, (Where("key", "!=", SCHEMA_FACT),) if kind is Fact else ())
        tx.insert([Fact(key=OURS, value={})])
    return store


class World:
    """Everything that one simulated run shares."""

    def __init__(
        self, seed: int, context: Context, begin: datetime, store: str = MEMORY, broker: str = IN_MEMORY
    ) -> None:
        self.seed = seed
        self.rng = Random(f"{seed}/world")
        self.context = context
        self.timetable = Timetable(context)
        self.clock = ManualClock(begin)
        self.store = opened(store, self.clock)
        self.broker = empty_broker(broker, self.timetable.queues)
        self.odds, self.habits, self.sink = Odds(), Habits(), Sink()
        self.script: Script | None = None
        self.lease_s = 900.0  # of workers
        self.idle_s = 900.0  # until a worker that nobody wakes looks by itself
        self.cascade_max = CASCADE_MAX
        self.wakes_one = False
        self.store_away = self.broker_away = False
        self.jumps = 0
        self.actors: list[Actor] = []
        self.checker: Checker | None = None
        self.trace: list[tuple[datetime, str]] = []
        self.counts: dict[str, int] = {}
        self.live: dict[str, list[Execution]] = {}  # job -> executions that may still be under way
        self._ms = 0
        self._n = 0
        self._depth = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []

    # -- time -------------------------------------------------------------------------------------

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something `seconds` from now, real (virtual) time."""
        self._n += 1
        heapq.heappush(self._heap, (self._ms + max(0, math.ceil(seconds * 1000)), self._n, act))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self._ms + int(seconds * 1000)
        while self._heap and self._heap[0][0] <= until:
            ms, _, act = heapq.heappop(self._heap)
            self._move(ms)
            act()
        self._move(until)

    def _move(self, ms: int) -> None:
        if ms > self._ms:
            self.clock.advance(timedelta(milliseconds=ms - self._ms))
            self._ms = ms

    def freeze(self, faulty: Faulty, seconds: float) -> None:
        """The actor in the middle of a call stands still; the others go on."""
        if self._depth >= DEEPEST:
            return
        self.count("freezes")
        if seconds > 60:
            self.note(f"{self.name_of(faulty)} stands still for {seconds:.0f} s")
        self._depth += 1
        try:
            self.run(seconds)
        finally:
            self._depth -= 1

    def jump(self, seconds: float) -> None:
        """The machine's clock is set forward; monotonic clocks do not notice."""
        self.jumps += 1
        self.clock.set_real(self.clock.real() + timedelta(milliseconds=int(seconds * 1000)))
        self.note(f"the clock jumps {seconds:.0f} s forward")

    # -- post -------------------------------------------------------------------------------------

    def deliver(self, message: Outgoing, late_s: float) -> None:
        """Put a message into the real broker, now or later; then whoever consumes the queue notices."""

        def put() -> None:
            self.broker.publish([message])
            self.wake_queue(message.queue)

        if late_s > 0:
            self.at(late_s, put)
        else:
            put()

    def wake_queue(self, queue: str) -> None:
        """Its consumers notice; where `wakes_one`, only one does, as a message goes to one."""
        hearing = [actor for actor in self.actors if actor.hears(queue)]
        if self.wakes_one and hearing:
            hearing = [self.rng.choice(hearing)]
        for actor in hearing:
            actor.wake(self.rng.uniform(0.001, 0.05))

    # -- what the checker is told -----------------------------------------------------------------

    def committed(self, faulty: Faulty, wrote: set[type]) -> None:
        """An actor's transaction was committed; `wrote`: kinds of records, none if it only renewed the lease."""
        self.count(f"commits of {faulty.kind}s")
        if self.checker is not None and faulty.kind == "scheduler":
            self.checker.committed(self.holder_of(faulty), wrote)

    def publishing(self, faulty: Faulty, messages: Sequence[Outgoing]) -> None:
        """An actor publishes."""
        if self.checker is not None:
            self.checker.publishing(faulty.kind, messages)

    def started(self, execution: Execution) -> None:
        """An execution begins."""
        self.count("executions")
        if self.checker is not None:
            self.checker.started(execution)
        self.at(execution.ends_at - execution.begun, lambda: self._writes(execution))

    def _writes(self, execution: Execution) -> None:
        """The moment at which its code writes, if it still lives and the guard did not end it."""
        alive = execution.over is None or execution.over >= execution.ends_at
        writes = execution.outcome.verb == "succeed" and execution.uow.kind == "work"
        if alive and writes and execution.lease_ends >= execution.ends_at:
            self.sink.write(execution)

    def ended(self, execution: Execution) -> None:
        """An execution is over."""
        if self.checker is not None:
            self.checker.ended(execution)

    # -- small things -----------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something of the world for the story."""
        self.trace.append((self.clock.real(), text))
        if len(self.trace) > TRACE:
            del self.trace[: TRACE // 2]

    def count(self, what: str) -> None:
        """Statistics."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def actor_of(self, faulty: Faulty) -> Actor | None:
        """Whose wrapper it is."""
        return next((actor for actor in self.actors if actor.faulty is faulty), None)

    def name_of(self, faulty: Faulty) -> str:
        """The actor's name."""
        actor = self.actor_of(faulty)
        return actor.name if actor is not None else faulty.kind

    def holder_of(self, faulty: Faulty) -> str:
        """The name under which it would hold the leader's lease."""
        actor: Any = self.actor_of(faulty)
        return str(getattr(actor, "holder", ""))

    def a_job_for(self, rng: Random) -> str | None:
        """Some job that data may come late for."""
        if self.checker is None or not self.checker.model.jobs:
            return None
        ids = [job.id for job in self.checker.at_hand() if job.process in self.timetable.processes]
        managed = [id_ for id_ in ids if self.timetable.processes[id_.partition("@")[0]].kind == "managed"]
        return rng.choice(managed) if managed else None

    def close(self) -> None:
        """Let go of store and broker."""
        self.broker.close()
        self.store.close()


REPORTS = REPORT_QUEUE
