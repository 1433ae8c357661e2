"""The event stream: tells open pages that something changed, and what time it is. Nothing more.

A message here, too, is only a wake-up call: the page then reads itself again and takes over what
differs. So a lost message costs a second, and a page that cannot stream polls and sees the same.

Each stream takes a thread of the server for as long as it is open; beyond `cap` there is a 503 and
the page polls. Whichever stream comes first looks at the store for all of them, once an interval.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from scheduler.core.errors import Unavailable
from scheduler.core.ports import Clock

Fingerprint = Callable[[], Any]


class Hub:
    """Counts the streams and keeps the fingerprint of what every page shows."""

    def __init__(
        self, clock: Clock, stopping: threading.Event, *, cap: int = 12, interval_s: float = 1.0
    ) -> None:
        self._clock, self._stopping = clock, stopping
        self._cap, self._interval_s = cap, interval_s
        self._lock = threading.Lock()
        self._open = 0
        self._looked = float("-inf")
        self._last: Any = None
        self.version = 0

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._open

    def open(self, common: Fingerprint, own: Fingerprint, business: Callable[[], str]) -> Stream:
        """A stream for one page. Raises Unavailable if all are taken.

        `common` is what every page shows, `own` what only this one does, `business` the clock's words.
        """
        with self._lock:
            if self._open >= self._cap:
                raise Unavailable("all event streams are taken; poll instead")
            self._open += 1
        return Stream(self, common, own, business)

    def closed(self) -> None:
        """A stream gives its place back."""
        with self._lock:
            self._open -= 1

    def wait(self) -> bool:
        """Wait for the next look; False when the server stops."""
        return not self._stopping.wait(self._interval_s)

    @property
    def is_stopping(self) -> bool:
        """Whether the server stops."""
        return self._stopping.is_set()

    def look(self, fingerprint: Fingerprint) -> int:
        """The version of what all pages show; looks at the store at most once an interval."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._looked >= self._interval_s * 0.9:
                self._looked = now
                found = fingerprint()
                if found != self._last:
                    self._last = found
                    self.version += 1
            return self.version


class Stream:
    """The messages for one page, until it goes or the server stops. A WSGI body: bytes, and `close`."""

    def __init__(self, hub: Hub, common: Fingerprint, own: Fingerprint, business: Callable[[], str]) -> None:
        self._hub, self._common, self._own, self._business = hub, common, own, business
        self._beat, self._begun, self._closed = 0, False, False
        self._last: Any = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed or self._hub.is_stopping or (self._begun and not self._hub.wait()):
            raise StopIteration
        self._begun = True
        try:
            seen: Any = (self._hub.look(self._common), self._own())
            body = {"version": self._beat + (seen != self._last), "clock": self._business()}
        except Unavailable:
            # the page keeps what it shows; silence makes its live dot hollow
            return b": the store cannot be reached\n\n"
        self._beat, self._last = int(body["version"]), seen
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()

    def close(self) -> None:
        """Give the place back, once."""
        if not self._closed:
            self._closed = True
            self._hub.closed()
