"""The compare-and-sets a worker makes on a unit of work. Pure: what is written, not when.

A worker may: accept, finish (succeed, no_data, fail, cancel), release, renew, tell progress, and say that it
stopped after a cancel. All but accept are fenced by the token that the accept wrote. Each state change, and
`stopped`, appends one line to the history in the same write and makes the leader look (`dirty`, `due_at`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from scheduler.core.event import history_line
from scheduler.core.lifecycle import UOW, UowState
from scheduler.core.ports import Change
from scheduler.core.uow import Uow
from worker.executor import Outcome

IN_PROGRESS = str(UowState.IN_PROGRESS)
CANCELED = str(UowState.CANCELED)
ERROR_LENGTH = 1000


def one_line(text: str | None) -> str | None:
    """The first line of `text`, not longer than the store's `error` is meant to be."""
    if text is None:
        return None
    line = text.strip().partition("\n")[0].strip().replace("\x00", "�")
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 1] + "…"


def accept(uow: Uow, *, owner: str, box: str, token: str, now: datetime, lease_s: float) -> Change:
    """requested → in_progress, with a lease."""
    state = UOW.successor(uow.id, uow.state, "accept")
    lease_until = now + timedelta(seconds=lease_s)
    return Change(
        kind=Uow,
        key=uow.id,
        expect={"state": uow.state, "version": uow.version},
        set={
            "state": state,
            "version": uow.version + 1,
            "owner": owner,
            "box": box,
            "token": token,
            "started_at": now,
            "lease_until": lease_until,
            "due_at": lease_until,
            "finished_at": None,
            "stopped_at": None,
            "cursor_end": None,
            "more": False,
            "permanent": False,
            "timed_out": False,
            "result": None,
            "progress": None,
            "dirty": True,
        },
        entry=history_line("accept", state, now, owner, attempt=uow.attempt, version=uow.version + 1),
    )


def finish(uow: Uow, outcome: Outcome, *, now: datetime, timed_out: bool = False) -> Change:
    """in_progress → processed, noop, invalid or canceled; `uow` as it was accepted."""
    state = UOW.successor(uow.id, IN_PROGRESS, outcome.verb)
    error = one_line(outcome.error)
    values: dict[str, Any] = {
        "state": state,
        "version": uow.version + 1,
        "finished_at": now,
        "lease_until": None,
        "due_at": now,
        "dirty": True,
    }
    extra: dict[str, Any] = {"attempt": uow.attempt, "version": uow.version + 1}
    if outcome.verb == "fail":
        values |= {
            "failures": uow.failures + 1,
            "permanent": outcome.permanent,
            "timed_out": timed_out,
            "error": error,
            "traceback": outcome.traceback,
        }
        extra["error"] = error
    else:
        values |= {"cursor_end": outcome.cursor, "more": outcome.more, "result": outcome.result}
        if error is not None:
            values["error"] = extra["error"] = error
    if outcome.verb == "cancel":
        values["stopped_at"] = now  # it has let go: nobody is told to stop
    extra["duration_ms"] = round(outcome.duration_s * 1000)
    return _fenced(uow, values, history_line(outcome.verb, state, now, uow.owner or "", error or "", **extra))


def release(uow: Uow, *, now: datetime, reason: str) -> Change:
    """in_progress → requested, same attempt: its worker is leaving. The leader publishes it again."""
    state = UOW.successor(uow.id, IN_PROGRESS, "release")
    values = {
        "state": state,
        "version": uow.version + 1,
        "owner": None,
        "box": None,
        "token": None,
        "started_at": None,
        "lease_until": None,
        "progress": None,
        "published_at": None,
        "due_at": now,
        "dirty": True,
    }
    line = history_line(
        "release", state, now, uow.owner or "", reason, attempt=uow.attempt, version=uow.version + 1
    )
    return _fenced(uow, values, line)


def stopped(uow: Uow, *, now: datetime) -> Change:
    """The worker of a canceled unit of work has let go of it; no change of state."""
    line = history_line("stopped", CANCELED, now, uow.owner or "", attempt=uow.attempt)
    return Change(
        kind=Uow,
        key=uow.id,
        expect={"state": CANCELED, "token": uow.token, "stopped_at": None},
        set={"stopped_at": now, "lease_until": None, "due_at": now, "dirty": True},
        entry=line,
    )


def renew(uow: Uow, *, now: datetime, lease_s: float) -> Change:
    """Prolong the lease; no change of state, no line."""
    lease_until = now + timedelta(seconds=lease_s)
    return Change(
        kind=Uow,
        key=uow.id,
        expect={"state": IN_PROGRESS, "token": uow.token},
        set={"lease_until": lease_until, "due_at": lease_until},
    )


def progress(uow: Uow, value: dict[str, Any]) -> Change:
    """How far it is; a mark."""
    return Change(
        kind=Uow,
        key=uow.id,
        expect={"state": IN_PROGRESS, "token": uow.token},
        set={"progress": value},
    )


def _fenced(uow: Uow, values: dict[str, Any], entry: str) -> Change:
    return Change(
        kind=Uow, key=uow.id, expect={"state": IN_PROGRESS, "token": uow.token}, set=values, entry=entry
    )
