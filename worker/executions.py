"""What the runner holds: one `Execution` per accept, and the messages that wait for one.

No I/O here. The renewal thread reads the table too, hence the lock around what changes its shape.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scheduler.core.process import Process
from scheduler.core.records import LogChunk
from scheduler.core.uow import Uow
from worker.executor import Outcome

CHUNKS_PER_VERSION = 1_000_000  # a released attempt is accepted again: its log goes on behind the old one
PROGRESS_EVERY_S = 1.0


@dataclass(slots=True, eq=False)
class Execution:
    """One accept of one unit of work, until nothing is left to be written for it.

    `stop` says why it was told to stop: "canceled", "drain", "time-out", or "lost" (no lease any more: nothing
    may be written). `lease_ends` and `times_out` are on the worker's monotonic clock.
    """

    uow: Uow  # as accepted
    process: Process | None
    lease_ends: float
    times_out: float | None = None
    outcome: Outcome | None = None
    stop: str | None = None
    hard: bool = False  # it was already told to stop at once
    log: list[str] = field(default_factory=list)
    taken: list[LogChunk] = field(default_factory=list)
    chunks: int = 0
    progress: dict[str, Any] | None = None
    progress_after: float = 0.0
    late_data: list[tuple[str, str, str]] = field(default_factory=list)
    late_sent: int = 0

    @property
    def token(self) -> str:
        """The token of its accept."""
        assert self.uow.token is not None
        return self.uow.token

    @property
    def is_running(self) -> bool:
        """Its code may still be doing something."""
        return self.outcome is None

    def take_log(self, at: datetime) -> list[LogChunk]:
        """What it printed and is not stored yet, as records. Call `wrote_log` once they are stored.

        A chunk never changes once it was taken, so writing it again after an unknown outcome is harmless.
        """
        if self.log:
            n = self.uow.version * CHUNKS_PER_VERSION + self.chunks
            text, self.chunks = "".join(self.log), self.chunks + 1
            self.log.clear()
            self.taken.append(LogChunk(uow=self.uow.id, attempt=self.uow.attempt, n=n, at=at, text=text))
        return self.taken

    def wrote_log(self) -> None:
        """The chunks of `take_log` are stored."""
        self.taken = []


class Executions:
    """The table of executions, by token."""

    def __init__(self) -> None:
        self._by_token: dict[str, Execution] = {}
        self._lock = threading.Lock()

    def add(self, execution: Execution) -> None:
        """From now on it is held."""
        with self._lock:
            self._by_token[execution.token] = execution

    def forget(self, execution: Execution) -> None:
        """Nothing more is written for it."""
        with self._lock:
            self._by_token.pop(execution.token, None)

    def get(self, token: str) -> Execution | None:
        """The execution with this token, or None."""
        return self._by_token.get(token)

    def all(self) -> list[Execution]:
        """All of them, oldest accept first; any thread."""
        with self._lock:
            return list(self._by_token.values())

    def of(self, uow_id: str) -> list[Execution]:
        """Those of one unit of work."""
        return [execution for execution in self.all() if execution.uow.id == uow_id]

    def running(self) -> list[Execution]:
        """Those whose code may still be doing something."""
        return [execution for execution in self.all() if execution.is_running]

    def __len__(self) -> int:
        return len(self._by_token)
