"""When a job is late: past its process's deadline, or unfinished for unusually long after its close. Pure.

Business time decides. Without a deadline a job is late when it has been closed and unfinished for
longer than the process's usual 95th percentile and one minute.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from scheduler.core.process import Process
from scheduler.core.records import ProcessRow

MINUTE = timedelta(minutes=1)
_SPANS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"\+(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_CLOCK = re.compile(r"(\d\d):(\d\d)")


def deadline_at(process: Process, end: datetime) -> datetime | None:
    """When a period that ends at `end` must be processed by; None without a (readable) deadline.

    "+2h" is so long after the end; "06:00" is the first such time at or after the end.
    """
    text = process.deadline or ""
    if span := _SPAN.fullmatch(text):
        return end + timedelta(seconds=float(span[1]) * _SPANS[span[2]])
    if clock := _CLOCK.fullmatch(text):
        at = end.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return at if at >= end else at + timedelta(days=1)
    return None


def late_at(process: Process, row: ProcessRow | None, end: datetime) -> datetime:
    """From when on an unfinished job that ends at `end` is late."""
    deadline = deadline_at(process, end)
    if deadline is not None:
        return deadline
    usual_ms = (row.usual_p95_ms or 0) if row else 0
    return end + timedelta(seconds=process.lag_s, milliseconds=usual_ms) + MINUTE


def lateness(process: Process, row: ProcessRow | None, end: datetime, business: datetime) -> timedelta | None:
    """How late an unfinished job is, or None if it is not."""
    over = business - late_at(process, row, end)
    return over if over > timedelta(0) and process.kind == "managed" else None
