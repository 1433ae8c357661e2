"""`check`: is everything that is registered fit to run? All problems, one line each, and nothing is changed.

The same check comes before `start` and `reload`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from commands.site import Site
from scheduler.core.errors import ConfigError, SchedulerError
from scheduler.core.process import Process, Script
from settings import add_options, overrides_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings alone."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """0 and one line if all is well; else each problem on a line of its own, and 2. Raises ConfigError."""
    site = Site(overrides_of(args))
    try:
        if report(site):
            return ConfigError.exit_code
    finally:
        site.close()
    registered = site.project.context
    kinds = [process.kind for process in registered.processes.values()]
    counts = ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("managed", "freerun", "daemon") if kind in kinds
    )
    print(
        f"ok: {counted(len(kinds), 'process', 'processes')} ({counts or 'none'}),"
        f" {counted(len(registered.trees), 'tree')}, {counted(len(registered.queues), 'queue')}"
        f" in {site.project.file}"
    )
    return 0


def counted(number: int, noun: str, nouns: str = "") -> str:
    """As people say it: 1 tree, 2 trees."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


def report(site: Site) -> int:
    """Print problems and warnings to stderr; how many problems there are."""
    found = problems(site)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        for warning in warnings(site):
            print(f"warning: {warning}", file=sys.stderr)
    return len(found)


def problems(site: Site) -> list[str]:
    """Everything that keeps this box from running what is registered, a line each."""
    found: list[str] = []
    if not _tried(lambda: site.project, found):
        return found
    file = site.project.file
    is_sound = _tried(lambda: site.timetable, found, f"{file}: ")
    _tried(site.roster, found, f"{file}: ")
    with contextlib.redirect_stdout(sys.stderr):  # what a user's module prints when it is imported
        for process in site.project.context.processes.values():
            _tried(lambda process=process: check_worker(process, site.project.folder), found, f"{file}: ")  # type: ignore[misc]
    if is_sound:
        _tried(lambda: _check_unchanged(site), found)
    return found


def check_worker(process: Process, folder: Path) -> None:
    """Whether the worker of a process, and its readiness predicate, can be found. Raises ConfigError."""
    from worker.resolve import resolve, resolve_worker

    try:
        if isinstance(process.worker, Script):
            _check_script(process.worker, folder)
        else:
            resolve_worker(process.worker)
        if process.readiness is not None:
            resolve(process.readiness.predicate, "readiness predicate")
    except ConfigError as error:
        raise ConfigError(f"process {process.name!r}: {error}") from None


def _check_script(script: Script, folder: Path) -> None:
    command = script.command[0]
    where = Path(script.folder) if script.folder else folder
    if not where.is_dir():
        raise ConfigError(f"script {command!r}: there is no folder {where}")
    if "{" in command:
        return  # named by its arguments: only known when it runs
    is_there = (where / command).is_file() if "/" in command else shutil.which(command)
    if not is_there:
        raise ConfigError(
            f"script {command!r}: there is no such command" + (f" in {where}" if "/" in command else "")
        )


def warnings(site: Site) -> list[str]:
    """What is allowed and seldom meant."""
    return [
        f"process {process.name!r} is blocked by its own past (blocking 'dependencies' with {edge.offset}):"
        " one skipped period would skip all that follow; blocking 'children' waits without that"
        for process in site.project.context.processes.values()
        for edge in process.depends_on
        if process.blocking == "dependencies" and edge.process == process.name
    ]


def _check_unchanged(site: Site) -> None:
    """A name keeps what it stands for: compare with what the store remembers, if there is a store yet."""
    from scheduler.core.records import ProcessRow
    from scheduler.core.registry import check_unchanged

    if not site.has_store():
        return
    store, _broker, _clock = site.connect()
    check_unchanged(site.timetable, {row.name: row for row in store.find(ProcessRow)})


def _tried(step: Callable[[], object], found: list[str], prefix: str = "") -> bool:
    try:
        step()
    except SchedulerError as error:
        text = " ".join(str(error).split())
        found.append(text if text.startswith(prefix) else prefix + text)
        return False
    return True
