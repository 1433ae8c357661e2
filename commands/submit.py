"""`submit PROCESS`: run a freerun process once. With --base, PROCESS is a new entry made from a registered one."""

from __future__ import annotations

import argparse
from typing import Any

from commands.operate import Desk, add_acting
from scheduler.core.errors import InvalidRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS [--argument NAME=VALUE] [--base PROCESS [--trigger TRIGGER]]`."""
    parser.add_argument("process", help="a freerun process; with --base the name of the new entry")
    parser.add_argument(
        "--argument",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value is JSON if it can be, else text",
    )
    parser.add_argument("--base", metavar="PROCESS", help="make a new entry from this freerun process")
    parser.add_argument("--trigger", help="when the new entry fires: 'every 300', 'at 06:00', …")
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it. Raises SchedulerError."""
    from process_starter import parse_arguments

    arguments: dict[str, Any] = {}
    given = parse_arguments(args.argument)
    if given is not None:
        arguments["arguments"] = given
    if args.trigger is not None and args.base is None:
        raise InvalidRequest(
            "--trigger is for a new entry, made with --base; `set PROCESS trigger` changes one"
        )
    with Desk(args) as desk:
        if args.base is None:
            return desk.act("submit", {"process": desk.process(args.process)}, arguments)
        arguments["base"] = desk.process(args.base)
        if args.trigger is not None:
            arguments["trigger"] = args.trigger
        return desk.act("submit", {"process": args.process}, arguments)
