"""What `start`, `stop`, `restart` and `reload` share: speaking to the supervisor of this box, and waiting for it.

People say what they want in the box's rows; a signal only makes the supervisor look at once. Everything waited
for here is a row or a lock, and has a deadline.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from commands.site import Site
from scheduler.core.errors import InvalidRequest, Refused, SchedulerError
from scheduler.core.ports import Change
from scheduler.core.records import BoxProcess
from supervisor.ledger import row_id
from supervisor.os_process import Identity, holder
from supervisor.roster import SUPERVISOR, Registered

POLL_S = 0.05
STATE_WAIT_S = 15.0
UP = ("RUNNING", "STARTING")
T = TypeVar("T")


def wait_for(look: Callable[[], T], timeout_s: float) -> T | None:
    """What `look` returns once it is true, or None after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() >= end:
            return None
        time.sleep(POLL_S)
    return found


def row_of(site: Site, name: str) -> BoxProcess | None:
    """The row of a process of this box. Raises StoreUnavailable."""
    store, _broker, _clock = site.connect()
    return store.get(BoxProcess, row_id(site.settings.box, name))


def running(site: Site, name: str) -> Identity | None:
    """The process, if it runs on this box."""
    return holder(site.pid_file(name))


def left_behind(site: Site) -> list[str]:
    """Names of processes of this box that run now."""
    return sorted(path.stem for path in site.pid_file("x").parent.glob("*.pid") if holder(path) is not None)


def registered(site: Site, name: str) -> Registered:
    """The supervised process `name` of this box. Raises InvalidRequest with what there is, ConfigError."""
    found = site.roster()
    if name in found:
        return found[name]
    process = site.project.context.processes.get(name)
    if process is not None and process.kind != "daemon":
        workers = (
            ", ".join(item.name for item in found.values() if item.queue == process.queue) or "none here"
        )
        raise InvalidRequest(
            f"{name} is run by the workers of its queue ({workers}); start or stop those, or hold {name};"
            f" `start {name} --foreground` runs a further worker of the queue here"
        )
    if process is not None:
        raise InvalidRequest(
            f"daemon {name} is for boxes {list(process.boxes)}, this box is {site.settings.box!r}"
        )
    raise InvalidRequest(f"there is no process {name!r} on this box; there are: {', '.join(found)}")


def supervisor_of(site: Site) -> Identity:
    """The supervisor of this box. Raises Refused if there is none."""
    found = site.supervisor()
    if found is None:
        raise Refused(f"box {site.settings.box} does not run; `launch.py start` starts it")
    return found


def want(site: Site, name: str, desired: str) -> None:
    """Write down what is wanted, and make the supervisor look. Raises StoreUnavailable."""
    store, _broker, _clock = site.connect()
    with store.transaction() as transaction:
        transaction.update([Change(BoxProcess, row_id(site.settings.box, name), {}, {"desired": desired})])
    supervisor = site.supervisor()
    if supervisor is not None:
        os.kill(supervisor.pid, signal.SIGUSR1)


def await_up(site: Site, name: str, other_than: int | None = None) -> BoxProcess:
    """Wait until `name` runs (as another process than pid `other_than`). Raises SchedulerError if it does not."""

    def look() -> BoxProcess | None:
        row = row_of(site, name)
        is_done = row is not None and (
            row.state == "FATAL" or (row.state == "RUNNING" and row.pid != other_than)
        )
        return row if is_done else None

    row = wait_for(look, site.settings.grace_s + STATE_WAIT_S) or row_of(site, name)
    if row is None or row.state != "RUNNING" or row.pid == other_than:
        state = "has no row" if row is None else f"{row.state}: {row.message}"
        raise SchedulerError(f"{name} does not run: {state}; its log is {site.log_file(name)}")
    return row


def is_settled(site: Site, pid: int) -> bool:
    """The supervisor `pid` has written that it runs, and nothing of its box is about to start."""
    row = row_of(site, SUPERVISOR)
    if row is None or row.pid != pid or row.state != "RUNNING":
        return False
    store, _broker, _clock = site.connect()
    rows = [row for row in store.find(BoxProcess) if row.box == site.settings.box and row.desired != "off"]
    names = set(site.roster())
    return all(row.state not in ("STARTING", "STOPPED") for row in rows if row.name in names)
