"""Which processes belong on a box: computed from the context, nothing is kept.

    scheduler, mx             on every box
    worker.<queue>.<n>        n = 1 .. workers of the queue, where its `boxes` match, and those of its processes
    <daemon name>             where its `boxes` match

Patterns are those of the shell (`gpu-*`), matched against the box's id; case matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scheduler.core.errors import ConfigError
from scheduler.core.process import Context

BUILT_IN = ("scheduler", "mx")  # names that are their own kinds
SUPERVISOR = "supervisor"
WORKER_PREFIX = "worker."


@dataclass(frozen=True, slots=True)
class Registered:
    """One process of a box: its name there, its kind, and for a worker its queue."""

    name: str
    kind: str
    queue: str | None = None
    is_on: bool = True  # whether it is started when the box sees it for the first time


def roster(context: Context, box: str) -> dict[str, Registered]:
    """All processes of box `box`, in the order in which they start. Raises ConfigError."""
    _check(context)
    found = {name: Registered(name, name) for name in BUILT_IN}
    for queue in context.queues.values():
        members = [p for p in context.processes.values() if p.kind != "daemon" and p.queue == queue.name]
        if matches(queue.boxes, box) and all(matches(member.boxes, box) for member in members):
            for number in range(1, queue.workers + 1):
                name = f"{WORKER_PREFIX}{queue.name}.{number}"
                found[name] = Registered(name, "worker", queue.name)
    for process in context.processes.values():
        if process.kind == "daemon" and matches(process.boxes, box):
            found[process.name] = Registered(process.name, "daemon", is_on=process.is_on)
    return found


def matches(patterns: Iterable[str], box: str) -> bool:
    """Whether one of the patterns is for this box."""
    return any(fnmatchcase(box, pattern) for pattern in patterns)


def kind_of(name: str) -> str:
    """The kind that a name tells, for a process that is not registered any more."""
    if name in BUILT_IN or name == SUPERVISOR:
        return name
    return "worker" if name.startswith(WORKER_PREFIX) else "daemon"


def _check(context: Context) -> None:
    """What a box cannot keep: a daemon under a name of ours, one queue for processes of different boxes."""
    boxes_of: dict[str, tuple[str, tuple[str, ...]]] = {}
    for process in context.processes.values():
        if process.kind == "daemon":
            if kind_of(process.name) != "daemon":
                raise ConfigError(
                    f"daemon {process.name!r}: this name is taken by a process of our own; rename it"
                )
            continue
        other, boxes = boxes_of.setdefault(process.queue, (process.name, process.boxes))
        if set(boxes) != set(process.boxes):
            raise ConfigError(
                f"process {process.name!r}: its boxes {list(process.boxes)} differ from {list(boxes)} of {other!r}, and"
                f" both use queue {process.queue!r}, whose workers take either; give one of them a queue of its own"
            )
