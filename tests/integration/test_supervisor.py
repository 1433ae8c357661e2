"""The supervisor over real processes and a real store: scenarios 41 to 44, and what a death of its own leaves.

The processes do nothing (`box_of_dummies.py`), so that only the supervisor is seen. Nothing sleeps: every wait is
for a condition, until a deadline that only a failure reaches.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from db import open_store
from scheduler.clock import SystemClock
from scheduler.core.command import Command
from scheduler.core.event import Event
from scheduler.core.ports import Change, Store, Where
from scheduler.core.records import BoxProcess, Lease
from supervisor.os_process import Identity, PidFile, holder, identify, is_alive

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("box_of_dummies.py")
DEADLINE_S = 20.0
T = TypeVar("T")


def until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """What `condition` returns once it is true."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)
    return found


class Box:
    """One box in a folder: its supervisor's program, its store, its pid files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = open_store(f"sqlite:///{folder}/store.db", clock=SystemClock(lambda: None))
        self.store.init()
        self.supervisors: list[subprocess.Popen[bytes]] = []

    def start(self, *names: str) -> subprocess.Popen[bytes]:
        """Start a supervisor for these processes, and wait until it is up."""
        self.register(*names)
        program = self.run()
        until(lambda: self.is_up(program.pid), "the supervisor")
        return program

    def is_up(self, pid: int) -> bool:
        row = self.store.get(BoxProcess, "here/supervisor")
        return row is not None and (row.state, row.pid) == ("RUNNING", pid)

    def run(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / "supervisor.out").open("ab") as out:
            program = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.folder), *words],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.supervisors.append(program)
        return program

    def register(self, *names: str) -> None:
        (self.folder / "names").write_text("\n".join(names))

    def pid_file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def row(self, name: str) -> BoxProcess:
        found = self.store.get(BoxProcess, f"here/{name}")
        assert found is not None, f"{name} has no row"
        return found

    def running(self, name: str, *, other_than: int | None = None) -> Identity:
        """The process, once its row says RUNNING."""

        def look() -> Identity | None:
            found, row = holder(self.pid_file(name)), self.store.get(BoxProcess, f"here/{name}")
            is_up = row is not None and row.state == "RUNNING" and found is not None and row.pid == found.pid
            return found if is_up and found is not None and found.pid != other_than else None

        found = until(look, f"{name} running")
        assert found is not None
        return found

    def state(self, name: str, state: str) -> BoxProcess:
        until(lambda: self.row(name).state == state, f"{name} {state}")
        return self.row(name)

    def want(self, name: str, desired: str) -> None:
        with self.store.transaction() as transaction:
            assert transaction.update([Change(BoxProcess, f"here/{name}", {}, {"desired": desired})]) == 1
        self.tell(signal.SIGUSR1)

    def tell(self, number: int) -> None:
        self.supervisors[-1].send_signal(number)

    def stop(self) -> int:
        self.tell(signal.SIGTERM)
        return self.supervisors[-1].wait(DEADLINE_S)

    def starts(self, name: str) -> int:
        file = self.folder / "starts" / name
        return len(file.read_text().split()) if file.exists() else 0

    def events(self) -> list[Event]:
        return self.store.find(Event, [Where("source", "=", "box:here")], ["seq"])

    def clean(self) -> None:
        for program in self.supervisors:
            program.kill()
            program.wait()
        for file in (self.folder / "run").glob("*.pid"):
            found = holder(file)
            if found is not None:
                os.kill(found.pid, signal.SIGKILL)
        self.store.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.clean()


def test_scenario_40_one_supervisor_a_box_and_nothing_is_left_behind(box: Box) -> None:
    box.start("scheduler", "worker.a.1", "feed")
    people = [box.running(name) for name in ("scheduler", "worker.a.1", "feed")]
    second = box.run()
    assert second.wait(DEADLINE_S) != 0
    assert b"already runs on this box" in (box.folder / "supervisor.out").read_bytes()
    box.supervisors.remove(second)
    assert box.stop() == 0
    assert not any(is_alive(one) for one in people)
    assert (box.folder / "stops").read_text().split() == ["feed", "worker.a.1", "scheduler"]
    assert {box.row(name).state for name in ("scheduler", "worker.a.1", "feed", "supervisor")} == {"STOPPED"}


def test_scenario_41_kill_comes_after_the_grace(box: Box) -> None:
    box.start("stubborn")
    process = box.running("stubborn")
    box.want("stubborn", "off")
    box.state("stubborn", "STOPPING")
    row = box.state("stubborn", "STOPPED")
    assert row.exit_code == -signal.SIGKILL
    assert not is_alive(process)
    assert any(event.kind == "os_process.kill" for event in box.events())


def test_scenario_42_a_recycled_pid_is_a_stranger(box: Box) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        file = box.pid_file("feed")
        file.parent.mkdir(parents=True)
        file.write_text(f'{{"pid": {stranger.pid}, "started": 1.0, "instance": "x"}}')
        row = BoxProcess(
            id="here/feed",
            box="here",
            name="feed",
            kind="daemon",
            state="RUNNING",
            pid=stranger.pid,
            pid_started=1.0,
        )
        with box.store.transaction() as transaction:
            transaction.insert([row])
        box.start("feed")
        assert box.running("feed").pid != stranger.pid
        assert box.stop() == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_scenario_43_a_killed_process_is_back(box: Box) -> None:
    box.start("feed", "worker.a.1")
    first = box.running("feed")
    os.kill(first.pid, signal.SIGKILL)
    second = box.running("feed", other_than=first.pid)
    assert box.row("feed").restarts == 1
    assert second.instance != first.instance


def test_scenario_43_a_crash_loop_is_shown_until_somebody_asks(box: Box) -> None:
    box.start("crash")
    row = box.state("crash", "FATAL")
    assert "crash loop" in row.message and box.starts("crash") == 3
    box.want("crash", "restart")
    until(lambda: box.starts("crash") > 3, "another start")
    assert box.row("crash").desired == "on"
    box.want("crash", "off")
    box.state("crash", "STOPPED")


def test_scenario_43_stopped_stays_stopped_across_supervisors(box: Box) -> None:
    box.start("feed", "other")
    box.running("feed")
    box.want("feed", "off")
    box.state("feed", "STOPPED")
    assert box.stop() == 0
    box.start("feed", "other")
    box.running("other")
    assert box.row("feed").state == "STOPPED" and box.starts("feed") == 1
    box.want("feed", "on")
    box.running("feed")


def test_scenario_44_a_new_process_is_picked_up_without_restarting_others(box: Box) -> None:
    box.start("feed", "old")
    feed, old = box.running("feed"), box.running("old")
    box.register("feed", "fresh")
    box.tell(signal.SIGHUP)
    box.running("fresh")
    assert is_alive(feed) and box.starts("feed") == 1
    until(lambda: not is_alive(old), "the process that is not registered any more to go")
    until(lambda: box.store.get(BoxProcess, "here/old") is None, "its row to go")


def test_a_restart_that_was_asked_for(box: Box) -> None:
    box.start("feed")
    first = box.running("feed")
    box.want("feed", "restart")
    box.running("feed", other_than=first.pid)
    assert box.row("feed").desired == "on"


def test_children_of_a_dead_supervisor_are_adopted(box: Box) -> None:
    box.start("feed", "worker.a.1", "stubborn")
    feed, worker = box.running("feed"), box.running("worker.a.1")
    box.supervisors[-1].kill()
    box.supervisors[-1].wait()
    assert is_alive(feed) and is_alive(worker)
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: identify(worker.pid) is None, "the worker's end")
    box.start("feed", "worker.a.1", "stubborn")
    assert box.running("feed") == feed, "adopted, not started again"
    assert box.starts("feed") == 1
    box.running("worker.a.1", other_than=worker.pid)
    assert_died(box, worker.instance)
    assert box.stop() == 0
    assert not is_alive(feed)


def test_what_a_dead_supervisor_left_can_be_drained(box: Box) -> None:
    box.start("feed", "stubborn")
    left = [box.running("feed"), box.running("stubborn")]
    box.supervisors[-1].kill()
    box.supervisors[-1].wait()
    assert box.run("drain").wait(DEADLINE_S) == 0
    assert not any(is_alive(one) for one in left)


def assert_died(box: Box, instance: str) -> Command:
    """The leader was told that this worker's leases are free."""
    owner = f"here/worker.a.1/{instance}"
    command = until(lambda: box.store.get(Command, f"worker_died:{owner}"), "the obituary")
    assert command is not None
    assert (command.verb, command.actor) == ("worker_died", "box:here")
    assert command.target == {"owner": owner, "box": "here"}
    return command


def test_scenario_27_the_death_of_a_worker_is_told_to_the_leader(box: Box) -> None:
    box.start("worker.a.1")
    worker = box.running("worker.a.1")
    os.kill(worker.pid, signal.SIGKILL)
    command = assert_died(box, worker.instance)
    assert command.state == "pending" and "killed by signal 9" in command.reason
    box.running("worker.a.1", other_than=worker.pid)


def test_a_scheduler_that_leads_and_is_silent_is_killed(box: Box) -> None:
    box.start("scheduler")
    first = box.running("scheduler")
    now = datetime.now(UTC).replace(microsecond=0)
    lease = Lease(name="leader", holder="here/scheduler", token=1, expires_at=now, taken_at=now)
    with box.store.transaction() as transaction:
        transaction.insert([lease])
    box.running("scheduler", other_than=first.pid)
    assert any("silent" in event.message for event in box.events())
    # one who renews is left alone; so is a leader of another box
    other = replace(lease, holder="there/scheduler", expires_at=now + timedelta(seconds=1))
    sets = {"holder": other.holder, "expires_at": other.expires_at}
    with box.store.transaction() as transaction:
        transaction.update([Change(Lease, "leader", {}, sets)])


def test_events_are_numbered_without_gaps_across_supervisors(box: Box) -> None:
    for _ in range(2):
        box.start("feed")
        box.running("feed")
        assert box.stop() == 0
    events = box.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind for event in events]
    assert kinds == ["supervisor.start", "os_process.start", "os_process.stop", "supervisor.stop"] * 2


def test_a_process_that_runs_already_is_adopted_not_doubled(box: Box) -> None:
    box.start("feed")
    first = box.running("feed")
    with pytest.raises(Exception, match="already runs"):
        PidFile(box.pid_file("feed")).take()
    assert box.running("feed") == first


def test_a_box_name_is_not_used_twice(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two state folders, one store, one box name: the second one is refused while the first one lives."""
    first = box.start("feed")
    box.running("feed")
    other = tmp_path_factory.mktemp("other")
    (other / "names").write_text("feed")
    (other / "store.db").symlink_to(box.folder / "store.db")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = subprocess.run(
        [sys.executable, str(PROGRAM), str(other)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0 and f"has a supervisor already: pid {first.pid}" in refused.stderr
    assert first.poll() is None
