"""`clock`: the two clocks. With --shift, --to or --rate business time is changed; it never goes back."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta

from commands.operate import Desk, add_acting, instant_of, seconds_of
from scheduler.clock import Mapping, check_rate, mapping_command, store_reader
from scheduler.core.errors import InvalidRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[--shift LENGTH | --to INSTANT] [--rate NUMBER]`."""
    parser.add_argument(
        "--shift", metavar="LENGTH", help="by 90s, 30m, 2h, 1d; --shift=-2h stands still so long"
    )
    parser.add_argument("--to", metavar="INSTANT", help="an instant in UTC such as 2026-01-01T06:00")
    parser.add_argument("--rate", metavar="NUMBER", help="business seconds a second; 0 stands still")
    add_acting(parser)


def run(args: argparse.Namespace) -> int:
    """Show it, or change it. Raises SchedulerError."""
    with Desk(args) as desk:
        current = Mapping.from_value(store_reader(desk.store)())
        real = desk.clock.real()
        if args.shift is None and args.to is None and args.rate is None:
            return _show(args, current, desk)
        wanted = mapping_command(
            current,
            real,
            shift=None if args.shift is None else timedelta(seconds=seconds_of(args.shift)),
            to=None if args.to is None else instant_of(args.to, current.business(real)),
            rate=None if args.rate is None else check_rate(_number(args.rate)),
        )
        return desk.act("set_clock", {}, {"value": wanted.to_fact().value})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"--rate {text}: expected a number, such as 1, 60 or 0") from None


def _show(args: argparse.Namespace, current: Mapping, desk: Desk) -> int:
    real = desk.clock.real()
    business = current.business(real)
    if args.json:
        found = {"real": real.isoformat(), "business": business.isoformat(), "rate": current.rate}
        print(json.dumps(found, indent=2))
    else:
        print(f"real time:     {real:%Y-%m-%d %H:%M:%S} UTC")
        print(f"business time: {business:%Y-%m-%d %H:%M:%S} UTC, {current.rate:g} seconds a second")
    return 0
