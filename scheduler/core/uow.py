"""The unit of work: one dispatch of a job to a worker, as it is stored.

Two writers share it, each by compare-and-set: the leading scheduler (request, retry, cancel, give up)
and the worker that holds it (accept, finish, release). Each change appends one line to `history` in
the same write and sets `dirty`; the leader copies the lines to `events` and moves `copied`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.core.lifecycle import UOW_FINISHED


def uow_id(job: str, run: int) -> str:
    """The id of a unit of work: `process@timeperiod#run`."""
    return f"{job}#{run}"


def job_of(uow: str) -> str:
    """The job id inside a unit of work's id."""
    return uow.rpartition("#")[0]


@dataclass(frozen=True, kw_only=True)
class Uow:
    """One dispatch of a job to a worker. Times are aware UTC, real unless said otherwise."""

    id: str
    process: str
    timeperiod: str
    run: int  # 1.. per job
    kind: str = "work"  # "work", or "check": evaluates the readiness predicate, produces nothing
    state: str = "requested"
    attempt: int = 1  # 1.. per unit of work
    version: int = 0  # counts state changes; the sink token is (run, version after accept)
    queue: str = ""
    priority: int = 5
    final: bool = False  # its outcome decides the job
    start: datetime  # the period it covers
    end: datetime
    cursor: str | None = None  # where it starts within the period; None: from the beginning
    cursor_end: str | None = None  # how far it came
    more: bool = False
    arguments: dict[str, Any] | None = None  # None: those of the process
    definition: str | None = None  # the registered process that says what runs; None: `process` itself
    created_at: datetime
    requested_at: datetime  # of this attempt
    published_at: datetime | None = None  # a mark: set after the broker confirmed
    publishes: int = 0
    retry_at: datetime | None = None
    due_at: datetime | None = (
        None  # when the leader must look at it: lease end, retry, republish; None: never
    )
    owner: str | None = None  # the worker (instance) that accepted it
    box: str | None = None
    token: str | None = None  # chosen by the worker before its accept
    started_at: datetime | None = None
    lease_until: datetime | None = None  # on the store's clock
    finished_at: datetime | None = None
    stopped_at: datetime | None = None  # its worker let go of it after a cancel
    failures: int = 0  # attempts that count against max_retries
    losses: int = 0  # attempts lost with their worker
    permanent: bool = False  # the worker said that a retry would fail too
    timed_out: bool = False  # the last attempt ran into its time-out
    error: str | None = None  # the last failure, one line
    traceback: str | None = None
    result: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None  # {"done": 3, "total": 10, "note": "…"}
    history: str = ""  # one JSON object a line; never rewritten, only appended to
    history_n: int = 0  # lines in `history`
    copied: int = 0  # lines that are in `events` (a mark)
    dirty: bool = False  # lines wait to be copied (a mark)

    @property
    def is_finished(self) -> bool:
        """Terminal: a re-run is a new unit of work."""
        return self.state in UOW_FINISHED

    @property
    def is_held(self) -> bool:
        """A worker accepted it and has not said that it let go; its lease may have run out."""
        return self.owner is not None and self.stopped_at is None and self.lease_until is not None
