"""`set PROCESS trigger|priority|max_active|tags VALUE`: change it until `reset PROCESS`, whatever the context says."""

from __future__ import annotations

import argparse

from commands.operate import Desk, add_acting
from scheduler.core.errors import InvalidRequest

KEYS = ("trigger", "priority", "max_active", "tags")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS KEY VALUE`."""
    parser.add_argument("process", help="name of the process")
    parser.add_argument("key", choices=KEYS, help="what is changed")
    parser.add_argument("value", help="'every 300' and the like, a number, or tags with commas")
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it. Raises SchedulerError."""
    value: object = args.value
    if args.key == "tags":
        value = [tag.strip() for tag in args.value.split(",") if tag.strip()]
    elif args.key != "trigger":
        if not args.value.removeprefix("-").isdecimal():
            raise InvalidRequest(f"{args.key} must be a whole number, got {args.value!r}")
        value = int(args.value)
    with Desk(args) as desk:
        return desk.act(f"set_{args.key}", {"process": desk.process(args.process)}, {"value": value})
