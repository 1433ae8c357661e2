"""`start`: this box, or one process of it; in the background, or here.

Before the box starts, everything registered is checked as by `check`. A store or broker on a server that is
not there yet is waited for, unless --no-wait.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from commands import box, check, upgrade
from commands.site import Site
from commands.status import NOT_ALL, Report, look, print_report
from scheduler.core.errors import ConfigError, InvalidRequest, Refused, SchedulerError, Unavailable
from settings import ROOT, add_options, as_options, overrides_of
from supervisor.os_process import Running, spawn
from supervisor.roster import SUPERVISOR
from supervisor.supervisor import stray_of

UNKNOWN_ARGUMENTS = "arguments"  # name=value words, wherever they stand
UP_WAIT_S = 30.0
WAIT_S = (0.5, 15.0)  # between two tries to reach store and broker: at first, at most
LEADER_WAIT_S = 15.0  # a busy machine; and a leader that was killed may have left a lease
TAIL_LINES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[NAME] [--foreground] [name=value …]`, and the settings."""
    parser.usage = "%(prog)s [NAME] [--foreground] [name=value ...] [settings]"
    parser.add_argument("name", nargs="?", help="one process; without it the whole box")
    parser.add_argument(
        "--foreground", action="store_true", help="stay here, log to stderr, end with Ctrl-C or TERM"
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="a store or broker that is away: end with exit code 3"
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Start, and say what runs now. Raises SchedulerError."""
    site = Site(overrides_of(args))
    name = None if args.name == SUPERVISOR else args.name
    for word in args.arguments:
        if word.startswith("-"):
            raise InvalidRequest(f"there is no option {word!r}; `launch.py start --help` names them")
    if args.arguments and not (args.foreground and name):
        raise InvalidRequest(
            f"{args.arguments[0]!r} is not understood; only a daemon in the foreground takes name=value"
        )
    try:
        if name is None:
            return start_box(site, foreground=args.foreground, waits=not args.no_wait)
        if args.foreground:
            return _here(site, name, args.arguments)
        return start_one(site, name)
    finally:
        site.close()


def start_box(site: Site, *, foreground: bool = False, waits: bool = True) -> int:
    """Start the supervisor of this box. Raises Refused if it runs, Unavailable if it shall not wait."""
    found = site.supervisor()
    if found is not None:
        raise Refused(f"box {site.settings.box} already runs (supervisor pid {found.pid})")
    wait_for_servers(lambda: upgrade.at_start(site), waits and site.has_servers())
    if site.has_servers():
        wait_for_servers(lambda: site.connect()[1].depth([]), waits)  # a broker connects when it is asked
    if check.report(site):
        return ConfigError.exit_code
    site.settings.ensure_state_folder()
    if foreground:
        site.close()
        return _here(site, SUPERVISOR, [])
    argv = [sys.executable, str(ROOT / "process_starter.py"), SUPERVISOR, *as_options(site.settings)]
    stray = stray_of(site.settings.state_folder / "logs", SUPERVISOR)
    child = spawn(argv, folder=Path.cwd(), environment=os.environ, stray=stray)
    if not box.wait_for(lambda: child.has_ended() or box.is_settled(site, child.identity.pid), UP_WAIT_S):
        print(f"not everything is up after {UP_WAIT_S:g} s", file=sys.stderr)
    if child.has_ended():
        return _did_not_start(site, child)
    child.close()
    report = box.wait_for(lambda: _complete(site), LEADER_WAIT_S) or look(site)
    print_report(report)
    if not report.is_all_up:
        print("not everything runs; the logs are in", site.log_file(SUPERVISOR).parent, file=sys.stderr)
    return 0 if report.is_all_up else NOT_ALL


def wait_for_servers(
    connect: Callable[[], object], waits: bool, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Until store and broker answer; one line of what is away, not one for each try. Raises Unavailable."""
    delay, said = WAIT_S[0], ""
    while True:
        try:
            connect()
            return
        except Unavailable as error:
            if not waits:
                raise
            if type(error).__name__ != said:
                print(f"{error}; waiting for it (Ctrl-C ends, --no-wait does not wait)", file=sys.stderr)
                said = type(error).__name__
        sleep(delay)
        delay = min(delay * 2, WAIT_S[1])


def _complete(site: Site) -> Report | None:
    """What runs, once a scheduler leads and the dashboard says where it is, or somebody failed."""
    found = look(site)
    is_done = found.leader is not None and found.dashboard is not None
    return found if is_done or not found.is_all_up else None


def _did_not_start(site: Site, child: Running) -> int:
    log = site.log_file(SUPERVISOR)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    print(f"the supervisor did not start; the end of {log}:", file=sys.stderr)
    for line in lines[-TAIL_LINES:]:
        print(f"  {line}", file=sys.stderr)
    return child.exit_code if child.exit_code and child.exit_code > 0 else SchedulerError.exit_code


def start_one(site: Site, name: str) -> int:
    """Have one process of this box started by its supervisor. Raises Refused if it runs."""
    if name == SUPERVISOR:
        return start_box(site)
    box.registered(site, name)
    box.supervisor_of(site)
    row, found = box.row_of(site, name), box.running(site, name)
    if row is not None and row.desired == "on" and row.state in box.UP:
        raise Refused(f"{name} already runs (pid {row.pid if found is None else found.pid})")
    # one that is wanted and does not run waits, or has given up: it is asked to start anew
    box.want(site, name, "restart" if row is not None and row.desired == "on" else "on")
    row = box.await_up(site, name)
    print(f"{name} runs, pid {row.pid}")
    return 0


def _here(site: Site, name: str, words: list[str]) -> int:
    import process_starter

    return process_starter.start(
        site, name, foreground=True, arguments=process_starter.parse_arguments(words)
    )
