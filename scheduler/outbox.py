"""What was saved and has to be published.

Nothing is lost by a broker that is away: messages wait here, the leader tries again, and the sweep sends anew what was
requested and never taken. What still waits for a worker a while after it was sent is marked so in its row: the mark
spares a full sweep of a later leader that message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Broker, Change, Clock, Outgoing
from scheduler.core.slice import Item
from scheduler.core.uow import Uow

log = logging.getLogger(__name__)

UNSENT_MAX = 10_000
MARK_AFTER_S = 2.0
SEND_AGAIN_S = (0.05, 1.0)  # after a broker that was away, first and at most


class Outbox:
    """Messages of the leader. `real` tells real time on the store's clock. Used by one thread."""

    def __init__(self, broker: Broker, clock: Clock, real: Callable[[], datetime]) -> None:
        self._broker, self._clock, self._real = broker, clock, real
        self._unsent: list[Outgoing] = []
        self._send_at = self._send_wait = 0.0  # monotonic, and seconds: the broker was away
        self._sent: dict[str, datetime] = {}  # units of work, oldest first

    def send(self, messages: list[Outgoing]) -> int:
        """Publish what was saved, after what waits; how many went out. A broker that is away is tried again."""
        batch, self._unsent = [*self._unsent, *messages], []
        if not batch or (self._send_wait and self._clock.monotonic() < self._send_at):
            self._unsent = batch[-UNSENT_MAX:]
            return 0
        try:
            self._broker.publish(batch)
        except BrokerUnavailable as error:
            if not self._send_wait:
                log.warning("the broker is away (%s); %d messages wait", error, len(batch))
            self._unsent = batch[-UNSENT_MAX:]
            self._send_wait = min(max(2 * self._send_wait, SEND_AGAIN_S[0]), SEND_AGAIN_S[1])
            self._send_at = self._clock.monotonic() + self._send_wait
            return 0
        if self._send_wait:
            log.info("the broker is back")
            self._send_wait = 0.0
        real = self._real()
        for message in batch:
            if "#" in message.body and not message.queue.startswith("control."):
                self._sent.pop(message.body, None)  # oldest first
                self._sent[message.body] = real
        return len(batch)

    def forget(self) -> None:
        """Whoever leads anew sends what is requested by the rows; what waited here may have ended long ago."""
        self._unsent, self._sent = [], {}
        self._send_wait = 0.0

    def flush(self) -> None:
        """Send what could not be sent."""
        if self._unsent:
            self.send([])

    def waits_until(self) -> float | None:
        """When `flush` will try again, on the monotonic clock; None if nothing waits."""
        return self._send_at if self._unsent else None

    def reached(self, items: Sequence[Item]) -> None:
        """Who reports of a unit of work has been reached: nothing has to be marked for it."""
        if self._sent:
            for item in items:
                if item.kind == "uow":
                    self._sent.pop(item.what, None)

    def marks(self) -> list[Change]:
        """Mark as published what still waits for a worker a while after it was sent; each once."""
        if not self._sent:
            return []
        before = self._real() - timedelta(seconds=MARK_AFTER_S)
        old = list(takewhile(lambda sent: sent[1] <= before, self._sent.items()))
        for id_, _ in old:
            del self._sent[id_]
        return [Change(Uow, id_, {"state": "requested"}, {"published_at": at}) for id_, at in old]
