"""A context for each seed: what users register, drawn, with everything that the design allows.

Small on purpose (a few hundred jobs), and never mild: late starts, windows of a few rows, month ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from scheduler.core.errors import ConfigError
from scheduler.core.process import (
    Context,
    Process,
    Readiness,
    Retry,
    Tree,
    after,
    context,
    freerun,
    managed,
    queue,
    tree,
)
from scheduler.core.timetable import Timetable

MACHINES = ("discrete", "continuous", "recomputing")
BLOCKINGS = ("normal", "children", "dependencies")


@dataclass(frozen=True)
class Stage:
    """What a seed plays: the context, when it begins (real and business), how long, and the window."""

    context: Context
    begin: datetime
    days: float
    look: int


def stage(seed: int, **theme: str) -> Stage:
    """The stage of a seed. `theme`: fields that all managed processes have alike (machine, blocking)."""
    for attempt in range(100):
        rng = Random(f"{seed}/context/{attempt}")
        try:
            found = _themed(_stage(rng), theme)
            Timetable(found.context)
        except ConfigError:  # a cycle that does not lead back in time, or kinds that do not nest: draw again
            continue
        return found
    raise AssertionError(f"no context for seed {seed}")


def _themed(found: Stage, theme: dict[str, str]) -> Stage:
    if not theme:
        return found
    processes = {
        name: replace(process, **theme) if process.kind == "managed" else process  # type: ignore[arg-type]
        for name, process in found.context.processes.items()
    }
    return replace(found, context=replace(found.context, processes=processes))


def _stage(rng: Random) -> Stage:
    first = datetime(2026, rng.choice((1, 1, 2, 2, 3, 12)), rng.choice((1, 14, 26, 27, 28)), tzinfo=UTC)
    days = rng.choice((1.1, 1.5, 2.0))
    late = timedelta(hours=rng.choice((0, 0, 1, 9, 30)))
    begin = first + late + timedelta(minutes=rng.randint(0, 59))
    processes: list[Process] = []
    trees: list[Tree] = []
    names = ["a", "b", "c"][: rng.choice((1, 2, 2, 3))]
    for n, name in enumerate(names):
        members = _members(rng, name, light=n > 0)
        processes += members
        depends = [other for other in names[:n] if rng.random() < 0.5]
        start = None
        if rng.random() < 0.25:
            start = (first + timedelta(hours=rng.choice((6, 24, 36)))).strftime("%Y%m%d%H")
        trees.append(tree(name, [p.name for p in members], depends_on=depends, start=start))
    processes += _loose(rng, processes)
    processes += _freeruns(rng)
    found = context(
        processes,
        trees,
        [queue("default"), queue("slow")],
        first.strftime("%Y%m%d%H"),
    )
    return Stage(found, begin, days + late / timedelta(days=2), rng.choice((2, 3, 5)))


def _members(rng: Random, name: str, *, light: bool) -> list[Process]:
    shape = rng.choice(
        (
            ("hourly", "daily"),
            ("hourly", "daily", "monthly"),
            ("hourly", "weekly"),
            ("hourly", "daily", "weekly"),
            ("hourly", "daily", "yearly"),
        )
    )
    groups = {
        "hourly": rng.choice((1, 1, 2, 3, 5) if not light else (2, 3, 4, 7)),
        "daily": 1 if "weekly" in shape else rng.choice((1, 1, 2)),
    }
    return [_managed(rng, f"{name}_{q}", q, groups.get(q, 1)) for q in shape]


def _managed(rng: Random, name: str, qualifier: str, grouping: int, **more: Any) -> Process:
    machine = rng.choice(MACHINES)
    if qualifier == "hourly":
        trigger = rng.choice(
            ("every 1800", "every 3600", "every 5400", "every 60" if machine == "discrete" else "every 2400")
        )
    else:
        trigger = rng.choice(
            ("every 3600", "every 7200", "every 14400", "at 06:00", "cron 30 4 * * *", "daily")
        )
    return managed(
        name,
        "simulated:worker",
        qualifier,
        time_grouping=grouping,
        trigger=trigger,
        state_machine=machine,
        blocking=rng.choice(BLOCKINGS),
        max_active=rng.randint(1, 5),
        priority=rng.randint(1, 10),
        queue=rng.choice(("default", "default", "slow")),
        lag_s=rng.choice((0, 60, 300, 900)),
        retry=_retry(rng),
        timeout_s=rng.choice((None, None, 1500.0)),
        wait_timeout_s=rng.choice((172800.0, None, 7200.0)),
        catchup=rng.choice(("all", "all", "all", "last", "none")),
        readiness=_readiness(rng),
        **more,
    )


def _retry(rng: Random) -> Retry:
    return Retry(
        max_retries=rng.choice((0, 1, 2, 3)),
        delay_s=rng.choice((5.0, 30.0, 120.0)),
        backoff=2.0,
        max_delay_s=900.0,
        jitter=rng.choice((0.0, 0.1, 0.5)),
        max_lost=rng.choice((0, 2, 5)),
    )


def _readiness(rng: Random) -> Readiness | None:
    if rng.random() < 0.85:
        return None
    return Readiness(
        "simulated:ready",
        every_s=rng.choice((120.0, 300.0)),
        timeout_s=60.0,
        wait_timeout_s=rng.choice((None, 900.0)),
    )


def _loose(rng: Random, others: list[Process]) -> list[Process]:
    """Processes outside trees: on their own past, and across granularities."""
    found = []
    if rng.random() < 0.5:
        found.append(
            _managed(
                rng,
                "self",
                rng.choice(("hourly", "daily")),
                rng.choice((1, 4)),
                depends_on=[after("self", -1)],
            )
        )
    if rng.random() < 0.6:
        edges = [after(p.name, rng.choice((0, 0, -1))) for p in rng.sample(others, min(2, len(others)))]
        found.append(
            _managed(rng, "across", rng.choice(("hourly", "daily")), rng.choice((1, 6)), depends_on=edges)
        )
    return found


def _freeruns(rng: Random) -> list[Process]:
    names = ("free", "late_free")[: rng.choice((0, 1, 2))]
    return [_freerun(rng, name) for name in names]


def _freerun(rng: Random, name: str) -> Process:
    return freerun(
        name,
        "simulated:worker",
        trigger=rng.choice((None, "every 5400", "every 10800", "cron 15 */4 * * *")),
        overlap=rng.choice(("skip", "queue", "allow")),
        catchup=rng.choice(("last", "none", "all")),
        max_active=rng.choice((1, 1, 3)),
        queue=rng.choice(("default", "slow")),
        retry=_retry(rng),
        readiness=_readiness(rng),
    )
