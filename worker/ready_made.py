"""Small ready-made workers: for first steps, for tests, and for freeruns that only need arguments.

Register them by path, such as `worker.ready_made:sleep`.
"""

from __future__ import annotations

import time

from scheduler.core.errors import ConfigError, Permanent
from worker.api import Noop, Processed, Task


def nothing(task: Task) -> None:
    """Processed, without a result."""


def identity(task: Task) -> Processed:
    """Processed; the result is the arguments it was given, and its period."""
    return Processed({"timeperiod": task.timeperiod, "arguments": dict(task.arguments)})


def sleep(task: Task) -> Processed:
    """Sleep `seconds` (default 1), telling how far it is."""
    total = _number(task, "seconds", 1.0)
    started = time.monotonic()
    while (done := time.monotonic() - started) < total and not task.is_canceled():
        task.progress(round(done, 1), total, "sleeping")
        time.sleep(min(0.1, total - done))
    return Processed({"seconds": total})


def no_data(task: Task) -> Noop:
    """Nothing to do, for the reason `reason`."""
    return Noop(str(task.arguments.get("reason", "nothing to do")))


def fail(task: Task) -> None:
    """Fail in the first `times` attempts (default: always), for good if `permanent` is set."""
    times = _number(task, "times", float("inf"))
    if task.attempt <= times:
        message = str(task.arguments.get("message", "failed as it was told to"))
        raise Permanent(message) if task.arguments.get("permanent") else RuntimeError(message)


def _number(task: Task, name: str, default: float) -> float:
    value = task.arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"process {task.process!r}: argument {name!r} must be 0 or more, got {value!r}")
    return float(value)
