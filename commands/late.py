"""`late`: late data that waits because too much stands on it. `late narrow ID …` carries it out in part, `late drop ID`
gives it up; `late` alone lists it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from commands.operate import Desk, add_acting, instant_of, spoken
from commands.table import show
from scheduler.core.command import PENDING, Command
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.ports import Where


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[drop ID | narrow ID [--from WHEN] [--to WHEN] [--only PROCESS]…]`."""
    parser.add_argument("act", nargs="?", choices=("list", "drop", "narrow"), default="list", help="list")
    parser.add_argument("id", nargs="?", help="of the command, or how it begins; `late` lists them")
    parser.add_argument("--from", dest="begin", metavar="WHEN", help="narrow: periods that end after this")
    parser.add_argument("--to", dest="end", metavar="WHEN", help="narrow: periods that begin before this")
    parser.add_argument(
        "--only", action="append", metavar="PROCESS", help="narrow: to this process; may be given again"
    )
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """List, or ask for it. Raises SchedulerError."""
    narrows = bool(args.begin or args.end or args.only)
    if narrows != (args.act == "narrow"):
        raise InvalidRequest(
            "late narrow needs --from, --to or --only, and nothing else takes them"
            if not narrows
            else "--from, --to and --only belong to `late narrow ID`"
        )
    if (args.id is None) != (args.act == "list"):
        raise InvalidRequest(f"late {args.act} needs the ID of a command; `launch.py late` lists them")
    with Desk(args) as desk:
        if args.act == "list":
            return _list(desk, args.json)
        target = {"command": _named(desk, args.id)}
        if args.act == "drop":
            return desk.act("drop_late", target)
        return desk.act("narrow_late", target, _arguments(desk, args))


def waiting(desk: Desk) -> list[Command]:
    """Late data that waits for a person, oldest first."""
    where = (
        Where("state", "=", PENDING),
        Where("verb", "=", "late_data"),
        Where("status", "notnull"),
    )
    return desk.store.find(Command, where, ("submitted_at",))


def _named(desk: Desk, text: str) -> str:
    found = [command.id for command in waiting(desk) if command.id.startswith(text)]
    if text in found or desk.store.get(Command, text) is not None:
        return text
    if len(found) != 1:
        what = "no late data that waits" if not found else f"{len(found)} that wait"
        raise NotFound(f"{text!r}: there is {what} under such an ID; `launch.py late` lists them")
    return found[0]


def _arguments(desk: Desk, args: argparse.Namespace) -> dict[str, Any]:
    now = desk.clock.business()
    found: dict[str, Any] = {}
    for name, text in (("from", args.begin), ("to", args.end)):
        if text:
            found[name] = instant_of(text, now).isoformat(timespec="milliseconds")
    if args.only:
        found["processes"] = [desk.process(name) for name in args.only]
    return found


def _list(desk: Desk, as_json: bool) -> int:
    found = waiting(desk)
    if as_json:
        keys = ("id", "actor", "reason", "target", "message")
        rows = [
            {**{key: getattr(c, key) for key in keys}, "submitted_at": c.submitted_at.isoformat()}
            for c in found
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not found:
        print("no late data waits")
        return 0
    show(
        ("id", "since", "by", "jobs", "reason", "why it waits"),
        [(c.id, spoken(c.submitted_at), c.actor, _jobs(c), c.reason, c.message) for c in found],
    )
    return 0


def _jobs(command: Command) -> str:
    jobs = command.target.get("jobs") or []
    return jobs[0] if len(jobs) == 1 else f"{jobs[0]} and {len(jobs) - 1:,} more" if jobs else ""
