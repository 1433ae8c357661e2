"""`explain PROCESS PERIOD`: why a job is not done, down to what waits for nobody, and what would unblock it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from commands.operate import Desk, add_job, add_reading, spoken
from commands.table import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`PROCESS PERIOD`."""
    add_job(parser)
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the reasons. Raises NotFound."""
    with Desk(args) as desk:
        found = desk.reader.explain(desk.job())
    if args.json:
        print(json.dumps(asdict(found), indent=2, default=lambda value: value.isoformat()))
        return 0
    act = f"; next: {found.act.replace('_', ' ')}" if found.act else ""
    print(f"{found.job} is {found.state}{act}")
    if found.roots:
        rows = [(job, b.sentence, b.unblock, spoken(b.until)) for job, b in found.roots]
        show(("job", "waits because", "until", "at"), rows)
    if found.cycle:
        print(f"these wait for each other: {' → '.join(found.cycle)}")
    return 0
