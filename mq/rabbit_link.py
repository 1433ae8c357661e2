"""One connection to RabbitMQ in a thread of its own, which reconnects by itself.

The thread runs pika's event loop and nothing else, so heartbeats are answered however long work takes; all
that touches the connection is called in it (`call`). Lost connections are tried anew at once, then with
back-off, host after host. An outage is a line or two in the log when it begins and one when it ends.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from mq.rabbit_url import Server
from scheduler.core.errors import BrokerUnavailable

FIRST_S, MOST_S = 0.1, 5.0  # back-off
STEADY_S = 2.0  # a connection that stood for so long is made anew at once when it is lost
CLOSE_S = 2.0  # for a farewell
log = logging.getLogger("synergy.mq")


class Link:
    """A connection that is made at the first `start`, and again whenever it is lost.

    `on_up(connection)`, `on_down(reason)` and `on_blocked(reason)` (the server has an alarm and takes no messages)
    are called in its thread. `purpose` is what the server shows it as.
    """

    def __init__(
        self,
        server: Server,
        purpose: str,
        on_up: Callable[[Any], None],
        on_down: Callable[[str], None],
        on_blocked: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.server, self.purpose = server, purpose
        self._on_up, self._on_down, self._tell_blocked = on_up, on_down, on_blocked
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._loop: Any = None  # while a connection is being made, or there
        self._connection: Any = None
        self._is_up = False
        self._error: str | None = None  # why it is away; None while there is hope
        self._lost_at: float | None = None
        self._told = ""  # why it cannot be reached, as it was said last
        self._up_at: float | None = None
        self._host = self._misses = 0
        self._blocked: str | None = None

    # -- any thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; harmless if it did already."""
        with self._changed:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name=f"rabbit {self.purpose}", daemon=True)
                self._thread.start()

    def wait_up(self, timeout_s: float) -> None:
        """Return when connected. Raises BrokerUnavailable after `timeout_s`, at once where it is known to be away."""
        self.start()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._is_up or self._blocked:
                if self._closing.is_set():
                    raise BrokerUnavailable("the broker was closed")
                if self._blocked:
                    raise BrokerUnavailable(
                        f"{self.server.shown(self._host)} takes no messages: {self._blocked}"
                    )
                if self._error is not None:
                    raise BrokerUnavailable(self._error)
                left = deadline - time.monotonic()
                if left <= 0:
                    self._error = f"{self.server.shown(self._host)} did not answer within {timeout_s:g} s"
                    raise BrokerUnavailable(self._error)
                self._changed.wait(left)

    def call(self, act: Callable[[], None]) -> bool:
        """Have `act` called in the connection's thread; False if there is no connection."""
        with self._changed:
            if self._loop is None or not self._is_up:
                return False
            self._loop.add_callback_threadsafe(act)
            return True

    def reset(self, reason: str) -> None:
        """This connection does not answer: drop it, and make another."""
        self.call(lambda: self._drop(reason))

    def close(self) -> None:
        """Say goodbye; waits CLOSE_S at most. May be called twice."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            if self._loop is not None:
                self._loop.add_callback_threadsafe(self._leave)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * CLOSE_S)

    def disown(self) -> None:
        """Let go of the socket without a word; in a forked child it is the parent's."""
        transport = getattr(self._connection, "_transport", None)
        held = getattr(transport, "_sock", None)
        if held is not None:
            os.close(held.detach())

    # -- the connection's thread ------------------------------------------------------------------

    def call_later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have `act` called in `seconds`, if the connection still stands then. In its thread only."""
        loop, connection = self._loop, self._connection
        if loop is not None:
            loop.call_later(seconds, lambda: act() if self._connection is connection else None)

    def _run(self) -> None:
        quiet = logging.getLogger("pika")
        if quiet.level == logging.NOTSET:
            quiet.setLevel(logging.CRITICAL)  # a dozen lines for each try; ours is one for each outage
        delay = 0.0
        while not self._closing.wait(delay * random.uniform(0.75, 1.0)):
            up_s = self._serve()
            if up_s is None:
                self._host += 1
                self._misses += 1
            again = self._misses % len(self.server.hosts) > 0 if up_s is None else up_s > STEADY_S
            if again:
                delay = 0.0  # at once, and the other hosts at once
            else:
                delay = min(MOST_S, max(FIRST_S, delay * 2))
        with self._changed:
            self._changed.notify_all()

    def _serve(self) -> float | None:
        """One connection, from its beginning to its end; for how long it stood, None if it never did."""
        import pika

        self._up_at = None
        connection: Any = None
        try:
            connection = pika.SelectConnection(
                self.server.parameters(self._host, self.purpose),
                on_open_callback=self._opened,
                on_open_error_callback=self._failed,
                on_close_callback=self._closed,
            )
            with self._changed:
                self._connection, self._loop = connection, connection.ioloop
                if self._closing.is_set():
                    self._loop.add_callback_threadsafe(self._leave)
            connection.ioloop.start()
        except Exception as error:  # a defect in a callback ends this connection; the link makes another
            log.exception("the connection to %s is dropped after an error", self.server.shown(self._host))
            self._closed(connection, error)
            self._end_stream(connection, error)
        finally:
            with self._changed:
                self._loop = self._connection = None
            if connection is not None:
                connection.ioloop.close()
        return None if self._up_at is None else time.monotonic() - self._up_at

    def _opened(self, connection: Any) -> None:
        self._up_at = time.monotonic()
        self._told = ""
        if self._lost_at is not None:
            away_s = time.monotonic() - self._lost_at
            log.info("%s is back after %.1f s (%s)", self.server.shown(self._host), away_s, self.purpose)
        self._lost_at, self._misses = None, 0
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        with self._changed:
            self._is_up, self._error = True, None
            self._changed.notify_all()
        self._on_up(connection)

    def _failed(self, connection: Any, error: BaseException) -> None:
        reason = told(error, self.server)
        text = f"{self.server.shown(self._host)}: {reason}"
        if self._misses + 1 < len(self.server.hosts):
            connection.ioloop.stop()
            return  # there is hope
        if reason != self._told and self._lost_at is not None and not self._closing.is_set():
            log.warning("%s; trying again until it answers (%s)", text, self.purpose)
        self._told = reason  # before the first connection the caller alone is told: he waits for it
        with self._changed:
            self._error = text
            self._changed.notify_all()
        connection.ioloop.stop()

    def _closed(self, connection: Any, error: BaseException) -> None:
        reason = told(error, self.server)
        with self._changed:
            was_up, self._is_up, self._blocked = self._is_up, False, None
            self._changed.notify_all()
        if was_up:
            self._lost_at = time.monotonic()
            if not self._closing.is_set():
                log.warning("%s was lost (%s): %s", self.server.shown(self._host), self.purpose, reason)
            self._on_down(reason)
        if connection is not None:
            connection.ioloop.stop()

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        reason = str(getattr(frame.method, "reason", "")) or "an alarm"
        log.warning("%s takes no messages for now: %s", self.server.shown(self._host), reason)
        with self._changed:
            self._blocked = reason
        self._tell_blocked(f"it takes no messages: {reason}")

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        log.info("%s takes messages again", self.server.shown(self._host))
        with self._changed:
            self._blocked = None
            self._changed.notify_all()

    def _leave(self) -> None:
        connection = self._connection
        if connection is None or connection.is_closed:
            return
        connection.ioloop.call_later(CLOSE_S, connection.ioloop.stop)
        if connection.is_closing:
            return
        if connection.is_open or connection._transport is None:
            connection.close()  # or give up to connect: nobody else would close its socket
        else:  # in the handshake, where pika's `close` ends in an AssertionError
            self.disown()
            connection.ioloop.stop()

    def _drop(self, reason: str) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection._terminate_stream(ConnectionError(reason))  # `close` would wait for an answer

    @staticmethod
    def _end_stream(connection: Any, error: Exception) -> None:
        """After an error inside a callback: close the socket, whatever state the rest is in."""
        if connection is None or connection.is_closed:
            return
        try:
            connection.ioloop.call_later(CLOSE_S, connection.ioloop.stop)
            connection._terminate_stream(error)
            connection.ioloop.start()
        except Exception:  # it is being dropped after an error already told; a second one changes nothing
            log.exception("while closing a connection")


def told(error: BaseException, server: Server) -> str:
    """A driver's error as a person would say it, one line."""
    from pika import exceptions

    found = error
    while True:  # the cause lies inside wrappers
        several = getattr(found, "exceptions", None) or (None,)
        inner = several[-1] or getattr(found, "exception", None) or found.__cause__
        if inner is None and found.args and isinstance(found.args[0], BaseException):
            inner = found.args[0]
        if not isinstance(inner, BaseException) or inner is found:
            break
        found = inner
    if isinstance(found, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        return f"user {server.user!r} was refused; the user's name or password is wrong"
    if isinstance(found, exceptions.ProbableAccessDeniedError):
        return (
            f"user {server.user!r} may not use virtual host {server.vhost!r}, or there is none of that name"
        )
    if isinstance(found, exceptions.ConnectionClosed):
        if found.reply_code == 530:
            return f"virtual host {server.vhost!r}: {found.reply_text}"
        return f"closed with {found.reply_code} {found.reply_text}"
    if isinstance(found, exceptions.AMQPHeartbeatTimeout):
        return "no heartbeat came any more"
    if isinstance(found, OSError) and found.strerror:
        return found.strerror
    return " ".join(f"{type(found).__name__}: {found}".split()).removesuffix(": ")
