"""What people and programs ask: one rule a verb, decided in the same turn as everything else.

A command's outcome is written in the transaction that carries it out. Bad input, an illegal verb, a
state other than the one the actor saw, a cascade that is too large: the command is refused with the
status HTTP would give it, and nothing else changes.

The rules stand by what they are about: `job_commands`, `process_commands`, `late`, `holds`. Here is what all of
them have in common, and the two that are about neither: the clock, and a worker that died.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.core.command import DONE, EXPIRED, PENDING, REFUSED, Command
from scheduler.core.errors import InvalidRequest, InvalidTransition, Refused, SchedulerError
from scheduler.core.facts import Absent
from scheduler.core.holds import hold, instant, release
from scheduler.core.job_commands import kill, mark_done, reprocess, retry, run_now, skip
from scheduler.core.late import drop_late, late_data, narrow_late, postpone
from scheduler.core.ports import Change
from scheduler.core.process_commands import override, process_verb, reset, submit
from scheduler.core.records import Fact
from scheduler.core.rule import Result
from scheduler.core.slice import Item, Slice

JOBS_TOLD = 100  # in the event of a command
RATE_MAX = 1_000_000  # of the business clock; as scheduler.clock has it


def decide_command(s: Slice, command: Command) -> list[Item]:
    """Carry a command out, or refuse it; either way its row is resolved. May raise Absent."""
    if command.state != PENDING:
        return []
    if command.expires_at is not None and command.expires_at <= s.real:
        _resolve(s, command, EXPIRED, 409, "it was not taken in time; nothing was changed")
        return []
    rule = RULES.get(command.verb)
    mark = s.mark()
    try:
        if rule is None:
            raise InvalidRequest(f"there is no verb {command.verb!r}; use one of {', '.join(RULES)}")
        _check_seen(s, command)
        items, outcome, message = rule(s, command)
    except SchedulerError as error:
        s.back_to(mark)
        if command.verb == "late_data" and isinstance(error, Refused):
            return postpone(s, command, error)
        _resolve(s, command, REFUSED, error.http_status, str(error), _allowed(error))
        return []
    _resolve(s, command, DONE, 200, message, outcome)
    return items


def _allowed(error: SchedulerError) -> dict[str, Any] | None:
    if isinstance(error, InvalidTransition):
        return {"state": error.state, "verb": error.verb, "allowed": list(error.allowed)}
    return None


def _resolve(
    s: Slice, command: Command, state: str, status: int, message: str, outcome: dict[str, Any] | None = None
) -> None:
    sets = {"state": state, "status": status, "message": message, "outcome": outcome, "resolved_at": s.real}
    s.commands.append(Change(Command, command.id, {"state": PENDING}, sets))
    s.emit(
        f"command.{state}",
        f"{command.verb}: {message}" if message else command.verb,
        severity="info" if state == DONE else "warning",
        actor=command.actor,
        process=command.target.get("process"),
        data={
            "command": command.id,
            "verb": command.verb,
            "target": _shortened(command.target),
            "reason": command.reason,
        },
    )


def _shortened(target: dict[str, Any]) -> dict[str, Any]:
    """A target for an event: the first of many jobs, and how many they are; the command's row has them all."""
    jobs = target.get("jobs")
    if not isinstance(jobs, list) or len(jobs) <= JOBS_TOLD:
        return target
    return {**target, "jobs": jobs[:JOBS_TOLD], "number": len(jobs)}


def _check_seen(s: Slice, command: Command) -> None:
    for id_, seen in command.seen.items():
        job = s.job(id_)
        if job is not None and job.state != seen:
            raise Refused(f"job {id_} is {job.state} by now, not {seen}; look again")


def _set_clock(s: Slice, command: Command) -> Result:
    value = command.arguments.get("value")
    if not isinstance(value, dict):
        raise InvalidRequest("the clock needs a mapping: real_anchor, business_anchor, rate")
    for key in (
        "real_anchor",
        "business_anchor",
        "floor",
    ):  # a bad row would stop every process that reads it
        if instant(f"clock {key}", value.get(key)) is None and key != "floor":
            raise InvalidRequest(f"the clock needs a {key}, an instant")
    rate = value.get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= RATE_MAX:
        raise InvalidRequest(f"clock rate must be between 0 (frozen) and {RATE_MAX:,}, got {rate!r}")
    s.facts.append(Fact(key="clock", value=value))
    s.emit("clock.set", str(value), actor=command.actor, severity="warning")
    return [], {"changed": True}, "the clock was set"


def _worker_died(s: Slice, command: Command) -> Result:
    owner = command.target.get("owner")
    if not isinstance(owner, str) or not owner:
        raise InvalidRequest(f"worker_died needs an owner, such as 'box/worker.default.1', got {owner!r}")
    ids = s.owned.get(owner)
    if ids is None:
        raise Absent(("owned", owner))
    s.dead.add(owner)
    s.emit("worker.died", command.reason, actor=command.actor, severity="warning", data={"owner": owner})
    return [Item("uow", id_) for id_ in ids], {"changed": bool(ids)}, f"{len(ids)} units of work were its"


RULES: dict[str, Callable[[Slice, Command], Result]] = {
    "reprocess": reprocess,
    "skip": skip,
    "mark_done": mark_done,
    "kill": kill,
    "retry": retry,
    "run_now": run_now,
    "late_data": late_data,
    "drop_late": drop_late,
    "narrow_late": narrow_late,
    "hold": hold,
    "release": release,
    "submit": submit,
    "schedule": process_verb,
    "suspend": process_verb,
    "resume": process_verb,
    "expire": process_verb,
    "delete": process_verb,
    "set_trigger": override,
    "set_priority": override,
    "set_max_active": override,
    "set_tags": override,
    "reset": reset,
    "set_clock": _set_clock,
    "worker_died": _worker_died,
}
