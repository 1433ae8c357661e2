"""What people and programs ask of jobs: reprocess, skip, mark_done, kill, retry, run_now; a rule each.

A rule checks first, and carries out what `plan` shows for the same request.
"""

from __future__ import annotations

from typing import Any

from scheduler.core.act import act, cancel_uow, reopen, settle
from scheduler.core.attempt import retry as retry_now
from scheduler.core.command import Command
from scheduler.core.errors import InvalidRequest, InvalidTransition, NotFound, Refused
from scheduler.core.facts import Absent
from scheduler.core.firing import submit
from scheduler.core.inputs import gather_above
from scheduler.core.job import Job
from scheduler.core.plan import Effect, check_number, outcome_of, plan_reprocess, plan_skip, touched
from scheduler.core.rule import Result
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import assess


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


def reprocess(s: Slice, command: Command) -> Result:
    """Begin the jobs anew, and what stands on them."""
    effects = plan_reprocess(s, _jobs(s, command))
    return apply_reprocess(s, effects, command.actor, command.reason), outcome_of(effects), touched(effects)


def skip(s: Slice, command: Command) -> Result:
    """End the jobs without a result; with them, what is unfinished below them, and strict dependants."""
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


def mark_done(s: Slice, command: Command) -> Result:
    """End the jobs as if they had been done; what stands on a skipped one begins anew."""
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


def kill(s: Slice, command: Command) -> Result:
    """Cancel what runs of the jobs, and skip them."""
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


def retry(s: Slice, command: Command) -> Result:
    """Retry failed units of work now, not when they are due."""
    jobs = _jobs(s, command)
    _gather_uows(s, jobs)
    for job in jobs:
        uow = s.uow(job.uow) if job.uow_open and job.uow is not None else None
        if uow is None or uow.state != "invalid":
            found = f"its unit of work is {uow.state}" if uow is not None else f"it is {job.state}"
            raise Refused(f"job {job.id}: {found}; only an invalid unit of work is retried")
        if s.row(job.process).state != "scheduled":
            raise Refused(f"process {job.process!r} is {s.row(job.process).state}; resume it first")
        retry_now(s, job, s.copy_history(uow), actor=command.actor)
    return (
        [],
        {"changed": True, "jobs": [{"job": j.id, "effect": "retry", "state": j.state} for j in jobs]},
        "retried",
    )


def run_now(s: Slice, command: Command) -> Result:
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
        try:
            found = assess(s, job, hurried=True)
            if found.act is None:
                found = assess(s, job, hurried=True, everything=True)
        except Absent as lack:  # name what all of them lack at once
            lacks += lack.wants
            continue
        if lacks:
            continue
        if found.act is None:
            why = "; ".join(blocker.sentence for blocker in found.blockers) or "nothing is to be done"
            raise Refused(f"job {job.id} cannot run now: {why}")
        if found.act == "check":
            job = s.change_job(job, more=True)
        items += act(s, job, found)
        rows.append({"job": job.id, "effect": found.act, "state": job.state})
    if lacks:
        raise Absent(*lacks)
    return items, {"changed": True, "jobs": rows}, f"{len(rows)} requested"
