"""What must hold when everything has come to rest: nothing is missing, nothing waits without a reason."""

from __future__ import annotations

from scheduler.core.command import Command
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.trigger import parse_trigger
from scheduler.core.uow import Uow
from simulation.checker import Checker
from simulation.executor import WHOLE
from simulation.model import FINISHED, GONE, PEOPLE, Broken, JobView
from simulation.rules import SLICED


def check_rest(checker: Checker) -> None:
    """All checks at rest. Raises Broken."""
    check_records(checker)
    check_units(checker)
    check_periods(checker)
    for job in checker.model.jobs.values():
        check_reason(checker, job)
        check_newest(checker, job)
        check_sink(checker, job)
    check_late(checker)


def check_late(checker: Checker) -> None:
    """Late data is never lost: what it came for was reopened, or remembers it and does not end while its process is
    suspended, and what is pending is what waits for a person."""
    for id_, seq in checker.model.late.items():
        job, row = checker.model.jobs[id_], checker.store.get(Job, id_)
        is_remembered = row is not None and row.again is not None and not job.finished
        if not is_remembered or checker.model.processes.get(job.process) != "suspended":
            raise Broken(3, f"late data for {id_} came at event {seq}, and it was never reopened", id_)
    where = (Where("verb", "=", "late_data"), Where("state", "=", "pending"))
    pending = {id_ for (id_,) in checker.store.select(Command, ("id",), where)}
    if pending != checker.model.waits.keys():
        raise Broken(5, f"late data is pending: {sorted(pending)}, and waits: {sorted(checker.model.waits)}")


def check_records(checker: Checker) -> None:
    """Invariant 8, for everything: replaying the events gives the stored records."""
    jobs, uows = checker.store.find(Job), checker.store.find(Uow)
    for row in jobs:
        checker.same_job(row)
    for uow in uows:
        checker.same_uow(uow)
        if uow.dirty or uow.copied != uow.history_n:
            raise Broken(
                8,
                f"{uow.id}: {uow.history_n - uow.copied} lines were never copied",
                f"{uow.process}@{uow.timeperiod}",
            )
    for what, stored, told in (
        ("jobs", len(jobs), len(checker.model.jobs)),
        ("uows", len(uows), len(checker.model.uows)),
    ):
        if stored != told:
            raise Broken(8, f"{stored} {what} are stored, the events tell of {told}")


def check_units(checker: Checker) -> None:
    """No unit of work is left with a worker, or waiting for one."""
    for uow in checker.store.find(Uow, (Where("state", "in", ("requested", "in_progress", "invalid")),)):
        state = checker.model.processes.get(uow.process)
        if uow.state == "invalid" and state == "suspended":  # those of what is gone are given up
            continue
        raise Broken(
            4, f"at rest {uow.id} is {uow.state} (its process is {state})", f"{uow.process}@{uow.timeperiod}"
        )


def check_periods(checker: Checker) -> None:
    """Invariant 4: every period that began has a row."""
    now = checker.world.clock.business()
    for name, process in checker.almanac.managed.items():
        if checker.model.processes.get(name) in GONE:
            continue
        for period in checker.almanac.between(name, checker.almanac.start[name], now):
            if period.start <= now and f"{name}@{period.label}" not in checker.model.jobs:
                raise Broken(4, f"{process.name} {period.label} began at {period.start} and has no row")


def check_reason(checker: Checker, job: JobView) -> None:
    """Invariant 4: an unfinished job is not due, or held, or an input of it is unfinished."""
    if job.finished:
        return
    if job.stopping is not None:
        raise Broken(4, f"at rest {job.id} still waits for {job.stopping} to stop", job.id)
    if not is_due(checker, job) or checker.held(job) is not None:
        return
    if checker.model.processes.get(job.process) != "scheduled":
        return
    for _, rows in checker.related(job):
        if any(row is None or not row.finished for _, row in rows):
            return
    raise Broken(4, f"at rest {job.id} is {job.state}, it is due and nothing is in its way", job.id)


def is_due(checker: Checker, job: JobView) -> bool:
    """Its period is closed and its trigger has fired."""
    process = checker.world.context.processes[job.process]
    if process.kind != "managed":
        return True
    now = checker.world.clock.business()
    if job.period.start > now or checker.closes(process, job) > now:
        return False
    text = checker.model.triggers.get(job.process)
    trigger = parse_trigger(text) if text is not None else process.trigger
    if trigger is None or trigger.kind == "every":
        return True
    fire = trigger.first_at_or_after(job.period.end)
    return fire is not None and fire <= now


def check_newest(checker: Checker, job: JobView) -> None:
    """Invariant 3: no result is older than its inputs, by event number.

    By the definition it was dispatched under: what was not there then is no input of it.
    """
    if job.state not in FINISHED or job.reason is not None or job.uow is None or job.kept:
        return
    if checker.world.context.processes[job.process].kind != "managed":
        return
    for need, rows in checker.related(job):
        if checker.model.came.get(need.on, 0) > job.requested:
            continue
        for id_, row in rows:
            if row is None or not row.finished:
                raise Broken(
                    3, f"at rest {job.id} is {job.state}, and its input {id_} is not finished", job.id, id_
                )
            if row.settled > job.requested:
                raise Broken(
                    3,
                    f"at rest {job.id} was requested at {job.requested}, its input {id_} finished at {row.settled}",
                    job.id,
                    id_,
                )


def check_sink(checker: Checker, job: JobView) -> None:
    """What a processed job wrote is whole, and nothing in it is from before it was reopened."""
    if job.state != "processed" or job.reason in PEOPLE or job.uow is None:
        return
    uow = checker.model.uows[job.uow]
    rows = checker.world.sink.rows.get(job.id, {})
    process = checker.world.context.processes[job.process]
    old = [who for who in rows.values() if who[0] <= job.first_run and job.reopened]
    if uow.state == "processed":
        if len(rows) != WHOLE:
            raise Broken(3, f"{job.id} is processed, and its sink holds {len(rows)} of {WHOLE} parts", job.id)
        if old:
            raise Broken(
                3,
                f"{job.id} holds parts written by run {old[0][0]}, it was reopened after run {job.first_run}",
                job.id,
            )
    elif process.machine not in SLICED and not rows:
        raise Broken(3, f"{job.id} is processed, and its sink is empty", job.id)
