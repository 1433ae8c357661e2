"""Worlds that many scenarios begin in: hours, and hours with a day on top."""

from __future__ import annotations

from typing import Any

from scheduler.core.process import managed, tree
from tests.world import World

NOW = "2020-05-02T00:10:00"


def hourly(now: str = "2020-05-01T03:10:00", **more: Any) -> World:
    """A process `h` of hours, the first of them 2020050100."""
    return World([managed("h", "m:f", "hourly", **more)], start="2020050100", now=now)


def pyramid(**more: Any) -> World:
    """A day `d` over its hours `h`, all of which run at once; the day has closed."""
    more.setdefault("max_active", 30)
    return World(
        [managed("h", "m:f", "hourly", **more), managed("d", "m:f", "daily", blocking="children")],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now=NOW,
    )
