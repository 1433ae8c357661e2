"""A consumer's channel, from one connection to the next: subscriptions, acks, what is given back.

Everything here runs in the link's thread. When the channel ends, however it ends (the connection, the server's
`consumer_timeout`, a queue that was deleted), the consumer is told at once, and what was not acked belongs to
the server again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mq import rabbit_names
from mq.rabbit_lane import Lane, Routine
from mq.rabbit_window import Window

Deliver = Callable[["Session", Window, int, Any, bytes, bool], bool]  # → whether it is one of ours


class Session:
    """One channel of `connection`. `on_end(session, reason)` is called once, unless it was closed from here."""

    def __init__(
        self,
        connection: Any,
        queues: Sequence[str],
        sizes: Callable[[], int],
        lock: threading.Lock,
        *,
        deliver: Deliver,
        on_nudge: Callable[[], None],
        on_ready: Callable[[Session], None],
        on_end: Callable[[Session, str], None],
    ) -> None:
        from pika.exceptions import AMQPError

        self._connection, self._queues, self._sizes = connection, tuple(queues), sizes
        self._lock = lock  # of the windows, which the consumer's thread reads and changes too
        self._deliver, self._on_nudge, self._on_ready, self._on_end = deliver, on_nudge, on_ready, on_end
        self.windows: list[Window] = []
        self.is_over = False
        self.waiting = 0  # messages in the queues when it last settled
        self._outstanding: set[int] = set()  # delivery tags that are neither acked nor given back
        self._channel: Any = None
        self._after: Callable[[], None] | None = None  # of a close
        self._reason: str | None = None
        self.lane = Lane((AMQPError,))
        self.lane.run(self._open())

    def _open(self) -> Routine:
        self._channel = channel = yield lambda then: self._connection.channel(on_open_callback=then)
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._canceled)
        yield from rabbit_names.declare_common(channel)
        for name in self._queues:
            yield from rabbit_names.declare(channel, name)
        answer = yield lambda then: channel.queue_declare("", exclusive=True, auto_delete=True, callback=then)
        bell = answer.method.queue
        for name in self._queues:
            yield lambda then, name=name: channel.queue_bind(bell, rabbit_names.NUDGE, name, callback=then)
        yield lambda then: channel.basic_consume(bell, self._nudged, auto_ack=True, callback=then)
        for name in self._queues:
            yield from self.subscribe(name)
        yield from self.settle()
        self._on_ready(self)

    def subscribe(self, name: str) -> Routine:
        """A new window on that queue, of the size that is wanted now; none if nothing is."""
        size = self._sizes()
        if size <= 0:
            return
        channel, window = self._channel, Window(name, size)

        def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            tag = method.delivery_tag
            self._outstanding.add(tag)
            if not self._deliver(self, window, tag, properties, body, bool(method.redelivered)):
                self._outstanding.discard(tag)
                channel.basic_reject(tag, requeue=False)  # to the dead ones

        yield lambda then: channel.basic_qos(prefetch_count=min(size, 65535), callback=then)
        with self._lock:
            self.windows.append(window)

        def consume(then: Callable[..., None]) -> None:
            window.tag = channel.basic_consume(name, on_message, callback=then)

        yield consume

    def settle(self) -> Routine:
        """Afterwards what the broker had to send is here: it answers after it sent.

        The queue answers the first question after it has handed out what it had, to the channel; the channel
        answers the second after it has sent that on.
        """
        channel, waiting = self._channel, 0
        for name in self._queues:
            answer = yield lambda then, name=name: channel.queue_declare(name, passive=True, callback=then)
            waiting += answer.method.message_count
        yield lambda then: channel.basic_qos(prefetch_count=1, callback=then)
        self.waiting = waiting

    def replace(self, windows: Iterable[Window], give_back: Callable[[], list[int]]) -> Routine:
        """End these windows; ack what was kept, give back what `give_back` names, then open others as wanted."""
        names = []
        for window in windows:
            if window.is_over:
                continue
            names.append(window.queue)
            yield lambda then, window=window: self._channel.basic_cancel(window.tag, callback=then)
            with self._lock:
                self.windows.remove(window)
                kept = window.end()
            self.ack(kept)
        self.nack(give_back())
        for name in names:
            yield from self.subscribe(name)
        yield from self.settle()

    def ack(self, tags: list[int]) -> None:
        """These are done with."""
        if self.is_over or not tags:
            return
        self._outstanding.difference_update(tags)
        last = max(tags)
        if len(tags) > 1 and (not self._outstanding or min(self._outstanding) > last):
            self._channel.basic_ack(last, multiple=True)
        else:
            for tag in tags:
                self._channel.basic_ack(tag)

    def nack(self, tags: list[int]) -> None:
        """The broker is to give these to somebody."""
        if self.is_over:
            return
        self._outstanding.difference_update(tags)
        for tag in tags:
            self._channel.basic_nack(tag, requeue=True)

    def close(self, after: Callable[[], None]) -> None:
        """Ack what was kept and close the channel; `after` is called when the server has done so."""
        if self.is_over or self._channel is None or not self._channel.is_open:
            self._end()
            after()
            return
        self._after = after
        with self._lock:
            kept = [tag for window in self.windows for tag in window.end()]
        self.ack(kept)
        self._channel.close()

    def lost(self) -> None:
        """The connection is gone."""
        self._end()

    # -- what the server says ---------------------------------------------------------------------

    def _nudged(self, *_: Any) -> None:
        self._on_nudge()

    def _canceled(self, frame: Any) -> None:
        """The server ended a subscription: its queue was deleted, or it waited too long for an ack."""
        tag = getattr(frame.method, "consumer_tag", "")
        queue = next((window.queue for window in self.windows if window.tag == tag), "one of its queues")
        self._reason = f"the server ended the subscription to {queue}"
        if self._channel.is_open:
            self._channel.close()

    def _closed(self, _channel: Any, error: Exception) -> None:
        from pika.exceptions import ChannelClosed

        was_over = self.is_over or not isinstance(
            error, ChannelClosed
        )  # else the connection went: its link says so
        code, text = getattr(error, "reply_code", ""), getattr(error, "reply_text", "")
        self._end(error)
        if self._after is not None:
            self._after()
        elif not was_over:
            self._on_end(self, self._reason or f"the server closed the channel ({code} {text})")

    def _end(self, error: Exception | None = None) -> None:
        self.is_over = True
        for window in self.windows:
            window.is_over = True
        self.lane.fail(error or ConnectionError("the channel is gone"))
