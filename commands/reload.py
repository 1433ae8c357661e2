"""`reload`: have the running box take over a changed context, wholly or not at all.

It is checked here first; then the supervisor starts what is new, stops what is gone, and tells the scheduler and
the workers to load it. Nothing else is restarted. Units of work that begin afterwards run in fresh children, which
import the workers' code anew; daemons keep theirs until `restart`.
"""

from __future__ import annotations

import argparse
import os
import signal

from commands import box, check
from commands.site import Site
from scheduler.core.errors import ConfigError, SchedulerError
from scheduler.core.event import Event
from scheduler.core.ports import Where
from settings import add_options, overrides_of

WAIT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings alone."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Reload, and say what is new and what is gone. Raises SchedulerError."""
    site = Site(overrides_of(args))
    try:
        if check.report(site):
            return ConfigError.exit_code
        supervisor = box.supervisor_of(site)
        last = _reloads(site)
        os.kill(supervisor.pid, signal.SIGHUP)
        events = box.wait_for(lambda: _reloads(site)[len(last) :], WAIT_S)
        if not events:
            raise SchedulerError(f"the supervisor (pid {supervisor.pid}) did not answer within {WAIT_S:g} s")
        if events[0].severity == "error":
            raise ConfigError(events[0].message)
        print(events[0].message)
        return 0
    finally:
        site.close()


def _reloads(site: Site) -> list[Event]:
    store, _broker, _clock = site.connect()
    where = [Where("source", "=", f"box:{site.settings.box}"), Where("kind", "=", "supervisor.reload")]
    return store.find(Event, where, ["seq"])
