"""One seed: first with faults, then without, then at rest, then with every hold lifted, and at rest again."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import scheduler.core.plan
from scheduler.clock import mapping_command
from scheduler.core.event import Event
from scheduler.core.plan import CASCADE_MAX
from scheduler.core.ports import Where
from scheduler.core.uow import Uow
from scheduler.eventlog import line
from simulation.actors import SchedulerActor, WorkerActor
from simulation.checker import Checker
from simulation.contexts import Stage, stage
from simulation.faults import Odds, Script
from simulation.model import Broken
from simulation.operator import Operator, Registrar
from simulation.rest import check_rest
from simulation.world import IN_MEMORY, MEMORY, World

STORY = 30
CHUNK_S = 1800.0
MOST_CHUNKS = 200


@dataclass(slots=True)
class Result:
    """How a seed went."""

    seed: int
    digest: str = ""
    events: int = 0
    jobs: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    invariant: int | None = None
    text: str = ""
    story: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing was broken."""
        return self.invariant is None


@contextmanager
def window_of(look: int, cascade_max: int = CASCADE_MAX) -> Iterator[None]:
    """The core looks at so few rows at once: what 64 hides, 3 shows. So with the limit of cascades."""
    core = [(name, module) for name, module in sys.modules.items() if name.startswith("scheduler.core.")]
    # inputs looks ahead by it, which changes what is read and nothing that is decided
    modules: list[Any] = [m for name, m in core if hasattr(m, "LOOK") and not name.endswith(".inputs")]
    scheduler.core.plan.CASCADE_MAX = cascade_max
    before = [module.LOOK for module in modules]
    for module in modules:
        module.LOOK = look
    quiet = [(log, log.level) for log in (logging.getLogger(name) for name in ("synergy", "scheduler"))]
    for log, _ in quiet:
        log.setLevel(logging.CRITICAL)  # outages are played by the dozen; nobody reads of them here
    try:
        yield
    finally:
        for log, level in quiet:
            log.setLevel(level)
        for module, old in zip(modules, before, strict=True):
            module.LOOK = old
        scheduler.core.plan.CASCADE_MAX = CASCADE_MAX


class Run:
    """The course of one seed. `endings`: whether there is a `Registrar`; None: the seed says."""

    def __init__(
        self,
        seed: int,
        *,
        given: Stage | None = None,
        script: Script | None = None,
        calm: bool = False,
        store: str = MEMORY,
        broker: str = IN_MEMORY,
        endings: bool | None = None,
    ) -> None:
        self.seed = seed
        self.stage = given or stage(seed)
        self.world = World(seed, self.stage.context, self.stage.begin, store, broker)
        self.world.checker = self.checker = Checker(self.world)
        self.world.script = script
        self.rng = self.world.rng
        self.calm = calm
        if not calm:
            self.world.odds = Odds.drawn(self.rng)
            self.world.lease_s = self.rng.choice((300.0, 900.0, 1800.0))
        self.schedulers = [
            SchedulerActor(self.world, f"s{n}", 600.0, 900.0) for n in (1, 2)[: 1 if calm else 2]
        ]
        queues = (("default", "slow"), ("default",), ("slow", "default"))
        self.workers = [WorkerActor(self.world, f"w{n}", queues[n - 1], 2) for n in (1, 2, 3)]
        self.operator: Operator | None = None
        self.registrar: Registrar | None = None
        drawn = Random(f"{seed}/endings")  # apart: a seed without them is what it was before they came
        has_some = drawn.random() < 0.4 and not calm
        self.endings = has_some if endings is None else endings
        if self.endings:
            self.world.cascade_max = drawn.choice((3, 6, 12, 25))

    def play(self) -> Result:
        """All of it."""
        result = Result(self.seed)
        try:
            with window_of(self.stage.look, self.world.cascade_max):
                self._play()
        except Broken as broken:
            result.invariant, result.text = broken.invariant, broken.text
            result.story = self.story(broken.jobs)
        except Exception as error:  # noqa: BLE001 - whatever the product raised is a finding of this seed
            result.invariant, result.text = 0, f"{type(error).__name__}: {error}"
            result.story = [*traceback.format_exc().splitlines()[-14:], *self.story(())]
        finally:
            result.digest, result.events = self.digest()
            result.jobs = len(self.checker.model.jobs)
            done = {f"commands: {verb}": number for verb, number in self.checker.model.acts.items()}
            result.counts = {**self.world.counts, **done}
            self.world.close()
        return result

    def _play(self) -> None:
        for actor in (*self.schedulers, *self.workers):
            actor.begin()
        self.operator = Operator(self.world)
        if self.endings:
            self.registrar = Registrar(self.world)
        if self.calm:
            self.operator.on = False
            self.world.run(self.stage.days * 86400)
        else:
            self._weather()
            self.world.run(self.stage.days * 86400)
            self._calm_down()
            self.world.run(
                self.rng.choice((0, 0, 3600, 4 * 3600))
            )  # at 0 only the sweep can mend what is left
        self._stop_time()
        self.rest()
        check_rest(self.checker)
        self.operator.release_all()
        self.rest()
        check_rest(self.checker)

    # -- weather ----------------------------------------------------------------------------------

    def _weather(self) -> None:
        rng, seconds = self.rng, self.stage.days * 86400
        for _ in range(rng.randint(0, 4)):
            self.world.at(
                rng.uniform(0, seconds), lambda: self._outage("store_away", rng.expovariate(1 / 300))
            )
        for _ in range(rng.randint(0, 4)):
            self.world.at(
                rng.uniform(0, seconds), lambda: self._outage("broker_away", rng.expovariate(1 / 900))
            )
        for _ in range(rng.choice((0, 0, 1, 2))):
            self.world.at(rng.uniform(0, seconds), lambda: self.world.jump(rng.choice((30, 3000, 20_000))))
        for _ in range(rng.choice((0, 0, 1, 2))):
            self.world.at(rng.uniform(0, seconds), lambda: self._shift(-rng.uniform(60, 9000)))
        if rng.random() < 0.2:
            self.world.at(rng.uniform(0, seconds), lambda: self._shift(rng.uniform(60, 30_000)))
        for _ in range(rng.randint(0, 6)):
            self.world.at(rng.uniform(0, seconds), self._pause)
        for _ in range(rng.randint(0, 5)):
            self.world.at(rng.uniform(0, seconds), self._kill)
        for _ in range(rng.randint(0, 3)):
            self.world.at(rng.uniform(0, seconds), lambda: rng.choice(self.workers).leave())

    def _outage(self, what: str, seconds: float) -> None:
        setattr(self.world, what, True)
        self.world.note(f"{what} for {seconds:.0f} s")
        self.world.at(seconds, lambda: setattr(self.world, what, False))

    def _shift(self, seconds: float) -> None:
        clock = self.world.clock
        self.world.note(f"business time is shifted by {seconds:.0f} s")
        clock.set_mapping(mapping_command(clock.mapping, clock.real(), shift=timedelta(seconds=seconds)))

    def _pause(self) -> None:
        actor = self.rng.choice([*self.schedulers, *self.workers])
        seconds = self.rng.uniform(0.3, 4.0) * self.world.lease_s
        self.world.note(f"{actor.name} is paused for {seconds:.0f} s")
        actor.pause(seconds)

    def _kill(self) -> None:
        actor = self.rng.choice([*self.schedulers, *self.workers])
        if not actor.alive or actor.busy:
            return
        owner = getattr(actor, "owner", None)
        actor.die("by a kill")
        if owner and self.rng.random() < 0.5 and self.operator is not None:
            operator = self.operator
            self.world.at(2.0, lambda: operator.worker_died(owner))

    def _calm_down(self) -> None:
        world = self.world
        world.odds, world.script = Odds(), None
        world.store_away = world.broker_away = False
        assert self.operator is not None
        self.operator.on = False
        if self.registrar is not None:
            self.registrar.on = False
        world.note("from here on nothing goes wrong any more")

    def _stop_time(self) -> None:
        """Business time stands: the periods that are due are a fixed set, and must be worked off."""
        clock = self.world.clock
        clock.set_mapping(mapping_command(clock.mapping, clock.real(), rate=0.0))
        self.world.note("business time stands still")

    def rest(self) -> None:
        """Go on until nothing happens any more. Raises Broken if that takes too long."""
        still = 0
        for _ in range(MOST_CHUNKS):
            seq = self.checker.model.seq
            self.world.run(CHUNK_S)
            waits = self.world.store.count(Uow, (Where("state", "in", ("requested", "in_progress")),)).get(
                (), 0
            )
            still = still + 1 if self.checker.model.seq == seq and not waits else 0
            if still >= 3:
                return
        raise Broken(4, "the world does not come to rest")

    # -- telling ----------------------------------------------------------------------------------

    def digest(self) -> tuple[str, int]:
        """A hash of the whole history."""
        found = hashlib.sha256()
        events = self.world.store.find(Event, (), ("source", "seq"))
        for e in events:
            text = json.dumps(
                [e.seq, e.kind, e.process, e.timeperiod, e.uow, e.actor, e.at.isoformat(), e.data]
            )
            found.update(text.encode())
        return found.hexdigest()[:16], len(events)

    def story(self, jobs: tuple[str, ...]) -> list[str]:
        """The last events of the jobs concerned, and what happened in the world meanwhile."""
        where: list[Where] = []
        names = {job.partition("@")[::2] for job in jobs}
        events = self.world.store.find(Event, where, ("-seq",), None if names else STORY)
        chosen = [
            e
            for e in events
            if not names or (e.process, e.timeperiod) in names or e.kind.startswith(("hold", "command"))
        ]
        chosen = sorted(chosen[:STORY], key=lambda e: e.seq)
        lines = [(e.at, f"{e.seq:>6}  {line(e)}  {_data(e)}") for e in chosen]
        since = chosen[0].at if chosen else self.stage.begin
        lines += [(at, f"     ~  {text}") for at, text in self.world.trace if at >= since]
        return [f"{at:%d %H:%M:%S} {text}" for at, text in sorted(lines, key=lambda x: x[0])]


def _data(event: Event) -> str:
    data = {
        k: v
        for k, v in (event.data or {}).items()
        if k in ("state", "run", "attempt", "reason", "version", "target", "scope")
    }
    return json.dumps(data) if data else ""


def run_seed(
    seed: int, store: str = MEMORY, broker: str = IN_MEMORY, *, endings: bool | None = None, **theme: str
) -> Result:
    """Play one seed on the store and broker at these URLs, emptied first; `theme` as in `contexts.stage`."""
    return Run(seed, given=stage(seed, **theme), store=store, broker=broker, endings=endings).play()
