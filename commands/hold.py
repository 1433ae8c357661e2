"""`hold SCOPE`: nothing new is started there until it is released. Scopes: all, a tree, a process, PROCESS@PERIOD."""

from __future__ import annotations

import argparse

from commands.operate import Desk, add_acting, instant_of
from scheduler.core.errors import InvalidRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`SCOPE [--until WHEN] [--reason TEXT]`."""
    parser.add_argument("scope", help="all, tree:NAME, process:NAME, job:PROCESS@PERIOD, or a bare name")
    parser.add_argument("--until", metavar="WHEN", help="an instant in UTC, or 30m, 2h, 1d; real time")
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it. Raises SchedulerError."""
    with Desk(args) as desk:
        arguments = {}
        if args.until:
            now = desk.store.now()
            until = instant_of(args.until, now)
            if until <= now:
                raise InvalidRequest(f"--until {args.until}: that is over; expected an instant to come")
            arguments["until"] = until.isoformat(timespec="milliseconds")
        return desk.act("hold", {"scope": desk.scope(args.scope)}, arguments)
