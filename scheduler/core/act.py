"""What is done with one job, and in what words it is written: looked at, started, ended, begun anew, stopped.

`evaluate` asks `assess` what would be done with a job now, and `act` does it. The steps below it are shared
by everything else that decides: a report, a command, late data, a period that opens. Each returns what to look
at next; what is in the way of a job is not asked here.
"""

from __future__ import annotations

from typing import Any

from scheduler.core.inputs import dependant_span
from scheduler.core.job import Job, job_id
from scheduler.core.ports import control_queue
from scheduler.core.process import Process
from scheduler.core.retry import republish_delay
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import Assessment, assess
from scheduler.core.uow import Uow
from scheduler.core.wait import wait_ends


def evaluate(s: Slice, id_: str) -> list[Item]:
    """Do what the rules say of one job now."""
    job = s.job(id_)
    if job is None:
        return []
    found = assess(s, job)
    if found.act is None:
        _remember(s, job, found)
        return []
    return act(s, job, found)


def _remember(s: Slice, job: Job, found: Assessment) -> None:
    """What will not be noticed by an event: a place that frees, a predicate to be asked again."""
    for blocker in found.blockers:
        if blocker.code == "place":
            s.known.crowded.add(job.process)
        elif blocker.code == "readiness" and blocker.until is not None:
            s.known.ask_again[job.id] = blocker.until


def act(s: Slice, job: Job, found: Assessment) -> list[Item]:
    """Carry out an assessment."""
    process = s.process(job.process)
    assert process is not None, "of what is registered no more nothing is to be done"
    assert found.act is not None, "there is nothing to carry out"
    if found.replaces is not None:
        slice_ = s.uow(found.replaces)
        assert slice_ is not None
        s.change_uow(slice_, "cancel", message="the final run takes its range", due_at=None, retry_at=None)
        job = s.change_job(job, uow_open=False, warning=f"run {slice_.run}: {slice_.error}")
    if found.act in ("dispatch", "dispatch_final"):
        dispatch(s, job, process, found.act)
        return []
    if found.act == "check":
        check(s, job, process)
        return []
    return settle(s, job, found.act, found.reason, found.detail)


def dispatch(s: Slice, job: Job, process: Process, verb: str) -> Uow:
    """Request the next unit of work of a job."""
    final = verb == "dispatch_final" or process.machine == "discrete"
    uow = s.add_uow(job, process, final=final)
    seq = s.known.seq
    s.change_job(
        job,
        verb,
        uow=uow.id,
        run=uow.run,
        uow_open=True,
        more=False,
        dispatched_at=s.now,
        requested_seq=seq,
    )
    send(s, uow)
    return uow


def check(s: Slice, job: Job, process: Process) -> None:
    """Have a worker ask the readiness predicate."""
    uow = s.add_uow(job, process, final=False, kind="check")
    s.change_job(job, ready="asked", checks=job.checks + 1, ready_since=job.ready_since or s.real)
    send(s, uow)


def send(s: Slice, uow: Uow) -> Uow:
    """Publish a requested unit of work once this is saved, and look again if nobody takes it."""
    s.publish(uow.queue, uow.id, uow.priority)
    wait = wait_ends(s, uow)
    again = s.real + republish_delay(uow)
    return s.change_uow(uow, due_at=again if wait is None or wait <= s.real else min(again, wait))


def settle(
    s: Slice, job: Job, verb: str, reason: str | None = None, detail: str | None = None, **sets: Any
) -> list[Item]:
    """End a job, and look at everything that may have waited for it."""
    severity = {"complete": "success", "no_data": "info", "mark_done": "info"}.get(verb, "warning")
    message = f"{reason}: {detail}" if reason and detail else (detail or reason or "")
    sets.setdefault("uow_open", False)
    job = s.change_job(
        job,
        verb,
        message=message,
        severity=severity,
        reason=reason,
        detail=detail,
        more=False,
        again=None,
        **sets,
    )
    return followers(s, job)


def followers(s: Slice, job: Job) -> list[Item]:
    """What a finished job may make possible: parent, dependants, and whoever waits for its place."""
    items = []
    for edge in s.timetable.dependants(job.process):
        span = s.clip(dependant_span(s.timetable, edge, job.start, job.end))
        items += [
            Item("job", job_id(edge.of, period.label))
            for period in s.timetable.periods(span)
            if period.start <= s.now
        ]
    if job.process in s.known.crowded:
        items.append(Item("fill", job.process))
    return items


def reopen(s: Slice, job: Job, *, message: str, actor: str = "scheduler") -> Job:
    """Back to embryo: the next unit of work covers the period from its beginning."""
    return s.change_job(
        job,
        "reprocess",
        message=message,
        actor=actor,
        reason=None,
        detail=None,
        uow_open=False,
        generation=job.generation + 1,
        produced=False,
        cursor=None,
        more=False,
        again=None,
        warning=None,
        ready=None,
        ready_detail=None,
        ready_at=None,
        ready_since=None,
        settled_at=None,
    )


def cancel_uow(s: Slice, job: Job, *, actor: str, message: str, **sets: Any) -> Job:
    """Cancel a job's unfinished unit of work; its worker is told, and waited for."""
    if not job.uow_open:
        return job
    uow = s.uow(job.uow or "")
    if uow is None:
        return s.change_job(job, uow_open=False)
    if uow.is_finished:  # it ended, and its report is under way: the cancel comes too late for it
        uow = s.copy_history(uow)
        s.change_uow(uow, due_at=None)
        return s.change_job(job, uow_open=False)
    holder = uow.owner if uow.state == "in_progress" else None
    s.change_uow(uow, "cancel", actor=actor, message=message, due_at=uow.lease_until, **sets)
    if holder is None:
        return s.change_job(job, uow_open=False)
    s.publish(control_queue(holder), uow.id, 10)
    return s.change_job(job, uow_open=False, stopping=uow.id)
