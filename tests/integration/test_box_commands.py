"""The commands of a box as people type them: scenarios 40 to 44 with the shipped processes, `new`, and refusals.

Every command is a process of its own; what is waited for is a condition, until a deadline that only a failure
reaches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from db import open_store
from scheduler.clock import SystemClock
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.uow import Uow
from supervisor.os_process import holder

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
PROGRAM = "import sys, commands; sys.exit(commands.main(sys.argv[1:]))"
T = TypeVar("T")

CONTEXT = """
from synergy import daemon, freerun, managed, tree
synergy_start_timeperiod = "{start}"
process_context = [
    managed("meter_hourly", "meter_work:run", "hourly", max_active=4),
    managed("meter_daily", "meter_work:run", "daily", blocking="children"),
    daemon("ticker", "meter_work:tick"),
    daemon("elsewhere", "meter_work:tick", boxes=["other-*"]),
    {more}
]
timetable_context = [tree("meter", ["meter_hourly", "meter_daily"])]
"""
WORK = """
import time
def run(task):
    return {"label": task.timeperiod}
def slow(task):
    while not task.is_canceled():
        time.sleep(0.02)
def tick(daemon):
    daemon.stopping.wait()
def show(daemon):
    print("got", daemon.arguments, flush=True)
"""
SETTINGS = """
box = "here"
mx_port = 0
grace_s = 8
drain_s = 0.5
leader_lease_s = 2
"""


def until(condition: Callable[[], T], what: str) -> T:
    """What `condition` returns once it is true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.05)
    return found


class Project:
    """A user's project in a folder, and the commands typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, more: str = "") -> None:
        self.folder.mkdir(exist_ok=True)
        start = datetime.now(UTC) - timedelta(days=1)  # little to catch up with
        context = CONTEXT.format(more=more, start=f"{start:%Y%m%d}00")
        (self.folder / "process_context.py").write_text(context)
        (self.folder / "meter_work.py").write_text(WORK)
        (self.folder / "synergy.toml").write_text(SETTINGS)

    def begin(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SYNERGY_")}
        environment["SPT_NOENV"] = "1"  # a process title must not overwrite the environment: see `living`
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env={**environment, "PYTHONPATH": str(ROOT), "SYNERGY_CONTEXT": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def type(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a command."""
        out, err = (command := self.begin(*words)).communicate(timeout=60)
        assert "Traceback" not in err, err
        return command.returncode, out, err

    def ok(self, *words: str) -> str:
        code, out, err = self.type(*words)
        assert code == 0, f"{words} → {code}: {out}{err}"
        return out

    def refused(self, *words: str) -> str:
        """The one line of a refusal."""
        code, _out, err = self.type(*words)
        assert code != 0, words
        assert len(err.strip().splitlines()) == 1, err
        return err

    def status(self) -> dict[str, dict[str, Any]]:
        _code, out, _err = self.type("status", "--json")
        return {row["name"]: row for row in json.loads(out)["processes"]}

    def pid(self, name: str) -> int | None:
        found = holder(self.folder / ".synergy" / "run" / f"{name}.pid")
        return None if found is None else found.pid

    def living(self) -> list[int]:
        """All processes that have to do with this project."""
        mine = []
        for process in psutil.process_iter(["pid", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("SYNERGY_CONTEXT") == str(self.folder):
                mine.append(process.pid)
        return mine

    @contextmanager
    def store(self) -> Iterator[Store]:
        file = self.folder / ".synergy" / "synergy.sqlite"
        store = open_store(f"sqlite:///{file}", clock=SystemClock(lambda: None))
        try:
            yield store
        finally:
            store.close()

    def clean(self) -> None:
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "my project")
    made.write()
    yield made
    made.clean()


def test_scenario_40_and_44_a_box_from_start_to_stop(project: Project) -> None:
    assert "was never started" in project.type("status")[1]
    assert not (project.folder / ".synergy").exists(), "asking changes nothing"
    started = project.ok("start")
    assert "leading scheduler: here/scheduler" in started and "dashboard: http://127.0.0.1:" in started
    assert len(project.living()) > 5, "the processes, and the worker's children"
    rows = project.status()
    names = {"supervisor", "scheduler", "mx", "worker.default.1", "ticker"}
    assert set(rows) == names, "only processes meant for this box are started"
    assert {row["state"] for row in rows.values()} == {"RUNNING"}
    assert project.type("status")[0] == 0
    assert "already runs" in project.refused("start")
    assert "already runs" in project.refused("start", "ticker")

    # scenario 43: one that was stopped stays stopped; a killed one is back
    project.ok("stop", "ticker")
    assert "does not run" in project.refused("stop", "ticker")
    scheduler = project.pid("scheduler")
    assert scheduler is not None
    os.kill(scheduler, signal.SIGKILL)
    until(lambda: project.pid("scheduler") not in (None, scheduler), "the scheduler is back")
    assert "runs, pid" in project.ok("restart", "worker.default.1")

    # scenario 44: what is new in the context is taken over, and nobody else is restarted
    mx, worker = project.pid("mx"), project.pid("worker.default.1")
    project.write(
        more='daemon("fresh", "meter_work:tick"), managed("other_daily", "meter_work:run", "daily"),'
    )
    assert "new: fresh" in project.ok("reload")
    until(lambda: project.pid("fresh"), "the new daemon")
    assert (project.pid("mx"), project.pid("worker.default.1")) == (mx, worker)
    with project.store() as store:
        of_it = [Where("process", "=", "other_daily"), Where("state", "=", "processed")]
        until(lambda: store.find(Job, of_it), "a job of the new process")
    project.write(more="nonsense,")
    assert "process_context.py:9: NameError" in project.refused("reload")

    assert "is stopped" in project.ok("stop")
    assert project.living() == [], "no process is left behind"
    assert "does not run" in project.refused("stop")
    rows = project.status()
    assert {row["state"] for row in rows.values()} == {"STOPPED"} and rows["ticker"]["desired"] == "off"
    assert project.type("status")[0] == 3


def test_scenario_41_stop_lets_a_worker_give_its_work_back(project: Project) -> None:
    project.write(more='freerun("endless", "meter_work:slow", trigger="every 1"),')
    project.ok("start")
    with project.store() as store:
        of_it = [Where("process", "=", "endless")]
        until(lambda: store.find(Uow, [*of_it, Where("state", "=", "in_progress")]), "work that does not end")
        project.ok("stop")
        assert project.living() == []
        assert '"verb":"release"' in store.find(Uow, of_it)[0].history, "given back before the KILL"


def test_what_a_dead_supervisor_left_is_stopped_too(project: Project) -> None:
    project.ok("start")
    supervisor = project.pid("supervisor")
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: project.pid("supervisor") is None, "the supervisor's end")
    assert project.pid("scheduler") is not None, "its children go on"
    code, out, _err = project.type("status")
    assert code == 3 and "EXITED" in out
    assert "stopped what was left" in project.ok("stop")
    assert project.living() == []


def test_start_in_the_foreground_drains_on_term(project: Project) -> None:
    here = project.begin("start", "--foreground", start_new_session=True)
    until(lambda: project.pid("ticker"), "the last process")
    ticker = project.pid("ticker")
    second = project.begin("start", "ticker", "--foreground")
    assert "already runs" in second.communicate(timeout=60)[1] and second.returncode == 5
    assert project.pid("ticker") == ticker
    os.kill(here.pid, signal.SIGTERM)
    _out, err = here.communicate(timeout=60)
    assert here.returncode == 0
    assert "supervisor.start" in err and "supervisor.stop" in err and "Traceback" not in err
    assert project.living() == []


def test_one_process_in_the_foreground_with_arguments(project: Project) -> None:
    project.write(more='daemon("show", "meter_work:show", arguments={"a": 1}, is_on=False),')
    code, _out, err = project.type("start", "show", "--foreground", "b=[2]", "c=three")
    assert code == 0, err
    assert "'a': 1, 'b': [2], 'c': 'three'" in _out + err
    assert "takes no arguments" in project.refused("start", "meter_hourly", "--foreground", "b=2")
    assert "is for boxes ['other-*']" in project.refused("start", "elsewhere", "--foreground")
    assert "there is no process 'nobody'" in project.refused("start", "nobody", "--foreground")
    assert "no option '--foregruond'" in project.refused("start", "show", "--foregruond")


BAD = {
    "two of one name": ("more", 'daemon("ticker", "meter_work:tick"),', "two processes are named 'ticker'"),
    "no such module": (
        "more",
        'managed("x", "nowhere:f", "hourly"),',
        "process 'x': worker 'nowhere:f': there is no module",
    ),
    "no such function": (
        "more",
        'managed("x", "meter_work:nix", "hourly"),',
        "module 'meter_work' has no 'nix'",
    ),
    "a trigger without sense": (
        "more",
        'managed("x", "meter_work:run", "hourly", trigger="every 0"),',
        "process 'x'",
    ),
    "a negative time-out": ("more", 'managed("x", "meter_work:run", "hourly", timeout_s=-1),', "timeout_s"),
    "a cycle": (
        "more",
        'managed("x", "meter_work:run", "hourly", depends_on=["x"]),',
        "hold each other up",
    ),
    "a worker in the context": (
        "more",
        'managed("x", "process_context:f", "hourly"),',
        "defined in this file",
    ),
    "a command that is not there": (
        "more",
        'managed("x", __import__("synergy").script("no-such-command"), "hourly"),',
        "no such command",
    ),
    "an unknown setting": ("setting", "mx_prot = 1", "did you mean mx_port?"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_one_line_and_changes_nothing(project: Project, case: str) -> None:
    where, text, expected = BAD[case]
    if where == "more":
        project.write(more=text)
    else:
        (project.folder / "synergy.toml").write_text(SETTINGS + text + "\n")
    for command in [project.begin("check"), project.begin("start")]:
        out, err = command.communicate(timeout=60)
        assert (command.returncode, out) == (2, "")
        assert expected in err and len(err.strip().splitlines()) == 1, err
    assert not (project.folder / ".synergy").exists()


def test_check_says_all_problems_at_once(project: Project) -> None:
    project.write(more='managed("x", "nowhere:f", "hourly"), managed("y", "meter_work:nix", "hourly"),')
    code, _out, err = project.type("check")
    assert code == 2 and len(err.strip().splitlines()) == 2
    project.write()
    assert project.ok("check").startswith("ok: 4 processes (2 managed, 2 daemon)")
    assert "meter_hourly" in project.ok("list")
    assert json.loads(project.ok("list", "--json"))["here"] == [
        "scheduler",
        "mx",
        "worker.default.1",
        "ticker",
    ]


def test_a_new_project_runs_as_it_is(tmp_path: Path) -> None:
    project = Project(tmp_path / "brand new")
    try:
        project.ok("new", str(project.folder))
        assert "not empty" in project.refused("new", str(project.folder))
        project.ok("check")
        test = subprocess.run(
            [sys.executable, "-W", "error", "-m", "unittest", "-b"],
            cwd=project.folder,
            capture_output=True,
            check=False,
        )
        assert test.returncode == 0, test.stderr
        project.ok("start", "--set", "mx_port=0")
        with project.store() as store:
            of_it = [Where("process", "=", "meter_daily"), Where("state", "=", "processed")]
            until(lambda: store.find(Job, of_it), "yesterday")
        assert "meter_daily" in project.ok("shell", "-c", "print(store.count(Job, by=['process']))")
        project.ok("stop")
        assert project.living() == []
    finally:
        project.clean()
