"""The actors: schedulers and workers, each an incarnation of the shipped object that may die and come again."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, Any

from scheduler.core.errors import LeaseLost, StoreUnavailable
from scheduler.core.ports import REPORT_QUEUE, control_queue
from scheduler.daemon import Daemon
from scheduler.engine import Engine
from scheduler.retention import Policy, prune
from simulation.executor import VirtualExecutor
from simulation.faults import Crash, Faulty, FaultyBroker, FaultyStore
from simulation.model import Broken
from worker.runner import Runner

if TYPE_CHECKING:
    from simulation.world import World

FOREVER = 10**9
MOST_STEPS = 12_000  # a day; the busiest day of a seed takes under 3,000, a loop that spins takes any number


class Actor:
    """Something that steps when it is woken, is away while it is dead or paused, and never twice at once."""

    kind = ""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rng = Random(f"{world.seed}/{name}")
        self.lives = self.steps = self.day = 0
        self.alive = self.busy = False
        self.paused_until = -1.0
        self.faulty = Faulty(world, self.kind, self.rng)
        self._appointed = float(FOREVER)
        self._ticket = 0
        self._missed = False  # somebody called while it stood still
        world.actors.append(self)

    def begin(self) -> None:
        """A new incarnation."""
        self.lives += 1
        self.alive = True
        self.faulty = Faulty(self.world, self.kind, self.rng)
        self.make()
        self.wake(0.0)

    def make(self) -> None:
        """Make the shipped object anew."""
        raise NotImplementedError

    def work(self) -> float:
        """One pass; returns the seconds until the next."""
        raise NotImplementedError

    def bury(self) -> None:
        """What dies with it."""

    def hears(self, queue: str) -> bool:
        """Whether a message in this queue wakes it."""
        return False

    def wake(self, seconds: float) -> None:
        """Step in `seconds`, unless it would sooner anyway."""
        at = self.world.clock.monotonic() + seconds
        if not self.alive or at >= self._appointed:
            return
        self._appointed = at
        self._ticket += 1
        ticket = self._ticket
        self.world.at(seconds, lambda: self._step(ticket))

    def pause(self, seconds: float) -> None:
        """Stand still between two steps."""
        self.paused_until = self.world.clock.monotonic() + seconds

    def _step(self, ticket: int) -> None:
        if ticket != self._ticket or not self.alive:
            return
        self._appointed = FOREVER
        now = self.world.clock.monotonic()
        self.steps += 1
        if self.day != now // 86400:
            self.day, self.steps = int(now // 86400), 0
        if self.steps > MOST_STEPS:
            raise Broken(4, f"{self.name} steps without end and gets nowhere")
        if self.busy:  # frozen within a step: the world runs inside it
            self._missed = True
            return
        if now < self.paused_until:
            self.wake(self.paused_until - now + 0.001)
            return
        self.guarded(self._work)

    def _work(self) -> None:
        wait = self.work()
        if self._missed:
            wait, self._missed = 0.01, False
        self.wake(max(0.001, wait))

    def guarded(self, act: Any) -> None:
        """Do something of this actor's; it may die of it."""
        self.busy = True
        try:
            act()
        except Crash as crash:
            self.die(str(crash))
        finally:
            self.busy = False

    def die(self, why: str) -> None:
        """Its process is gone; another one is started after a while."""
        self.world.count(f"crashes of {self.kind}s")
        self.world.note(f"{self.name} dies {why}")
        self.alive = False
        self.faulty.bury()
        self.bury()
        self._appointed = FOREVER
        self.world.at(self.rng.choice((1.0, self.rng.expovariate(1 / 120.0), 600.0)), self.begin)


class _Silent:
    def write(self, events: Any) -> None:
        """Nobody reads the log of a simulation."""


class SchedulerActor(Actor):
    """The shipped daemon's step around the shipped engine."""

    kind = "scheduler"

    def __init__(self, world: World, name: str, lease_s: float, sweep_s: float) -> None:
        super().__init__(world, name)
        self.lease_s, self.sweep_s = lease_s, sweep_s

    def make(self) -> None:
        """As `Actor.make`."""
        self.holder = f"{self.name}.{self.lives}"
        self.engine = Engine(
            FaultyStore(self.faulty, self.world.store),
            FaultyBroker(self.faulty, self.world.broker),
            self.world.clock,
            self.world.timetable,
            holder=self.holder,
            leader_lease_s=self.lease_s,
            worker_lease_s=self.world.lease_s,
            sweep_s=self.sweep_s,
        )
        self.daemon = Daemon(self.engine, tick_s=0.0, look_every_s=0.0)
        self.daemon.eventlog = _Silent()  # type: ignore[assignment]

    def work(self) -> float:
        """As `Actor.work`: what `Daemon.run` does in one round."""
        try:
            self.daemon._step()
        except LeaseLost:
            self.world.count("lost leases")
            self.daemon._stand_by()
            return 1.0
        except StoreUnavailable:
            self.engine.outage()
            return 5.0
        if self.engine.lease is None:
            return self.lease_s / 4
        try:
            return self.engine.sleep_s(self.lease_s / 3)
        except StoreUnavailable:
            return 5.0

    def keep_house(self, policy: Policy) -> None:
        """What the daemon does in its idle rounds: passes of retention, as the leader."""
        if self.alive and not self.busy and self.engine.lease is not None:
            self.guarded(lambda: self._prune(policy))

    def _prune(self, policy: Policy) -> None:
        engine = self.engine
        try:
            while prune(engine.store, engine.lease, engine.clock, policy).more:
                pass
        except LeaseLost:
            engine.lease = None
        except StoreUnavailable:
            engine.outage()

    def hears(self, queue: str) -> bool:
        """As `Actor.hears`."""
        return queue == REPORT_QUEUE and self.alive and self.engine.lease is not None


class WorkerActor(Actor):
    """The shipped runner around a virtual executor."""

    kind = "worker"

    def __init__(self, world: World, name: str, queues: tuple[str, ...], slots: int) -> None:
        super().__init__(world, name)
        self.queues, self.slots = queues, slots
        self.owner = ""

    def make(self) -> None:
        """As `Actor.make`."""
        self.owner = f"{self.name}.{self.lives}"
        self.executor = VirtualExecutor(self.world, self.owner, self.slots, self.wake)
        tokens = itertools.count(1)
        self.runner = Runner(
            store=FaultyStore(self.faulty, self.world.store),
            broker=FaultyBroker(self.faulty, self.world.broker),
            clock=self.world.clock,
            executor=self.executor,
            processes=self.world.context.processes,
            queues=self.queues,
            owner=self.owner,
            box="here",
            lease_s=self.world.lease_s,
            grace_s=60.0,
            new_token=lambda: f"{self.owner}/{next(tokens)}",
        )
        life = self.lives
        self.world.at(self.world.lease_s / 6, lambda: self._renew(life))

    def _renew(self, life: int) -> None:
        """The renewal thread."""
        if life != self.lives or not self.alive:
            return
        self.world.at(self.world.lease_s / 6, lambda: self._renew(life))
        if self.busy or self.world.clock.monotonic() < self.paused_until or not self.runner.running:
            return
        self.guarded(self._renew_now)

    def _renew_now(self) -> None:
        try:
            self.runner.renew()
        except StoreUnavailable:
            pass
        self.wake(0.0)

    def work(self) -> float:
        """As `Actor.work`."""
        self.faulty.saw_outage = False
        did = self.runner.step(0.0)
        if self.runner.is_done:
            self.runner.close()
            self.faulty.bury()
            self.alive = False
            self.world.at(self.rng.uniform(1, 300), self.begin)
            return FOREVER
        if did.finished or did.released or did.stopped or did.dropped or did.lost:
            return 0.01  # there is room again
        if self.faulty.saw_outage:
            return 5.0
        now = self.world.clock.monotonic()
        limits = [e.times_out - now for e in self.runner._executions.running() if e.times_out is not None]
        return max(
            0.01, min(20.0 if self.runner._drain else self.world.idle_s, self.executor.next_s(), *limits)
        )

    def bury(self) -> None:
        """As `Actor.bury`: executions die with their worker."""
        self.executor.close()

    def leave(self) -> None:
        """A planned stop."""
        if self.alive and not self.busy:
            self.world.note(f"{self.name} is drained")
            self.runner.drain(now=self.rng.random() < 0.3)
            self.wake(0.0)

    def hears(self, queue: str) -> bool:
        """As `Actor.hears`."""
        return self.alive and (queue in self.queues or queue == control_queue(self.owner))
