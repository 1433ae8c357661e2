"""The embedded broker: a SQLite file with the messages, and a doorbell for each consumer. For one machine.

A consumer lives as long as it holds its byte of the roll call (`liveness.py`); whoever looks next gives
back what the dead had claimed: a consumer as it subscribes and each second, a publisher or a nudge when
nobody answers a bell. So a `kill -9` costs a second at most.

Acks are kept and written with the consumer's next look, in one commit, or as it closes. A crash between
loses them, which means a second delivery: legal, and the store's compare-and-set is there for it.

Order: highest priority first, then oldest, over all queues of the consumer; strict among what waits. What
was given back takes its old place again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mq import envelope, rows
from mq.queue_file import QueueFile
from mq.reach import Inside, Machine, Reach
from mq.wakeup import MESSAGE, NUDGE
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Message, Outgoing

POLL_S = 1.0  # the safety net under lost wake-ups, and how often the dead are looked for
log = logging.getLogger("synergy.mq")
_brokers: weakref.WeakSet[EmbeddedBroker] = weakref.WeakSet()


class EmbeddedBroker:
    """`scheduler.core.ports.Broker` on the SQLite file `path`, or in memory (`:memory:`, for one process)."""

    def __init__(self, path: str) -> None:
        self.file = QueueFile(path)
        self._stamp = rows.counting_stamp() if self.file.in_memory else rows.clock_stamp
        self._reach: Reach | None = None
        self._consumers: set[EmbeddedConsumer] = set()
        self._bells: dict[str, dict[int, str]] = {}  # as of `_edition`; used inside `with self.file` only
        self._edition = b""
        self._lock = threading.Lock()
        self._closed = False
        _brokers.add(self)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`, in one commit. Raises InvalidRequest for a malformed one, and sends none."""
        for message in messages:
            envelope.seal(message)
        if not messages:
            return
        reach = self.reach()
        with self.file as db:
            rows.put(db, messages, self._stamp)
            if (edition := reach.edition()) != self._edition:
                self._bells, self._edition = {}, edition
            bells: dict[int, str] = {}
            for queue in {message.queue for message in messages}:
                if queue not in self._bells:
                    self._bells[queue] = rows.bells(db, (queue,))
                bells.update(self._bells[queue])
        self.ring(bells, MESSAGE)

    def consume(self, queues: Sequence[str], prefetch: int) -> EmbeddedConsumer:
        """As `Broker.consume`."""
        names = tuple(dict.fromkeys(envelope.check_queue(queue) for queue in queues))
        assert names and prefetch > 0, "a consumer needs a queue and a prefetch"
        consumer = EmbeddedConsumer(self, names, prefetch)
        with self._lock:
            self._consumers.add(consumer)
        self.bury_the_dead()
        return consumer

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`."""
        found = self.file.read(rows.BELLS, (queue,))
        self.ring({row[0]: row[1].decode() for row in found}, NUDGE)

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """As `Broker.depth`; what is claimed and not yet acked does not wait."""
        return {queue: self.file.read(rows.DEPTH, (queue,))[0][0] for queue in queues}

    def purge(self, queue: str) -> int:
        """As `Broker.purge`."""
        with self.file as db:
            return db.execute("DELETE FROM messages WHERE queue = ?", (queue,)).rowcount

    def close(self) -> None:
        """As `Broker.close`; its consumers are closed first."""
        with self._lock:
            consumers, closed, self._closed = list(self._consumers), self._closed, True
        if closed:
            return
        try:
            for consumer in consumers:
                consumer.close()
        finally:
            if self._reach is not None:
                self._reach.close()
            self.file.close()

    def reach(self) -> Reach:
        """How consumers are reached, made when it is first needed. Raises BrokerUnavailable."""
        if self._reach is not None:
            return self._reach
        with self._lock:
            if self._reach is None:
                self._reach = Inside() if self.file.in_memory else Machine(self.file.path)
            return self._reach

    def forget(self, consumer: EmbeddedConsumer) -> None:
        """It was closed."""
        with self._lock:
            self._consumers.discard(consumer)

    def ring(self, bells: Mapping[int, str], kind: bytes) -> None:
        """Ring; where nobody answers, see whether they are dead."""
        if bells and (silent := self.reach().ring(bells, kind)):
            self._bury({consumer: bells[consumer] for consumer in silent})

    def bury_the_dead(self) -> None:
        """Give back what dead consumers had claimed."""
        if not self.file.in_memory:
            self._bury({row[0]: row[1].decode() for row in self.file.read(rows.ADDRESSES)})

    def _bury(self, suspects: Mapping[int, str]) -> None:
        reach = self.reach()
        dead = reach.dead(suspects)
        if not dead:
            return
        with self.file as db:
            reach.new_edition()
            for consumer in dead:
                rows.unsubscribe(db, consumer)
            living = {row[0]: row[1].decode() for row in db.execute(rows.ADDRESSES)}
        reach.forget({consumer: suspects[consumer] for consumer in dead})
        reach.ring(living, MESSAGE)

    def _after_fork(self) -> None:
        """In a forked child nothing of the parent's is ours."""
        self.file.abandon()
        self._lock, self._reach, self._edition = threading.Lock(), None, b""
        for consumer in self._consumers:
            consumer.disown()
        self._consumers = set()


class EmbeddedConsumer:
    """`scheduler.core.ports.Consumer`: used by one thread; `wake`, and the broker's `close`, come from any.

    `fileno` becomes readable when something is published. After that call `receive` until it returns [].
    """

    def __init__(self, broker: EmbeddedBroker, queues: tuple[str, ...], prefetch: int) -> None:
        self._broker = broker
        self._queues = queues
        self._prefetch = prefetch
        self._held: dict[int, int] = {}  # tag → claim
        self._claims: dict[int, dict[int, tuple[Any, ...]]] = {}  # claim → tag → (queue, rank, id, body)
        self._changed: set[int] = set()  # claims with acks that are not written yet
        self._lock = threading.Lock()  # only `close` of another thread ever competes for it
        self._closed = False
        self._looked_at = time.monotonic()
        self._reach = broker.reach()
        self.id, self._bell = self._reach.enrol()
        try:
            with broker.file as db:
                self._reach.new_edition()
                rows.subscribe(db, self.id, self._bell.address, os.getpid(), queues)
        except BaseException:
            self._reach.dismiss(self.id, self._bell)
            raise

    def receive(self, limit: int, timeout_s: float) -> list[Message]:
        """As `Consumer.receive`. Raises BrokerUnavailable, also when it was closed before."""
        deadline: float | None = None
        while True:
            with self._lock:
                if self._closed:
                    if deadline is not None:
                        return []  # closed while it waited
                    raise BrokerUnavailable(f"this consumer of {', '.join(self._queues)} was closed")
                called = self._bell.drain()
                messages = self._look(min(limit, self._prefetch - len(self._held)))
            now = time.monotonic()
            if now - self._looked_at >= POLL_S:
                self._looked_at = now
                self._broker.bury_the_dead()
            deadline = now + timeout_s if deadline is None else deadline
            if messages or called or now >= deadline:
                return messages
            self._bell.wait(min(deadline - now, POLL_S))

    def ack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.ack`; written with the next look. What is not held is ignored."""
        with self._lock:
            self._drop(tags)

    def nack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.nack`."""
        with self._lock:
            given = self._drop(tags)
            if not given:
                return
            try:
                with self._broker.file as db:
                    rows.put_back(db, [message for _, message in given])
                    self._write_acks(db)
                    bells = rows.bells(db, self._queues)
            except BrokerUnavailable:
                for claim, message in given:  # they are still held
                    self._held[message[2]] = claim
                    self._claims.setdefault(claim, {})[message[2]] = message
                raise
            self._changed.clear()
        bells.pop(self.id, None)
        self._broker.ring(bells, MESSAGE)

    def wake(self) -> None:
        """As `Consumer.wake`."""
        self._bell.wake()

    def fileno(self) -> int | None:
        """As `Consumer.fileno`; None in memory."""
        return self._bell.fileno()

    def close(self) -> None:
        """As `Consumer.close`; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._bell.wake()
            bells: dict[int, str] = {}
            try:
                with self._broker.file as db:
                    self._write_acks(db)
                    self._reach.new_edition()
                    if rows.unsubscribe(db, self.id):
                        bells = rows.bells(db, self._queues)
            finally:  # if that failed, others find this consumer dead and do it
                self._reach.dismiss(self.id, self._bell)
                self._broker.forget(self)
        self._reach.ring(bells, MESSAGE)

    def disown(self) -> None:
        """In a forked child: this consumer is the parent's."""
        self._lock, self._closed = threading.Lock(), True

    def _look(self, room: int) -> list[Message]:
        """Write the acks, claim up to `room` messages."""
        if not self._changed and (room <= 0 or not self._anything()):
            return []
        messages: list[Message] = []
        refused: list[rows.Taken] = []
        claimed: dict[int, tuple[Any, ...]] = {}
        claim = 0
        with self._broker.file as db:
            self._write_acks(db)
            for taken in rows.take(db, self._queues, room) if room > 0 else ():
                queue, rank, tag, sealed, again = taken
                body = envelope.unseal(sealed)
                if body is None:
                    refused.append(taken)
                else:
                    messages.append(Message(body, tag, again != 0))
                    claimed[tag] = (queue, rank, tag, body)
            rows.bury(db, refused)
            if claimed:
                claim = rows.claim(db, self.id, list(claimed.values()))
        self._changed.clear()
        if claimed:
            self._claims[claim] = claimed
            self._held.update(dict.fromkeys(claimed, claim))
        for taken in refused:
            log.error("%s", envelope.refusal(taken.queue, taken.body))
        return messages

    def _anything(self) -> bool:
        """Whether anything waits: a look without the writers' lock."""
        return any(self._broker.file.read(rows.ANY, (queue,)) for queue in self._queues)

    def _drop(self, tags: Iterable[Any]) -> list[tuple[int, tuple[Any, ...]]]:
        """Hold these no longer; returns their (claim, message)."""
        dropped = []
        for tag in tags:
            claim = self._held.pop(tag, None)
            if claim is not None:
                dropped.append((claim, self._claims[claim].pop(tag)))
                self._changed.add(claim)
        return dropped

    def _write_acks(self, db: Any) -> None:
        for claim in self._changed:
            left = self._claims.get(claim, {})
            rows.release(db, claim, self.id, list(left.values()))
            if not left:
                self._claims.pop(claim, None)


def _after_fork() -> None:
    for broker in list(_brokers):
        broker._after_fork()


os.register_at_fork(after_in_child=_after_fork)
