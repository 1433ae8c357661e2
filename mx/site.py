"""What every handler of the dashboard gets: the ports, the timetable, and who may be served.

Made once by `main.run_mx`. Nothing here changes while it runs, except the live hub's counters and what the
tally has counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mx.live import Hub
from mx.security import Tokens
from mx.tally import Tally
from scheduler.core.ports import Broker, Clock, Store
from scheduler.core.timetable import Timetable


@dataclass(frozen=True, slots=True)
class Site:
    """The things a handler may use."""

    store: Store
    broker: Broker
    clock: Clock
    timetable: Timetable
    tokens: Tokens
    hub: Hub
    hosts: frozenset[str]  # names under which this server may be asked
    title: str = "Synergy Scheduler"
    version: str = ""
    wait_s: float = 2.0  # how long an answer waits for a command's outcome
    tally: Tally = field(default_factory=Tally)
