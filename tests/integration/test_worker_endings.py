"""The worker runtime with real processes: killed, stopped, canceled or out of time, nothing of it writes on.

The numbers are those of the acceptance scenarios.
"""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path

import pytest

from scheduler.core.ports import Outgoing
from tests.integration.worker_rig import MakeRig, alive, verbs

pytestmark = pytest.mark.timeout(60)


BEAT = '''
import os, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).parent

def beat(task):
    """Write a byte every 5 ms, in this process and in one it starts."""
    code = "import sys, time\\nwhile True: open(sys.argv[1], 'ab').write(b'x'); time.sleep(0.005)"
    other = subprocess.Popen([sys.executable, "-c", code, str(HERE / "other.beat")])
    (HERE / "pids").write_text(f"{os.getpid()} {other.pid}")
    while True:
        with open(HERE / "own.beat", "ab") as file:
            file.write(b"x")
        time.sleep(0.005)
'''

SHELL = """
setsid sh -c 'echo $$ >deep; while :; do echo x >>deep.beat; sleep 0.01; done' &
echo $$ >top; while :; do echo x >>own.beat; sleep 0.01; done
"""

BEAT_CONTEXT = f"""
processes = [
    managed("beat", "jobs:beat", "hourly"),
    managed("quick", "worker.ready_made:identity", "hourly"),
    managed("shell", script("sh", "-c", {SHELL!r}), "hourly"),
]
"""


def sizes(*paths: Path) -> list[int]:
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def stands_still(*paths: Path) -> bool:
    """No byte is added in a time in which a living writer adds dozens."""
    before = sizes(*paths)
    time.sleep(0.3)
    return before == sizes(*paths)


def test_27_a_killed_worker_leaves_nothing_that_writes_and_another_takes_over(make_rig: MakeRig) -> None:
    rig = make_rig(BEAT_CONTEXT, BEAT)
    worker = rig.process("w1")
    uow_id = rig.request("beat")
    own, other = rig.file("own.beat"), rig.file("other.beat")
    rig.until(lambda: min(sizes(own, other)) > 3, "both beat")
    worker.kill()
    worker.wait()
    pids = [int(pid) for pid in rig.file("pids").read_text().split()]
    rig.until(lambda: not any(alive(pid) for pid in pids), "both are dead")
    assert stands_still(own, other)
    # the leader finds the lease at its end, and requests it again; here it is told by the supervisor
    rig.leader(uow_id, "fail", losses=1, lease_until=None)
    rig.leader(uow_id, "retry", attempt=2, owner=None, token=None)
    (rig.folder / "jobs.py").write_text("def beat(task): return {'attempt': task.attempt}\n")
    rig.worker("w2")
    rig.broker.publish([Outgoing("default", uow_id)])
    uow = rig.wait(uow_id, "processed")
    assert uow.result == {"attempt": 2} and uow.owner == "w2"
    assert verbs(rig, uow_id) == ["accept", "accept", "succeed"]


def test_27_what_a_command_line_started_dies_with_the_worker(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(BEAT_CONTEXT, BEAT)
    worker = rig.process("w1")
    rig.request("shell")
    own, deep = rig.file("own.beat"), rig.file("deep.beat")
    rig.until(lambda: min(sizes(own, deep)) > 3, "both beat")
    pids = [int(rig.file(name).read_text()) for name in ("top", "deep")]
    worker.kill()
    worker.wait()
    rig.until(lambda: not any(alive(pid) for pid in pids), "both are dead")
    assert stands_still(own, deep)


def test_28_a_stopped_worker_writes_nothing_after_its_lease(make_rig: MakeRig) -> None:
    """A worker that is stopped cannot renew, and cannot stop its child; the guard does."""
    rig = make_rig(BEAT_CONTEXT, BEAT)
    worker = rig.process("w1", lease_s=3, renew_s=0.5)
    uow_id = rig.request("beat")
    own, other = rig.file("own.beat"), rig.file("other.beat")
    rig.until(lambda: min(sizes(own, other)) > 3, "both beat")
    worker.send_signal(signal.SIGSTOP)
    pids = [int(pid) for pid in rig.file("pids").read_text().split()]
    rig.until(lambda: not any(alive(pid) for pid in pids), "both are dead")
    lease_until = rig.uow(uow_id).lease_until
    assert stands_still(own, other)
    last = max(own.stat().st_mtime, other.stat().st_mtime)
    assert lease_until is not None and last < lease_until.timestamp()
    rig.leader(uow_id, "fail", losses=1, lease_until=None)
    rig.leader(uow_id, "retry", attempt=2, owner=None, token=None)
    worker.send_signal(signal.SIGCONT)
    quick = rig.request("quick", 1)
    assert rig.wait(quick).state == "processed"  # it goes on working
    assert rig.uow(uow_id).state == "requested" and rig.uow(uow_id).error is None


def test_28_work_longer_than_its_lease_keeps_it(make_rig: MakeRig) -> None:
    rig = make_rig(
        "processes = [managed('slow', 'worker.ready_made:sleep', 'hourly', arguments={'seconds': 2.5})]"
    )
    rig.worker("w1", lease_s=1.0, renew_s=0.2)
    uow_id = rig.request("slow")
    rig.wait(uow_id, "in_progress")
    seen = set()

    def ended() -> bool:
        uow = rig.uow(uow_id)
        if uow.state == "in_progress":
            assert uow.lease_until is not None and uow.lease_until > rig.store.now()
            seen.add(uow.lease_until)
        return uow.state == "processed"

    rig.until(ended, "it is processed")
    assert len(seen) >= 5 and verbs(rig, uow_id) == ["accept", "succeed"]
    assert rig.uow(uow_id).progress is not None


def test_33_output_is_readable_while_it_runs_and_a_time_out_ends_the_whole_group(make_rig: MakeRig) -> None:
    rig = make_rig(
        """
processes = [
    managed("long", script("sh", "-c", "echo begun; sleep 600 & echo $! >inner; echo $$ >outer; wait"), "hourly",
            timeout_s=1.5),
    managed("quick", "worker.ready_made:nothing", "hourly"),
]
"""
    )
    rig.worker("w1", slots=1)
    uow_id = rig.request("long")
    rig.until(
        lambda: rig.log(uow_id) == "begun\n" and rig.uow(uow_id).state == "in_progress", "its output is there"
    )
    pids = [int(rig.file(name).read_text()) for name in ("inner", "outer")]
    assert all(alive(pid) for pid in pids)
    uow = rig.wait(uow_id)
    assert (uow.state, uow.timed_out, uow.error) == ("invalid", True, "ran longer than timeout_s=1.5")
    assert not any(alive(pid) for pid in pids)
    assert rig.wait(rig.request("quick", 1)).state == "processed"


def test_33_what_left_the_group_and_ignores_the_word_is_ended_too(make_rig: MakeRig) -> None:
    inner = "trap : TERM; echo $$ >inner; while :; do sleep 0.05; done"
    rig = make_rig(
        f"""
outer = "setsid sh -c '{inner}' & echo $$ >outer; wait"
processes = [managed("long", script("sh", "-c", outer), "hourly")]
"""
    )
    rig.worker("w1", slots=1)
    uow_id = rig.request("long")
    files = [rig.file(name) for name in ("inner", "outer")]
    rig.until(lambda: all(file.exists() and file.read_text() for file in files), "both run")
    pids = [int(file.read_text()) for file in files]
    rig.leader(uow_id, "cancel")
    rig.until(lambda: rig.uow(uow_id).stopped_at is not None, "the worker let go")
    assert not any(alive(pid) for pid in pids)


def test_55_python_code_that_overruns_is_stopped(make_rig: MakeRig) -> None:
    code = """
import os, pathlib, re
def stuck(task):
    (pathlib.Path(__file__).parent / "pid").write_text(str(os.getpid()))
    re.match(r"(a+)+b", "a" * 64)  # holds the GIL for ages
"""
    rig = make_rig(
        "processes = [managed('stuck', 'jobs:stuck', 'hourly', timeout_s=1),"
        " managed('quick', 'worker.ready_made:nothing', 'hourly')]",
        code,
    )
    rig.worker("w1", slots=1)
    uow = rig.wait(rig.request("stuck"))
    assert (uow.state, uow.timed_out, uow.failures) == ("invalid", True, 1)
    assert not alive(int(rig.file("pid").read_text()))
    assert rig.wait(rig.request("quick", 1)).state == "processed"


def test_25_72_a_canceled_unit_of_work_is_stopped_and_only_then_let_go_of(make_rig: MakeRig) -> None:
    rig = make_rig(BEAT_CONTEXT, BEAT)
    rig.worker("w1")
    uow_id = rig.request("beat")
    own, other = rig.file("own.beat"), rig.file("other.beat")
    rig.until(lambda: min(sizes(own, other)) > 3, "both beat")
    rig.leader(uow_id, "cancel")
    pids = [int(pid) for pid in rig.file("pids").read_text().split()]
    rig.until(lambda: rig.uow(uow_id).stopped_at is not None, "the worker let go")
    assert not any(alive(pid) for pid in pids)
    assert stands_still(own, other)
    uow = rig.uow(uow_id)
    assert uow.state == "canceled" and not uow.is_held and verbs(rig, uow_id) == ["accept", "stopped"]


def test_72_python_code_may_end_by_itself_when_it_is_canceled(make_rig: MakeRig) -> None:
    code = """
import pathlib, time
def polite(task):
    (pathlib.Path(__file__).parent / "begun").touch()
    while not task.is_canceled(): time.sleep(0.01)
    (pathlib.Path(__file__).parent / "tidied").touch()
"""
    rig = make_rig("processes = [managed('polite', 'jobs:polite', 'hourly')]", code)
    rig.worker("w1")
    uow_id = rig.request("polite")
    rig.until(rig.file("begun").exists, "it begins")
    rig.leader(uow_id, "cancel")
    rig.until(lambda: rig.uow(uow_id).stopped_at is not None, "the worker let go")
    assert rig.file("tidied").exists() and rig.uow(uow_id).state == "canceled"


def test_41_a_stopped_worker_finishes_what_it_can_and_releases_the_rest(make_rig: MakeRig) -> None:
    code = """
import pathlib, time
HERE = pathlib.Path(__file__).parent
def short(task):
    while not (HERE / "go").exists(): time.sleep(0.01)
def long(task):
    time.sleep(600)
"""
    rig = make_rig("processes = [managed(n, f'jobs:{n}', 'hourly') for n in ('short', 'long')]", code)
    worker = rig.process("w1", grace_s=1.5)
    short, long, waiting = rig.request("short"), rig.request("long"), rig.request("short", 1)
    rig.wait(long, "in_progress")
    worker.send_signal(signal.SIGTERM)
    rig.file("go").touch()
    assert worker.wait(15) == 0
    assert rig.uow(short).state == "processed"
    uow = rig.uow(long)
    assert (uow.state, uow.attempt, uow.owner, uow.failures) == ("requested", 1, None, 0)
    assert verbs(rig, long) == ["accept", "release"]
    assert rig.uow(waiting).state == "requested" and rig.broker.depth(["default"]) == {"default": 1}


def test_41_a_second_term_does_not_wait_for_the_grace(make_rig: MakeRig) -> None:
    rig = make_rig(
        "processes = [managed('slow', 'worker.ready_made:sleep', 'hourly', arguments={'seconds': 600})]"
    )
    worker = rig.process("w1", grace_s=600)
    uow_id = rig.request("slow")
    rig.until(lambda: rig.uow(uow_id).progress, "it works")
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(15) == 0
    assert rig.uow(uow_id).state == "requested"


def test_72_an_older_execution_cannot_write_at_the_sink(make_rig: MakeRig) -> None:
    code = """
import pathlib, time
from synergy import LeaseLost, sql_sink
HERE = pathlib.Path(__file__).parent
def write(task):
    if task.run == 1:
        (HERE / "old").touch()
        while not (HERE / "new").exists(): time.sleep(0.01)
    with sql_sink(HERE / "sink.sqlite", task) as sink:
        sink.execute("CREATE TABLE IF NOT EXISTS rows (run INTEGER)")
        sink.execute("DELETE FROM rows")
        sink.execute("INSERT INTO rows VALUES (?)", (task.run,))
    (HERE / "new").touch()
"""
    rig = make_rig("processes = [managed('write', 'jobs:write', 'hourly')]", code)
    rig.worker("w1")
    old = rig.request("write")
    rig.until(rig.file("old").exists, "the old one runs")
    new = rig.request("write", run=2)
    assert rig.wait(new).state == "processed"
    uow = rig.wait(old)
    assert (
        uow.state == "invalid"
        and uow.error is not None
        and "a newer execution (run 2, version 1)" in uow.error
    )
    assert sqlite3.connect(rig.file("sink.sqlite")).execute("SELECT run FROM rows").fetchall() == [(2,)]


def test_a_worker_leaves_no_process_behind(make_rig: MakeRig) -> None:
    rig = make_rig(BEAT_CONTEXT, BEAT)
    worker = rig.process("w1", grace_s=0.1)
    uow_id = rig.request("beat")
    rig.until(lambda: rig.file("pids").exists() and rig.file("pids").read_text(), "it beats")
    children = _children(worker.pid)
    assert len(children) == 3  # two slots, and the guard
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert rig.uow(uow_id).state == "requested"
    assert not any(alive(pid) for pid in children)
    assert not any(alive(int(pid)) for pid in rig.file("pids").read_text().split())


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]
