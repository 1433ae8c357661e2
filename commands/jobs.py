"""`jobs [PROCESS]`: jobs by state and timeperiod, the newest last. Without PROCESS how many there are of each.

`--reason lost` lists, of all processes, what ended so: what is to be looked at, and then driven again.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from commands.operate import Desk, add_reading, spoken
from commands.table import show
from mx.present import REASONS
from scheduler.core.errors import InvalidRequest
from scheduler.core.job import Job
from scheduler.core.lifecycle import JobState
from scheduler.core.ports import Where

LIMIT = 40
STYLES = {"processed": "green", "noop": "dim", "skipped": "red", "in_progress": "cyan", "final_run": "cyan"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[PROCESS] [--state STATE] [--limit N]`."""
    parser.add_argument("process", nargs="?", help="of one process; without it how many there are of all")
    parser.add_argument("--state", action="append", metavar="STATE", help=", ".join(JobState))
    parser.add_argument("--reason", action="append", metavar="REASON", help=", ".join(REASONS))
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"the newest N; {LIMIT}")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print them. Raises SchedulerError."""
    states = args.state or []
    for state in states:
        if state not in list(JobState):
            raise InvalidRequest(f"--state {state}: expected one of {', '.join(JobState)}")
    for reason in args.reason or []:
        if reason not in REASONS:
            raise InvalidRequest(f"--reason {reason}: expected one of {', '.join(REASONS)}")
    if args.limit < 1:
        raise InvalidRequest(f"--limit {args.limit}: expected 1 or more")
    with Desk(args) as desk:
        where = [Where("state", "in", states)] if states else []
        where += [Where("reason", "in", args.reason)] if args.reason else []
        if args.process is None and not args.reason:
            return _counts(desk, where)
        if args.process is not None:
            where.append(Where("process", "=", desk.process(args.process)))
        found = desk.store.find(Job, where, ("-start",), args.limit)[::-1]
    if args.json:
        print(json.dumps([as_json(job) for job in found], indent=2))
        return 0
    rows = [
        (
            *(() if args.process else (job.process,)),
            job.timeperiod,
            job.state,
            job.run,
            spoken(job.settled_at),
            job.reason or "",
            job.detail or job.warning or "",
        )
        for job in found
    ]
    show(
        (
            *(() if args.process else ("process",)),
            "timeperiod",
            "state",
            "runs",
            "ended",
            "reason",
            "message",
        ),
        rows,
        [STYLES.get(job.state, "default") for job in found],
    )
    return 0


def _counts(desk: Desk, where: list[Where]) -> int:
    counted = desk.store.count(Job, where, ("process", "state"))
    if desk.args.json:
        found: dict[str, dict[str, int]] = {}
        for (process, state), number in counted.items():
            found.setdefault(str(process), {})[str(state)] = number
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    states = [str(state) for state in JobState]
    names = sorted({str(process) for process, _ in counted})
    show(("process", *states), [(n, *(counted.get((n, s), "") for s in states)) for n in names])
    return 0


def as_json(job: Job) -> dict[str, Any]:
    """For programs."""
    return {
        "job": job.id,
        "process": job.process,
        "timeperiod": job.timeperiod,
        "start": job.start.isoformat(),
        "end": job.end.isoformat(),
        "state": job.state,
        "reason": job.reason,
        "detail": job.detail,
        "runs": job.run,
        "generation": job.generation,
        "ended_at": None if job.settled_at is None else job.settled_at.isoformat(),
        "stopping": job.stopping,
    }
