"""What the leading scheduler keeps between turns: process rows, holds, the last event number.

It is the only writer of those, and reads them anew at take-over and after every failed commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from scheduler.core.process import Process
from scheduler.core.records import Hold, ProcessRow
from scheduler.core.timetable import Timetable
from scheduler.core.trigger import parse_trigger


@dataclass(slots=True)
class Known:
    """What the leader keeps between turns."""

    timetable: Timetable
    rows: dict[str, ProcessRow] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    seq: int = 0  # number of the last event
    crowded: set[str] = field(default_factory=set)  # a ready job of these found no place
    ask_again: dict[str, datetime] = field(
        default_factory=dict
    )  # job -> when its readiness is asked next (real)
    definitions: dict[str, tuple[Any, Process]] = field(default_factory=dict)
    instants: dict[str, tuple[ProcessRow, Process, datetime, datetime | None]] = field(
        default_factory=dict
    )  # process -> its row and definition, an instant, and the next one at which it is due (`core.due`)
    triggers: dict[str, str] = field(default_factory=dict)  # of freerun processes, as the last context said

    def process(self, name: str) -> Process | None:
        """The definition in force: the context's (or the entry's base), under the operator's overrides."""
        row = self.rows.get(name)
        cached = self.definitions.get(name)
        if cached is not None and cached[0] is row:
            return cached[1]
        base = self.timetable.processes.get(name)
        if row is None:
            return base
        if base is None and row.definition is not None:
            base = self._entry(row)
        if base is None:
            return None
        process = _overridden(base, row)
        self.definitions[name] = (row, process)
        return process

    def _entry(self, row: ProcessRow) -> Process | None:
        definition = row.definition or {}
        base = self.timetable.processes.get(str(definition.get("base")))
        if base is None:
            return None
        zone = base.trigger.time_zone if base.trigger is not None else "UTC"
        text = definition.get("trigger")
        trigger = parse_trigger(text, time_zone=zone) if text else None
        arguments = {**base.arguments, **(definition.get("arguments") or {})}
        return replace(base, name=row.name, arguments=arguments, trigger=trigger)


def _overridden(process: Process, row: ProcessRow) -> Process:
    changes: dict[str, Any] = {}
    for key, override in row.overrides.items():
        if key == "trigger":
            old = process.trigger
            start = old.start if old else None
            end = old.end if old else None
            zone = old.time_zone if old else "UTC"
            changes["trigger"] = parse_trigger(override["value"], start=start, end=end, time_zone=zone)
        elif key in ("priority", "max_active"):
            changes[key] = override["value"]
        elif key == "tags":
            changes[key] = tuple(override["value"])
    return replace(process, **changes) if changes else process
