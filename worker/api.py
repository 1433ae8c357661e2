"""What a worker's own code sees: the `Task` it is given, and the words it may answer with.

A worker is a class with `run(task)`, a plain function, or a command line (`script(…)`). It runs in a child
process that knows neither store nor broker: what it wants written (progress, late data) is sent to the worker
process, which writes it. So nothing here may import a store, a broker or the runner.

Answers: None or a dictionary (processed), `Processed`, `Noop`, `Cancel`. `Noop` and `Cancel` may also be raised,
from any depth; `Permanent` says that a retry would fail too; every other exception is a failure that is retried.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Processed:
    """The work is done. `cursor` says how far it came; `more=True`: call again at once, from that cursor."""

    result: dict[str, Any] | None = None
    cursor: str | None = None
    more: bool = False


class Noop(Exception):
    """There was nothing to do; the reason is kept. Return it or raise it."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Cancel(Exception):
    """Give this unit of work up, without a retry; the reason is kept. Return it or raise it."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class SinkToken(NamedTuple):
    """Rises with every accept of a job: a sink that saw a larger one refuses a smaller one."""

    run: int
    version: int


class ProcessInfo(NamedTuple):
    """What a `Worker` is told of its process when it is made."""

    name: str
    source: str | None = None
    sink: str | None = None
    arguments: Mapping[str, Any] = {}


class Link:
    """How a task speaks to the worker process. This one, for tests of a user's own code, only remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.canceled = threading.Event()

    def send(self, *message: Any) -> None:
        """Send one message, such as `("progress", 3, 10, "")`."""
        self.sent.append(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work, as its code sees it. `start` and `end` bound the period: [start, end), aware UTC.

    `arguments` are those of the process, or of the submission. `cursor` is where to start within the period
    (None: from its beginning); the output of a range replaces what was written for this job from that cursor on.
    `final` says that this one's outcome decides the job.
    """

    process: str
    timeperiod: str
    start: datetime
    end: datetime
    run: int = 1
    attempt: int = 1
    final: bool = True
    cursor: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    sink: str | None = None
    token: SinkToken = field(default_factory=lambda: SinkToken(1, 1))
    uow: str = ""
    business_at: datetime | None = None  # business time when it was started
    business_rate: float = 1.0
    link: Link = field(default_factory=Link, repr=False, compare=False)
    started: float = field(default_factory=time.monotonic, repr=False, compare=False)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far it is. As often as you like; it is stored once a second at most."""
        if not (math.isfinite(done) and (total is None or math.isfinite(total))):
            raise ValueError(f"progress({done!r}, {total!r}): both must be finite numbers")
        self.link.send("progress", done, total, str(note)[:500].encode("utf-8", "replace").decode())

    def reprocess(self, process: str, timeperiod: str, reason: str) -> None:
        """Late data: have that job, and all that stands on it, driven again. Written before this one finishes."""
        self.link.send("late_data", str(process), str(timeperiod), str(reason))

    def is_canceled(self) -> bool:
        """Whether it was told to stop. It has half a second to end by itself; its answer is not asked any more."""
        return self.link.canceled.is_set()

    def now(self) -> datetime:
        """Business time: as it was at the start, and what passed since."""
        assert self.business_at is not None, "this task was made without business_at"
        return self.business_at + timedelta(seconds=(time.monotonic() - self.started) * self.business_rate)


class Worker:
    """The base of worker classes; one instance per child process and registered process, used many times.

    Only `run` is needed. The hooks are for bookkeeping: what they raise is logged and changes no outcome.
    They are not called for an attempt whose process was killed (time-out, cancel, lost worker).
    """

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process

    def run(self, task: Task) -> Processed | Noop | Cancel | dict[str, Any] | None:
        """Do the work of one unit of work."""
        raise NotImplementedError(f"{type(self).__qualname__} has no run(task)")

    def on_start(self, task: Task) -> None:
        """Before each attempt."""

    def on_retry(self, task: Task, error: BaseException) -> None:
        """After an attempt failed that will be retried."""

    def on_success(self, task: Task, result: dict[str, Any] | None) -> None:
        """After it was processed, or found nothing to do (result None)."""

    def on_failure(self, task: Task, error: BaseException) -> None:
        """After the last attempt failed, or one failed for good."""


class Daemon:
    """The handle a daemon's code is given. Loop until `stopping` is set; `wait_until` sleeps and looks.

    `clock` tells business time; `submit` writes a late-data command and may raise StoreUnavailable.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        clock: Callable[[], datetime],
        submit: Callable[[str, str, str], None],
    ) -> None:
        self.name, self.arguments = name, arguments
        self.stopping = threading.Event()
        self._clock, self._submit = clock, submit

    def now(self) -> datetime:
        """Business time."""
        return self._clock()

    def reprocess(self, process: str, timeperiod: str, reason: str) -> None:
        """Late data: have that job, and all that stands on it, driven again. Returns when it is saved."""
        self._submit(process, timeperiod, reason)

    def wait_until(self, instant: datetime) -> bool:
        """Wait until business time reaches `instant`; False if the daemon is to stop.

        The business clock may be scaled or shifted meanwhile, so its speed is measured anew at each look.
        """
        rate, seen, looked = 1.0, self.now(), time.monotonic()
        while not self.stopping.is_set():
            left = (instant - seen).total_seconds()
            if left <= 0:
                return True
            self.stopping.wait(min(1.0, max(0.001, left / rate)) if rate > 0 else 0.05)
            now, real = self.now(), time.monotonic()
            if real > looked:
                rate = (now - seen).total_seconds() / (real - looked)
            seen, looked = now, real
        return False
