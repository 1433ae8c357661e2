"""Holds: no new unit of work under a job, a process, a tree, or everything, until they are released.

The two commands, and what is to be looked at when a hold ends. Whether one stands over a job is asked
of the slice (`holds_on`); what happens to time meanwhile is told in `wait`.
"""

from __future__ import annotations

from datetime import datetime

from scheduler.core.command import Command
from scheduler.core.errors import InvalidRequest, NotFound, Refused
from scheduler.core.records import Hold
from scheduler.core.rule import Result
from scheduler.core.slice import Item, Slice
from scheduler.core.wait import thaw


def _scope(s: Slice, command: Command) -> str:
    scope = command.target.get("scope")
    if not isinstance(scope, str):
        raise InvalidRequest("a hold needs a scope: '*', 'tree:NAME', 'process:NAME' or 'job:NAME@PERIOD'")
    kind, _, name = scope.partition(":")
    if scope == "*":
        return scope
    if kind == "tree" and name in s.timetable.trees:
        return scope
    if kind == "process" and s.process(name) is not None:
        return scope
    if kind == "job" and s.job(name) is not None:
        return scope
    raise NotFound(
        f"there is nothing to hold at {scope!r}: use '*', 'tree:NAME', 'process:NAME' or 'job:NAME@PERIOD'"
    )


def instant(what: str, value: object) -> datetime | None:
    """An ISO instant with a time zone, or None for nothing."""
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidRequest(f"{what} must be like 2026-11-21T06:00:00+00:00, got {value!r}")
    return found


def hold(s: Slice, command: Command) -> Result:
    """Put a hold on a job, process, tree or everything, until it is released or its end."""
    scope = _scope(s, command)
    until = instant("until", command.arguments.get("until"))
    if until is not None and until <= s.real:
        raise InvalidRequest(f"a hold until {until.isoformat()} would be over already")
    held = s.known.holds.get(scope)  # putting it again changes its end and its reason
    put = Hold(
        scope=scope,
        actor=command.actor,
        reason=command.reason,
        since=held.since if held is not None else s.real,
        until=until,
    )
    s.set_hold(scope, put)
    s.emit("hold.set", command.reason, actor=command.actor, severity="warning", data={"scope": scope})
    return [], {"changed": True, "scope": scope}, f"holding {scope}"


def release(s: Slice, command: Command) -> Result:
    """Lift a hold; what waited under it gets its time back, and is looked at."""
    scope = str(command.target.get("scope"))
    if scope not in s.known.holds:
        raise Refused(f"{scope} is not held; held are: {', '.join(sorted(s.known.holds)) or 'none'}")
    lifted_one = s.known.holds[scope]
    s.set_hold(scope, None)
    s.emit("hold.release", command.reason, actor=command.actor, data={"scope": scope})
    return [*thaw(s, lifted_one), *lifted(s, scope)], {"changed": True, "scope": scope}, f"released {scope}"


def lifted(s: Slice, scope: str) -> list[Item]:
    """What to look at when a hold has ended, and what waited under it got its time back (`thaw`)."""
    kind, _, name = scope.partition(":")
    if kind == "job":
        return [Item("job", name)]
    if kind == "process":
        return [Item("fill", name)]
    names = (
        s.timetable.trees[name].processes if kind == "tree" and name in s.timetable.trees else s.known.rows
    )
    return [Item("fill", process) for process in names]
