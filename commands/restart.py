"""`restart`: this box, or one process of it. A box that does not run is started."""

from __future__ import annotations

import argparse

from commands import box, check
from commands.site import Site
from commands.start import start_box
from commands.stop import stop_box
from scheduler.core.errors import ConfigError
from settings import add_options, overrides_of
from supervisor.roster import SUPERVISOR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[NAME]`, and the settings."""
    parser.add_argument("name", nargs="?", help="one process; without it the whole box")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Restart, and say what runs now. Raises SchedulerError."""
    site = Site(overrides_of(args))
    try:
        if args.name in (None, SUPERVISOR):
            if check.report(site):  # before anything is stopped
                return ConfigError.exit_code
            if site.supervisor() is not None or box.left_behind(site):
                stop_box(site)
            return start_box(site)
        return restart_one(site, args.name)
    finally:
        site.close()


def restart_one(site: Site, name: str) -> int:
    """Have one process stopped and started again by the supervisor."""
    box.registered(site, name)
    box.supervisor_of(site)
    before = box.running(site, name)
    box.want(site, name, "restart")
    row = box.await_up(site, name, other_than=None if before is None else before.pid)
    print(f"{name} runs, pid {row.pid}")
    return 0
