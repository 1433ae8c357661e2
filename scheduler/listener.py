"""The listener: where the scheduler's loop sleeps, and how it hears what workers report.

Reports come from the broker and name *which* unit of work changed, no more. They are acknowledged at once: a
report that is lost afterwards delays by a moment, since what a worker wrote is due to be looked at. There
is no thread of its own between broker and loop: handing over would cost more than a report is worth. While the
broker is away the loop goes on without it, and hears of things when they are due.
"""

from __future__ import annotations

import logging
import threading

from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import REPORT_QUEUE, Broker, Clock, Consumer
from scheduler.core.slice import Item

log = logging.getLogger(__name__)

BATCH = 256
BACKOFF_S = (0.2, 5.0)


class Listener:
    """Consumes `report` while this scheduler leads. Used by the loop's thread; `wake` by any."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self.broker, self.clock = broker, clock
        self._woken = threading.Event()
        self._consumer: Consumer | None = None
        self._delay_s, self._again_at = 0.0, 0.0
        self._is_on = False

    def start(self) -> None:
        """Begin to consume; harmless if it does already."""
        self._is_on = True

    def stop(self) -> None:
        """Stop consuming; harmless if it does not."""
        self._is_on = False
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                consumer.close()
            except BrokerUnavailable as error:
                log.debug("while closing the consumer of reports: %s", error)

    def wake(self) -> None:
        """Make a waiting `take` return."""
        self._woken.set()
        consumer = self._consumer
        if consumer is not None:
            consumer.wake()

    def take(self, timeout_s: float) -> list[Item]:
        """What was reported; waits `timeout_s` seconds at most, less when somebody wakes or nudges the leader."""
        now = self.clock.monotonic()
        if self._is_on and now >= self._again_at:
            try:
                return self._receive(timeout_s)
            except BrokerUnavailable as error:
                self._failed(error)
        if timeout_s > 0 and self._is_on:
            timeout_s = min(timeout_s, max(0.0, self._again_at - now))
        self._woken.wait(max(0.0, timeout_s))
        self._woken.clear()
        return []

    def _receive(self, timeout_s: float) -> list[Item]:
        if self._consumer is None:
            self._consumer = self.broker.consume([REPORT_QUEUE], BATCH)
        if self._woken.is_set():  # before there was a consumer to be woken
            self._woken.clear()
            timeout_s = 0.0
        messages = self._consumer.receive(BATCH, timeout_s)
        if messages:
            self._consumer.ack([message.tag for message in messages])
        if self._delay_s:
            log.info("the broker is back")
            self._delay_s = 0.0
        return [Item("uow", message.body) for message in messages if message.body]

    def _failed(self, error: BrokerUnavailable) -> None:
        self.stop()
        self._is_on = True
        shortest, longest = BACKOFF_S
        if not self._delay_s:
            log.warning("the broker is away: %s", error)
        self._delay_s = min(self._delay_s * 2, longest) or shortest
        self._again_at = self.clock.monotonic() + self._delay_s
