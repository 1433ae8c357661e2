"""The public face of Synergy Scheduler: what a project of your own imports.

The same from a clone and from an installed wheel::

    from synergy import Noop, managed, tree

Independent of the package `supervisor` on PyPI and of mushkevych/scheduler: no code is shared.
"""

from __future__ import annotations

from synergy import _path  # puts our folders first

# isort: split
from scheduler.core.errors import ConfigError, DeadlineExceeded, LeaseLost, Permanent, SchedulerError
from scheduler.core.process import Readiness, Retry, after, daemon, freerun, managed, queue, script, tree
from worker.api import Cancel, Daemon, Noop, Processed, Task, Worker
from worker.sink import sql_sink
from worker.sink_file import file_sink
from worker.sink_mongo import mongo_sink

_path.put_last()  # and now last: what is not imported yet is everybody else's

__all__ = [
    "Cancel",
    "ConfigError",
    "Daemon",
    "DeadlineExceeded",
    "LeaseLost",
    "Noop",
    "Permanent",
    "Processed",
    "Readiness",
    "Retry",
    "SchedulerError",
    "Task",
    "Worker",
    "after",
    "daemon",
    "file_sink",
    "freerun",
    "managed",
    "mongo_sink",
    "queue",
    "script",
    "sql_sink",
    "tree",
]
