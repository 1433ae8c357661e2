"""What goes wrong: wrappers around the real store and the real broker, one pair for each actor.

A wrapper draws at every store operation and every publish whether its actor crashes there (before or after),
freezes there while the world goes on, does not get the answer, or finds the server away; and whether a
message is lost, doubled or late. The adapters inside know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from scheduler.core.errors import BrokerUnavailable, StoreUnavailable
from scheduler.core.ports import Broker, Consumer, Message, Outgoing, Store
from scheduler.core.records import Lease

if TYPE_CHECKING:
    from simulation.world import World


class Crash(BaseException):
    """This actor's process died here. Not an Exception: nothing of the product may catch it."""


@dataclass(slots=True)
class Odds:
    """How likely what is, at each point where it can be. Drawn anew for every seed."""

    crash: float = 0.0  # before or after a write or a publish
    unknown: float = 0.0  # a commit is applied and its answer lost
    freeze: float = 0.0  # the actor stands still, and others go on
    long_freeze: float = 0.0  # …for longer than its lease
    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0

    @staticmethod
    def drawn(rng: Random) -> Odds:
        """The odds of a seed: some seeds are calm in one respect, to be wild in another."""

        def some(most: float) -> float:
            return rng.choice((0.0, most * 0.2, most * 0.5, most))

        return Odds(
            crash=some(0.012),
            unknown=some(0.02),
            freeze=some(0.03),
            long_freeze=some(0.006),
            drop=some(0.15),
            double=some(0.15),
            delay=some(0.4),
        )


@dataclass(slots=True)
class Script:
    """Crash at the n-th point where an actor of this kind can: for trying every one of them.

    With `freeze_s`: stand still for so long, at the n-th point where it can.
    """

    kind: str
    at: int
    freeze_s: float = 0.0
    seen: int = 0
    hit_at: float | None = None  # monotonic

    def hits(self, faulty: Faulty, freezes: bool) -> bool:
        """Count a point; whether this is the one."""
        if self.kind != faulty.kind or freezes != (self.freeze_s > 0) or self.hit_at is not None:
            return False
        self.seen += 1
        if self.seen != self.at:
            return False
        self.hit_at = faulty.world.clock.monotonic()
        return True


class Faulty:
    """What both wrappers of one incarnation of an actor share."""

    def __init__(self, world: World, kind: str, rng: Random) -> None:
        self.world, self.kind, self.rng = world, kind, rng
        self.dead = False
        self.consumers: list[Consumer] = []
        self.saw_outage = False

    def crash_point(self, what: str) -> None:
        """Here the process may die."""
        if self.dead:
            raise Crash(what)
        script = self.world.script
        if script is not None and script.hits(self, freezes=False):
            raise Crash(what)
        odds = self.world.odds
        if odds.crash and self.rng.random() < odds.crash:
            raise Crash(what)

    def freeze_point(self) -> None:
        """Here the process may stand still while others go on."""
        odds, script = self.world.odds, self.world.script
        if script is not None and script.hits(self, freezes=True):
            self.world.freeze(self, script.freeze_s)
        if not odds.freeze:
            return
        draw = self.rng.random()
        if draw < odds.long_freeze:
            self.world.freeze(self, self.rng.uniform(0.5, 3.0) * self.world.lease_s)
        elif draw < odds.freeze:
            self.world.freeze(self, self.rng.expovariate(1 / 5.0))

    def reachable(self) -> None:
        """Raises StoreUnavailable while the store is away."""
        if self.world.store_away:
            self.saw_outage = True
            raise StoreUnavailable("the store is away (played)")

    def bury(self) -> None:
        """The process is dead: its consumers are gone, what they held comes again."""
        self.dead = True
        for consumer in self.consumers:
            getattr(consumer, "_changed", set()).clear()  # acks that were not written yet die with it
            consumer.close()
        self.consumers.clear()


class FaultyStore:
    """`Store`: the real one, in an actor's hands."""

    def __init__(self, faulty: Faulty, store: Store) -> None:
        self.faulty, self.store = faulty, store

    def init(self) -> None:
        """As `Store.init`."""

    def close(self) -> None:
        """As `Store.close`; the store outlives its actors."""

    def now(self) -> Any:
        """As `Store.now`."""
        return self.store.now()

    def session(self) -> Any:
        """As `Store.session`: none, for the actors of one simulation share one."""

    def end_session(self, lease: Lease) -> None:
        """As `Store.end_session`."""

    def transaction(self, lease: Lease | None = None) -> _FaultyBlock:
        """As `Store.transaction`."""
        return _FaultyBlock(self, lease)

    def find(self, *args: Any, **kwargs: Any) -> Any:
        """As `Store.find`."""
        self.faulty.reachable()
        found = self.store.find(*args, **kwargs)
        self.faulty.freeze_point()
        return found

    def select(self, *args: Any, **kwargs: Any) -> Any:
        """As `Store.select`."""
        self.faulty.reachable()
        return self.store.select(*args, **kwargs)

    def count(self, *args: Any, **kwargs: Any) -> Any:
        """As `Store.count`."""
        self.faulty.reachable()
        return self.store.count(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As `Store.get`."""
        self.faulty.reachable()
        return self.store.get(*args, **kwargs)


class _FaultyBlock:
    """A transaction with a crash point and a freeze before it and after it."""

    __slots__ = ("_block", "_faulty", "_lease", "_seen", "_store")

    def __init__(self, store: FaultyStore, lease: Lease | None) -> None:
        self._store, self._faulty, self._lease = store.store, store.faulty, lease

    def __enter__(self) -> Any:
        self._faulty.freeze_point()
        self._faulty.reachable()
        self._block: Any = self._store.transaction(self._lease)
        self._seen = _FaultyTx(self._faulty, self._block.__enter__())
        return self._seen

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        faulty = self._faulty
        if error is None:
            try:
                faulty.crash_point("before a commit")
            except Crash as crash:
                self._block.__exit__(Crash, crash, None)
                raise
        self._block.__exit__(kind, error, traceback)
        if error is not None:
            return
        faulty.world.committed(faulty, self._seen.wrote)
        faulty.crash_point("after a commit")
        odds = faulty.world.odds
        if odds.unknown and faulty.rng.random() < odds.unknown:
            faulty.saw_outage = True
            faulty.world.note(f"{faulty.world.name_of(faulty)}: the answer to a commit is lost")
            raise StoreUnavailable("no answer to the commit (played)")
        faulty.freeze_point()


class _FaultyTx:
    """The inside: each statement is a place to die."""

    __slots__ = ("_faulty", "_tx", "wrote")

    def __init__(self, faulty: Faulty, tx: Any) -> None:
        self._faulty, self._tx = faulty, tx
        self.wrote: set[type] = set()  # kinds of records; the fence's lease is not among them

    def insert(self, records: Sequence[Any], *, ignore: bool = False) -> int:
        """As `Transaction.insert`."""
        self._faulty.crash_point("before an insert")
        self.wrote.update(map(type, records))
        inserted: int = self._tx.insert(records, ignore=ignore)
        return inserted

    def update(self, changes: Sequence[Any]) -> int:
        """As `Transaction.update`."""
        self._faulty.crash_point("before an update")
        self.wrote.update(change.kind for change in changes)
        hits: int = self._tx.update(changes)
        return hits

    def delete(self, kind: type, where: Sequence[Any]) -> int:
        """As `Transaction.delete`."""
        self.wrote.add(kind)
        deleted: int = self._tx.delete(kind, where)
        return deleted

    def find(self, *args: Any, **kwargs: Any) -> Any:
        """As `Transaction.find`."""
        return self._tx.find(*args, **kwargs)


class FaultyBroker:
    """`Broker`: the real one, in an actor's hands, with a postman in between."""

    def __init__(self, faulty: Faulty, broker: Broker) -> None:
        self.faulty, self.broker = faulty, broker

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`. What was confirmed may still be lost, doubled, late, or overtaken."""
        faulty, world = self.faulty, self.faulty.world
        faulty.crash_point("before a publish")
        if world.broker_away:
            faulty.saw_outage = True
            raise BrokerUnavailable("the broker is away (played)")
        world.publishing(faulty, messages)
        for message in messages:
            self._post(message)
        faulty.crash_point("after a publish")

    def _post(self, message: Outgoing) -> None:
        odds, rng, world = self.faulty.world.odds, self.faulty.rng, self.faulty.world
        copies = 1
        if odds.drop and rng.random() < odds.drop:
            copies = 0
        elif odds.double and rng.random() < odds.double:
            copies = 2
        for _ in range(copies):
            late = 0.0
            if odds.delay and rng.random() < odds.delay:
                late = rng.choice((rng.uniform(0, 2), rng.expovariate(1 / 60), rng.paretovariate(1.2) * 30))
            world.deliver(message, min(late, 40_000.0))

    def consume(self, queues: Sequence[str], prefetch: int) -> FaultyConsumer:
        """As `Broker.consume`."""
        if self.faulty.world.broker_away:
            self.faulty.saw_outage = True
            raise BrokerUnavailable("the broker is away (played)")
        inner = self.broker.consume(queues, prefetch)
        self.faulty.consumers.append(inner)
        return FaultyConsumer(self.faulty, inner)

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`."""
        if self.faulty.rng.random() >= self.faulty.world.odds.drop:
            self.faulty.world.wake_queue(queue)

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """As `Broker.depth`."""
        return self.broker.depth(queues)

    def purge(self, queue: str) -> int:
        """As `Broker.purge`."""
        return self.broker.purge(queue)

    def close(self) -> None:
        """As `Broker.close`; the broker outlives its actors."""


@dataclass(slots=True)
class FaultyConsumer:
    """`Consumer`: the real one; away when the broker is."""

    faulty: Faulty
    inner: Consumer

    def receive(self, limit: int, timeout_s: float) -> list[Message]:
        """As `Consumer.receive`."""
        if self.faulty.world.broker_away:
            self.faulty.saw_outage = True
            raise BrokerUnavailable("the broker is away (played)")
        return self.inner.receive(limit, 0.0)

    def ack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.ack`."""
        self.inner.ack(tags)

    def nack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.nack`."""
        self.inner.nack(tags)

    def wake(self) -> None:
        """As `Consumer.wake`."""

    def fileno(self) -> int | None:
        """As `Consumer.fileno`."""
        return None

    def close(self) -> None:
        """As `Consumer.close`."""
        if self.inner in self.faulty.consumers:
            self.faulty.consumers.remove(self.inner)
            self.inner.close()
