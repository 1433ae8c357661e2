#!/usr/bin/env python3
"""The composition root: settings → store, broker, clock → run ONE registered process. What a supervisor spawns.

    process_starter.py scheduler | mx | supervisor | worker.<queue>.<n> | <daemon name>   [options]

A process holds its pid file while it runs, so a second one of the same name on this box is refused. In the
background it logs to `<state>/logs/<name>.log`, with --foreground to stderr. HUP loads the context anew, TERM and
INT end it gently. Exit codes are those of the errors: 2 configuration, 3 store or broker away, 5 refused, 6 lease
lost.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGHUP, lambda *_: None)  # a reload that comes before we listen must not end us

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import secrets  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from commands.logs import configure, last_words  # noqa: E402
from commands.site import Site  # noqa: E402
from scheduler.core.errors import ConfigError, InvalidRequest, SchedulerError  # noqa: E402
from settings import add_options, as_options, overrides_of  # noqa: E402
from supervisor.ledger import Ledger, owner_of, row_id  # noqa: E402
from supervisor.os_process import PidFile, Running, spawn  # noqa: E402
from supervisor.plan import Limits  # noqa: E402
from supervisor.roster import SUPERVISOR, Registered, matches  # noqa: E402
from supervisor.supervisor import Supervisor, stray_of  # noqa: E402

if TYPE_CHECKING:
    from scheduler.core.process import Process
    from scheduler.core.timetable import Timetable

ROOT = Path(__file__).resolve().parent
INSTANCE = "SYNERGY_INSTANCE"  # names this run of a process; leases are owned under it

log = logging.getLogger("synergy.start")


class Part:
    """One process, and what it was given: everything a role needs."""

    def __init__(self, site: Site, item: Registered, arguments: Mapping[str, Any] | None = None) -> None:
        self.site, self.item, self.arguments = site, item, arguments
        self.instance = os.environ.get(INSTANCE) or secrets.token_hex(4)
        self.stopping = threading.Event()
        self.reload = threading.Event()

    @property
    def owner(self) -> str:
        """Under which name this run of it owns leases."""
        return owner_of(self.site.settings.box, self.item.name, self.instance)

    def listen(self) -> None:
        """TERM and INT set `stopping`, HUP sets `reload`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        self.on_reload(self.reload.set)

    @staticmethod
    def on_reload(call: Callable[[], None]) -> None:
        """HUP calls this."""
        signal.signal(signal.SIGHUP, lambda *_: call())


class Live(Mapping[str, "Process"]):
    """The definitions in force: what a worker holds stays true after a reload."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __getitem__(self, name: str) -> Process:
        return self._site.project.context.processes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._site.project.context.processes)

    def __len__(self) -> int:
        return len(self._site.project.context.processes)


# -- the roles ------------------------------------------------------------------------------------------


def run_scheduler(part: Part) -> int:
    """A scheduler: leads, or stands by."""
    from scheduler.daemon import run
    from scheduler.retention import Policy

    site, settings = part.site, part.site.settings
    timetable = site.timetable
    part.listen()
    store, broker, clock = site.connect(maintain=True)
    return run(
        store,
        broker,
        clock,
        timetable,
        part.stopping,
        holder=row_id(settings.box, part.item.name),
        leader_lease_s=settings.leader_lease_s,
        worker_lease_s=settings.worker_lease_s,
        sweep_s=settings.sweep_s,
        tick_s=settings.tick_s,
        turn_limit=settings.turn_limit,
        reload=part.reload,
        load_timetable=_loader(site),
        retention=Policy(
            log_days=settings.log_retention_days,
            uow_days=settings.uow_retention_days,
            event_days=settings.event_retention_days,
        ),
    )


def run_mx(part: Part) -> int:
    """The dashboard. After a reload it serves the new timetable at the same address."""
    from mx.main import run_mx

    site = part.site
    timetable = site.timetable
    part.listen()
    store, broker, clock = site.connect(maintain=True)
    return run_mx(
        site.settings,
        store,
        broker,
        clock,
        timetable,
        part.stopping,
        reload=part.reload,
        load_timetable=_loader(site),
    )


def _loader(site: Site) -> Callable[[], Timetable]:
    """Loads the context anew; raises ConfigError, and the old one stays in force."""

    def load() -> Timetable:
        site.reload()
        return site.timetable

    return load


def _in_thread(call: Callable[[], object]) -> Callable[[], None]:
    """A signal handler must not load anything itself: it may interrupt a load."""
    return lambda: threading.Thread(target=call, name="reload", daemon=True).start()


def _reloaded(site: Site) -> bool:
    try:
        site.reload()
    except ConfigError as error:
        log.error("the context was not reloaded, the old one stays in force: %s", error)
        return False
    log.info("the context was loaded anew")
    return True


def run_worker(part: Part) -> int:
    """A worker of one queue."""
    from worker.main import run_worker

    site, settings, queue = part.site, part.site.settings, part.item.queue
    assert queue is not None, "workers are registered with their queue"

    slots = site.project.context.queues[queue].slots
    part.on_reload(_in_thread(lambda: _reloaded(site)))
    return run_worker(
        connect=lambda: site.connect(maintain=True),
        processes=Live(site),
        queues=[queue],
        owner=part.owner,
        box=settings.box,
        slots=slots,
        context_folder=site.project.folder,
        lease_s=settings.worker_lease_s,
        renew_s=settings.lease_renew_s,
        grace_s=settings.drain_s,
    )


def run_daemon(part: Part) -> int:
    """One daemon of the user's."""
    from worker.daemon_process import run_daemon

    site = part.site
    process = site.project.context.processes[part.item.name]
    store, broker, clock = site.connect(maintain=True)
    given = None if part.arguments is None else {**process.arguments, **part.arguments}
    return run_daemon(
        process, store=store, broker=broker, clock=clock, context_folder=site.project.folder, arguments=given
    )


def run_supervisor(part: Part, *, drain: bool = False) -> int:
    """The box. With `drain` only what is left of it is stopped."""
    from scheduler.eventlog import EventLog

    site, settings = part.site, part.site.settings
    here, logs = Path.cwd(), settings.state_folder / "logs"

    def load() -> dict[str, Registered]:
        site.reload()
        assert site.timetable is not None  # computed: a wrong one is refused
        return site.roster()

    def launch(item: Registered, instance: str) -> Running:
        argv = [sys.executable, str(ROOT / "process_starter.py"), item.name, *as_options(settings)]
        stray = stray_of(logs, item.name)
        return spawn(
            argv, folder=here, environment={**os.environ, INSTANCE: instance}, stray=stray, instance=instance
        )

    store, broker, clock = site.connect(maintain=True)
    events = EventLog()
    return Supervisor(
        ledger=Ledger(settings.box, store, broker, clock, speak=lambda event: events.write([event])),
        load=load,
        launch=launch,
        folder=settings.state_folder,
        limits=Limits(grace_s=settings.grace_s),
        leader_lease_s=settings.leader_lease_s,
        last_words=lambda name: last_words(site.log_file(name)) or last_words(stray_of(logs, name)),
        hang_up_stops=sys.stderr.isatty(),  # the terminal was closed
    ).run(drain=drain)


ROLES: dict[str, Callable[[Part], int]] = {
    "scheduler": run_scheduler,
    "mx": run_mx,
    "worker": run_worker,
    "daemon": run_daemon,
    "supervisor": run_supervisor,
}

# -- which one --------------------------------------------------------------------------------------------


def find(site: Site, name: str) -> Registered:
    """What `name` means on this box; a managed or freerun process means a further worker of its queue.

    Raises ConfigError, listing what there is.
    """
    if name == SUPERVISOR:
        return Registered(SUPERVISOR, SUPERVISOR)
    known = site.roster()
    if name in known:
        return known[name]
    process = site.project.context.processes.get(name)
    if process is None:
        names = ", ".join(
            [SUPERVISOR, *known, *(n for n in site.project.context.processes if n not in known)]
        )
        raise ConfigError(f"there is no process {name!r}; there are: {names}")
    if process.kind == "daemon":
        assert not matches(process.boxes, site.settings.box)
        raise ConfigError(
            f"daemon {name!r} is for boxes {list(process.boxes)}, this box is {site.settings.box!r}"
        )
    return Registered(f"worker.{process.queue}.here-{os.getpid()}", "worker", process.queue)


def start(site: Site, name: str, *, foreground: bool, arguments: Mapping[str, Any] | None = None) -> int:
    """Run one process here until it ends; its exit code. Raises SchedulerError."""
    item = find(site, name)
    if arguments and item.kind != "daemon":
        raise ConfigError(f"{name} is no daemon and takes no arguments, got {', '.join(arguments)}")
    settings = site.settings
    configure(
        item.name,
        level=settings.log_level,
        style=settings.log_format,
        file=None if foreground else site.log_file(item.name),
    )
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(f"synergy {item.name} of {settings.box}")
    part = Part(site, item, arguments)
    if item.kind == SUPERVISOR:  # takes its own pid file
        return ROLES[item.kind](part)
    lock = PidFile(site.pid_file(item.name))
    if item.name in site.roster():  # a further worker, started by hand, is nobody's double
        lock.take(part.instance)
    try:
        return ROLES[item.kind](part)
    finally:
        site.close()
        lock.close()


def parse_arguments(words: Sequence[str]) -> dict[str, Any] | None:
    """`name=value` words; a value is JSON if it can be, else text. Raises InvalidRequest."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"argument {word!r}: expected name=value")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found or None


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one process, and say in one line what went wrong."""
    parser = argparse.ArgumentParser(
        prog="process_starter.py", description="Run one registered process of this box."
    )
    parser.add_argument("name", help="scheduler, mx, supervisor, worker.<queue>.<n>, or a daemon's name")
    parser.add_argument("arguments", nargs="*", metavar="name=value", help="arguments of a daemon")
    parser.add_argument("--foreground", action="store_true", help="log to stderr")
    add_options(parser)
    options = parser.parse_args(argv)
    try:
        site = Site(overrides_of(options))
        arguments = parse_arguments(options.arguments)
        return start(site, options.name, foreground=options.foreground, arguments=arguments)
    except SchedulerError as error:
        print(f"{options.name}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
