"""What people and programs ask of processes: their state, their overrides, a run or an entry of a freerun; a rule each.

What an operator sets is kept beside the context's definition, with who and when, until it is reset.
"""

from __future__ import annotations

import re
from typing import Any

from scheduler.core.command import Command
from scheduler.core.errors import InvalidRequest, NotFound, Refused, SchedulerError
from scheduler.core.facts import Absent
from scheduler.core.firing import submit as submit_job
from scheduler.core.lifecycle import PROCESS
from scheduler.core.process import NAME
from scheduler.core.records import ProcessRow
from scheduler.core.registry import register
from scheduler.core.rule import Result
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import assess
from scheduler.core.timeperiod import Qualifier
from scheduler.core.trigger import parse_trigger

WAITING_MAX = 1000  # named, of those that wait for a process which is expired
TAGS_MAX = 20
TAG = re.compile(r"[^\s,]{1,64}")


def _row(s: Slice, command: Command) -> ProcessRow:
    name = command.target.get("process")
    row = s.known.rows.get(str(name))
    if row is None:
        raise NotFound(f"there is no process {name!r}")
    return row


def process_verb(s: Slice, command: Command) -> Result:
    """schedule, suspend, resume, expire, delete: as the table of process states allows."""
    row = _row(s, command)
    state = PROCESS.successor(f"process {row.name!r}", row.state, command.verb)
    if state == row.state:
        return [], {"changed": False, "state": state}, f"{row.name} is {state} already"
    before = _waiting_for(s, row.name) if state in ("expired", "deleted") else []
    overrides = {key: value for key, value in row.overrides.items() if key not in ("expired", "is_on")}
    mark = {"by": "person", "actor": command.actor, "at": s.real.isoformat()}
    if state in ("expired", "deleted"):  # so that a context which names it does not bring it back
        overrides["expired"] = mark
    else:
        overrides["is_on"] = {**mark, "value": state == "scheduled"}
    last_fire = s.now if row.kind == "freerun" else row.last_fire
    s.change_row(row, state=state, version=row.version + 1, last_fire=last_fire, overrides=overrides)
    s.emit(
        f"process.{command.verb}",
        command.reason,
        actor=command.actor,
        process=row.name,
        data={"state": state},
    )
    items = [Item("fill", row.name), *_invalid_ones(s, row.name)]
    if state in ("expired", "deleted"):
        items += [Item("job", id_) for id_ in before]
        items += [Item("fill", edge.of) for edge in s.timetable.dependants(row.name)]
    elif row.kind == "managed":
        items.append(Item("advance", row.name))
    return items, {"changed": True, "state": state, "ready": _ready(s, before)}, f"{row.name} is {state}"


def _ready(s: Slice, ids: list[str]) -> list[str]:
    """Those that wait for nothing, but perhaps for a place."""
    found: list[str] = []
    lacks: list[tuple[Any, ...]] = []
    for id_ in ids:
        job = s.job(id_)
        if job is None or not job.open or job.uow_open:
            continue
        try:
            seen = assess(s, job)
        except Absent as lack:
            lacks += lack.wants
            continue
        if seen.act is not None or (seen.blockers and all(b.code == "place" for b in seen.blockers)):
            found.append(id_)
    if lacks:
        raise Absent(*lacks)
    return found


def _invalid_ones(s: Slice, name: str) -> list[Item]:
    """Failed units of work wait for what their process becomes: retried, or given up."""
    ids = s.owned.get(f"invalid:{name}")
    if ids is None:
        raise Absent(("invalid", name))
    return [Item("uow", id_) for id_ in ids]


def _waiting_for(s: Slice, name: str) -> list[str]:
    """Open jobs of the processes that stand on this one."""
    ids: list[str] = []
    for edge in s.timetable.dependants(name):
        found, _ = s.window(edge.of, None, WAITING_MAX)
        ids += [id_ for id_ in found if id_ not in ids]
    return ids


def _value(row: ProcessRow, key: str, value: Any) -> Any:
    """What an operator sets a key to, checked."""
    if key == "trigger":
        if row.kind == "daemon":
            raise Refused(f"{row.name!r} is a daemon; it has no trigger")
        try:
            return parse_trigger(str(value)).text
        except SchedulerError as error:
            raise InvalidRequest(str(error)) from None
    if key == "tags":
        if not isinstance(value, list) or len(value) > TAGS_MAX:
            raise InvalidRequest(f"tags must be a list of at most {TAGS_MAX} words, got {value!r:.80}")
        for tag in value:
            if not isinstance(tag, str) or not TAG.fullmatch(tag):
                raise InvalidRequest(
                    f"a tag is one word of at most 64 characters without commas, got {tag!r:.80}"
                )
        return list(dict.fromkeys(value))
    most = 10 if key == "priority" else 10_000
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidRequest(f"{key} must be a whole number between 1 and {most}, got {value!r}")
    return value


def override(s: Slice, command: Command) -> Result:
    """set_trigger, set_priority, set_max_active, set_tags: over what the context says."""
    row = _row(s, command)
    key = command.verb.removeprefix("set_")
    value = _value(row, key, command.arguments.get("value"))
    entry = {"value": value, "actor": command.actor, "at": s.real.isoformat()}
    sets: dict[str, Any] = {"overrides": {**row.overrides, key: entry}, "version": row.version + 1}
    if key == "trigger" and row.kind == "freerun":  # it has missed nothing before it was set
        sets["last_fire"] = s.now
    s.change_row(row, **sets)
    said = (", ".join(value) or "none") if isinstance(value, list) else str(value)
    s.emit(f"process.{command.verb}", said, actor=command.actor, process=row.name, data={key: value})
    items = [Item("fill", row.name)] if row.kind == "managed" else [Item("fire", row.name)]
    return items, {"changed": True, key: value}, f"{key} of {row.name} is {said}"


def reset(s: Slice, command: Command) -> Result:
    """Back to what the context says; an expiry stays."""
    row = _row(s, command)
    if not row.overrides:
        return [], {"changed": False}, f"{row.name} has no overrides"
    state = row.state
    definition = s.timetable.processes.get(row.name)
    if "is_on" in row.overrides and state in ("scheduled", "suspended"):
        state = "suspended" if definition is not None and not definition.is_on else "scheduled"
    overrides = {key: value for key, value in row.overrides.items() if key == "expired"}
    sets: dict[str, Any] = {"state": state, "overrides": overrides, "version": row.version + 1}
    if row.kind == "freerun":
        sets["last_fire"] = s.now
    s.change_row(row, **sets)
    s.emit(
        "process.reset",
        ", ".join(row.overrides),
        actor=command.actor,
        process=row.name,
        data={"state": state},
    )
    items = [Item("fill", row.name), *_invalid_ones(s, row.name)]
    if row.kind == "managed":
        items.append(Item("advance", row.name))
    return items, {"changed": True, "state": state}, f"{row.name} is as the context says"


def submit(s: Slice, command: Command) -> Result:
    """A run of a freerun process, or (with `base`) a new entry made from a registered one."""
    name = str(command.target.get("process"))
    base = command.arguments.get("base")
    if base is not None:
        return _entry(s, command, name, str(base))
    process = s.process(name)
    if process is None:
        raise NotFound(f"there is no process {name!r}")
    row = s.row(name)
    if row.state == "deleted" and name in s.timetable.processes:  # registered anew, under its old job keys
        items = register(s, s.timetable.processes[name], row, actor=command.actor)
        return items, {"changed": True, "state": s.row(name).state}, f"{name} is registered again"
    if process.kind != "freerun":
        raise Refused(f"process {name!r} is {process.kind}; only freerun processes are submitted")
    if row.state != "scheduled":
        raise Refused(f"process {name!r} is {row.state}; resume it first")
    arguments = command.arguments.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise InvalidRequest(f"arguments must be an object, got {arguments!r}")
    job = submit_job(s, process, s.now, arguments)
    return (
        [Item("job", job.id)],
        {"changed": True, "jobs": [{"job": job.id, "effect": "made", "state": ""}]},
        job.id,
    )


def _entry(s: Slice, command: Command, name: str, base: str) -> Result:
    definition = s.timetable.processes.get(base)
    if definition is None or definition.kind != "freerun":
        raise NotFound(f"there is no freerun process {base!r} to make an entry from")
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"entry name {name!r} is not valid: use [a-z][a-z0-9_.-]*, at most 64 characters"
        )
    row = s.known.rows.get(name)
    if name in s.timetable.processes or (row is not None and row.state != "deleted"):
        raise Refused(f"there is a process {name!r} already")
    trigger = command.arguments.get("trigger")
    if trigger is not None:
        trigger = parse_trigger(str(trigger)).text
    arguments = command.arguments.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"arguments must be an object, got {arguments!r}")
    made = {"base": base, "trigger": trigger, "arguments": arguments}
    if row is None:
        s.add_row(
            ProcessRow(
                name=name,
                kind="freerun",
                qualifier=Qualifier.INSTANT,
                state="scheduled",
                definition=made,
                last_fire=s.now,
            )
        )
    else:
        s.change_row(
            row,
            kind="freerun",
            qualifier=Qualifier.INSTANT,
            grouping=1,
            tree=None,
            start=None,
            frontier=None,
            passed=None,
            state="scheduled",
            definition=made,
            last_fire=s.now,
            overrides={},
            version=row.version + 1,
        )
    data = {**made, "state": "scheduled"}
    s.emit("process.submit", f"an entry of {base}", actor=command.actor, process=name, data=data)
    return [], {"changed": True, "state": "scheduled"}, f"entry {name} of {base}"
