"""Publishing to RabbitMQ: batches of any thread in one stream, with confirms in a window.

A batch is done when the broker confirmed every message of it. Messages are persistent and mandatory: one that
no queue takes comes back, its queue is declared, and it is sent once more. What was not confirmed in time, or
was in the air when the connection went, is the caller's to publish again: doubles are harmless.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mq import rabbit_names
from mq.rabbit_lane import Lane
from mq.rabbit_link import Link
from mq.rabbit_url import Server
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Outgoing

WINDOW = 512  # messages sent and not confirmed
TRIES = 2  # of a message that no queue takes
REFUSALS, REFUSED_S = 10, 0.1  # a quorum queue that has no leader yet refuses: again so often, after so long
PERSISTENT = 2


class Batch:
    """What one `publish` waits for."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = threading.Event()
        self.error: str | None = None

    def one_less(self) -> None:
        """One more was confirmed."""
        self.left -= 1
        if self.left == 0:
            self.done.set()

    def fail(self, error: str) -> None:
        """It cannot be."""
        self.error = self.error or error
        self.done.set()


@dataclass(slots=True)
class Letter:
    """A message on its way."""

    batch: Batch
    queue: str  # its name on the server
    body: bytes
    priority: int
    tries: int = 0
    refusals: int = 0
    id: str = field(default="")


class Publisher:
    """The one channel that publishes. Its link is shared with whoever asks about queues."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server, self._link = server, link
        self._lock = threading.Lock()
        self._letters: deque[Letter] = deque()  # not sent yet
        # in the link's thread only:
        self._channel: Any = None
        self._lane: Lane | None = None
        self._declared: set[str] = set()
        self._sent: dict[int, Letter] = {}  # by delivery tag, in order
        self._returned: set[str] = set()
        self._nudges: set[str] = set()  # before the channel was open
        self._tag = 0
        self._stamp = 0
        self._is_ready = self._declares = False

    # -- any thread -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """As `Broker.publish`. Raises BrokerUnavailable when nothing was confirmed for the server's time-out."""
        kind, timeout_s = self._server.kind, self._server.timeout_s
        self._link.wait_up(timeout_s)
        batch = Batch(len(messages))
        letters = [
            Letter(
                batch,
                rabbit_names.queue_name(message.queue, kind),
                message.body.encode(),
                rabbit_names.priority_of(message.priority, kind),
            )
            for message in messages
        ]
        with self._lock:
            self._letters.extend(letters)
        if not self._link.call(self._pump):
            batch.fail("the connection was lost")
        left = batch.left
        while not batch.done.wait(timeout_s):
            if batch.left == left:
                reason = f"no confirm came within {timeout_s:g} s"
                batch.fail(reason)
                self._link.reset(reason)
            left = batch.left
        if batch.error is not None:
            self._forget(batch)
            raise BrokerUnavailable(f"{self._server.shown()}: {batch.error}; {batch.left} messages are open")

    def nudge(self, queue: str) -> None:
        """As `Broker.nudge`. Raises BrokerUnavailable."""
        self._link.wait_up(self._server.timeout_s)
        self._link.call(lambda: self._nudge(queue))

    def _forget(self, batch: Batch) -> None:
        with self._lock:
            if self._letters:
                self._letters = deque(letter for letter in self._letters if letter.batch is not batch)

    # -- the link's thread ------------------------------------------------------------------------

    def on_up(self, connection: Any) -> None:
        """Open the channel."""
        from pika.exceptions import AMQPError

        self._lane = lane = Lane((AMQPError,))
        lane.run(self._open(connection))

    def on_down(self, reason: str) -> None:
        """Nothing that is under way will be confirmed any more."""
        self._is_ready = False
        self.on_blocked(reason)
        self._sent.clear()

    def on_blocked(self, reason: str) -> None:
        """Nobody is to wait for what is under way, though it may be confirmed yet."""
        with self._lock:
            letters = [*self._sent.values(), *self._letters]
            self._letters.clear()
        for letter in letters:
            letter.batch.fail(reason)

    def _open(self, connection: Any) -> rabbit_names.Steps:
        self._is_ready = self._declares = False
        self._declared, self._returned, self._tag = set(), set(), 0
        channel = yield lambda then: connection.channel(on_open_callback=then)
        self._channel = channel
        channel.add_on_close_callback(self._on_close)
        channel.add_on_return_callback(self._on_return)
        yield from rabbit_names.declare_common(channel)
        yield lambda then: channel.confirm_delivery(self._on_confirm, callback=then)
        self._is_ready = True
        nudges, self._nudges = self._nudges, set()
        for queue in nudges:
            self._nudge(queue)
        self._pump()

    def _on_close(self, channel: Any, error: Exception) -> None:
        """The channel alone was closed: a declaration that the server refuses."""
        from pika.exceptions import ChannelClosed

        if channel is not self._channel or self._lane is None or not isinstance(error, ChannelClosed):
            return  # it went with its connection: `on_down` comes
        self._lane.fail(error)
        self.on_down(f"closed with {getattr(error, 'reply_code', '')} {getattr(error, 'reply_text', error)}")
        if channel.connection.is_open:
            self._lane.run(self._open(channel.connection))

    def _pump(self) -> None:
        """Send what waits, as far as the window allows."""
        while self._is_ready and not self._declares and len(self._sent) < WINDOW:
            with self._lock:
                if not self._letters:
                    return
                letter = self._letters.popleft()
                if letter.batch.error is not None:
                    continue
                if letter.queue not in self._declared:
                    self._letters.appendleft(letter)
            if letter.queue in self._declared:
                self._send(letter)
            else:
                assert self._lane is not None
                self._declares = True
                self._lane.run(self._declare(letter.queue))

    def _declare(self, queue: str) -> rabbit_names.Steps:
        yield from rabbit_names.declare(self._channel, queue)
        self._declared.add(queue)
        self._declares = False
        self._pump()

    def _send(self, letter: Letter) -> None:
        import pika

        self._stamp = max(self._stamp + 1, time.time_ns())
        letter.id = str(self._stamp)
        letter.tries += 1
        self._tag += 1
        self._sent[self._tag] = letter
        properties = pika.BasicProperties(
            delivery_mode=PERSISTENT, priority=letter.priority, message_id=letter.id
        )
        self._channel.basic_publish("", letter.queue, letter.body, properties, mandatory=True)

    def _nudge(self, queue: str) -> None:
        if not self._is_ready:
            self._nudges.add(queue)
            return
        self._tag += 1  # it is confirmed like any other
        name = rabbit_names.queue_name(queue, self._server.kind)
        self._channel.basic_publish(rabbit_names.NUDGE, name, b"")

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        if properties.message_id:
            self._returned.add(properties.message_id)

    def _on_confirm(self, frame: Any) -> None:
        method, tag = frame.method, frame.method.delivery_tag
        tags = [sent for sent in self._sent if sent <= tag] if method.multiple else [tag]
        is_ack = method.NAME == "Basic.Ack"
        again: list[Letter] = []
        refused: list[Letter] = []
        for one in tags:
            letter = self._sent.pop(one, None)
            if letter is None:
                continue
            if letter.id in self._returned:
                self._returned.discard(letter.id)
                self._declared.discard(letter.queue)
                if letter.tries < TRIES:
                    again.append(letter)
                else:
                    letter.batch.fail(f"there is no queue {letter.queue}, and it cannot be made")
            elif is_ack:
                letter.batch.one_less()
            elif letter.refusals < REFUSALS:
                letter.refusals += 1
                letter.tries = 0
                refused.append(letter)
            else:
                letter.batch.fail("the broker refused a message (its queue is full, or it has a fault)")
        if refused:
            self._channel.connection.ioloop.call_later(REFUSED_S, lambda: self._send_again(refused))
        self._send_again(again)

    def _send_again(self, letters: list[Letter]) -> None:
        """These first. After a new connection too: then they are doubles at worst."""
        with self._lock:
            self._letters.extendleft(reversed(letters))
        self._pump()
