"""What may run: processes, trees and queues, as the user registers them.

The constructors check what can be checked of one definition alone and raise ConfigError naming the
process and what would be right. What concerns several of them together is checked by
`timetable.Timetable`, which is built from a `Context`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isnan
from typing import Any

from scheduler.core.errors import ConfigError
from scheduler.core.timeperiod import Qualifier, check_grouping
from scheduler.core.trigger import Trigger, parse_trigger

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
MACHINES = ("discrete", "continuous", "recomputing")
BLOCKINGS = ("normal", "children", "dependencies")
CATCHUPS = ("all", "last", "none")
OVERLAPS = ("skip", "queue", "allow")
LAG_S = 300
DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True)
class Script:
    """A worker that is a command line. Split beforehand, never given to a shell.

    `{timeperiod}`, `{start}`, `{end}`, `{process}`, `{run}`, `{attempt}`, `{cursor}` and `{name}` of the
    process's arguments are substituted per argument.
    """

    command: tuple[str, ...]
    noop_code: int | None = None  # exit code that means: there was nothing to do
    cancel_code: int | None = None  # exit code that means: give this one up
    folder: str | None = None  # working directory; None: the context's folder
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after what delay, a failed unit of work is tried again. Seconds."""

    max_retries: int = 3
    delay_s: float = 10.0
    backoff: float = 2.0
    max_delay_s: float = 3600.0
    jitter: float = 0.1  # share of the delay, up or down
    max_lost: int = 5  # attempts lost with their worker; these do not count as retries


@dataclass(frozen=True, slots=True)
class After:
    """A dependency on another process: its periods that meet ours, moved by `offset` periods of the coarser."""

    process: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """A predicate (`module:function`) that workers ask before the first unit of work. Seconds."""

    predicate: str
    every_s: float = 300.0
    timeout_s: float = 60.0
    wait_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A definition: what may run, when it may, and how it is governed. See `managed`, `freerun`, `daemon`."""

    name: str
    kind: str
    worker: str | Script
    qualifier: Qualifier = Qualifier.INSTANT
    grouping: int = 1
    trigger: Trigger | None = None
    machine: str = "discrete"
    blocking: str = "normal"
    depends_on: tuple[After, ...] = ()
    source: str | None = None
    sink: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    boxes: tuple[str, ...] = ("*",)
    queue: str = DEFAULT_QUEUE
    priority: int = 5
    retry: Retry = Retry()
    timeout_s: float | None = None
    wait_timeout_s: float | None = 172800.0
    lag_s: float = LAG_S
    max_active: int = 1
    start: str | None = None
    tags: tuple[str, ...] = ()
    owner: str = ""
    readiness: Readiness | None = None
    deadline: str | None = None  # "06:00" or "+2h": processed by, at that time or so long after the end
    catchup: str = "all"
    overlap: str = "skip"
    is_on: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """Processes of nested qualifiers, stacked; may depend on other trees."""

    name: str
    processes: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    title: str = ""
    start: str | None = None  # overrides `synergy_start_timeperiod`


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, and how many worker processes with how many slots each serve it on a box."""

    name: str
    workers: int = 1
    slots: int = 2
    boxes: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Context:
    """All that is registered."""

    processes: Mapping[str, Process]
    trees: Mapping[str, Tree]
    queues: Mapping[str, Queue]
    start: str | None = None  # synergy_start_timeperiod, an hour's label


def _name(what: str, name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{what} name {name!r} is not valid: use [a-z][a-z0-9_.-]*, at most 64 characters")
    return name


def _choice(who: str, field_name: str, value: str, allowed: Iterable[str]) -> str:
    if value not in tuple(allowed):
        raise ConfigError(f"{who}: {field_name} {value!r} is unknown; use one of {', '.join(allowed)}")
    return value


def _number(who: str, field_name: str, value: object, least: float, most: float | None = None) -> None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)
    if not fine or value < least or (most is not None and value > most):  # type: ignore[operator]
        span = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
        raise ConfigError(f"{who}: {field_name} must be {span}, got {value!r}")


def _texts(who: str, field_name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{who}: {field_name} must be a list of names, got {value!r}")
    items = tuple(value)
    for item in items:
        if not isinstance(item, str) or not item:
            raise ConfigError(f"{who}: {field_name} must be a list of names, got {item!r} in it")
    return items


def _arguments(who: str, value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{who}: arguments must be a dictionary, got {value!r}")
    return dict(value or {})


def _worker(who: str, worker: object) -> str | Script:
    if isinstance(worker, Script):
        return worker
    if callable(worker) and hasattr(worker, "__qualname__"):
        worker = f"{worker.__module__}:{worker.__qualname__}"
    if not isinstance(worker, str) or not re.fullmatch(r"[A-Za-z_][\w.]*[:.][A-Za-z_][\w.]*", worker):
        raise ConfigError(
            f"{who}: worker {worker!r} is not a path;"
            " use 'package.module:function', 'package.module:Class' or script(…)"
        )
    return worker


def _after(who: str, items: object) -> tuple[After, ...]:
    if isinstance(items, str | After):
        items = (items,)
    found = []
    for item in items:  # type: ignore[attr-defined]
        edge = After(item) if isinstance(item, str) else item
        if not isinstance(edge, After) or not isinstance(edge.offset, int) or edge.offset > 0:
            raise ConfigError(
                f"{who}: depends_on {item!r} is not a process name or after(name, offset=0 or less)"
            )
        found.append(edge)
    return tuple(found)


def _check_common(process: Process) -> Process:
    who = f"process {process.name!r}"
    _number(who, "priority", process.priority, 1, 10)
    _number(who, "max_active", process.max_active, 1, 10_000)
    _number(who, "lag_s", process.lag_s, 0)
    for name in ("timeout_s", "wait_timeout_s"):
        if getattr(process, name) is not None:
            _number(who, name, getattr(process, name), 0.001)
    retry = process.retry
    if not isinstance(retry, Retry):
        raise ConfigError(f"{who}: retry must be Retry(max_retries=…, delay_s=…), got {retry!r}")
    _number(who, "retry.max_retries", retry.max_retries, 0)
    _number(who, "retry.delay_s", retry.delay_s, 0)
    _number(who, "retry.backoff", retry.backoff, 1)
    _number(who, "retry.max_delay_s", retry.max_delay_s, 0)
    _number(who, "retry.jitter", retry.jitter, 0, 1)
    _number(who, "retry.max_lost", retry.max_lost, 0)
    if process.readiness is not None:
        _number(who, "readiness.every_s", process.readiness.every_s, 0.001)
        _number(who, "readiness.timeout_s", process.readiness.timeout_s, 0.001)
    _choice(who, "catchup", process.catchup, CATCHUPS)
    _choice(who, "overlap", process.overlap, OVERLAPS)
    _name(f"{who}: queue", process.queue)
    return process


def managed(
    name: str,
    worker: Any,
    time_qualifier: str,
    *,
    time_grouping: int = 1,
    trigger: str = "every 60",
    trigger_start: datetime | None = None,
    trigger_end: datetime | None = None,
    time_zone: str = "UTC",
    state_machine: str = "discrete",
    blocking: str = "normal",
    depends_on: Iterable[str | After] = (),
    source: str | None = None,
    sink: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    boxes: Iterable[str] = ("*",),
    queue: str = DEFAULT_QUEUE,
    priority: int = 5,
    retry: Retry = Retry(),
    timeout_s: float | None = None,
    wait_timeout_s: float | None = 172800.0,
    lag_s: float = LAG_S,
    max_active: int = 1,
    start: str | None = None,
    tags: Iterable[str] = (),
    owner: str = "",
    readiness: Readiness | str | None = None,
    deadline: str | None = None,
    catchup: str = "all",
    is_on: bool = True,
    description: str = "",
) -> Process:
    """A process over timeperiods. Raises ConfigError naming the process and the field."""
    who = f"process {_name('process', name)!r}"
    _choice(who, "time_qualifier", time_qualifier, [q for q in Qualifier if q is not Qualifier.INSTANT])
    qualifier = Qualifier(time_qualifier)
    try:
        check_grouping(qualifier, time_grouping)
        parsed = parse_trigger(trigger, start=trigger_start, end=trigger_end, time_zone=time_zone)
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    return _check_common(
        Process(
            name=name,
            kind="managed",
            worker=_worker(who, worker),
            qualifier=qualifier,
            grouping=time_grouping,
            trigger=parsed,
            machine=_choice(who, "state_machine", state_machine, MACHINES),
            blocking=_choice(who, "blocking", blocking, BLOCKINGS),
            depends_on=_after(who, depends_on),
            source=source,
            sink=sink,
            arguments=_arguments(who, arguments),
            boxes=_texts(who, "boxes", boxes),
            queue=queue,
            priority=priority,
            retry=retry,
            timeout_s=timeout_s,
            wait_timeout_s=wait_timeout_s,
            lag_s=lag_s,
            max_active=max_active,
            start=start,
            tags=_texts(who, "tags", tags),
            owner=owner,
            readiness=Readiness(readiness) if isinstance(readiness, str) else readiness,
            deadline=deadline,
            catchup=catchup,
            is_on=is_on,
            description=description,
        )
    )


def freerun(
    name: str,
    worker: Any,
    *,
    trigger: str | None = None,
    trigger_start: datetime | None = None,
    trigger_end: datetime | None = None,
    time_zone: str = "UTC",
    source: str | None = None,
    sink: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    boxes: Iterable[str] = ("*",),
    queue: str = DEFAULT_QUEUE,
    priority: int = 5,
    retry: Retry = Retry(),
    timeout_s: float | None = None,
    wait_timeout_s: float | None = 172800.0,
    max_active: int = 1,
    tags: Iterable[str] = (),
    owner: str = "",
    readiness: Readiness | str | None = None,
    catchup: str = "last",
    overlap: str = "skip",
    is_on: bool = True,
    description: str = "",
) -> Process:
    """A process that runs at its trigger's firings, or when submitted. Raises ConfigError."""
    who = f"process {_name('process', name)!r}"
    try:
        parsed = None
        if trigger is not None:
            parsed = parse_trigger(trigger, start=trigger_start, end=trigger_end, time_zone=time_zone)
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    return _check_common(
        Process(
            name=name,
            kind="freerun",
            worker=_worker(who, worker),
            trigger=parsed,
            blocking="normal",
            source=source,
            sink=sink,
            arguments=_arguments(who, arguments),
            boxes=_texts(who, "boxes", boxes),
            queue=queue,
            priority=priority,
            retry=retry,
            timeout_s=timeout_s,
            wait_timeout_s=wait_timeout_s,
            lag_s=0,
            max_active=max_active,
            tags=_texts(who, "tags", tags),
            owner=owner,
            readiness=Readiness(readiness) if isinstance(readiness, str) else readiness,
            catchup=catchup,
            overlap=overlap,
            is_on=is_on,
            description=description,
        )
    )


def daemon(
    name: str,
    worker: Any,
    *,
    arguments: Mapping[str, Any] | None = None,
    boxes: Iterable[str] = ("*",),
    tags: Iterable[str] = (),
    owner: str = "",
    is_on: bool = True,
    description: str = "",
) -> Process:
    """A process that is always on and only supervised. Raises ConfigError."""
    who = f"process {_name('process', name)!r}"
    return _check_common(
        Process(
            name=name,
            kind="daemon",
            worker=_worker(who, worker),
            arguments=_arguments(who, arguments),
            boxes=_texts(who, "boxes", boxes),
            tags=_texts(who, "tags", tags),
            owner=owner,
            is_on=is_on,
            description=description,
        )
    )


def tree(
    name: str,
    processes: Iterable[str],
    *,
    depends_on: Iterable[str] = (),
    title: str = "",
    start: str | None = None,
) -> Tree:
    """A stack of processes of nested qualifiers. Raises ConfigError."""
    who = f"tree {_name('tree', name)!r}"
    members = _texts(who, "processes", processes)
    if not members:
        raise ConfigError(f"{who} has no processes")
    return Tree(name, members, _texts(who, "depends_on", depends_on), title or name, start)


def queue(name: str, *, workers: int = 1, slots: int = 2, boxes: Iterable[str] = ("*",)) -> Queue:
    """How many worker processes serve a queue on a box, and how many slots each has. Raises ConfigError."""
    who = f"queue {_name('queue', name)!r}"
    _number(who, "workers", workers, 0, 1000)
    _number(who, "slots", slots, 1, 1000)
    return Queue(name, workers, slots, _texts(who, "boxes", boxes))


def script(
    *command: str,
    noop_code: int | None = None,
    cancel_code: int | None = None,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Script:
    """A command line as a worker: `script("bin/load", "--day", "{timeperiod}")`. Raises ConfigError."""
    words = _texts("script", "command", command)
    if not words:
        raise ConfigError("script(…) needs a command, such as script('bin/load', '{timeperiod}')")
    for label, code in (("noop_code", noop_code), ("cancel_code", cancel_code)):
        if code is not None:
            _number("script", label, code, 1, 255)
    if noop_code is not None and noop_code == cancel_code:
        raise ConfigError(f"script {words[0]!r}: noop_code and cancel_code are both {noop_code}")
    return Script(words, noop_code, cancel_code, folder, tuple(sorted((environment or {}).items())))


def after(process: str, offset: int = 0) -> After:
    """A dependency on another process's period; `offset=-1` is the one before."""
    return After(process, offset)


def _unique(what: str, items: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        if item.name in found:
            raise ConfigError(f"two {what} are named {item.name!r}; names must be unique")
        found[item.name] = item
    return found


def context(
    processes: Iterable[Process],
    trees: Iterable[Tree] = (),
    queues: Iterable[Queue] = (),
    start: str | None = None,
) -> Context:
    """Everything registered, with names checked. Raises ConfigError for duplicates and wrong kinds."""
    for what, items, kind in (
        ("process_context", processes, Process),
        ("timetable_context", trees, Tree),
        ("queue_context", queues, Queue),
    ):
        for item in items:
            if not isinstance(item, kind):
                makers = {Process: "managed(…), freerun(…) or daemon(…)", Tree: "tree(…)", Queue: "queue(…)"}
                raise ConfigError(f"{what} holds {item!r}; use {makers[kind]}")
    named = _unique("queues", queues)
    members = _unique("processes", processes)
    for process in members.values():
        if process.kind != "daemon" and process.queue not in named:
            named[process.queue] = Queue(process.queue)
    return Context(members, _unique("trees", trees), named, start)
