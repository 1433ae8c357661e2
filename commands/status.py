"""`status`: what runs, on this box and the others. 0 if everything that is wanted of this box runs, else 3.

The rows of the store say what the supervisors saw last; what they say of this box is compared with its processes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from commands.site import Site
from commands.table import show, span
from scheduler.core.ports import Store
from scheduler.core.records import LEADER, BoxProcess, Fact, Lease
from settings import add_options, overrides_of
from supervisor.os_process import START_TOLERANCE_S, holder
from supervisor.roster import SUPERVISOR

NOT_ALL = 3
UP = ("RUNNING", "STARTING")
LIVING = (*UP, "STOPPING")
SILENT = "SILENT"
SILENT_S = 20.0
STYLES = {"RUNNING": "green", "STARTING": "cyan", "STOPPING": "cyan", "STOPPED": "dim", "BACKOFF": "yellow"}


@dataclass(frozen=True, slots=True)
class Report:
    """What `status` knows."""

    box: str
    now: datetime
    rows: list[BoxProcess]
    leader: Lease | None
    dashboard: str | None

    @property
    def is_all_up(self) -> bool:
        """Everything that is wanted of this box runs, its supervisor included."""
        wanted = [row for row in self.rows if row.box == self.box and row.desired != "off"]
        has_supervisor = any(row.kind == SUPERVISOR for row in wanted)
        return has_supervisor and all(row.state in UP for row in wanted)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--json`, and the settings."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON. Raises SchedulerError."""
    site = Site(overrides_of(args))
    if not site.has_store():
        if args.json:
            print(json.dumps({"box": site.settings.box, "leader": None, "dashboard": None, "processes": []}))
        else:
            print(f"box {site.settings.box} was never started; `launch.py start` does")
        return NOT_ALL
    try:
        found = look(site)
    finally:
        site.close()
    print(json.dumps(as_json(found), indent=2)) if args.json else print_report(found)
    return 0 if found.is_all_up else NOT_ALL


def look(site: Site) -> Report:
    """Read the rows, and look whether what they say of this box is true. Raises StoreUnavailable."""
    store, _broker, clock = site.connect()
    now = store.now()
    found = store.find(BoxProcess, order=["box"])
    silent = _silent_boxes(found, site.settings.box, now)
    rows = [_true(site, row, silent.get(row.box)) for row in found]
    order = {kind: n for n, kind in enumerate((SUPERVISOR, "scheduler", "mx", "worker", "daemon"))}
    rows.sort(key=lambda row: (row.box, order.get(row.kind, 9), row.name))
    leader = store.get(Lease, LEADER)
    if leader is not None and leader.expires_at <= now:
        leader = None
    return Report(site.settings.box, clock.real(), rows, leader, _dashboard(store, site.settings.box, rows))


def _dashboard(store: Store, box: str, rows: list[BoxProcess]) -> str | None:
    """Where it is, if it runs and has said so since it was started."""
    row = next((row for row in rows if row.box == box and row.kind == "mx" and row.state in UP), None)
    fact = store.get(Fact, f"mx:{box}")
    if row is None or fact is None:
        return None
    started = datetime.fromtimestamp(row.pid_started or 0.0, UTC) - timedelta(seconds=START_TOLERANCE_S)
    return str(fact.value["url"]) if datetime.fromisoformat(fact.value["since"]) >= started else None


def _silent_boxes(rows: list[BoxProcess], here: str, now: datetime) -> dict[str, float]:
    """Other boxes whose supervisor ran and was not seen for a while, and for how long (s): vanished, or cut off."""
    found = {}
    for row in rows:
        if row.kind == SUPERVISOR and row.box != here and row.state in LIVING and row.seen_at is not None:
            silent = (now - row.seen_at).total_seconds()
            if silent > SILENT_S:
                found[row.box] = silent
    return found


def _true(site: Site, row: BoxProcess, silent_s: float | None) -> BoxProcess:
    """The row as it is: a process that is gone since its supervisor looked last is EXITED; of a box that vanished
    nobody knows, so it is SILENT."""
    if row.box != site.settings.box:
        if silent_s is not None and row.state in LIVING:
            return replace(row, state=SILENT, message=f"its box was not seen for {span(silent_s)}")
        return row
    if row.kind != SUPERVISOR and site.supervisor() is not None:
        return row  # it knows best
    found = holder(site.pid_file(row.name))
    if found is None:
        return replace(row, state="EXITED", pid=None, message="not running") if row.state in LIVING else row
    if row.state not in LIVING or row.pid != found.pid:
        return replace(row, state="RUNNING", pid=found.pid, message="runs without a supervisor")
    return row


def as_json(found: Report) -> dict[str, Any]:
    """For programs."""
    return {
        "box": found.box,
        "all_up": found.is_all_up,
        "leader": None if found.leader is None else found.leader.holder,
        "dashboard": found.dashboard,
        "processes": [
            {
                "box": row.box,
                "name": row.name,
                "kind": row.kind,
                "desired": row.desired,
                "state": row.state,
                "pid": row.pid,
                "uptime_s": _uptime(row, found.now),
                "restarts": row.restarts,
                "exit_code": row.exit_code,
                "message": row.message,
            }
            for row in found.rows
        ],
    }


def print_report(found: Report) -> None:
    """For people."""
    lines = []
    for row in found.rows:
        uptime = _uptime(row, found.now)
        message = row.message if row.state != "RUNNING" or "without" in row.message else ""
        off = "" if row.desired != "off" else "off"
        lines.append(
            (
                row.box,
                row.name,
                row.state,
                off,
                row.pid,
                "" if uptime is None else span(uptime),
                row.restarts,
                message,
            )
        )
    headers = ("box", "process", "state", "wanted", "pid", "for", "restarts", "message")
    show(headers, lines, [STYLES.get(row.state, "red") for row in found.rows])
    print(f"leading scheduler: {'none' if found.leader is None else found.leader.holder}")
    if found.dashboard is not None:
        print(f"dashboard: {found.dashboard}")


def _uptime(row: BoxProcess, now: datetime) -> float | None:
    if row.state not in LIVING or row.since is None:
        return None
    return round(max(0.0, (now - row.since).total_seconds()), 1)
