"""The other rows of the store: process rows, holds, leases, boxes, log chunks, users, and the small facts.

What a process *is* stands in the context (`process.py`); what has *happened* to it stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """What the store remembers of a process. Written by the leading scheduler alone."""

    name: str
    kind: str  # managed, freerun, daemon
    state: str = "new"
    version: int = 0
    qualifier: str = ""
    grouping: int = 1
    tree: str | None = None
    start: datetime | None = None  # periods before it do not exist
    frontier: datetime | None = None  # every period that began before it has, or had, a row
    passed: datetime | None = None  # the furthest the frontier ever was; below it rows are shown again
    horizon: datetime | None = None  # every period before it is archived
    last_fire: datetime | None = None  # freerun: business time of the last firing that was taken
    overrides: dict[str, Any] = field(default_factory=dict)  # {"trigger": {"value": …, "actor": …, "at": …}}
    definition: dict[str, Any] | None = None  # of an entry made at run time
    durations: list[int] = field(default_factory=list)  # last 100 executions, milliseconds
    usual_ms: int | None = None
    usual_p95_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hold:
    """No new unit of work under `scope` while it stands: `*`, `tree:t`, `process:p`, `job:p@t`."""

    scope: str
    actor: str
    reason: str
    since: datetime
    until: datetime | None = None  # real time


LEADER = "leader"  # the name of the lease that the leading scheduler holds


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who is in charge of `name`, until when on the store's clock; `token` rises with every holder."""

    name: str
    holder: str
    token: int
    expires_at: datetime
    taken_at: datetime
    data: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class BoxProcess:
    """One OS process of one box: what is wanted of it, and what its supervisor sees."""

    id: str  # "<box>/<name>"; a worker's name carries its number: "worker.flights.1"
    box: str
    name: str
    kind: str  # supervisor, scheduler, mx, worker, daemon
    desired: str = "on"  # on, off, restart
    state: str = "STOPPED"  # STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL
    pid: int | None = None
    pid_started: float | None = None  # psutil create_time: a pid is trusted only with it
    since: datetime | None = None
    seen_at: datetime | None = None
    restarts: int = 0
    exit_code: int | None = None
    message: str = ""
    data: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    """A piece of what an attempt printed. `(uow, attempt, n)` is its key."""

    uow: str
    attempt: int
    n: int
    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class User:
    """Someone, or something, that may use the API. Secrets are kept as hashes only."""

    name: str
    role: str = "viewer"
    password: str | None = None  # its hash; None: no log-in by password
    tokens: list[dict[str, Any]] = field(default_factory=list)  # {"id": …, "hash": …, "scopes": […], …}
    enabled: bool = True
    created_at: datetime | None = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A named small fact: the schema version, the business clock, the context in force."""

    key: str
    value: dict[str, Any]
