"""Reconcile what is registered with what the store remembers: at take-over, and at `reload`.

What a process name stands for is fixed: qualifier, grouping and tree may not change under it.
A process that left the context is retired (`expired`): nobody's child or dependency, rows readable.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from scheduler.core.errors import ConfigError
from scheduler.core.process import Process
from scheduler.core.records import Fact, ProcessRow
from scheduler.core.slice import Item, Slice
from scheduler.core.timetable import Timetable
from scheduler.core.trigger import Trigger

TRIGGERS = "triggers"  # the fact


def check_unchanged(timetable: Timetable, rows: dict[str, ProcessRow]) -> None:
    """Refuse a definition that changed what its name stands for. Raises ConfigError."""
    for name, row in rows.items():
        process = timetable.processes.get(name)
        if process is None or row.state == "deleted":
            continue
        tree = timetable.tree_of(name)
        for what, old, new in (
            ("kind", row.kind, process.kind),
            ("time_qualifier", row.qualifier, str(process.qualifier)),
            ("time_grouping", row.grouping, process.grouping),
            ("tree", row.tree, tree.name if tree is not None else None),
        ):
            if old != new and not (what == "tree" and (old is None or new is None)):
                raise ConfigError(
                    f"process {name!r}: its {what} was {old!r} and is now {new!r};"
                    " a name keeps what it stands for: register it under a new name"
                )


def reconcile(s: Slice) -> list[Item]:
    """Make, update and retire process rows; returns what to look at. Raises ConfigError."""
    check_unchanged(s.timetable, s.known.rows)
    items: list[Item] = []
    _triggers(s)
    for name, process in s.timetable.processes.items():
        row = s.known.rows.get(name)
        start = s.timetable.start_of(name) if process.kind == "managed" else None
        if row is None:
            items += register(s, process, None)
        elif row.state != "deleted":  # a person deleted it: submitting its name brings it back
            items += _update(s, process, row, start)
    for name, row in list(s.known.rows.items()):
        base = (row.definition or {}).get("base", name)
        if base not in s.timetable.processes and row.state not in ("expired", "deleted"):
            s.change_row(row, state="expired", version=row.version + 1)
            s.emit(
                "process.expire",
                "it left the context",
                process=name,
                severity="warning",
                data={"state": "expired", "by": "context"},
            )
    return items


def _triggers(s: Slice) -> None:
    """A freerun process whose trigger is another one by now has missed nothing before that was known.

    What the last context said is a fact of the store, so a change while no scheduler ran is seen too.
    """
    said = {
        name: "" if process.trigger is None else _identity(process.trigger)
        for name, process in s.timetable.processes.items()
        if process.kind == "freerun"
    }
    for name, text in said.items():
        row, before = s.known.rows.get(name), s.known.triggers.get(name)
        if row is None or before is None or before == text or "trigger" in row.overrides:
            continue
        trigger = s.timetable.processes[name].trigger
        words = "it has no trigger any more" if trigger is None else f"its trigger is {trigger.text!r} now"
        s.change_row(row, last_fire=s.now, version=row.version + 1)
        s.emit("process.trigger", words, process=name, data={"trigger": trigger and trigger.text})
    if said != s.known.triggers:
        s.known.triggers = said
        s.facts.append(Fact(key=TRIGGERS, value=said))


def _identity(trigger: Trigger) -> str:
    limits = [at.isoformat() if at is not None else "" for at in (trigger.start, trigger.end)]
    return " | ".join((trigger.text, trigger.time_zone, *limits))


def register(s: Slice, process: Process, old: ProcessRow | None, *, actor: str = "scheduler") -> list[Item]:
    """A row for a process of the context: a new one, or that of a deleted process again."""
    start = s.timetable.start_of(process.name) if process.kind == "managed" else None
    tree = s.timetable.tree_of(process.name)
    state = "scheduled" if process.is_on else "suspended"
    fields: dict[str, Any] = {
        "kind": process.kind,
        "state": state,
        "qualifier": str(process.qualifier),
        "grouping": process.grouping,
        "tree": tree.name if tree is not None else None,
        "start": start,
        "frontier": start,
        "last_fire": s.now if process.kind == "freerun" else None,
    }
    if old is None:
        s.add_row(ProcessRow(name=process.name, **fields))
    else:
        fields["definition"] = None  # it may have been an entry
        s.change_row(old, version=old.version + 1, overrides={}, **fields)
    s.emit("process.schedule", "registered", actor=actor, process=process.name, data={"state": state})
    return (
        [Item("advance" if process.kind == "managed" else "fire", process.name)]
        if process.kind != "daemon"
        else []
    )


def _update(s: Slice, process: Process, row: ProcessRow, start: datetime | None) -> list[Item]:
    tree = s.timetable.tree_of(process.name)
    sets: dict[str, Any] = {}
    state = "scheduled" if process.is_on else "suspended"
    back = row.state == "expired" and _by_context(row)
    turned = row.state in ("scheduled", "suspended") and "is_on" not in row.overrides
    if (back or turned) and row.state != state:
        sets["state"] = state
        why = "it is in the context again" if back else "the context says so"
        s.emit("process.schedule", why, process=process.name, data={"state": state})
        if process.kind == "freerun":
            sets["last_fire"] = s.now
    if row.tree != (tree.name if tree is not None else None):
        sets["tree"] = tree.name if tree is not None else None
    items: list[Item] = []
    if start is not None and row.start != start:
        sets["start"] = start
        if row.start is not None and start < row.start:  # lowered: pass the periods again
            floor = start if row.horizon is None else max(start, row.horizon)
            sets["frontier"] = min(floor, row.frontier or floor)
        elif row.frontier is None or start > row.frontier:
            sets["frontier"] = start
        items.append(Item("advance", process.name))
        s.emit(
            "process.start",
            f"the timetable begins at {start.isoformat()}",
            process=process.name,
            data={"start": start.isoformat()},
        )
    if sets:
        s.change_row(row, version=row.version + 1, **sets)
    return items


def _by_context(row: ProcessRow) -> bool:
    """Retired by leaving the context, not expired by a person."""
    return bool((row.overrides.get("expired") or {}).get("by") != "person")
