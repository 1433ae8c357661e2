"""Real fail-overs, on every store: the leading scheduler is killed with -9, another one goes on (scenario 34).

Two scheduler processes and a worker over a backlog of hours. Each time some jobs were done the leader is killed and
started again as the standby. In the end the history is judged: numbered without a gap, nothing twice, nothing missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from commands.site import Site
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import Lease
from scheduler.core.uow import Uow
from scripts.servers import shared
from simulation.aftermath import judge

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
LEASE_S = 1.0
HOURS = 300
FAILOVERS = {"sqlite": 5}  # on the others fewer: a server answers slowly
T = TypeVar("T")

CONTEXT = """
from synergy import managed, tree
synergy_start_timeperiod = "{start}"
process_context = [
    managed("meter_hourly", "meter_work:run", "hourly", max_active=4),
    managed("meter_daily", "meter_work:run", "daily", blocking="children"),
]
timetable_context = [tree("meter", ["meter_hourly", "meter_daily"])]
"""
WORK = """
import time
def run(task):
    time.sleep(0.05)
"""


def until(condition: Callable[[], T | None], what: str) -> T:
    """What `condition` returns once it is true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)
    return found


class Cast:
    """The processes on one store."""

    def __init__(self, folder: Path, urls: dict[str, str], failovers: int) -> None:
        self.folder, self.urls, self.failovers = folder, urls, failovers
        start = datetime.now(UTC) - timedelta(hours=HOURS)
        (folder / "process_context.py").write_text(CONTEXT.format(start=f"{start:%Y%m%d%H}"))
        (folder / "meter_work.py").write_text(WORK)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, box: str, name: str) -> None:
        """One process of a box of its own."""
        settings = {**self.urls, "leader_lease_s": str(LEASE_S), "sweep_s": "1"}
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        words += ["--context", str(self.folder), "--box", box, "--state-folder", str(self.folder / box)]
        with (self.folder / f"{box}.out").open("ab") as out:
            self.running[box] = subprocess.Popen(
                [sys.executable, str(ROOT / "process_starter.py"), name, *words],
                env={k: v for k, v in os.environ.items() if not k.startswith("SYNERGY_")},
                stdout=out,
                stderr=out,
            )

    def kill(self, box: str) -> None:
        """-9."""
        self.running[box].kill()
        self.running.pop(box).wait()

    def close(self) -> None:
        """Nothing is left."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(30)

    def site(self) -> Site:
        """What the processes see."""
        return Site({"context": str(self.folder), "state_folder": str(self.folder / "a"), **self.urls})


STORES = [
    "sqlite",
    *(pytest.param(name, marks=pytest.mark.servers) for name in ("mongod", "postgres", "mariadb")),
]


@pytest.fixture(params=STORES)
def cast(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cast]:
    """Two schedulers and a worker on an empty store."""
    with ExitStack() as stack:
        urls = {
            "store_url": f"sqlite:///{tmp_path}/store.sqlite",
            "broker_url": f"embedded://{tmp_path}/queue.sqlite",
        }
        if request.param != "sqlite":
            server = shared(request.param)
            urls["store_url"] = server.fresh()
            stack.callback(server.delete, urls["store_url"])
        number = request.config.getoption("--failovers") or FAILOVERS.get(request.param, 2)
        made = Cast(tmp_path, urls, number)
        stack.callback(made.close)
        for box, name in (("a", "scheduler"), ("b", "scheduler"), ("w", "worker.default.1")):
            made.start(box, name)
        yield made


@pytest.mark.timeout(240)
def test_34_killed_leaders_follow_each_other_and_nothing_is_missed_or_doubled(cast: Cast) -> None:
    site = cast.site()
    try:
        store, _broker, clock = site.connect()
        leaders = [until(lambda: _leader(store), "a leader")]
        for _ in range(cast.failovers):
            until(partial(_has_done, store, _done(store) + 10), "some jobs under this leader")
            box = leaders[-1].holder.partition("/")[0]
            cast.kill(box)
            leaders.append(until(partial(_leader, store, leaders[-1].token), "another leader"))
            cast.start(box, "scheduler")
        assert [lease.token for lease in leaders] == [leaders[0].token + n for n in range(cast.failovers + 1)]
        assert {lease.holder for lease in leaders} == {"a/scheduler", "b/scheduler"}
        until(lambda: _is_at_rest(store), "all that is due")
        uows = store.find(Uow, [Where("process", "=", "meter_hourly")])
        assert {uow.run for uow in uows} == {1} and {uow.attempt for uow in uows} == {1}
        assert all(uow.history.count('"verb":"accept"') == 1 for uow in uows if uow.state == "processed")
        cast.close()
        judge(store, site.project.context, clock)
    finally:
        site.close()


def _leader(store: Store, after: int = 0) -> Lease | None:
    lease = store.get(Lease, "leader")
    return lease if lease is not None and lease.token > after else None


def _done(store: Store) -> int:
    return store.count(Job, [Where("open", "=", False)]).get((), 0)


def _has_done(store: Store, number: int) -> bool:
    return _done(store) > number


def _is_at_rest(store: Store) -> bool:
    closed = (
        Where("process", "=", "meter_hourly"),
        Where("end", "<", datetime.now(UTC) - timedelta(minutes=6)),
    )
    unfinished = Where("state", "in", ("requested", "in_progress", "invalid"))
    return not (
        store.count(Job, [*closed, Where("open", "=", True)]).get((), 0)
        or store.count(Uow, [unfinished]).get((), 0)
        or store.count(Uow, [Where("dirty", "=", True)]).get((), 0)
    )
