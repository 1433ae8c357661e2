"""The RabbitMQ broker: for several boxes, and for a queue that outlives the machine it stands on.

Two connections, each with a thread of its own, made when they are first needed: one publishes and asks, one
consumes. Both reconnect by themselves. What is published is confirmed, or BrokerUnavailable is raised within
the time-out; the caller publishes again when it likes, since the store is the truth and a double is harmless.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from mq import envelope, rabbit_names
from mq.rabbit_asker import Asker
from mq.rabbit_consumer import RabbitConsumer
from mq.rabbit_link import Link
from mq.rabbit_publisher import Publisher
from mq.rabbit_url import Server
from scheduler.core.errors import BrokerUnavailable, ConfigError
from scheduler.core.ports import Outgoing

log = logging.getLogger("synergy.mq")
_brokers: weakref.WeakSet[RabbitBroker] = weakref.WeakSet()


class RabbitBroker:
    """`scheduler.core.ports.Broker` on a RabbitMQ server or cluster. Raises ConfigError if pika is missing."""

    def __init__(self, server: Server) -> None:
        try:
            import pika  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "the broker is RabbitMQ, but the package pika is not installed; set SYNERGY_EXTRAS=rabbit and start"
                " again, or pip install 'synergy-scheduler[rabbit]'"
            ) from error
        self.server = server
        self._closed = False
        self._begin()
        _brokers.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._consumers: set[RabbitConsumer] = set()
        self.publishing = Link(
            self.server,
            "publisher",
            self._publisher_up,
            self._publisher_down,
            lambda reason: self._publisher.on_blocked(reason),
        )
        self.consuming = Link(self.server, "consumer", self._consumer_up, self._consumer_down)
        self._publisher = Publisher(self.server, self.publishing)
        self._asker = Asker(self.server, self.publishing)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`. Raises InvalidRequest for a malformed one, and sends none."""
        for message in messages:
            envelope.seal(message)
        if messages:
            self._check_open()
            self._publisher.publish(messages)

    def consume(self, queues: Sequence[str], prefetch: int) -> RabbitConsumer:
        """As `Broker.consume`. Raises BrokerUnavailable if it cannot subscribe now; later it resumes by itself."""
        names = {
            rabbit_names.queue_name(envelope.check_queue(queue), self.server.kind): queue for queue in queues
        }
        assert names and prefetch > 0, "a consumer needs a queue and a prefetch"
        self._check_open()
        self.consuming.wait_up(self.server.timeout_s)
        consumer = RabbitConsumer(self, names, prefetch)
        with self._lock:
            self._consumers.add(consumer)
        self.consuming.call(lambda: self._open(consumer))
        try:
            consumer.wait_ready(2 * self.server.timeout_s)
        except BrokerUnavailable:
            consumer.close()
            raise
        return consumer

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`. Never raises for a broker that is away: it may be lost."""
        envelope.check_queue(queue)
        try:
            self._check_open()
            self._publisher.nudge(queue)
        except BrokerUnavailable as error:
            log.debug("the nudge of %s is lost: %s", queue, error)

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """As `Broker.depth`: what was sent to a consumer and not acked does not wait."""
        self._check_open()
        names = [rabbit_names.queue_name(queue, self.server.kind) for queue in queues]
        return dict(zip(queues, self._asker.depths(names), strict=True))

    def purge(self, queue: str) -> int:
        """As `Broker.purge`."""
        self._check_open()
        return self._asker.purge(rabbit_names.queue_name(queue, self.server.kind))

    def close(self) -> None:
        """As `Broker.close`; its consumers are closed first."""
        with self._lock:
            consumers, closed, self._closed = list(self._consumers), self._closed, True
        if closed:
            return
        for consumer in consumers:
            consumer.close()
        self.consuming.close()
        self.publishing.close()

    def forget(self, consumer: RabbitConsumer) -> None:
        """It was closed."""
        with self._lock:
            self._consumers.discard(consumer)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("this broker was closed")

    # -- the links' threads -----------------------------------------------------------------------

    def _publisher_up(self, connection: Any) -> None:
        self._asker.on_up(connection)
        self._publisher.on_up(connection)

    def _publisher_down(self, reason: str) -> None:
        self._asker.on_down(reason)
        self._publisher.on_down(reason)

    def _consumer_up(self, connection: Any) -> None:
        self._connection = connection
        for consumer in self._all():
            consumer.open(connection)

    def _consumer_down(self, reason: str) -> None:
        for consumer in self._all():
            consumer.lost(reason)

    def _open(self, consumer: RabbitConsumer) -> None:
        if not consumer.is_open:
            consumer.open(self._connection)

    def _all(self) -> list[RabbitConsumer]:
        with self._lock:
            return list(self._consumers)

    # -- forks ------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """In a forked child: connections, threads and consumers are the parent's."""
        links = (self.publishing, self.consuming)
        for consumer in list(self._consumers):
            consumer.disown()
        self._begin()
        for link in links:
            link.disown()


def _after_fork() -> None:
    for broker in list(_brokers):
        try:
            broker._after_fork()
        except (
            OSError
        ):  # no socket is left: said, and the next broker has its turn; this one is of no use here
            log.exception("a forked process cannot use its broker")


os.register_at_fork(after_in_child=_after_fork)
