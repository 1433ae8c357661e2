"""Workers that are command lines: substitute, run, and read the exit code. Runs in the child process.

Split beforehand and never given to a shell. The command gets a process group of its own, inside the child's
session, so that everything it started can be ended with it; what it leaves running in that group is ended too.
Its output goes where the child's goes: into the log of the attempt.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from scheduler.core.errors import ConfigError, Permanent, WorkError
from scheduler.core.process import Script
from worker.api import Cancel, Noop, Task

_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")
OWN_NAMES = ("timeperiod", "start", "end", "process", "run", "attempt", "cursor")


def substitute(script: Script, values: Mapping[str, Any]) -> list[str]:
    """The command with `{name}` replaced, each argument by itself; `{{` and `}}` stand for braces.

    Raises ConfigError naming a place that names nothing.
    """

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)[0]
        if name not in values:
            raise ConfigError(
                f"script {script.command[0]!r}: {{{name}}} names nothing; there are {', '.join(values)}"
            )
        value = values[name]
        return _instant(value) if isinstance(value, datetime) else "" if value is None else str(value)

    return [_PLACE.sub(replace, word) for word in script.command]


def check(script: Script, arguments: Mapping[str, Any]) -> None:
    """For `check`: raise ConfigError if a place names nothing."""
    substitute(script, {**arguments, **dict.fromkeys(OWN_NAMES, "")})


def run(script: Script, task: Task, folder: str | None, started: Any = None) -> None:
    """Run it for one task and wait. `started(group)` is told its process group, and at the end None.

    Returns for exit code 0. Raises Noop, Cancel, or WorkError for another code or a signal, Permanent if
    it cannot be started at all.
    """
    values = {**task.arguments, **{name: getattr(task, name) for name in OWN_NAMES}}
    words = substitute(script, values)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            cwd=script.folder or folder,
            env={**os.environ, **dict(script.environment)},
            process_group=0,
        )
    except OSError as error:
        raise Permanent(f"cannot start {words[0]!r}: {error.strerror or error}") from None
    if started is not None:
        started(process.pid)
    try:
        code = process.wait()
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it left running
        except (ProcessLookupError, PermissionError):
            pass
        if started is not None:
            started(None)
    if code == 0:
        return
    if code == script.noop_code:
        raise Noop(f"exit code {code}")
    if code == script.cancel_code:
        raise Cancel(f"exit code {code}")
    raise WorkError(f"{words[0]} ended with {describe(code)}")


def describe(code: int) -> str:
    """An exit code as `Popen` tells it, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
