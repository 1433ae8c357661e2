"""What a job must be, told by its row, its events and its units of work.

A backup that was restored in part makes the three disagree. The events decide, because every state is explained by
them; where they end the units of work go on; the row alone is believed where neither knows better. A job that was
done is put back as done, so that nothing runs twice; what a worker is at is linked again; where it is not known
whether the leader had decided, the leader is made to look again, and decides by its own rules. Only a period of
which nothing at all is known becomes an embryo again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB, JOB_FINISHED
from scheduler.core.records import ProcessRow
from scheduler.core.timeperiod import Qualifier, Timeperiod, timeperiod_of
from scheduler.core.uow import Uow


@dataclass(frozen=True)
class Evidence:
    """Everything there is about one job, and what time it is on the store's clock."""

    id: str
    row: ProcessRow | None
    job: Job | None
    uows: Sequence[Uow]
    events: Sequence[Event]  # of the leader, by number
    now: datetime
    actor: str = "store repair"


@dataclass(frozen=True, slots=True)
class Link:
    """A job as it must be, and what is to be done with its units of work."""

    job: Job
    surplus: tuple[Uow, ...] = ()  # unfinished, and not the job's: to be canceled
    undecided: Uow | None = None  # it ended, and the job was not decided by it: the leader must look again


@dataclass
class _Telling:
    """A job as it is told, event by event."""

    sets: dict[str, Any] = field(default_factory=dict)
    state: str = "embryo"
    version: int = 0
    run: int = 0


def period_of(row: ProcessRow, label: str) -> Timeperiod:
    """The timeperiod that a label of this process means."""
    if row.kind != "managed":
        return timeperiod_of(label, Qualifier.INSTANT)
    return timeperiod_of(label, Qualifier(row.qualifier), row.grouping)


def linked(e: Evidence) -> Link:
    """The job and its units of work, made to agree. The process must be known."""
    work = sorted((uow for uow in e.uows if uow.kind == "work"), key=lambda uow: uow.run)
    job = _continued(_told_job(e), work)
    checks = [int(number) for uow in e.uows if (number := uow.id.partition("#check-")[2]).isdigit()]
    job = replace(job, run=max([job.run, *(uow.run for uow in work)]), checks=max([job.checks, *checks]))
    job = _opened(job, work)
    unfinished = [uow for uow in work if not uow.is_finished]
    surplus = tuple(uow for uow in unfinished if not job.uow_open or uow.id != job.uow)
    named = next((uow for uow in work if uow.id == job.uow), None)
    is_over = job.uow_open and named is not None and named.is_finished and not named.dirty
    job = replace(job, stopping=_stopping(job, work, surplus, e.now))
    job = replace(job, open=job.state not in JOB_FINISHED or job.stopping is not None)
    return Link(job, surplus, named if is_over else None)


def _told_job(e: Evidence) -> Job:
    """The row, or what the events say where they know more."""
    assert e.row is not None
    label = e.id.partition("@")[2]
    period = period_of(e.row, label)
    base = e.job or Job(
        id=e.id, process=e.row.name, timeperiod=label, start=period.start, end=period.end, created_at=e.now
    )
    told = _told(e)
    if told is None:
        return base
    is_behind = e.job is None or told.version > base.version
    if is_behind or (told.version == base.version and told.state != base.state):
        known = {"state": told.state, "version": told.version, "run": told.run}
        arguments = next((uow.arguments for uow in e.uows if e.row.kind == "freerun"), base.arguments)
        return replace(base, **{"arguments": arguments} | told.sets | known)
    return base


def _continued(job: Job, work: Sequence[Uow]) -> Job:
    """Go on with runs that neither the row nor the events know of, oldest first."""
    for uow in work:
        if uow.run <= job.run:
            continue
        job = _learned(job, next((u for u in work if u.id == job.uow), None))
        sets: dict[str, Any] = {"run": uow.run, "uow": uow.id, "uow_open": True, "version": job.version + 1}
        sets["state"] = (
            "final_run" if uow.final else "in_progress"
        )  # final: its outcome decides, it runs no more
        job = replace(job, **sets, reason=None, detail=None, settled_at=None, settled_seq=0, requested_seq=0)
    return job


def _learned(job: Job, uow: Uow | None) -> Job:
    """What a unit of work that is over leaves in its job."""
    if uow is None or uow.state != "processed":
        return job
    return replace(job, produced=True, cursor=job.cursor if uow.cursor_end is None else uow.cursor_end)


def _opened(job: Job, work: Sequence[Uow]) -> Job:
    """Its unit of work, and whether it is unfinished; of several the one that a worker holds."""
    unfinished = [uow for uow in work if not uow.is_finished]
    named = next((uow for uow in work if uow.id == job.uow), None)
    if named is None and job.uow_open and not unfinished:  # the unit of work is lost: another run
        return replace(job, uow=None, uow_open=False, state="embryo")
    is_working = job.state in ("in_progress", "final_run")
    if not unfinished or not is_working or (named is not None and named.is_finished and not job.uow_open):
        return job
    held = [uow for uow in unfinished if uow.is_held]
    kept = held[-1] if held else named if named in unfinished else unfinished[-1]
    return replace(job, uow=kept.id, uow_open=True)


def _stopping(job: Job, work: Sequence[Uow], surplus: Sequence[Uow], now: datetime) -> str | None:
    """The canceled unit of work whose worker has not let go yet."""
    if job.stopping in {uow.id for uow in work}:
        return job.stopping
    over = [uow for uow in work if uow.state == "canceled"]
    held = [u for u in (*over, *surplus) if u.is_held and u.lease_until is not None and u.lease_until > now]
    return held[-1].id if held else None


# -- events ---------------------------------------------------------------------------------------------------


def _told(e: Evidence) -> _Telling | None:
    """What the events say; None if they say nothing of the job itself."""
    telling: _Telling | None = None
    uows = {uow.id: uow for uow in e.uows}
    for event in e.events:
        entity, _, verb = event.kind.partition(".")
        data = event.data or {}
        if entity == "job" and verb == "snapshot":
            telling = _from_snapshot(data)
        elif entity == "job" and verb in JOB.all_verbs:
            telling = telling or _Telling()
            _apply(telling, verb, event, data, e.id)
        elif telling is not None and entity == "uow" and event.uow == telling.sets.get("uow"):
            _learn(telling.sets, uows.get(event.uow or ""), verb, event.seq)
    return telling


_FIELDS = {f.name: f for f in fields(Job)}
_IN_KEY = frozenset({"id", "process", "timeperiod", "start", "end"})
_TOLD_APART = frozenset({"state", "version", "run"})


def _from_snapshot(data: Mapping[str, Any]) -> _Telling:
    names = [name for name in _FIELDS if name not in _IN_KEY and name not in _TOLD_APART]
    sets = {name: _FIELDS[name].default for name in names}
    for name in names:
        if name in data:
            value = data[name]
            is_time = "datetime" in str(_FIELDS[name].type) and isinstance(value, str)
            sets[name] = datetime.fromisoformat(value) if is_time else value
    return _Telling(sets, data.get("state", "embryo"), data.get("version", 0), data.get("run", 0))


def _apply(telling: _Telling, verb: str, event: Event, data: Mapping[str, Any], id_: str) -> None:
    """One verb of the job's life."""
    sets = telling.sets
    telling.state, telling.version = str(data.get("state", telling.state)), telling.version + 1
    telling.run = int(data.get("run", telling.run))
    if verb in ("dispatch", "dispatch_final"):
        sets |= {"uow": f"{id_}#{telling.run}", "uow_open": True, "more": False}
        sets |= {
            "dispatched_at": event.business_at,
            "requested_seq": event.seq - 1,
        }  # its request comes just before
    elif verb == "reprocess":
        cleared = ("reason", "detail", "cursor", "again", "warning", "ready", "ready_detail", "ready_at")
        sets |= dict.fromkeys((*cleared, "ready_since", "settled_at"))
        sets |= {
            "uow_open": False,
            "produced": False,
            "more": False,
            "generation": sets.get("generation", 0) + 1,
        }
    else:
        sets |= {
            "uow_open": False,
            "reason": data.get("reason"),
            "detail": event.message or None,
            "more": False,
        }
        sets |= {"again": None, "settled_seq": event.seq, "settled_at": event.at}


def _learn(sets: dict[str, Any], uow: Uow | None, verb: str, seq: int) -> None:
    """What happened to its unit of work."""
    if verb == "retry":
        sets["requested_seq"] = seq
    if verb == "succeed":
        sets["produced"] = True
        if uow is not None and uow.cursor_end is not None:
            sets["cursor"] = uow.cursor_end
    if verb in ("succeed", "no_data", "give_up", "cancel"):
        sets["uow_open"] = False
