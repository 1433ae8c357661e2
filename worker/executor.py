"""What the runner asks of whatever executes units of work: child processes, or a simulation.

The runner decides and writes; an executor only starts, stops and tells. It is used by the runner's thread,
except `lease` and `wake`, which any thread may call. Executions are known by their token (chosen for one
accept), because one unit of work may be accepted again here while an older execution of it is still dying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from scheduler.core.process import Process
from scheduler.core.uow import Uow

Verb = Literal["succeed", "no_data", "fail", "cancel", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an execution ended. `stopped`: it was asked to stop and is gone, whatever it did meanwhile."""

    uow_id: str
    token: str
    verb: Verb
    cursor: str | None = None
    more: bool = False
    result: dict[str, Any] | None = None
    error: str | None = None  # one line: of a failure, or the reason of no_data and cancel
    traceback: str | None = None
    permanent: bool = False
    duration_s: float = 0.0


class LogText(NamedTuple):
    """A piece of what an execution printed."""

    token: str
    text: str


class ProgressNote(NamedTuple):
    """How far an execution is."""

    token: str
    done: float
    total: float | None
    note: str


class LateData(NamedTuple):
    """An execution asks for a job to be reprocessed."""

    token: str
    process: str
    timeperiod: str
    reason: str


Note = LogText | ProgressNote | LateData


class Executor(Protocol):
    """Executes up to `capacity` units of work at once."""

    @property
    def capacity(self) -> int:
        """How many it executes at once."""

    def start(self, uow: Uow, process: Process) -> None:
        """Start `uow`, as it was accepted (`uow.token`, `uow.version`). The caller keeps to `capacity`."""

    def poll(self, timeout_s: float, also: Sequence[int] = ()) -> list[Outcome]:
        """The executions that ended since; waits `timeout_s` at most, for one, for a `wake`, for a note that is
        due, or for one of the descriptors `also` to become readable. What it returns is gone for good."""

    def is_ready(self, fd: int) -> bool:
        """Whether this one of `also` was readable in the last `poll`; True if the executor cannot tell."""

    def notes(self) -> list[Note]:
        """What executions printed and said since; complete for those whose outcome was returned."""

    def stop(self, token: str, *, hard: bool = False) -> None:
        """End it: at once, or (not `hard`) after it had half a second to do so itself. Its outcome follows, with
        the verb `stopped`. Unknown tokens are ignored."""

    def lease(self, token: str, seconds_left: float) -> None:
        """If it was not prolonged by then, the executor ends this execution by itself; any thread."""

    def wake(self) -> None:
        """Make a waiting `poll` return; any thread, also a signal handler."""

    def close(self) -> None:
        """End everything at once; may be called twice."""
