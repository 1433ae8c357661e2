"""The demo as people run it: its totals, its exit codes, kills in the middle, and what Ctrl-C leaves: nothing.

A few days of real rows, so that each is a matter of seconds; the whole year is played by `launch.py demo` itself.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from supervisor.os_process import holder

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from commands.dispatch import main; sys.exit(main(sys.argv[1:]))"
LIMIT_S = 120.0
WINDOW = ("--live", "2013-12-31T18", "--rate", "3600")
BRIEF = ("--live", "2013-12-31T20", "--rate", "7200")


class Demo:
    """One run of it."""

    def __init__(self, folder: Path, raw: Path, *options: str) -> None:
        self.folder = folder
        self.state = folder / "demo"
        self.output = folder / "output"
        argv = [sys.executable, "-c", RUN, "demo", "--state-folder", str(self.state), *options]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SYNERGY_")},
            "FLIGHTS_DATA": str(raw),
            "PYTHONWARNINGS": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )
        self.family: dict[int, float] = {}
        self._look_after = 0.0

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def note_family(self) -> None:
        """Remember every process that descends from it, also of a supervisor that died. Seldom: it costs."""
        if time.monotonic() < self._look_after:
            return
        holders = [holder(self.state / "run" / f"{name}.pid") for name in self.names()]
        found = {self.process.pid, *(process.pid for process in holders if process is not None)}
        there = {p.pid: p for p in psutil.process_iter(["ppid", "create_time"])}
        more = found
        while more:
            more = {p.pid for p in there.values() if p.info["ppid"] in more} - found
            found |= more
        self.family |= {pid: there[pid].info["create_time"] for pid in found if pid in there}
        self._look_after = time.monotonic() + 0.5

    def names(self) -> list[str]:
        return [path.stem for path in (self.state / "run").glob("*.pid")]

    def wait_for(self, look: Callable[[], object], what: str) -> None:
        """Wait for something to come true; every process that is met meanwhile is remembered."""
        until = time.monotonic() + LIMIT_S
        while not look():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.said}\n{self.logs()}"
            assert time.monotonic() < until, f"waited in vain for {what}:\n{self.said}\n{self.logs()}"
            self.note_family()
            time.sleep(0.1)

    def has_said(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.said

    def kill(self, name: str) -> None:
        """-9 to one process of the box."""
        found = holder(self.state / "run" / f"{name}.pid")
        if found is not None:
            os.kill(found.pid, signal.SIGKILL)

    def end(self) -> int:
        """Its exit code."""
        self.wait_for_end()
        return self.process.returncode

    def wait_for_end(self) -> None:
        until = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it does not end:\n{self.said}\n{self.logs()}"
            self.note_family()
            time.sleep(0.2)

    def left(self) -> list[psutil.Process]:
        """Processes of it that live."""
        found = []
        for pid, born in self.family.items():
            try:
                process = psutil.Process(pid)
                if process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                pass
        return found

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.state / "synergy.sqlite", timeout=10)) as store:
            return store.execute(sql).fetchall()

    def logs(self) -> str:
        found = ""
        for path in sorted((self.state / "logs").glob("*")):
            found += f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}\n"
        return found

    def clear(self) -> None:
        """Whatever a failed test left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.left():
            process.kill()


@pytest.fixture
def start(tmp_path: Path, raw: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def begin(*options: str, data: Path = raw, folder: Path | None = None) -> Demo:
        folder = folder or tmp_path / str(len(started))
        folder.mkdir(exist_ok=True)
        started.append(Demo(folder, data, *options))
        return started[-1]

    yield begin
    for demo in started:
        demo.clear()


def test_demo_ends_well_and_leaves_nothing(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--from", "2013-12-30", *BRIEF)
    assert demo.end() == 0, demo.said + demo.logs()
    assert "the totals are equal" in demo.said
    assert "105 of 105 jobs" in demo.said
    assert "Traceback" not in demo.said + demo.logs()
    assert "Warning" not in demo.said + demo.logs()
    (clock,) = demo.rows("SELECT value FROM facts WHERE key = 'clock'")
    assert json.loads(str(clock[0]))["rate"] == 0  # it stands: whoever looks later finds what the demo found
    assert demo.rows("SELECT count(*) FROM jobs WHERE uow_open") == [(0,)]
    assert demo.family and not demo.left()


def test_a_killed_scheduler_repeats_nothing_that_was_finished(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--from", "2013-12-20", *WINDOW)
    demo.wait_for(lambda: finished(demo) >= 60, "the first sixty jobs")
    before = {
        str(row[0]) for row in demo.rows("SELECT id FROM units_of_work WHERE state IN ('processed', 'noop')")
    }
    demo.kill("scheduler")
    assert demo.end() == 0, demo.said + demo.logs()
    assert before <= {str(row[0]) for row in demo.rows("SELECT id FROM units_of_work")}
    assert executed_otherwise_than_once(demo) == []


def executed_otherwise_than_once(demo: Demo) -> list[str]:
    """Units of work that no worker accepted, or more than one did, by their own histories."""
    found = []
    for id_, history in demo.rows("SELECT id, history FROM units_of_work"):
        verbs = [json.loads(line)["verb"] for line in str(history).splitlines()]
        if verbs.count("accept") - verbs.count("release") != 1:  # a worker that drains gives back
            found.append(f"{id_}: {verbs}")
    return found


def finished(demo: Demo) -> int:
    try:
        return int(str(demo.rows("SELECT count(*) FROM jobs WHERE state IN ('processed', 'noop')")[0][0]))
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("seed", [1, 2])
def test_the_totals_are_right_whoever_is_killed_when(start: Callable[..., Demo], seed: int) -> None:
    dice = random.Random(seed)
    demo = start("--exit", "--from", "2013-12-20", *WINDOW)
    demo.wait_for(demo.has_said("dashboard:"), "the dashboard")
    victims = ["scheduler", "worker.flights.1", "worker.flights.2", "supervisor", "flights_feed", "scheduler"]
    dice.shuffle(victims)
    for victim in victims:
        until = time.monotonic() + dice.uniform(0.1, 2.5)
        while time.monotonic() < until and demo.process.poll() is None:
            demo.note_family()
            time.sleep(0.05)
        demo.kill(victim)
    assert demo.end() == 0, demo.said + demo.logs()
    assert "the totals are equal" in demo.said
    assert not demo.left()


def test_a_broken_result_is_noticed(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--from", "2013-12-30", *BRIEF)
    demo.wait_for(demo.has_said("live:"), "the live part")
    with closing(sqlite3.connect(demo.state / "flights" / "results.sqlite", timeout=30)) as results, results:
        hit = results.execute(
            "UPDATE flights SET distance = distance + 1"
            " WHERE process = 'flights_hourly' AND timeperiod = '2013123015' AND origin = 'JFK' AND carrier = 'B6'"
        )
        assert hit.rowcount == 1
    assert demo.end() == 1, demo.said
    assert "flights_hourly: distance is" in demo.said


def test_a_broken_raw_row_is_noticed(start: Callable[..., Demo], raw: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "weather.csv.gz").write_bytes((raw / "weather.csv.gz").read_bytes())
    lines = gzip.decompress((raw / "flights.csv.gz").read_bytes()).splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith(b"2013-12-30T15"))
    with gzip.open(broken / "flights.csv.gz", "wb", 1) as file:
        file.writelines([*lines[:at], *lines[at + 1 :]])
    demo = start("--exit", "--from", "2013-12-30", *BRIEF, data=broken)
    assert demo.end() == 1, demo.said
    assert "flights_yearly: flights is" in demo.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(start: Callable[..., Demo], number: signal.Signals) -> None:
    demo = start("--from", "2013-12-20", *WINDOW)
    demo.wait_for(lambda: finished(demo) >= 20, "the first jobs")
    demo.process.send_signal(number)
    assert demo.end() == 130, demo.said
    assert len(demo.family) >= 7
    assert not demo.left()
    assert "Traceback" not in demo.said + demo.logs()


def test_one_demo_a_folder_and_no_strange_folder(start: Callable[..., Demo], tmp_path: Path) -> None:
    demo = start("--from", "2013-12-30", *WINDOW)
    demo.wait_for(demo.has_said("dashboard:"), "the dashboard")
    taken = demo.said.split("dashboard: ")[1].split()[0].rsplit(":", 1)[1]
    second = subprocess.run(
        [sys.executable, "-c", RUN, "demo", "--state-folder", str(demo.state)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (second.returncode, second.stderr.count("\n")) == (5, 1)
    assert "a demo runs in" in second.stderr
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for folder, port, code, word in (
        (precious, "0", 5, "holds something"),
        (tmp_path / "new", taken, 2, f"--port {taken} is taken"),
    ):
        found = subprocess.run(
            [sys.executable, "-c", RUN, "demo", "--state-folder", str(folder), "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (found.returncode, found.stderr.count("\n")) == (code, 1), found.stderr
        assert word in found.stderr
    assert (precious / "thesis.txt").read_text() == "years of work"
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.said


def test_a_skipped_job_is_noticed(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--from", "2013-12-30", *WINDOW)
    demo.wait_for(demo.has_said("live:"), "the live part")
    words = ["skip", "delays_monthly", "2013-12", "--wait", "60", "--state-folder", str(demo.state)]
    skipped = subprocess.run(
        [sys.executable, "-c", RUN, *words], cwd=ROOT, capture_output=True, text=True, env=demo.environment
    )
    assert skipped.returncode == 0, skipped.stderr
    assert demo.end() == 1, demo.said
    assert "delays_monthly@2013120000 is skipped" in demo.said


def test_a_kept_demo_goes_on_where_it_was_killed(start: Callable[..., Demo]) -> None:
    """The demo itself dies by -9: its box works on, is found by the next one, stopped, and gone on with."""
    first = start("--from", "2013-12-20", *WINDOW)
    first.wait_for(lambda: finished(first) >= 60, "the first sixty jobs")
    first.process.kill()
    first.process.wait()
    assert first.left()
    second = start("--exit", "--keep", "--from", "2013-12-20", *WINDOW, folder=first.folder)
    assert second.end() == 0, second.said + second.logs()
    assert "the totals are equal" in second.said
    assert not first.left()
    assert not second.left()
    assert executed_otherwise_than_once(second) == []


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_on_private_servers_the_totals_are_the_same(start: Callable[..., Demo]) -> None:
    """State in MongoDB and messages over RabbitMQ, both started for the demo and gone with it."""
    demo = start("--servers", "--exit", "--from", "2013-12-30", "--live", "2013-12-31T18", "--rate", "7200")
    assert demo.end() == 0, demo.said + demo.logs()
    assert "the totals are equal" in demo.said and "105 of 105 jobs" in demo.said
    assert not (demo.state / "synergy.sqlite").exists() and not (demo.state / "synergy-queue.sqlite").exists()
    assert "Traceback" not in demo.said + demo.logs() and "Warning" not in demo.said + demo.logs()
    assert_gone(demo)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_no_server_stays_when_the_demo_is_interrupted(start: Callable[..., Demo]) -> None:
    demo = start("--servers", "--from", "2013-12-20", *WINDOW)
    demo.wait_for(demo.has_said("dashboard:"), "the dashboard")
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.said
    assert "Traceback" not in demo.said
    assert_gone(demo)


def assert_gone(demo: Demo) -> None:
    folders = re.findall(r"^(?:MongoDB|RabbitMQ) at \S+, in (\S+) while", demo.said, flags=re.MULTILINE)
    assert len(folders) == 2, demo.said
    assert not any(Path(folder).exists() for folder in folders)
    assert len(demo.family) >= 9 and not demo.left()


def test_servers_of_its_own_or_given_ones(start: Callable[..., Demo]) -> None:
    demo = start("--servers", "--keep")
    assert demo.end() == 2
    assert "--servers: expected alone, without --store, --broker and --keep" in demo.said
