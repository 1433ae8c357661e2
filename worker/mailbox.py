"""The runner's side of the broker: messages taken for free slots, calls to look again, and reports.

An unreachable broker is an `Outage`: what was received is forgotten (it comes again), reports are kept until they
can be sent. Nothing here raises BrokerUnavailable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import REPORT_QUEUE, Broker, Clock, Consumer, Outgoing, control_queue
from worker.outage import Outage

log = logging.getLogger("synergy.worker")

CONTROL_PREFETCH = 64
CONTROL_EVERY_S = 1.0  # a look without being called: the safety net under lost wake-ups


class Mailbox:
    """Of worker `owner`, which consumes `queues` and holds `prefetch` messages at most."""

    def __init__(
        self, broker: Broker, clock: Clock, queues: Sequence[str], owner: str, prefetch: int
    ) -> None:
        self._broker, self._clock = broker, clock
        self._queues, self._owner, self._prefetch = tuple(queues), owner, prefetch
        self._work: Consumer | None = None
        self._control: Consumer | None = None
        self._control_after = 0.0
        self._reports: dict[str, None] = {}
        self._nudges = False
        self.waiting: dict[str, list[Any]] = {}  # unit of work → tags: received, neither acked nor given back
        self.outage = Outage("broker")

    @property
    def has_reports(self) -> bool:
        """Something waits to be told."""
        return bool(self._reports) or self._nudges

    def descriptors(self, is_hungry: bool) -> tuple[list[int], bool]:
        """What to wait on (the queues only if `is_hungry`), and whether a consumer has nothing to wait on."""
        consumers = [c for c in (self._control, self._work if is_hungry else None) if c is not None]
        found = [c.fileno() for c in consumers]
        return [fd for fd in found if fd is not None], None in found

    def control(self, ready: Any) -> list[str]:
        """The units of work to look at again. `ready(fd)` says whether a descriptor is readable: a look costs a
        query, so it is spared while there is nothing, but never for long."""
        now = self._clock.monotonic()
        if self.outage.is_open(now):
            return []
        try:
            if self._control is None:
                self._control = self._broker.consume([control_queue(self._owner)], CONTROL_PREFETCH)
            fd = self._control.fileno()
            if fd is not None and now < self._control_after and not ready(fd):
                return []
            self._control_after = now + CONTROL_EVERY_S
            messages = self._control.receive(CONTROL_PREFETCH, 0)
            if messages:
                self._control.ack([message.tag for message in messages])
            return [message.body for message in messages]
        except BrokerUnavailable as error:
            self._failed(error)
            return []

    def receive(self, limit: int) -> None:
        """Take up to `limit` more messages into `waiting`."""
        if limit <= 0 or self.outage.is_open(self._clock.monotonic()):
            return
        try:
            if self._work is None:
                self._work = self._broker.consume(self._queues, self._prefetch)
            for message in self._work.receive(limit, 0):
                self.waiting.setdefault(message.body, []).append(message.tag)
            self.outage.answered(self._clock.monotonic())
        except BrokerUnavailable as error:
            self._failed(error)

    def done(self, uow_id: str) -> None:
        """Ack all messages for this unit of work; if it cannot be said, they come again and are dropped then."""
        tags = self.waiting.pop(uow_id, [])
        if tags and self._work is not None:
            try:
                self._work.ack(tags)
            except BrokerUnavailable as error:
                self._failed(error)

    def report(self, uow_id: str) -> None:
        """To be told to the leader."""
        self._reports[uow_id] = None

    def nudge(self) -> None:
        """The leader is to look, at nothing special."""
        self._nudges = True

    def send(self) -> None:
        """Tell what is to be told."""
        if not self.has_reports or self.outage.is_open(self._clock.monotonic()):
            return
        try:
            if self._reports:
                self._broker.publish([Outgoing(REPORT_QUEUE, uow_id) for uow_id in self._reports])
            else:
                self._broker.nudge(REPORT_QUEUE)
            self._reports.clear()
            self._nudges = False
            self.outage.answered(self._clock.monotonic())
        except BrokerUnavailable as error:
            self._failed(error)

    def stop_work(self) -> None:
        """Take no more messages, and give back those that wait."""
        self._close(self._work)
        self._work = None
        self.waiting.clear()

    def close(self) -> None:
        """Let go of both consumers; what they had received comes again, to others."""
        self.stop_work()
        self._close(self._control)
        self._control = None

    def _failed(self, error: BrokerUnavailable) -> None:
        self.outage.failed(error, self._clock.monotonic())
        self.close()

    @staticmethod
    def _close(consumer: Consumer | None) -> None:
        if consumer is not None:
            try:
                consumer.close()
            except BrokerUnavailable as error:
                log.debug("while closing a consumer: %s", error)  # what it held is given back without us
