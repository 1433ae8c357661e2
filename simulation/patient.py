"""A broker over a network, on a virtual clock: what is on its way has no virtual time to arrive in.

In the simulation time moves only between calls, so a message that was confirmed must be there in the next one.
Here whoever finds nothing asks how many messages wait, and takes the broker's word for it: nothing is invented,
nothing is put in order, and it is the adapter that runs in production. It only waits, in real time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mq import open_broker
from scheduler.core.ports import REPORT_QUEUE, Broker, Consumer, Message, Outgoing

ON_ITS_WAY_S = 0.002  # sent to this consumer, and no longer counted as waiting
PATIENCE_S = 2.0  # for what waits there and does not come: another consumer may be sent it


@dataclass(slots=True)
class PatientBroker:
    """`Broker`: the one at a URL, with consumers that find what is there. A virtual host of its own is purged."""

    inner: Broker

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`."""
        self.inner.publish(messages)

    def consume(self, queues: Sequence[str], prefetch: int) -> PatientConsumer:
        """As `Broker.consume`."""
        return PatientConsumer(self.inner, self.inner.consume(queues, prefetch), tuple(queues))

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`."""
        self.inner.nudge(queue)

    def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """As `Broker.depth`."""
        return self.inner.depth(queues)

    def purge(self, queue: str) -> int:
        """As `Broker.purge`."""
        return self.inner.purge(queue)

    def close(self) -> None:
        """As `Broker.close`."""
        self.inner.close()


@dataclass(slots=True)
class PatientConsumer:
    """`Consumer`: waits for what the broker says is there."""

    broker: Broker
    inner: Consumer
    queues: tuple[str, ...]

    def receive(self, limit: int, timeout_s: float) -> list[Message]:
        """As `Consumer.receive`; virtually at once."""
        until = time.monotonic() + PATIENCE_S
        while not (messages := self.inner.receive(limit, ON_ITS_WAY_S)):
            if limit <= 0 or time.monotonic() > until or not any(self.broker.depth(self.queues).values()):
                return []
        return messages

    def ack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.ack`."""
        self.inner.ack(tags)

    def nack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.nack`."""
        self.inner.nack(tags)

    def wake(self) -> None:
        """As `Consumer.wake`."""
        self.inner.wake()

    def fileno(self) -> int | None:
        """As `Consumer.fileno`."""
        return self.inner.fileno()

    def close(self) -> None:
        """As `Consumer.close`."""
        self.inner.close()


def empty_broker(url: str, queues: Iterable[str]) -> Broker:
    """The broker at `url`, with these queues and that of reports emptied. In memory it needs no patience."""
    broker = open_broker(url)
    if url.startswith("embedded:"):
        return broker
    for queue in (REPORT_QUEUE, *queues):
        broker.purge(queue)
    return PatientBroker(broker)
