"""The listener: consumes `report` and puts what workers reported into the inbox.

A report says only *which* unit of work changed. It is acknowledged at once: a report that is lost
afterwards delays by a second, since what a worker wrote is due to be looked at.
"""

from __future__ import annotations

import logging
import threading

from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import REPORT_QUEUE, Broker, Consumer
from scheduler.core.slice import Item
from scheduler.inbox import Inbox

log = logging.getLogger(__name__)

BATCH = 256
BACKOFF_S = (0.2, 5.0)


class Listener:
    """A thread that lives as long as this scheduler leads."""

    def __init__(self, broker: Broker, inbox: Inbox) -> None:
        self.broker, self.inbox = broker, inbox
        self._stopping = threading.Event()
        self._consumer: Consumer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to consume; harmless if it does already."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop consuming; harmless if it does not."""
        self._stopping.set()
        consumer = self._consumer
        if consumer is not None:
            consumer.wake()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def _run(self) -> None:
        delay, longest = BACKOFF_S
        said = False
        while not self._stopping.is_set():
            try:
                self._consume()
                said = False
                delay = BACKOFF_S[0]
            except BrokerUnavailable as error:
                if not said:
                    log.warning("the broker is away: %s", error)
                    said = True
                self._stopping.wait(delay)
                delay = min(delay * 2, longest)

    def _consume(self) -> None:
        self._consumer = consumer = self.broker.consume([REPORT_QUEUE], BATCH)
        try:
            while not self._stopping.is_set():
                messages = consumer.receive(BATCH, 1.0)
                if messages:
                    consumer.ack([message.tag for message in messages])
                self.inbox.put(Item("uow", message.body) for message in messages if message.body)
        finally:
            self._consumer = None
            consumer.close()
