"""What a command or a process of this box stands on: settings, project, timetable, store, broker, clock.

The one place where adapters are opened. Everything is opened on demand, so that `check` touches no store and a
worker makes its children before its connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.context_file import Project, load_project
from scheduler.core.errors import ConfigError
from scheduler.core.timetable import Timetable
from settings import Settings, load_settings
from supervisor.os_process import Identity, holder
from supervisor.roster import SUPERVISOR, Registered, roster

if TYPE_CHECKING:
    from scheduler.clock import Reader, SystemClock
    from scheduler.core.ports import Broker, Store

OUR_PLACE = ("process_context",)  # modules of theirs that other processes cannot import under this name


class Site:
    """One installation, as this box sees it."""

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        """`overrides` are the command line's settings. Raises ConfigError for wrong settings.

        A context file that cannot be read is no reason to fail here: a box must be stoppable with it.
        """
        self._overrides = dict(overrides or {})
        self.settings: Settings = load_settings(self._overrides)
        self._connection: tuple[Store, Broker, SystemClock] | None = None
        try:
            theirs = self.project.settings
        except ConfigError:
            return
        if theirs:
            self.settings = load_settings(self._overrides, context_settings=theirs)

    # -- what is registered ---------------------------------------------------------------------------

    @cached_property
    def project(self) -> Project:
        """The context file. Raises ConfigError."""
        return self._load()

    @cached_property
    def timetable(self) -> Timetable:
        """Everything registered, checked together. Raises ConfigError."""
        return Timetable(self.project.context)

    def reload(self) -> None:
        """Read the context anew, and keep the old one if it is wrong. Raises ConfigError."""
        project = self._load(fresh=True)
        timetable = Timetable(project.context)
        self.__dict__.update(project=project, timetable=timetable)

    def _load(self, *, fresh: bool = False) -> Project:
        project = _checked(load_project(self.settings.context, fresh=fresh))
        start = self.settings.synergy_start_timeperiod
        return project if start is None else replace(project, context=replace(project.context, start=start))

    def roster(self) -> dict[str, Registered]:
        """The processes that belong on this box. Raises ConfigError."""
        return roster(self.project.context, self.settings.box)

    # -- places ---------------------------------------------------------------------------------------

    def pid_file(self, name: str) -> Path:
        """The pid file of a process of this box."""
        return self.settings.state_folder / "run" / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        """The log of a process of this box."""
        return self.settings.state_folder / "logs" / f"{name}.log"

    def supervisor(self) -> Identity | None:
        """The supervisor that runs here, if one does."""
        return holder(self.pid_file(SUPERVISOR))

    def has_store(self) -> bool:
        """Whether there may be a store already; an embedded one is a file that the first start makes."""
        scheme, _, path = self.settings.store_url.partition(":///")
        return scheme.partition("+")[0] != "sqlite" or Path(path.partition("?")[0]).exists()

    def has_servers(self) -> bool:
        """Whether store or broker are servers, which may be away for a while and come back."""
        urls = (self.settings.store_url, self.settings.broker_url)
        return any(url.partition(":")[0].partition("+")[0] not in ("sqlite", "embedded") for url in urls)

    # -- connections ----------------------------------------------------------------------------------

    def connect(self, *, maintain: bool = False) -> tuple[Store, Broker, SystemClock]:
        """Store, broker and clock; opened once. Raises StoreUnavailable, BrokerUnavailable, ConfigError."""
        if self._connection is None:
            from db import open_store
            from mq import open_broker
            from scheduler.clock import SystemClock, store_reader

            self.settings.ensure_state_folder()
            readers: list[Reader] = []  # none until there is a store to read from
            clock = SystemClock(lambda: readers[0]() if readers else None)
            store = open_store(
                self.settings.store_url,
                clock=clock,
                synchronous=self.settings.sqlite_synchronous,
                maintain=maintain,
            )
            try:
                store.init()
                readers.append(store_reader(store))
                clock.refresh()
                broker = open_broker(self.settings.broker_url)
            except BaseException:  # raised again: a store of half a connection is nobody's
                store.close()
                raise
            self._connection = store, broker, clock
        return self._connection

    def close(self) -> None:
        """Let go of store and broker; may be called twice."""
        if self._connection is not None:
            store, broker, _clock = self._connection
            self._connection = None
            broker.close()
            store.close()


def _checked(project: Project) -> Project:
    """Refuse workers that live in the context file itself, where its name is ours."""
    if project.file.stem not in OUR_PLACE or project.folder == Path(__file__).resolve().parent.parent:
        return project
    for process in project.context.processes.values():
        if (
            isinstance(process.worker, str)
            and process.worker.split(":")[0].split(".")[0] == project.file.stem
        ):
            raise ConfigError(
                f"{project.file}: the worker of process {process.name!r} is defined in this file, where no other"
                " process can import it; move it to a module of its own, such as workers.py"
            )
    return project
