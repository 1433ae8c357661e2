"""`events [PROCESS [PERIOD]]`: what happened, the newest last."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from commands.operate import Desk, add_reading, spoken, where_of
from commands.table import show
from scheduler.core.errors import InvalidRequest
from scheduler.core.event import SEVERITIES, Event
from scheduler.core.ports import Where

LIMIT = 50
STYLES = {"debug": "dim", "success": "green", "warning": "yellow", "error": "red", "critical": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[PROCESS [PERIOD]] [--kind KIND] [--severity SEVERITY] [--limit N]`."""
    parser.add_argument("process", nargs="?", help="of one process; or of one job, by its id")
    parser.add_argument("period", nargs="?", help="of one job: a label or a date")
    parser.add_argument("--kind", help="such as job.dispatch; what it begins with is enough")
    parser.add_argument("--severity", choices=SEVERITIES, default="info", help="and above; info")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"the newest N; {LIMIT}")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print them. Raises SchedulerError."""
    if args.limit < 1:
        raise InvalidRequest(f"--limit {args.limit}: expected 1 or more")
    with Desk(args) as desk:
        if desk.names_jobs():
            process, _, period = desk.job().partition("@")
            where = where_of(process=process, timeperiod=period)
        else:
            where = where_of(process=None if args.process is None else desk.process(args.process))
        if args.kind:
            where.append(Where("kind", "prefix", args.kind))
        where.append(Where("severity", "in", SEVERITIES[SEVERITIES.index(args.severity) :]))
        found = desk.store.find(Event, where, ("-at", "-seq"), args.limit)[::-1]
    if args.json:
        print(
            json.dumps([asdict(event) for event in found], indent=2, default=lambda value: value.isoformat())
        )
        return 0
    rows = [
        (
            spoken(e.at),
            e.kind,
            "@".join(part for part in (e.process, e.timeperiod) if part),
            e.actor,
            e.message,
        )
        for e in found
    ]
    show(
        ("at", "event", "job", "by", "message"),
        rows,
        [STYLES.get(event.severity, "default") for event in found],
    )
    return 0
