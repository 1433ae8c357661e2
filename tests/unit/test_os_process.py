"""OS processes: known by more than their pid, killed with all they started, and locked while they live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.core.errors import Refused, SchedulerError
from supervisor.os_process import (
    Identity,
    PidFile,
    Running,
    holder,
    identify,
    is_alive,
    rotate,
    spawn,
    wait_readable,
)

ENVIRONMENT = dict(os.environ)
ROOT = Path(__file__).parents[2]
# says "up" and lives on; with "fork" it has a child; with "lock FILE" it holds a pid file
SCRIPT = """
import os, signal, subprocess, sys
if "lock" in sys.argv:
    from pathlib import Path
    from supervisor.os_process import PidFile
    lock = PidFile(Path(sys.argv[sys.argv.index("lock") + 1])); lock.take("abc")
if "fork" in sys.argv:
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child, flush=True)
if "exit" in sys.argv:
    os._exit(7)
print("up", flush=True)
signal.pause()
"""

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(*words: str) -> Running:
        argv = [sys.executable, "-c", SCRIPT, *words]
        environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        running = spawn(argv, folder=tmp_path, environment=environment, stray=tmp_path / "logs" / "p.out")
        started.append(running)
        return running

    yield begin
    for running in started:
        running.kill()
        ended(running)
        running.close()


def ended(running: Running) -> bool:
    """Wait for its end: its pidfd becomes readable."""
    descriptor = running.fileno()
    if descriptor is not None and not running.has_ended():
        wait_readable([descriptor], 10)
    return running.has_ended()


def printed(tmp_path: Path, running: Running, lines: int = 1) -> list[str]:
    """What it printed, once it is so many lines."""
    while True:
        text = (tmp_path / "logs" / "p.out").read_text()
        if text.count("\n") >= lines:
            return text.splitlines()
        wait_readable([running.fileno() or 0], 0.01)


def test_identity_is_pid_and_start_time(start: Start) -> None:
    running = start()
    assert is_alive(running.identity)
    assert not is_alive(Identity(running.identity.pid, running.identity.started - 1000)), "a stranger"
    running.kill()
    assert ended(running) and running.exit_code == -9
    assert not is_alive(running.identity)


def test_exit_code(start: Start) -> None:
    running = start("exit")
    assert ended(running) and running.exit_code == 7


def test_a_dead_process_takes_its_group_along(start: Start, tmp_path: Path) -> None:
    running = start("fork")
    child = identify(int(printed(tmp_path, running, 2)[0]))
    assert child is not None
    os.kill(running.identity.pid, 9)  # the parent alone
    assert ended(running)
    descriptor = os.pidfd_open(child.pid) if is_alive(child) else None
    if descriptor is not None:
        wait_readable([descriptor], 10)
        os.close(descriptor)
    assert not is_alive(child), "after a worker is dead, nothing that it started writes"


def test_an_adopted_process_is_watched_and_stopped(start: Start, tmp_path: Path) -> None:
    child = start()
    printed(tmp_path, child)
    adopted = Running(child.identity)
    assert adopted.is_adopted and not adopted.has_ended()
    adopted.terminate()
    assert ended(adopted) and adopted.exit_code is None


def test_scenario_42_signals_never_reach_a_stranger(start: Start, tmp_path: Path) -> None:
    stranger = start()
    printed(tmp_path, stranger)
    recycled = Running(Identity(stranger.identity.pid, stranger.identity.started - 3600))
    assert recycled.has_ended()
    recycled.terminate()
    recycled.kill()
    assert is_alive(stranger.identity)


def test_scenario_42_a_pid_file_without_its_lock_is_stale(start: Start, tmp_path: Path) -> None:
    stranger = start()
    file = tmp_path / "run" / "mx.pid"
    file.parent.mkdir()
    for content in ("", "nonsense", str(stranger.identity.pid), json.dumps({"pid": stranger.identity.pid})):
        file.write_text(content)
        assert holder(file) is None
    assert holder(tmp_path / "run" / "nobody.pid") is None


def test_a_pid_file_is_held_while_its_process_lives(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "run" / "mx.pid"
    running = start("lock", str(file))
    printed(tmp_path, running)
    found = holder(file)
    assert found is not None and (found.pid, found.instance) == (running.identity.pid, "abc")
    with pytest.raises(Refused, match=f"mx already runs on this box .pid {running.identity.pid}."):
        PidFile(file).take()
    running.kill()
    assert ended(running)
    assert holder(file) is None
    mine = PidFile(file)
    assert mine.take().pid == os.getpid()
    mine.close()
    mine.close()


def test_a_forked_child_does_not_keep_the_lock(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "run" / "mx.pid"
    running = start("lock", str(file), "fork")
    printed(tmp_path, running, 2)
    os.kill(running.identity.pid, 9)
    wait_readable([running.fileno() or 0], 10)
    assert holder(file) is None
    assert ended(running)


def test_what_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match="cannot start /nowhere/python"):
        spawn(["/nowhere/python"], folder=tmp_path, environment={}, stray=tmp_path / "x.out")


def test_stray_output_does_not_grow_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "p.out"
    rotate(file)
    with file.open("ab") as writer:
        writer.write(b"x" * 100)
        writer.flush()
        rotate(file, limit=50)
        writer.write(b"more")
    assert file.read_bytes() == b"more"
    assert (tmp_path / "p.out.1").read_bytes() == b"x" * 100


ORPHAN = """
import ctypes, os, sys
from supervisor.os_process import reap_orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # as PID 1 of a container: orphans become our children
read, write = os.pipe()
parent = os.fork()
if parent == 0:
    if os.fork() == 0:
        os.read(read, 1)
        os._exit(0)
    os._exit(0)
os.waitpid(parent, 0)  # its child is ours now
mine = os.fork()
if mine == 0:
    os._exit(7)
os.write(write, b"x")
while not (count := reap_orphans(frozenset({mine}))):
    pass
assert count == 1
assert os.waitstatus_to_exitcode(os.waitpid(mine, 0)[1]) == 7, "our own children keep their exit codes"
"""


def test_as_pid_1_it_buries_what_nobody_else_will() -> None:
    found = subprocess.run(
        [sys.executable, "-c", ORPHAN],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr


def test_a_process_of_its_own_session(start: Start) -> None:
    running = start()
    assert os.getpgid(running.identity.pid) == running.identity.pid != os.getpgid(0)
