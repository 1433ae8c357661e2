"""decide(input, slice) -> what follows: everything that happens is decided here.

An input (`Item`) is looked at by the rule of its kind; the rule writes what it decides into the
slice's overlay and returns further items: what became possible by it (the job, its parent, its
dependants, the next period). The engine goes on with those in the same turn, breadth first.
`commands.decide_command` is the rule for what people and programs ask.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from scheduler.core.inputs import dependant_span, gather_above, stands_on
from scheduler.core.job import Job, job_id
from scheduler.core.ports import control_queue
from scheduler.core.process import Process
from scheduler.core.retry import reason_to_give_up, republish_delay, retry_delay
from scheduler.core.slice import LOOK, Absent, Item, Slice
from scheduler.core.strategy import Assessment, assess, decides, outcome, uow_reason
from scheduler.core.timeperiod import Qualifier, Timeperiod, following, timeperiod_at
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow
from scheduler.core.wait import wait_ends

ROWS_A_TURN = 1000
LOOK_AGAIN_S = 30.0


def decide(s: Slice, item: Item) -> list[Item]:
    """Apply the rule for one input; returns what to look at next. May raise Absent: gather, then again."""
    match item.kind:
        case "uow":
            return see_uow(s, item.what)
        case "job":
            return evaluate(s, item.what)
        case "fill":
            return fill(s, item.what, item.after)
        case "advance":
            return advance(s, item.what)
        case "scan":
            return scan(s, item.what, item.after)
        case "fire":
            return fire(s, item.what)
        case "resend":
            return resend(s, item.what)
    raise AssertionError(f"no rule for {item}")


# -- jobs -----------------------------------------------------------------------------------------


def evaluate(s: Slice, id_: str) -> list[Item]:
    """Do what the rules say of one job now."""
    job = s.job(id_)
    if job is None or not job.open:
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
    assert process is not None and found.act is not None
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
    if not job.uow_open or job.uow is None:
        return job
    uow = s.uow(job.uow)
    if uow is None:
        return s.change_job(job, uow_open=False)
    if uow.is_finished:  # it ended, and its report is under way: the cancel comes too late for it
        uow = s.copy_history(uow)
        s.change_uow(uow, due_at=None)
        return s.change_job(job, uow_open=False)
    held = uow.state == "in_progress"
    changed = s.change_uow(
        uow, "cancel", actor=actor, message=message, due_at=uow.lease_until if held else None, **sets
    )
    if held and changed.owner is not None:
        s.publish(control_queue(changed.owner), changed.id, 10)
    return s.change_job(job, uow_open=False, stopping=changed.id if held else job.stopping)


# -- units of work --------------------------------------------------------------------------------


def see_uow(s: Slice, id_: str) -> list[Item]:
    """A unit of work was reported, or is due to be looked at."""
    uow = s.uow(id_)
    if uow is None:
        return []
    uow = s.copy_history(uow)
    job = s.job(f"{uow.process}@{uow.timeperiod}")
    items = _look(s, job, uow) if job is not None else []
    looked_at = s.uow(id_)
    if looked_at is not None and looked_at.due_at is not None and looked_at.due_at <= s.real:
        _look_later(s, looked_at)
    return items


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
    if s.lost_from is not None and s.real < s.lost_from < later:
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
    """No worker can still be at it: never accepted, reported stopped, or its lease ran out."""
    return uow.stopped_at is not None or uow.owner is None or lease_ended(s, uow)


def lease_ended(s: Slice, uow: Uow) -> bool:
    """The lease is over, by the store's clock, or because its worker is known to be dead."""
    if uow.lease_until is None:
        return True
    if uow.owner in s.dead:
        return True
    return uow.lease_until <= s.real and (s.lost_from is None or s.lost_from <= s.real)


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
    if uow.id not in (job.uow, _check_of(job)):
        return []
    wait = wait_ends(s, uow)
    if wait is not None and wait <= s.real and s.hold_on(job) is None:
        process = s.process(uow.process)
        limit = process.wait_timeout_s if process is not None else 0
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
    process = s.process(job.process)
    row = s.known.rows.get(job.process)
    if job.again is not None and (row is None or row.state != "suspended"):
        given_up = s.change_uow(uow, "give_up", message="late data came", due_at=None, retry_at=None)
        return _ended(s, job, given_up)
    if process is None or row is None or row.state in ("expired", "deleted"):
        return _give_up(s, job, uow, "failed")
    if row.state == "suspended":  # neither retried nor canceled meanwhile
        if uow.due_at is not None:
            s.change_uow(uow, due_at=None)
        return []
    reason = reason_to_give_up(process.retry, uow)
    if reason is not None:
        return _give_up(s, job, uow, reason)
    found = assess(s, job)
    if found.replaces == uow.id:
        return act(s, job, found)
    if at_once:
        _retry(s, job, uow)
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
        _retry(s, job, uow)
    elif uow.due_at != retry_at:
        s.change_uow(uow, due_at=retry_at)


def _retry(s: Slice, job: Job, uow: Uow, *, actor: str = "scheduler") -> None:
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
    if uow.due_at is not None and job.stopping != uow.id:
        uow = s.change_uow(uow, due_at=None)
    if job.uow != uow.id or not job.uow_open:
        return []
    process = s.process(job.process)
    if job.again is not None:
        why = job.again
        reopen(s, s.change_job(job, uow_open=False), message=f"late data: {why}")
        return [Item("job", job.id), *_freed(s, job.process)]
    processed = uow.state == "processed"
    if processed and uow.started_at is not None and uow.finished_at is not None:
        s.durations.append((job.process, int((uow.finished_at - uow.started_at).total_seconds() * 1000)))
    sets: dict[str, Any] = {"uow_open": False, "produced": job.produced or processed}
    if processed and uow.cursor_end is not None:
        sets["cursor"] = uow.cursor_end
    if processed and uow.more and job.state == "in_progress":
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
    elif uow.due_at is not None:
        uow = s.change_uow(uow, due_at=None)
    if uow.id != _check_of(job) or job.ready != "asked":
        return []
    answer = "yes" if uow.state == "processed" else "no"
    s.change_job(job, ready=answer, ready_detail=uow.error, ready_at=s.real)
    return [Item("job", job.id)]


# -- processes ------------------------------------------------------------------------------------


def fill(s: Slice, name: str, after: datetime | None) -> list[Item]:
    """Give free places to the oldest ready jobs: one look at the next open jobs, the rest next turn."""
    process = s.process(name)
    if process is None:
        s.known.crowded.discard(name)
        return []
    free = max(0, process.max_active - s.active_of(name))
    size = LOOK if after is not None else min(LOOK, free + 8)
    ids, complete = s.window(name, after, size)
    items: list[Item] = []
    last = after
    lacks: list[tuple[Any, ...]] = []
    for id_ in ids:
        job = s.job(id_)
        if job is None:
            continue
        last = job.start
        if job.start > s.now:
            complete = True
            break
        if not job.open or job.uow_open:  # what is under way is decided when it ends
            continue
        try:
            found = assess(s, job)
        except Absent as lack:  # as in `scan`
            lacks += lack.wants
            continue
        if lacks:
            continue
        if found.act is not None:
            items += act(s, job, found)
        elif any(blocker.code == "place" for blocker in found.blockers):
            s.known.crowded.add(name)
            return items
    if lacks:
        raise Absent(*lacks)
    if complete or last is None:
        s.known.crowded.discard(name)
    else:
        items.append(Item("fill", name, last))
    return items


def scan(s: Slice, name: str, after: datetime | None) -> list[Item]:
    """Evaluate the unfinished jobs of a process, one look a turn, to the end of the list: the safety net."""
    ids, complete = s.window(name, after, LOOK)
    items: list[Item] = []
    last = after
    lacks: list[tuple[Any, ...]] = []
    for id_ in ids:
        job = s.job(id_)
        if job is None:
            continue
        last = job.start
        if job.start > s.now:
            complete = True
            break
        if job.open and not job.uow_open:
            try:
                items += evaluate(s, id_)
            except Absent as lack:  # name what all of them lack at once: each lack undoes the whole scan
                lacks += lack.wants
    if lacks:
        raise Absent(*lacks)
    if not complete and last is not None:
        items.append(Item("scan", name, last))
    return items


def resend(s: Slice, id_: str) -> list[Item]:
    """A requested unit of work that was never marked published: after a take-over, say so again."""
    uow = s.uow(id_)
    if uow is not None and uow.state == "requested" and uow.published_at is None:
        send(s, uow)
    return []


def advance(s: Slice, name: str) -> list[Item]:
    """Make the rows of periods that have opened; move the frontier past them in the same transaction."""
    process, row = s.timetable.processes.get(name), s.row(name)
    if (
        process is None
        or process.kind != "managed"
        or row.state in ("expired", "deleted")
        or row.frontier is None
    ):
        return []
    if row.frontier > s.now:
        return []
    period = timeperiod_at(row.frontier, process.qualifier, process.grouping)
    periods: list[Timeperiod] = []
    while period.start <= s.now and len(periods) < ROWS_A_TURN:
        periods.append(period)
        period = following(period)
    span = Span(name, periods[0].start, periods[-1].end)
    there = {job.id: job for job in s.jobs_in(span)}
    shown_again = row.passed is not None and periods[0].start < row.passed
    made = []
    for p in periods:
        id_ = job_id(name, p.label)
        if id_ not in there:
            made.append(
                s.add_job(
                    Job(id=id_, process=name, timeperiod=p.label, start=p.start, end=p.end, created_at=s.real)
                )
            )
    frontier = periods[-1].end
    s.change_row(row, frontier=frontier, passed=max(frontier, row.passed or frontier))
    if made:
        s.emit(
            "process.advance",
            f"{len(made)} periods opened",
            severity="debug",
            process=name,
            data={
                "jobs": len(made),
                "from": made[0].timeperiod,
                "to": made[-1].timeperiod,
                "labels": [job.timeperiod for job in made] if len(made) < len(periods) else None,
            },
        )
    items = _catch_up(s, process, made, shown_again)
    if shown_again:
        items += _show(s, [s.jobs[job_id(name, p.label)] for p in periods])
    if len(periods) <= 4 and not shown_again:
        items += [Item("job", job.id) for job in made]
    else:
        items.append(Item("fill", name))
    if frontier <= s.now:  # a turn makes so many rows and no more, or it would outlast the leader's lease
        items.append(Item("advance", name, frontier))
    return items


def _catch_up(s: Slice, process: Process, made: list[Job], shown_again: bool) -> list[Item]:
    """`catchup`: of rows made for periods already closed, all, the newest, or none are worked on."""
    if process.catchup == "all" or shown_again:
        return []
    closed = [job for job in made if job.end + timedelta(seconds=process.lag_s) <= s.now]
    newest = timeperiod_at(
        s.now - timedelta(seconds=process.lag_s), process.qualifier, process.grouping
    ).start
    items: list[Item] = []
    for job in closed:
        if process.catchup == "last" and job.end == newest:
            continue
        items += settle(s, job, "skip", "catchup", f"catchup is {process.catchup}")
    return items


def _show(s: Slice, jobs: list[Job | None]) -> list[Item]:
    """Rows that come into view again reopen what finished without them."""
    items: list[Item] = []
    gather_above(s, [job for job in jobs if job is not None])
    for job in jobs:
        if job is None:
            continue
        for other in stands_on(s, job):
            if other.state == "embryo":
                continue
            if job.open or job.settled_seq > other.requested_seq:
                other = cancel_uow(s, other, actor="scheduler", message=f"{job.id} came into view")
                other = reopen(s, other, message=f"{job.id} came into view")
                items.append(Item("job", other.id))
    return items


def fire(s: Slice, name: str) -> list[Item]:
    """The trigger of a freerun process fired since it was last looked at."""
    process, row = s.process(name), s.row(name)
    if process is None or process.trigger is None or row.state != "scheduled":
        return []
    if row.last_fire is None:
        s.change_row(row, last_fire=s.now)
        return []
    fires = process.trigger.fires_between(row.last_fire, s.now, ROWS_A_TURN)
    if not fires:
        return []
    more = len(fires) == ROWS_A_TURN
    if more and process.catchup != "all":  # newer ones are to come: none of these is the last
        s.change_row(row, last_fire=fires[-1])
        return [Item("fire", name)]
    held = s.known.holds.get("*") or s.known.holds.get(f"process:{name}")
    if process.catchup != "all":
        fires = fires[-1:]
    if process.catchup == "none":  # one that came a moment ago was not missed
        fires = [f for f in fires if f > s.now - timedelta(seconds=60)]
    ids = [job_id(name, timeperiod_at(instant, Qualifier.INSTANT).label) for instant in fires]
    missing = [("job", id_) for id_ in ids if id_ not in s.jobs]
    if missing:
        raise Absent(*missing)
    items: list[Item] = []
    s.change_row(row, last_fire=fires[-1] if fires else s.now)
    for instant in fires:
        busy = process.overlap == "skip" and (held is not None or _is_busy(s, name))
        if busy:
            s.emit(
                "process.fire_skipped",
                f"the firing of {instant.isoformat()} was skipped: the last one is unfinished",
                process=name,
            )
            continue
        job = submit(s, process, instant)
        items.append(Item("job", job.id))
    if more:
        items.append(Item("fire", name))
    return items


def _is_busy(s: Slice, name: str) -> bool:
    far = Span(name, datetime(1970, 1, 1, tzinfo=s.now.tzinfo), datetime(9998, 1, 1, tzinfo=s.now.tzinfo))
    return s.first_open(far) is not None


def submit(s: Slice, process: Process, instant: datetime, arguments: dict[str, Any] | None = None) -> Job:
    """A job of a freerun process at the next free millisecond from `instant` on."""
    while True:
        period = timeperiod_at(instant, Qualifier.INSTANT)
        id_ = job_id(process.name, period.label)
        if id_ not in s.jobs:  # look at some at once
            labels = (
                timeperiod_at(instant + timedelta(milliseconds=n), Qualifier.INSTANT).label for n in range(32)
            )
            raise Absent(*[("job", job_id(process.name, label)) for label in labels])
        if s.job(id_) is None:
            break
        instant = instant + timedelta(milliseconds=1)
    job = Job(
        id=id_,
        process=process.name,
        timeperiod=period.label,
        start=period.start,
        end=period.end,
        arguments={**process.arguments, **arguments} if arguments else None,
        created_at=s.real,
    )
    s.add_job(job)
    s.emit("job.submit", process=process.name, timeperiod=period.label, severity="debug")
    return job
