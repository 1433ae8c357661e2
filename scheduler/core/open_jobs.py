"""The unfinished jobs of a process, walked from the oldest on: to give free places, or to miss nothing.

One look at so many rows is one turn's work; the rest is an item for the next turn.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from scheduler.core.act import act, evaluate
from scheduler.core.facts import LOOK, Absent
from scheduler.core.slice import Item, Slice
from scheduler.core.strategy import assess, is_ahead


def fill(s: Slice, name: str, after: datetime | None) -> list[Item]:
    """Give free places to the oldest ready jobs: one look at the next open jobs, the rest next turn."""
    process = s.process(name)
    if process is None:
        s.known.crowded.discard(name)
        return []
    free = max(0, process.max_active - s.active_of(name))
    size = LOOK if after is not None else min(LOOK, free + 8)
    ids, complete = s.window(name, after, size)
    items: list[Item] = []
    last = after
    lacks: list[tuple[Any, ...]] = []
    for id_ in ids:
        job = s.job(id_)
        if job is None:
            continue
        last = job.start
        if is_ahead(process, job, s.now):
            complete = True
            break
        try:
            found = assess(s, job)
        except Absent as lack:  # as in `scan`
            lacks += lack.wants
            continue
        if lacks:
            continue
        if found.act is not None:
            items += act(s, job, found)
        elif any(blocker.code == "place" for blocker in found.blockers):
            s.known.crowded.add(name)
            return items
    if lacks:
        raise Absent(*lacks)
    if complete or last is None:
        s.known.crowded.discard(name)
    else:
        items.append(Item("fill", name, last))
    return items


def scan(s: Slice, name: str, after: datetime | None) -> list[Item]:
    """Evaluate the unfinished jobs of a process, one look a turn, to the end of the list: the safety net."""
    process = s.process(name)
    if process is None:
        return []
    ids, complete = s.window(name, after, LOOK)
    items: list[Item] = []
    last = after
    lacks: list[tuple[Any, ...]] = []
    for id_ in ids:
        job = s.job(id_)
        if job is None:
            continue
        last = job.start
        if is_ahead(process, job, s.now):
            complete = True
            break
        try:
            items += evaluate(s, id_)
        except Absent as lack:  # name what all of them lack at once: each lack undoes the whole scan
            lacks += lack.wants
    if lacks:
        raise Absent(*lacks)
    if complete or last is None:
        return items
    return [*items, Item("scan", name, last)]
