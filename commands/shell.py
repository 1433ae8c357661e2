"""`shell`: a Python prompt with everything of this installation at hand. Ctrl-D ends it."""

from __future__ import annotations

import argparse
import code
import sys
from typing import Any

from commands.site import Site
from settings import add_options, overrides_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`-c CODE`, and the settings."""
    parser.add_argument("-c", dest="code", metavar="CODE", help="run this instead of asking")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the prompt. Raises SchedulerError."""
    site = Site(overrides_of(args))
    try:
        names = names_of(site)
        if args.code is not None:
            exec(compile(args.code, "<shell>", "exec"), names)  # noqa: S102 - it is what was asked for
            return 0
        hint = ", ".join(name for name in names if not name.startswith("_"))
        code.interact(
            f"Python {sys.version.split()[0]}, box {site.settings.box}. Here are: {hint}", None, names, ""
        )
        return 0
    finally:
        site.close()


def names_of(site: Site) -> dict[str, Any]:
    """What the prompt knows."""
    from scheduler.control import Reader, submit
    from scheduler.core.command import Command
    from scheduler.core.event import Event
    from scheduler.core.job import Job
    from scheduler.core.ports import Where
    from scheduler.core.uow import Uow

    timetable = site.timetable
    store, broker, clock = site.connect()
    return {
        "settings": site.settings,
        "context": site.project.context,
        "timetable": timetable,
        "store": store,
        "broker": broker,
        "clock": clock,
        "reader": Reader(store, timetable, clock),
        "submit": submit,
        "Where": Where,
        "Job": Job,
        "Uow": Uow,
        "Event": Event,
        "Command": Command,
    }
