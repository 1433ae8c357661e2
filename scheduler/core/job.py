"""The job: one process × one timeperiod, as it is stored.

Only the leading scheduler writes jobs. `open` is what the indexes and the parents look at: a job is
open while it is unfinished, and also while a canceled unit of work of it is still held by a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.core.lifecycle import JOB_FINISHED


def job_id(process: str, timeperiod: str) -> str:
    """The id of a job: `process@timeperiod`; whoever computes it twice computes the same."""
    return f"{process}@{timeperiod}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process × one timeperiod. Times are aware UTC; `*_at` without suffix is real time."""

    id: str
    process: str
    timeperiod: str
    start: datetime
    end: datetime
    state: str = "embryo"
    reason: str | None = None  # why it is skipped, or processed by hand
    detail: str | None = None  # the sentence behind the reason: the blocker's name, the error's line
    version: int = 0  # counts state changes
    open: bool = True  # unfinished, or `stopping`
    run: int = 0  # the run of its last unit of work; 0: none yet
    uow: str | None = None  # id of its last unit of work
    uow_open: bool = False  # that unit of work is unfinished, as far as was decided
    stopping: str | None = None  # a canceled unit of work whose worker has not let go yet
    generation: int = 0  # how often it was reprocessed
    produced: bool = False  # a unit of work was processed since the last reprocess
    cursor: str | None = None  # where the last processed unit of work ended
    more: bool = False  # the worker asked to be called again at once; or run now was said, and readiness is asked first
    again: str | None = None  # late data came while a unit of work was unfinished: why
    warning: str | None = None  # the last slice that was canceled
    dispatched_at: datetime | None = None  # business time of the last request
    requested_seq: int = 0  # event number of the last request (attempts included)
    settled_seq: int = 0  # event number at which it became finished
    settled_at: datetime | None = None
    ready: str | None = None  # readiness: None never asked, "asked", "yes", "no"
    ready_detail: str | None = None
    ready_at: datetime | None = None  # when it was answered last (real time)
    ready_since: datetime | None = None  # when it was asked first (real time)
    checks: int = 0  # how many readiness checks were requested
    arguments: dict[str, Any] | None = None  # of a freerun submission
    created_at: datetime | None = None

    @property
    def is_finished(self) -> bool:
        """In a terminal state (it may still be `stopping`)."""
        return self.state in JOB_FINISHED
