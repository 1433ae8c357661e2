"""What the events say: the state of every job and unit of work, derived from nothing but the events.

The tables of what may follow what are written here a second time, from the design, on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from simulation.almanac import Period

FINISHED = frozenset({"processed", "skipped", "noop"})
UOW_FINISHED = frozenset({"processed", "noop", "canceled"})
GONE = frozenset({"expired", "deleted"})  # processes: nobody's child or dependency
PEOPLE = frozenset({"manual", "killed"})

JOB_MOVES = {
    "dispatch": ({"embryo", "in_progress"}, "in_progress"),
    "dispatch_final": ({"embryo", "in_progress"}, "final_run"),
    "complete": ({"in_progress", "final_run"}, "processed"),
    "no_data": ({"in_progress", "final_run"}, "noop"),
    "skip": ({"embryo", "in_progress", "final_run"}, "skipped"),
    "reprocess": ({"embryo", "in_progress", "final_run", "processed", "skipped", "noop"}, "embryo"),
    "mark_done": ({"embryo", "in_progress", "final_run", "skipped"}, "processed"),
}
UOW_MOVES = {
    "request": ({""}, "requested"),
    "accept": ({"requested"}, "in_progress"),
    "succeed": ({"in_progress"}, "processed"),
    "no_data": ({"in_progress"}, "noop"),
    "fail": ({"in_progress", "requested"}, "invalid"),
    "retry": ({"invalid"}, "requested"),
    "release": ({"in_progress"}, "requested"),
    "give_up": ({"invalid"}, "canceled"),
    "cancel": ({"requested", "in_progress", "invalid"}, "canceled"),
    "stopped": ({"canceled"}, "canceled"),
}


class Broken(BaseException):
    """An invariant does not hold. Not an Exception: nothing of the product may catch it."""

    def __init__(self, invariant: int, text: str, *jobs: str) -> None:
        self.invariant, self.text, self.jobs = invariant, text, jobs
        super().__init__(f"invariant {invariant}: {text}")


@dataclass(slots=True)
class JobView:
    """A job, as its events tell it."""

    id: str
    process: str
    period: Period
    made: int  # event number of its row
    state: str = "embryo"
    reason: str | None = None
    run: int = 0
    version: int = 0
    settled: int = 0  # event number of its last end
    settled_at: datetime | None = None
    requested: int = 0  # event number of the last request of its last unit of work
    uow: str | None = None
    before: str | None = None  # the unit of work before that
    stopping: str | None = None  # a canceled unit of work whose worker has not let go
    reopened: int = 0  # how often
    first_run: int = 0  # the last run before it was reopened
    produced: bool = False
    ready: bool = False
    hurried: bool = False  # an operator said run now, and its readiness is asked first
    kept: bool = False  # late data for what it stands on was narrowed: it may be older than that
    cursor: str | None = None
    ticked: datetime | None = None  # business time of its last dispatch

    @property
    def finished(self) -> bool:
        """As its parents and dependants see it."""
        return self.state in FINISHED and self.stopping is None


@dataclass(slots=True)
class UowView:
    """A unit of work, as its events tell it."""

    id: str
    job: str
    state: str = ""
    attempt: int = 0
    lines: int = 0
    owner: str | None = None
    accepted: int = 0  # the version its last accept made
    failures: int = 0
    losses: int = 0
    permanent: bool = False


@dataclass(slots=True)
class Model:
    """All of them, the holds, and the states of the processes."""

    jobs: dict[str, JobView] = field(default_factory=dict)
    uows: dict[str, UowView] = field(default_factory=dict)
    holds: dict[str, datetime | None] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)  # processes registered anew, and at which event
    max_active: dict[str, int] = field(default_factory=dict)
    triggers: dict[str, str] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)  # jobs that must be reopened before they end
    waits: dict[str, int] = field(default_factory=dict)  # late data beyond the limit, and since which event
    acts: dict[str, int] = field(default_factory=dict)  # commands that were carried out, by their verb
    seq: int = 0
