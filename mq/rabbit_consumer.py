"""A consumer of RabbitMQ: the side that the worker's or scheduler's thread sees.

It outlives connections: while there is none `receive` finds nothing, and goes on by itself afterwards. Acks of
what an earlier channel delivered are ignored; it comes again, marked as redelivered.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mq import envelope
from mq.rabbit_bell import Bell
from mq.rabbit_lane import Routine
from mq.rabbit_session import Session
from mq.rabbit_window import Window
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Message

if TYPE_CHECKING:
    from mq.rabbit import RabbitBroker

KEEP_S = 1.0  # an ack is kept back for so long
GIVE_BACK_S = 5.0  # a message that nobody takes is given back after so long
SETTLE_S = 2.0  # for the broker's word that it has sent everything
SENT_S = 0.25  # for messages that wait there although we want them
LOOK_S = 0.01  # meanwhile
REOPEN_S = 2.0  # between channels that end again and again
log = logging.getLogger("synergy.mq")
_tags = itertools.count(1)


class RabbitConsumer:
    """`scheduler.core.ports.Consumer`: used by one thread; `wake`, and the broker's `close`, come from any."""

    def __init__(self, broker: RabbitBroker, queues: dict[str, str], prefetch: int) -> None:
        self._broker, self._queues, self._prefetch = broker, queues, prefetch  # queues: server's name → ours
        self._link = broker.consuming
        self._bell = Bell()
        self._lock = threading.Lock()
        # under the lock:
        self._buffer: list[tuple[int, str, int, Message, Session, Window, int]] = []
        self._given: dict[int, tuple[Session, Window, int]] = {}
        self._wanted = prefetch
        self._looked_at = time.monotonic()
        self._called = self._closed = self._ticks = False
        # of the link's thread:
        self._session: Session | None = None
        self._opened_at = 0.0
        self._first = threading.Event()  # it is subscribed, or cannot be
        self._refused: str | None = None

    # -- the port ---------------------------------------------------------------------------------

    def receive(self, limit: int, timeout_s: float) -> list[Message]:
        """As `Consumer.receive`; nothing while the broker is away. Raises BrokerUnavailable if it was closed before."""
        deadline = time.monotonic() + timeout_s
        began = asked = False
        while True:
            self._bell.clear()
            with self._lock:
                if self._closed:
                    if began:
                        return []
                    raise BrokerUnavailable(f"this consumer of {self._names()} was closed")
                room = min(limit, self._prefetch - len(self._given))
                messages = self._take(room)
                called, self._called = self._called, False
                act = None if asked else self._ask(room - len(messages))
                if self._buffer and len(self._given) < self._prefetch:
                    self._bell.ring()  # for whoever waits on the descriptor
            began = True
            if act is not None and not asked:
                asked = True
                self._settle(act, room - len(messages))
                with self._lock:
                    messages += self._take(room - len(messages))
            left = deadline - time.monotonic()
            if messages or called or left <= 0:
                return messages
            self._bell.wait(left)

    def ack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.ack`. The server hears of it with the next look, or within a second or two."""
        late: list[tuple[Session, int]] = []
        with self._lock:
            now = time.monotonic()
            for session, window, delivery in self._drop(tags):
                if window.is_over:
                    late.append((session, delivery))
                else:
                    window.kept.append((delivery, now))
            start_ticks = not self._ticks
            self._ticks = True
        if late or start_ticks:
            self._link.call(lambda: self._ack_late(late, start_ticks))

    def nack(self, tags: Iterable[Any]) -> None:
        """As `Consumer.nack`. It is sent nothing until its next `receive`; what it was sent goes back too."""
        with self._lock:
            given = self._drop(tags)
            self._wanted = 0
        if given:
            self._do(lambda session, done: self._give_back(session, given, done))

    def wake(self) -> None:
        """As `Consumer.wake`."""
        self._called = True
        self._bell.ring()

    def fileno(self) -> int | None:
        """As `Consumer.fileno`."""
        return self._bell.fileno()

    def close(self) -> None:
        """As `Consumer.close`; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._buffer.clear()
            self._given.clear()
        self._first.set()
        self._bell.ring()
        self._broker.forget(self)
        self._do(lambda session, done: session.close(done.set))
        self._bell.close()

    # -- this side --------------------------------------------------------------------------------

    def wait_ready(self, timeout_s: float) -> None:
        """Return when it is subscribed. Raises BrokerUnavailable."""
        if not self._first.wait(timeout_s):
            self._refused = self._refused or f"no answer came within {timeout_s:g} s"
            self._link.reset(self._refused)
        if self._refused is not None:
            raise BrokerUnavailable(f"{self._broker.server.shown()}: {self._refused}")

    def disown(self) -> None:
        """In a forked child: this consumer is the parent's."""
        self._lock, self._closed = threading.Lock(), True

    def _names(self) -> str:
        return ", ".join(self._queues.values())

    def _take(self, room: int) -> list[Message]:
        """Up to `room` of what is here, best first."""
        messages: list[Message] = []
        while self._buffer and len(messages) < room:
            *_, message, session, window, delivery = heapq.heappop(self._buffer)
            self._given[message.tag] = (session, window, delivery)
            messages.append(message)
        return messages

    def _drop(self, tags: Iterable[Any]) -> list[tuple[Session, Window, int]]:
        found = [self._given.pop(tag, None) for tag in tags]
        return [one for one in found if one is not None and not one[0].is_over]

    def _ask(self, lacking: int) -> Any:
        """See to it that `lacking` messages may come. Returns what has to be waited for, if anything has."""
        self._looked_at = time.monotonic()
        self._wanted = max(0, lacking)
        session = self._session
        if lacking <= 0 or session is None:
            return None
        released: list[int] = []
        was_full = False
        for name in self._queues:
            window = next((window for window in session.windows if window.queue == name), None)
            if window is None or window.free + len(window.kept) < lacking:
                return lambda session, done: self._replace(session, done)
            if window.free < lacking:
                was_full = was_full or window.free <= 0
                released += window.release(lacking)
        if not released:
            return None
        if was_full:
            return lambda session, done: self._release(session, released, done)
        self._link.call(lambda: session.ack(released))
        return None

    def _settle(self, act: Any, lacking: int) -> None:
        """Do it, and wait for the broker's word that all it had to send is here.

        It may say that messages wait before it heard that we want them: those are waited for, in reason.
        """
        session = self._do(act)
        until = time.monotonic() + SENT_S
        while (
            session is not None
            and session.waiting
            and len(self._buffer) < lacking
            and time.monotonic() < until
        ):
            self._bell.clear()
            self._bell.wait(LOOK_S)
            session = self._do(lambda session, done: session.lane.run(_then(session.settle(), done)))

    def _do(self, act: Any) -> Session | None:
        """Have `act(session, done)` called in the link's thread, and wait until `done` is set."""
        session, done = self._session, threading.Event()
        if session is None or not self._link.call(
            lambda: act(session, done) if not session.is_over else done.set()
        ):
            return None
        done.wait(SETTLE_S)
        return session

    # -- the link's thread ------------------------------------------------------------------------

    def open(self, connection: Any) -> None:
        """Subscribe on a new connection, or a new channel of it."""
        if self._closed:
            return
        self._opened_at = time.monotonic()
        session = Session(
            connection,
            list(self._queues),
            self._size,
            self._lock,
            deliver=self._deliver,
            on_nudge=self._nudged,
            on_ready=self._ready,
            on_end=self._ended,
        )
        self._connection, self._session = connection, session

    @property
    def is_open(self) -> bool:
        """It has a channel."""
        return self._session is not None

    def lost(self, _reason: str) -> None:
        """The connection is gone."""
        session = self._session
        self._forget_session()
        if session is not None:
            session.lost()

    def _size(self) -> int:
        """How many messages a new subscription may send at once."""
        with self._lock:
            return self._wanted - len(self._buffer)

    def _ready(self, _session: Session) -> None:
        self._refused = None
        self._first.set()
        self._bell.ring()

    def _ended(self, _session: Session, reason: str) -> None:
        self._forget_session()
        if not self._first.is_set():
            self._refused = reason
            self._first.set()
            return
        if self._closed:
            return
        age = time.monotonic() - self._opened_at
        log.warning("consumer of %s: %s; consuming anew", self._names(), reason)
        connection = self._connection
        self._link.call_later(0.0 if age > REOPEN_S else REOPEN_S, lambda: self.open(connection))

    def _forget_session(self) -> None:
        """What it delivered comes again."""
        with self._lock:
            self._session = None
            self._wanted = min(self._prefetch, self._wanted + len(self._buffer))
            self._buffer.clear()
            self._given.clear()

    def _deliver(
        self, session: Session, window: Window, delivery: int, properties: Any, sealed: bytes, again: bool
    ) -> bool:
        body = envelope.unseal(sealed)
        if body is None:
            log.error("%s", envelope.refusal(self._queues[window.queue], sealed))
            return False
        tag = next(_tags)
        entry = (
            -(properties.priority or 0),
            (properties.message_id or "").zfill(20),
            tag,
            Message(body, tag, again),
            session,
            window,
            delivery,
        )
        with self._lock:
            window.out += 1
            heapq.heappush(self._buffer, entry)
        self._bell.ring()
        return True

    def _nudged(self) -> None:
        self._called = True
        self._bell.ring()

    def _ack_late(self, late: list[tuple[Session, int]], start_ticks: bool) -> None:
        for session, delivery in late:
            session.ack([delivery])
        if start_ticks:
            self._link.call_later(KEEP_S, self._tick)

    def _release(self, session: Session, released: list[int], done: threading.Event) -> None:
        session.ack(released)
        session.lane.run(_then(session.settle(), done))

    def _replace(self, session: Session, done: threading.Event) -> None:
        for name in self._queues:
            if not any(window.queue == name for window in session.windows):
                session.lane.run(session.subscribe(name))
        stale = [window for window in session.windows if window.free + len(window.kept) < self._wanted]
        session.lane.run(_then(session.replace(stale, list), done))

    def _give_back(
        self, session: Session, given: list[tuple[Session, Window, int]], done: threading.Event
    ) -> None:
        def deliveries() -> list[int]:
            return [delivery for _, _, delivery in given] + self._unbuffer()

        session.lane.run(_then(session.replace(list(session.windows), deliveries), done))

    def _tick(self) -> None:
        """Acks that were kept for long go out; messages that nobody takes go back."""
        session, now = self._session, time.monotonic()
        if session is None or session.is_over:
            self._ticks = False
            return
        with self._lock:
            old = [window for window in session.windows if window.has_kept(now - KEEP_S)]
            unwanted = bool(self._buffer) and self._looked_at < now - GIVE_BACK_S
            if unwanted:
                self._wanted = 0
            self._ticks = unwanted or bool(self._buffer) or any(window.kept for window in session.windows)
        if unwanted:
            session.lane.run(session.replace(list(session.windows), self._unbuffer))
        elif old:
            session.lane.run(session.replace(old, list))
        if self._ticks:
            self._link.call_later(KEEP_S, self._tick)

    def _unbuffer(self) -> list[int]:
        with self._lock:
            deliveries = [entry[-1] for entry in self._buffer]
            self._buffer.clear()
        return deliveries


def _then(routine: Routine, done: threading.Event) -> Routine:
    """The routine, and `done` is set at its end, whatever the end is."""
    try:
        yield from routine
    finally:
        done.set()
