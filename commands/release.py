"""`release SCOPE`: lift a hold."""

from __future__ import annotations

import argparse

from commands.operate import Desk, add_acting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`SCOPE [--reason TEXT]`."""
    parser.add_argument(
        "scope", help="as it was held: all, tree:NAME, process:NAME, job:PROCESS@PERIOD, a bare name"
    )
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it. Raises SchedulerError."""
    with Desk(args) as desk:
        return desk.act("release", {"scope": desk.scope(args.scope)})
