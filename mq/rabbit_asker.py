"""Questions about queues (how many wait; drop them), on a channel of their own: it closes when a queue is missing.

A queue that is not there is empty. Asking never makes one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from mq.rabbit_lane import Lane, Routine
from mq.rabbit_link import Link
from mq.rabbit_url import Server
from scheduler.core.errors import BrokerUnavailable

NO_QUEUE = 404


class Question:
    """What a thread waits for: one number a queue."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self.error: str | None = None
        self.done = threading.Event()


class Asker:
    """Asks over `link`."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server, self._link = server, link
        self._lane: Lane | None = None
        self._channel: Any = None
        self._open: set[Question] = set()

    def depths(self, names: Sequence[str]) -> list[int]:
        """How many messages wait in each. Raises BrokerUnavailable."""

        def ask(channel: Any, name: str, then: Callable[..., None]) -> None:
            channel.queue_declare(name, passive=True, callback=then)

        return self._ask(names, ask)

    def purge(self, name: str) -> int:
        """Drop what waits in it; how many. Raises BrokerUnavailable."""

        def ask(channel: Any, name: str, then: Callable[..., None]) -> None:
            channel.queue_purge(name, callback=then)

        return self._ask([name], ask)[0]

    def _ask(self, names: Sequence[str], ask: Callable[[Any, str, Callable[..., None]], None]) -> list[int]:
        self._link.wait_up(self._server.timeout_s)
        question = Question()

        def begin() -> None:
            if self._lane is None:
                question.error = "the connection was lost"
                question.done.set()
                return
            self._open.add(question)
            self._lane.run(self._answer(question, names, ask))

        if not self._link.call(begin) or not question.done.wait(self._server.timeout_s):
            question.error = f"no answer came within {self._server.timeout_s:g} s"
            self._link.reset(question.error)
        if question.error is not None:
            raise BrokerUnavailable(f"{self._server.shown()}: {question.error}")
        return question.found

    # -- the link's thread ------------------------------------------------------------------------

    def on_up(self, connection: Any) -> None:
        """From now on it can ask."""
        from pika.exceptions import AMQPError

        self._connection, self._channel, self._lane = connection, None, Lane((AMQPError,))

    def on_down(self, reason: str) -> None:
        """Nothing will be answered any more."""
        self._lane = self._channel = None
        for question in self._open:
            question.error = reason
            question.done.set()
        self._open.clear()

    def _answer(self, question: Question, names: Sequence[str], ask: Any) -> Routine:
        from pika.exceptions import ChannelClosedByBroker

        for name in names:
            try:
                if self._channel is None:
                    self._channel = yield lambda then: self._connection.channel(on_open_callback=then)
                    self._channel.add_on_close_callback(self._closed)
                frame = yield lambda then, name=name: ask(self._channel, name, then)
                question.found.append(frame.method.message_count)
            except ChannelClosedByBroker as error:
                if error.reply_code != NO_QUEUE:
                    question.error = f"{name}: {error.reply_code} {error.reply_text}"
                    break
                question.found.append(0)
        self._open.discard(question)
        question.done.set()

    def _closed(self, channel: Any, error: Exception) -> None:
        if channel is self._channel:
            self._channel = None
            if self._lane is not None:
                self._lane.throw(error)
