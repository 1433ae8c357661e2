"""The event log: code emits events, this file speaks.

The only place with sentences about events in the log. Everything else reads the events themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from scheduler.core.event import Event

log = logging.getLogger("synergy.events")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "success": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class EventLog:
    """Writes events as log lines, one each, with their fields for a structured formatter."""

    def write(self, events: Iterable[Event]) -> None:
        """One line an event, at the level of its severity."""
        for event in events:
            level = LEVELS.get(event.severity, logging.INFO)
            if log.isEnabledFor(level):
                log.log(level, "%s", line(event), extra={"event": event.kind, "seq": event.seq})


def line(event: Event) -> str:
    """An event as one line for people."""
    about = event.uow or (f"{event.process}@{event.timeperiod}" if event.timeperiod else event.process) or ""
    actor = f" by {event.actor}" if event.actor != "scheduler" else ""
    message = f": {event.message}" if event.message else ""
    return f"{event.kind} {about}{actor}{message}"
