"""`stop`: this box, or one process of it. TERM, then the grace, then KILL; workers drain first.

What a dead supervisor left at work is stopped too.
"""

from __future__ import annotations

import argparse
import os
import signal

from commands import box
from commands.site import Site
from scheduler.core.errors import Refused, SchedulerError
from settings import add_options, overrides_of
from supervisor.os_process import Identity, Running, is_alive
from supervisor.roster import SUPERVISOR, Registered

KINDS = 4  # daemons, workers, mx, scheduler: each kind may take its whole grace
SPARE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[NAME]`, and the settings."""
    parser.add_argument("name", nargs="?", help="one process; without it the whole box")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Stop, and say what was stopped. Raises Refused if it does not run."""
    site = Site(overrides_of(args))
    try:
        if args.name in (None, SUPERVISOR):
            return stop_box(site)
        return stop_one(site, args.name)
    finally:
        site.close()


def stop_box(site: Site) -> int:
    """Stop the supervisor and all it runs; returns when they are gone. Raises Refused, SchedulerError."""
    found = site.supervisor()
    name = site.settings.box
    if found is None:
        left = box.left_behind(site)
        if not left:
            raise Refused(f"box {name} does not run")
        _drain(site)
        print(f"box {name} had no supervisor; stopped what was left: {', '.join(left)}")
        return 0
    os.kill(found.pid, signal.SIGTERM)
    limit = site.settings.grace_s * KINDS + SPARE_S
    if not box.wait_for(lambda: not is_alive(found), limit):
        raise SchedulerError(f"still there after {limit:g} s: {', '.join(box.left_behind(site))}")
    print(f"box {name} is stopped")
    return 0


def _drain(site: Site) -> None:
    import process_starter

    site.settings.ensure_state_folder()
    part = process_starter.Part(site, Registered(SUPERVISOR, SUPERVISOR))
    process_starter.run_supervisor(part, drain=True)


def stop_one(site: Site, name: str) -> int:
    """Have one process of this box stopped, for good: it stays stopped until it is started again."""
    box.registered(site, name)
    found = box.running(site, name)
    if site.supervisor() is None:
        if found is None:
            raise Refused(f"{name} does not run")
        if site.has_store():
            box.want(site, name, "off")
        _end(site, found)
    else:
        row = box.row_of(site, name)
        if found is None and (row is None or row.desired == "off"):
            raise Refused(f"{name} does not run")
        box.want(site, name, "off")
        limit = site.settings.grace_s + SPARE_S
        if not box.wait_for(lambda: _is_stopped(site, name), limit):
            raise SchedulerError(f"{name} is still there after {limit:g} s")
    print(f"{name} is stopped, and stays so until `launch.py start {name}`")
    return 0


def _is_stopped(site: Site, name: str) -> bool:
    row = box.row_of(site, name)
    return row is not None and row.state == "STOPPED" and box.running(site, name) is None


def _end(site: Site, found: Identity) -> None:
    """End one process without a supervisor."""
    process = Running(found)
    try:
        process.terminate()
        if not box.wait_for(process.has_ended, site.settings.grace_s):
            process.kill()
            box.wait_for(process.has_ended, SPARE_S)
    finally:
        process.close()
