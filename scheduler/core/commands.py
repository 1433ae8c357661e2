"""What people and programs ask: one rule a verb, decided in the same turn as everything else.

A command's outcome is written in the transaction that carries it out. Bad input, an illegal verb, a
state other than the one the actor saw, a cascade that is too large: the command is refused with the
status HTTP would give it, and nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from scheduler.core.act import act, cancel_uow, reopen, settle
from scheduler.core.attempt import retry as retry_now
from scheduler.core.command import DONE, EXPIRED, PENDING, REFUSED, Command
from scheduler.core.errors import (
    InvalidRequest,
    InvalidTransition,
    NotFound,
    Refused,
    SchedulerError,
)
from scheduler.core.firing import submit
from scheduler.core.holds import hold, instant, release
from scheduler.core.inputs import gather_above
from scheduler.core.job import Job
from scheduler.core.late import drop_late, late_data, narrow_late, postpone
from scheduler.core.lifecycle import PROCESS
from scheduler.core.plan import Effect, check_number, outcome_of, plan_reprocess, plan_skip, touched
from scheduler.core.ports import Change
from scheduler.core.process import NAME
from scheduler.core.records import Fact, ProcessRow
from scheduler.core.registry import register
from scheduler.core.slice import Absent, Item, Slice
from scheduler.core.strategy import assess
from scheduler.core.timeperiod import Qualifier
from scheduler.core.trigger import parse_trigger

JOBS_TOLD = 100  # in the event of a command
WAITING_MAX = 1000  # named, of those that wait for a process which is expired
TAGS_MAX = 20
TAG = re.compile(r"[^\s,]{1,64}")
RATE_MAX = 1_000_000  # of the business clock; as scheduler.clock has it

Result = tuple[list[Item], dict[str, Any], str]


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


def _jobs(s: Slice, command: Command) -> list[Job]:
    ids = command.target.get("jobs")
    if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) for id_ in ids):
        raise InvalidRequest(f"{command.verb} needs jobs, such as ['flights_daily@2013070400'], got {ids!r}")
    check_number(len(ids))
    missing = [("job", id_) for id_ in ids if id_ not in s.jobs]
    if missing:
        raise Absent(*missing)
    found = []
    for id_ in dict.fromkeys(ids):
        job = s.job(id_)
        if job is None:
            raise NotFound(f"there is no job {id_!r}")
        found.append(job)
    return found


# -- jobs -----------------------------------------------------------------------------------------


def _gather_uows(s: Slice, jobs: list[Job]) -> None:
    missing = [
        ("uow", job.uow) for job in jobs if job.uow_open and job.uow is not None and job.uow not in s.uows
    ]
    if missing:
        raise Absent(*missing)


def apply_reprocess(s: Slice, effects: list[Effect], actor: str, reason: str) -> list[Item]:
    """Carry out a planned reprocess."""
    items: list[Item] = []
    jobs = [job for e in effects if e.effect.startswith("reset") and (job := s.job(e.job)) is not None]
    _gather_uows(s, jobs)
    for job in jobs:
        job = cancel_uow(s, job, actor=actor, message=reason or "reprocess")
        reopen(s, job, message=reason, actor=actor)
        items.append(Item("job", job.id))
        if job.process in s.known.crowded:
            items.append(Item("fill", job.process))
    return items


def _reprocess(s: Slice, command: Command) -> Result:
    effects = plan_reprocess(s, _jobs(s, command))
    return apply_reprocess(s, effects, command.actor, command.reason), outcome_of(effects), touched(effects)


def _skip(s: Slice, command: Command) -> Result:
    roots = _jobs(s, command)
    for job in roots:
        if job.is_finished:
            raise InvalidTransition(f"job {job.id}", job.state, "skip", ("reprocess",))
    effects = plan_skip(s, roots)
    _gather_uows(s, [j for e in effects if e.effect == "skip and cancel" and (j := s.job(e.job)) is not None])
    items: list[Item] = []
    for e in effects:
        if e.effect == "none":
            continue
        if e.effect == "made":
            job = _make(s, e.job)
        else:
            found = s.job(e.job)
            assert found is not None
            job = cancel_uow(s, found, actor=command.actor, message=command.reason or "skip")
        items += settle(s, job, "skip", "manual", command.reason or None)
    return items, outcome_of(effects), touched(effects)


def _make(s: Slice, id_: str) -> Job:
    process, _, label = id_.partition("@")
    period = s.timetable.timeperiod(process, label)
    job = Job(
        id=id_, process=process, timeperiod=label, start=period.start, end=period.end, created_at=s.real
    )
    s.emit(
        "job.make",
        "made ahead of its time, to be skipped",
        process=process,
        timeperiod=label,
        severity="debug",
    )
    return s.add_job(job)


def _mark_done(s: Slice, command: Command) -> Result:
    items: list[Item] = []
    effects: list[Effect] = []
    jobs = _jobs(s, command)
    gather_above(s, [job for job in jobs if job.state == "skipped"])
    for named in jobs:
        job = s.job(named.id)  # as those before it left it
        assert job is not None
        was_skipped = job.state == "skipped"
        above = plan_reprocess(s, [job])[1:] if was_skipped else []
        _gather_uows(s, [j for e in above if (j := s.job(e.job)) is not None] + [job])
        effects.append(Effect(job.id, "done and cancel" if job.uow_open else "done", job.state))
        job = cancel_uow(s, job, actor=command.actor, message=command.reason or "mark_done")
        items += settle(s, job, "mark_done", "manual", command.reason or None)
        items += apply_reprocess(s, above, command.actor, f"{job.id} was marked done")
        effects += above
    return items, outcome_of(effects), touched(effects)


def _kill(s: Slice, command: Command) -> Result:
    items: list[Item] = []
    effects = []
    jobs = _jobs(s, command)
    _gather_uows(s, jobs)
    for job in jobs:
        if not job.uow_open:
            raise Refused(f"job {job.id} is {job.state} and nothing of it runs: there is nothing to kill")
        effects.append(Effect(job.id, "skip and cancel", job.state))
        job = cancel_uow(s, job, actor=command.actor, message=command.reason or "killed")
        items += settle(s, job, "skip", "killed", command.reason or None)
    return items, outcome_of(effects), touched(effects)


def _retry(s: Slice, command: Command) -> Result:
    jobs = _jobs(s, command)
    _gather_uows(s, jobs)
    for job in jobs:
        uow = s.uow(job.uow) if job.uow_open and job.uow is not None else None
        if uow is None or uow.state != "invalid":
            state = uow.state if uow is not None else job.state
            raise Refused(f"job {job.id}: its unit of work is {state}; only an invalid one is retried")
        if s.row(job.process).state != "scheduled":
            raise Refused(f"process {job.process!r} is {s.row(job.process).state}; resume it first")
        retry_now(s, job, s.copy_history(uow), actor=command.actor)
    return (
        [],
        {"changed": True, "jobs": [{"job": j.id, "effect": "retry", "state": j.state} for j in jobs]},
        "retried",
    )


def _run_now(s: Slice, command: Command) -> Result:
    """Run without waiting for the trigger; what a job stands on is waited for all the same."""
    name = command.target.get("process")
    if name is not None and "jobs" not in command.target:
        process = s.process(str(name))
        if process is None:
            raise NotFound(f"there is no process {name!r}")
        if process.kind == "freerun":
            job = submit(s, process, s.now, command.arguments.get("arguments"))
            return (
                [Item("job", job.id)],
                {"changed": True, "jobs": [{"job": job.id, "effect": "made", "state": ""}]},
                job.id,
            )
        if process.kind != "managed":
            raise Refused(f"process {name!r} is a {process.kind}; only managed and freerun processes are run")
        ids, _ = s.window(process.name, None, 64)
        jobs = [j for id_ in ids if (j := s.job(id_)) is not None and j.start <= s.now and not j.uow_open][:1]
        if not jobs:
            raise Refused(f"process {name!r} has no period that waits")
    else:
        jobs = _jobs(s, command)
    for job in jobs:
        if job.is_finished or job.uow_open:
            raise Refused(f"job {job.id} is {job.state}; only one that waits is run now")
    return _run_each(s, jobs)


def _run_each(s: Slice, jobs: list[Job]) -> Result:
    rows: list[dict[str, Any]] = []
    items: list[Item] = []
    lacks: list[tuple[Any, ...]] = []
    for job in jobs:
        changed = s.change_job(job, more=True)
        try:
            found = assess(s, changed)
            if found.act is None:
                found = assess(s, changed, everything=True)
        except Absent as lack:  # name what all of them lack at once
            lacks += lack.wants
            continue
        if lacks:
            continue
        if found.act is None:
            why = "; ".join(blocker.sentence for blocker in found.blockers) or "nothing is to be done"
            raise Refused(f"job {job.id} cannot run now: {why}")
        items += act(s, changed, found)
        rows.append({"job": job.id, "effect": found.act, "state": job.state})
    if lacks:
        raise Absent(*lacks)
    return items, {"changed": True, "jobs": rows}, f"{len(rows)} requested"


# -- holds, processes, clock ----------------------------------------------------------------------


def _row(s: Slice, command: Command) -> ProcessRow:
    name = command.target.get("process")
    row = s.known.rows.get(str(name))
    if row is None:
        raise NotFound(f"there is no process {name!r}")
    return row


def _process_verb(s: Slice, command: Command) -> Result:
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
            raise InvalidRequest(f"trigger: {error}") from None
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


def _override(s: Slice, command: Command) -> Result:
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


def _reset(s: Slice, command: Command) -> Result:
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


def _submit(s: Slice, command: Command) -> Result:
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
    job = submit(s, process, s.now, arguments)
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
    "reprocess": _reprocess,
    "skip": _skip,
    "mark_done": _mark_done,
    "kill": _kill,
    "retry": _retry,
    "run_now": _run_now,
    "late_data": late_data,
    "drop_late": drop_late,
    "narrow_late": narrow_late,
    "hold": hold,
    "release": release,
    "submit": _submit,
    "schedule": _process_verb,
    "suspend": _process_verb,
    "resume": _process_verb,
    "expire": _process_verb,
    "delete": _process_verb,
    "set_trigger": _override,
    "set_priority": _override,
    "set_max_active": _override,
    "set_tags": _override,
    "reset": _reset,
    "set_clock": _set_clock,
    "worker_died": _worker_died,
}
