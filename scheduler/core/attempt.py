"""What becomes of an attempt at a unit of work: never taken, lost, failed, answered, ended, let go of.

A worker reported it, or it is due to be looked at. It is retried or given up, and its job is decided by it or
goes on. How often and when is retried is told in `retry`, how a job ends by it in `strategy`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from scheduler.core.act import act, followers, reopen, send, settle
from scheduler.core.job import Job
from scheduler.core.process import Process
from scheduler.core.retry import reason_to_give_up, retry_delay
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import assess, decides, outcome, uow_reason
from scheduler.core.uow import Uow
from scheduler.core.wait import wait_ends

LOOK_AGAIN_S = 30.0


def see_uow(s: Slice, id_: str) -> list[Item]:
    """A unit of work was reported, or is due to be looked at."""
    uow = s.uow(id_)
    if uow is None:
        return []
    uow = s.copy_history(uow)
    job = s.job(f"{uow.process}@{uow.timeperiod}")
    items = _look(s, job, uow) if job is not None else []
    looked_at = s.uow(id_) or uow
    if looked_at.due_at is not None and looked_at.due_at <= s.real:
        _look_later(s, looked_at)
    return items


def resend(s: Slice, id_: str) -> list[Item]:
    """A requested unit of work that was never marked published: after a take-over, say so again."""
    uow = s.uow(id_)
    if uow is not None and uow.state == "requested" and uow.published_at is None:
        send(s, uow)
    return []


def _look(s: Slice, job: Job, uow: Uow) -> list[Item]:
    items = _let_go(s, job, uow)
    job = s.job(job.id) or job
    match uow.state:
        case "in_progress":
            return items + _maybe_lost(s, job, uow)
        case "requested":
            return items + _waiting(s, job, uow)
        case "invalid":
            return items + _failed(s, job, uow)
    return items + _ended(s, job, uow)


def _look_later(s: Slice, uow: Uow) -> None:
    """It was due and nothing could be done: look again later, not at once for ever."""
    later = s.real + timedelta(seconds=LOOK_AGAIN_S)
    if s.real < s.lost_from < later:
        later = s.lost_from
    s.change_uow(uow, due_at=later)


def _let_go(s: Slice, job: Job, uow: Uow) -> list[Item]:
    """The worker of a canceled unit of work let go of it, or its lease ended: the job may go on."""
    if job.stopping != uow.id or not has_let_go(s, uow):
        return []
    job = s.change_job(job, stopping=None)
    if uow.stopped_at is None:
        s.emit(
            "uow.let_go",
            "its worker did not answer; its lease ended",
            severity="warning",
            process=uow.process,
            timeperiod=uow.timeperiod,
            uow=uow.id,
        )
    return [Item("job", job.id), *(followers(s, job) if job.is_finished else [])]


def has_let_go(s: Slice, uow: Uow) -> bool:
    """No worker can still be at it: reported stopped, or without a lease that lasts."""
    return uow.stopped_at is not None or lease_ended(s, uow)


def lease_ended(s: Slice, uow: Uow) -> bool:
    """There is none, it is over by the store's clock, or its worker is known to be dead."""
    if uow.lease_until is None:
        return True
    if uow.owner in s.dead:
        return True
    return uow.lease_until <= s.real and s.lost_from <= s.real


def _maybe_lost(s: Slice, job: Job, uow: Uow) -> list[Item]:
    if not lease_ended(s, uow):
        return []
    lost = s.change_uow(
        uow,
        "fail",
        message=f"its worker {uow.owner} is gone",
        losses=uow.losses + 1,
        error=f"the worker {uow.owner} was lost",
        lease_until=None,
        due_at=None,
    )
    return _failed(s, job, lost, at_once=True)


def _waiting(s: Slice, job: Job, uow: Uow) -> list[Item]:
    """Nobody took it yet: publish again when it is due, or end a wait that was too long."""
    if uow.id not in (job.uow, _check_of(job)):  # a question that nobody waits for any more
        if uow.kind == "check":
            s.change_uow(uow, "cancel", message="another question took its place", due_at=None)
        return []
    wait = wait_ends(s, uow)
    if wait is not None and wait <= s.real and s.hold_on(job) is None:
        limit = (wait - uow.requested_at).total_seconds()
        failed = s.change_uow(
            uow,
            "fail",
            message="waited too long for a worker",
            timed_out=True,
            permanent=False,
            error=f"no worker took it within {limit:g} s",
            due_at=None,
        )
        return _give_up(s, job, failed, "timed_out")
    if uow.due_at is None or uow.due_at <= s.real:  # never published, released, or unanswered for too long
        send(s, s.change_uow(uow, publishes=uow.publishes + 1))
    return []


def _check_of(job: Job) -> str:
    return f"{job.id}#check-{job.checks}"


def _failed(s: Slice, job: Job, uow: Uow, *, at_once: bool = False) -> list[Item]:
    """An attempt failed: retry it, later or at once, or give up."""
    if uow.kind == "check":
        return _answered(s, job, uow)
    if job.uow != uow.id or not job.uow_open:
        s.change_uow(uow, "give_up", message="its job went on without it", due_at=None, retry_at=None)
        return []
    process, row = s.process(job.process), s.known.rows.get(job.process)
    state = row.state if row is not None else "expired"  # its row is lost, and no context brings it back
    if job.again is not None and state != "suspended":
        given_up = s.change_uow(uow, "give_up", message="late data came", due_at=None, retry_at=None)
        return _ended(s, job, given_up)
    if process is None or state in ("expired", "deleted"):
        return _give_up(s, job, uow, "failed")
    if state == "suspended":  # neither retried nor canceled meanwhile
        s.change_uow(uow, due_at=None)
        return []
    reason = reason_to_give_up(process.retry, uow)
    if reason is not None:
        return _give_up(s, job, uow, reason)
    found = assess(s, job)
    if found.replaces == uow.id:
        return act(s, job, found)
    if at_once:
        retry(s, job, uow)
    else:
        _retry_when_due(s, job, uow, process)
    return []


def _retry_when_due(s: Slice, job: Job, uow: Uow, process: Process) -> None:
    retry_at = uow.retry_at
    if retry_at is None:
        delay = retry_delay(process.retry, uow)
        retry_at = (uow.finished_at or s.real) + delay
        uow = s.change_uow(uow, retry_at=retry_at, due_at=retry_at)
    if retry_at <= s.real:
        retry(s, job, uow)
    elif uow.due_at != retry_at:
        s.change_uow(uow, due_at=retry_at)


def retry(s: Slice, job: Job, uow: Uow, *, actor: str = "scheduler") -> None:
    """Request a unit of work that failed once more."""
    attempt = uow.attempt + 1
    requested = s.change_uow(
        uow,
        "retry",
        actor=actor,
        attempt=attempt,
        requested_at=s.real,
        publishes=0,
        published_at=None,
        retry_at=None,
        owner=None,
        token=None,
        lease_until=None,
        stopped_at=None,
        progress=None,
        timed_out=False,
    )
    s.change_job(job, requested_seq=s.known.seq)
    send(s, requested)


def _give_up(s: Slice, job: Job, uow: Uow, reason: str) -> list[Item]:
    message = {"lost": "lost with its worker too often", "failed": "not to be retried"}.get(reason, reason)
    given_up = s.change_uow(uow, "give_up", message=message, due_at=None, retry_at=None)
    return _ended(s, job, given_up)


def _ended(s: Slice, job: Job, uow: Uow) -> list[Item]:
    """A unit of work is over: its job is decided by it, or goes on."""
    if uow.kind == "check":
        return _answered(s, job, uow)
    if job.stopping != uow.id:
        uow = s.change_uow(uow, due_at=None)
    if job.uow != uow.id or not job.uow_open:
        return []
    process = s.process(job.process)
    if job.again is not None:
        why = job.again
        reopen(s, s.change_job(job, uow_open=False), message=f"late data: {why}")
        return [Item("job", job.id), *_freed(s, job.process)]
    processed = uow.state == "processed"
    if processed:
        took = (uow.finished_at or s.real) - (uow.started_at or uow.requested_at)
        s.durations.append((job.process, int(took.total_seconds() * 1000)))
    sets: dict[str, Any] = {"uow_open": False, "produced": job.produced or processed}
    if processed and uow.cursor_end is not None:
        sets["cursor"] = uow.cursor_end
    if processed and uow.more:
        sets["more"] = True
    if uow.state == "canceled":
        sets["warning"] = f"run {uow.run}: {uow_reason(uow, process)}: {uow.error}"
    if process is None or decides(process, job, uow):
        found = outcome(job, uow, process)
        assert found.act is not None
        sets.pop("more", None)
        return settle(s, job, found.act, found.reason, found.detail, **sets)
    s.change_job(job, **sets)
    return [Item("job", job.id), *_freed(s, job.process)]


def _freed(s: Slice, process: str) -> list[Item]:
    return [Item("fill", process)] if process in s.known.crowded else []


def _answered(s: Slice, job: Job, uow: Uow) -> list[Item]:
    """The readiness predicate was asked: its answer is a fact of the job."""
    if uow.state == "invalid":
        uow = s.change_uow(uow, "give_up", message="a check is not retried, it is asked again", due_at=None)
    else:
        uow = s.change_uow(uow, due_at=None)
    if uow.id != _check_of(job) or job.ready != "asked":
        return []
    answer = "yes" if uow.state == "processed" else "no"
    s.change_job(job, ready=answer, ready_detail=uow.error, ready_at=s.real)
    return [Item("job", job.id)]
