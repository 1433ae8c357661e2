"""What databases behind a network have in common: their clock, their URLs, and connections that were cut.

The store's clock is the server's, so that no box compares its own with another's. Asking it costs a round
trip, and a leader asks in every commit: so it is asked once a second, and in between this box's monotonic
clock counts on from the answer. What it tells is never ahead of the server by more than drift in a second.
Where time is given, in tests and simulations, the URL says `clock=given`: then it is the injected clock's.

A connection that was cut while it lay idle is replaced, and what was asked is asked once more: outside a
transaction that is a query, and at its beginning nothing has happened yet. After that a cut is an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from db.codec import decode_time
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Clock

CLOCK_AGE_S = 1.0  # how long one answer of the server is counted on from
CLOCK_JUMP_S = 0.05  # this machine slept, or its clock was set: ask again
IDLE_S = 5  # seconds: the default lease of a leader
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10

Rows = list[tuple[Any, ...]]


class Address(NamedTuple):
    """A URL, taken apart. `text` is what may be shown: no password, no parameters."""

    text: str
    url: str  # without our own parameters
    user: str
    password: str
    host: str
    port: int | None
    database: str
    parameters: Mapping[str, str]  # those that are not ours
    idle_s: int  # how long a transaction may lie idle before the server ends it
    given_clock: bool


def address_of(url: str, example: str) -> Address:
    """Take a URL apart; `example` is what a right one looks like. Raises ConfigError, the password masked.

    Parameters of ours: `idle_s`, whole seconds, and `clock=given`. All others are the driver's.
    """
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2]
        port = None if "," in hosts else parts.port
        host = "" if "," in hosts else parts.hostname or ""
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        idle_s = int(query.pop("idle_s", IDLE_S))
    except ValueError:
        raise ConfigError(f"store {url.partition(':')[0]}://…: expected {example}") from None
    text = urlunsplit((parts.scheme, _shown(parts.username, hosts), parts.path, "", ""))
    name = unquote(parts.path.removeprefix("/"))
    clock = query.pop("clock", "server")
    if not name or "/" in name or parts.fragment or idle_s < 1 or clock not in ("server", "given"):
        raise ConfigError(f"store {text}: expected {example}")
    return Address(
        text,
        urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), "")),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        host,
        port,
        name,
        query,
        idle_s,
        clock == "given",
    )


def _shown(user: str | None, hosts: str) -> str:
    return f"{user}@{hosts}" if user else hosts


def one_line(error: BaseException) -> str:
    """A driver's message as one line."""
    return " ".join(str(error.args[-1] if error.args else error).split()) or type(error).__name__


class ServerClock:
    """Tells the server's time, counted on from its last answer. `ask` returns milliseconds since 1970."""

    def __init__(
        self,
        ask: Callable[[], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ask, self._monotonic, self._wall = ask, monotonic, wall
        self._lock = threading.Lock()
        self._answer: tuple[int, float, float] | None = None  # milliseconds, monotonic, wall

    def now(self) -> datetime:
        """Aware UTC, milliseconds. Raises what `ask` raises."""
        with self._lock:
            answer = self._answer
        monotonic = self._monotonic()
        if answer is not None:
            age = monotonic - answer[1]
            if age < CLOCK_AGE_S and abs(self._wall() - answer[2] - age) < CLOCK_JUMP_S:
                return decode_time(answer[0] + int(age * 1000))
        milliseconds = self._ask()
        with self._lock:
            self._answer = (milliseconds, self._monotonic(), self._wall())
        return decode_time(milliseconds)


def given_now(clock: Clock) -> datetime:
    """The injected clock's real time, to the millisecond."""
    now = clock.real().astimezone(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
