"""`job PROCESS PERIOD`: one job: its state, its reason, its runs and their attempts."""

from __future__ import annotations

import argparse
import json

from commands.jobs import as_json
from commands.operate import Desk, add_job, add_reading, spoken
from commands.table import show
from scheduler.core.errors import NotFound
from scheduler.core.event import history_entries
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.uow import Uow, uow_id

RUNS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS PERIOD`."""
    add_job(parser)
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print it. Raises NotFound."""
    with Desk(args) as desk:
        id_ = desk.job()
        job = desk.store.get(Job, id_)
        if job is None:
            raise NotFound(f"there is no job {id_!r}")
        ids = [uow_id(id_, run) for run in range(max(1, job.run - RUNS + 1), job.run + 1)]
        uows = desk.store.find(Uow, [Where("id", "in", ids)], ("run",)) if ids else []
    if args.json:
        runs = [
            {
                "uow": u.id,
                "state": u.state,
                "attempt": u.attempt,
                "error": u.error,
                "history": history_entries(u.history),
            }
            for u in uows
        ]
        print(json.dumps({**as_json(job), "uows": runs}, indent=2))
        return 0
    why = ": ".join(part for part in (job.reason, job.detail) if part)
    print(f"{job.id} is {job.state}" + (f" ({why})" if why else ""))
    show(
        ("run", "state", "attempts", "requested", "ended", "on", "error"),
        [
            (
                u.run,
                u.state,
                u.attempt,
                spoken(u.created_at),
                spoken(u.finished_at),
                u.owner or "",
                u.error or "",
            )
            for u in uows
        ],
    )
    return 0
