"""`run-now PROCESS [PERIOD…]`: run without waiting for the trigger; what it stands on is waited for all the same.

Without PERIOD the oldest period that waits is run, or a freerun process once.
"""

from __future__ import annotations

import argparse

from commands.operate import Desk, add_acting, add_jobs
from scheduler.core.errors import InvalidRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS [PERIOD…] [--argument NAME=VALUE]`."""
    add_jobs(parser)
    parser.add_argument(
        "--argument",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for this run of a freerun process",
    )
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for the run. Raises SchedulerError."""
    from process_starter import parse_arguments

    arguments = parse_arguments(args.argument)
    with Desk(args) as desk:
        if desk.names_jobs():
            if arguments:
                raise InvalidRequest("--argument is for a freerun process, which has no PERIOD")
            return desk.act("run_now", {"jobs": desk.jobs()})
        name = desk.process(args.process)
        process = desk.timetable.processes.get(name)
        if arguments and process is not None and process.kind != "freerun":
            raise InvalidRequest(
                f"--argument: {name} is {process.kind}; only a freerun process takes arguments"
            )
        return desk.act("run_now", {"process": name}, {"arguments": arguments} if arguments else None)
