"""One registered daemon in this process: its code is called with a `Daemon`, and told by TERM or INT to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from inspect import isclass
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from scheduler.core.command import Command
from scheduler.core.errors import BrokerUnavailable, ConfigError, WorkError
from scheduler.core.job import job_id
from scheduler.core.ports import REPORT_QUEUE, Broker, Clock, Store
from scheduler.core.process import Process, Script
from worker import command_line
from worker.api import Cancel, Daemon, Noop, ProcessInfo, Task
from worker.resolve import add_folder, resolve_worker

log = logging.getLogger("synergy.worker")


def run_daemon(
    process: Process,
    *,
    store: Store,
    broker: Broker,
    clock: Clock,
    context_folder: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> int:
    """Run `process` until it returns; the exit code: 0, or 1 after an exception, which is logged.

    `arguments` replace those of the process. A class is made with its process's info, as workers are, and its
    `run` is called. Raises ConfigError if its path leads nowhere.
    """
    assert process.kind == "daemon", f"{process.name} is {process.kind}"
    given = dict(process.arguments if arguments is None else arguments)

    def submit(name: str, timeperiod: str, reason: str) -> None:
        command = Command(
            id=str(uuid4()),
            verb="late_data",
            target={"jobs": [job_id(name, timeperiod)]},
            actor=process.name,
            reason=reason,
            submitted_at=store.now(),
        )
        with store.transaction() as transaction:
            transaction.insert([command], ignore=True)
        try:
            broker.nudge(REPORT_QUEUE)
        except BrokerUnavailable as error:
            log.debug("the leader will find the command by itself: %s", error)

    daemon = Daemon(process.name, given, clock.business, submit)
    _install(daemon)
    if isinstance(process.worker, Script):
        return _run_script(process.worker, daemon, context_folder)
    add_folder(None if context_folder is None else Path(context_folder).resolve())
    found: Any = resolve_worker(process.worker)
    try:
        kind: Any = found
        call = (
            kind(ProcessInfo(process.name, process.source, process.sink, given)).run
            if isclass(found)
            else found
        )
        call(daemon)
    except Exception as error:  # the user's code: said in one line, and in full
        log.exception("daemon %s ended with %s", process.name, type(error).__name__)
        return 1
    return 0


def _install(daemon: Daemon) -> None:
    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        daemon.stopping.set()

    if threading.current_thread() is threading.main_thread():
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, on_signal)


def _run_script(script: Script, daemon: Daemon, folder: str | Path | None) -> int:
    """A command line as a daemon: it is run in its own group, and told to stop by TERM."""
    now = daemon.now()
    task = Task(process=daemon.name, timeperiod="", start=now, end=now, arguments=daemon.arguments)
    done = threading.Event()
    group: list[int] = []
    threading.Thread(target=_forward, args=(daemon, group, done), name="stopper", daemon=True).start()
    try:
        command_line.run(script, task, None if folder is None else str(folder), _remember(group))
    except (WorkError, Noop, Cancel, ConfigError) as error:
        if daemon.stopping.is_set():
            return 0
        log.error("daemon %s: %s", daemon.name, error)
        return 1
    finally:
        done.set()
    return 0


def _remember(group: list[int]) -> Any:
    return lambda pid: group.append(pid) if pid is not None else group.clear()


def _forward(daemon: Daemon, group: list[int], done: threading.Event) -> None:
    """Pass the word to stop on, however early it comes."""
    daemon.stopping.wait()
    while not done.is_set():
        for pid in list(group):
            try:
                os.killpg(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        done.wait(1.0)
