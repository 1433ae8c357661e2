"""What one transaction of the runner is to change, execution by execution. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from scheduler.core.command import Command
from scheduler.core.evolve import evolve
from scheduler.core.job import job_id
from scheduler.core.ports import Change
from scheduler.core.process import Process
from scheduler.core.uow import Uow
from worker import changes
from worker.executions import Execution


@dataclass(frozen=True, slots=True)
class Intent:
    """A compare-and-set that a transaction is to make, and for which execution."""

    verb: str  # accept, finish, release, stopped
    execution: Execution
    change: Change

    def is_written(self, stored: Uow | None) -> bool:
        """Whether the store shows what this was to write: our token (or none, after a release) and state."""
        if stored is None:
            return False
        if self.verb == "accept":
            return is_ours(self.execution, stored)
        if stored.token != self.change.set.get("token", self.execution.token):
            return False
        if self.verb == "stopped":
            return stored.stopped_at is not None
        return bool(stored.state == self.change.set["state"] and stored.version == self.change.set["version"])


def is_ours(execution: Execution, stored: Uow | None) -> bool:
    """Whether the store says that this execution holds its unit of work."""
    return stored is not None and stored.token == execution.token and stored.state == changes.IN_PROGRESS


def timeout_s(uow: Uow, process: Process | None) -> float | None:
    """How long an execution may take, or None."""
    if process is None:
        return None
    if uow.kind == "check":
        return process.readiness.timeout_s if process.readiness is not None else None
    return process.timeout_s


def accepting(
    uow: Uow,
    processes: Mapping[str, Process],
    *,
    owner: str,
    box: str,
    token: str,
    now: datetime,
    lease_s: float,
    lease_ends: float,
) -> Intent:
    """To accept a requested unit of work; `lease_ends` on our own clock."""
    change = changes.accept(uow, owner=owner, box=box, token=token, now=now, lease_s=lease_s)
    accepted = evolve(uow, change.set)
    process = processes.get(uow.definition or uow.process)
    return Intent("accept", Execution(accepted, process, lease_ends), change)


def ending(execution: Execution, now: datetime) -> Intent:
    """What to write for an execution that is gone."""
    uow, outcome = execution.uow, execution.outcome
    assert outcome is not None
    if execution.stop == "canceled":
        return Intent("stopped", execution, changes.stopped(uow, now=now))
    if execution.stop == "drain" and outcome.verb == "stopped":
        return Intent("release", execution, changes.release(uow, now=now, reason="its worker stops"))
    is_late = execution.stop == "time-out"
    if is_late:
        error = f"ran longer than timeout_s={timeout_s(uow, execution.process):g}"
        outcome = replace(outcome, verb="fail", error=error, traceback=None, permanent=False)
    elif outcome.verb == "stopped":  # nobody here told it to: the guard did
        outcome = replace(outcome, verb="fail", error=outcome.error or "was stopped")
    if uow.kind == "check" and outcome.verb in ("fail", "cancel"):
        outcome = replace(outcome, verb="no_data", error=outcome.error or "the readiness check failed")
    return Intent("finish", execution, changes.finish(uow, outcome, now=now, timed_out=is_late))


def late_data(execution: Execution, now: datetime) -> list[Command]:
    """The commands its code asked for. Asking again, in a retry of the same attempt, is asking once."""
    uow = execution.uow
    return [
        Command(
            id=str(uuid5(NAMESPACE_URL, f"synergy:{uow.id}/{uow.attempt}/{n}")),
            verb="late_data",
            target={"jobs": [job_id(process, timeperiod)]},
            actor=uow.process,
            reason=reason,
            submitted_at=now,
        )
        for n, (process, timeperiod, reason) in enumerate(execution.late_data, execution.late_sent)
    ]
