"""`log PROCESS PERIOD`: what the attempts of a job's last run have written; --run names another run."""

from __future__ import annotations

import argparse
import json
import sys

from commands.operate import Desk, add_job, add_reading, where_of
from scheduler.core.errors import NotFound
from scheduler.core.job import Job
from scheduler.core.records import LogChunk
from scheduler.core.uow import uow_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS PERIOD [--run N] [--attempt N]`."""
    add_job(parser)
    parser.add_argument("--run", type=int, dest="number", metavar="N", help="the Nth run; the last one")
    parser.add_argument("--attempt", type=int, metavar="N", help="the Nth attempt alone")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print it. Raises NotFound."""
    with Desk(args) as desk:
        id_ = desk.job()
        job = desk.store.get(Job, id_)
        if job is None:
            raise NotFound(f"there is no job {id_!r}")
        number = job.run if args.number is None else args.number
        if not 1 <= number <= job.run:
            has = f"it has {job.run}" if job.run else "it was not run yet"
            raise NotFound(
                f"{id_} has no run {number}; {has}" if args.number is not None else f"{id_}: {has}"
            )
        where = where_of(uow=uow_id(id_, number), attempt=args.attempt)
        found = desk.store.find(LogChunk, where, ("attempt", "n"))
    if args.json:
        rows = [{"attempt": chunk.attempt, "at": chunk.at.isoformat(), "text": chunk.text} for chunk in found]
        print(json.dumps(rows, indent=2))
        return 0
    attempt = 0
    for chunk in found:
        if chunk.attempt != attempt:
            attempt = chunk.attempt
            print(f"-- run {number}, attempt {attempt}", file=sys.stderr)
        sys.stdout.write(chunk.text)
    if not found:
        print(f"run {number} of {id_} has written nothing", file=sys.stderr)
    return 0
