"""`file_sink`: the newest execution of a job wins, and a reader never sees half a file (27, 72)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scheduler.core.errors import ConfigError, LeaseLost
from worker.api import SinkToken, Task
from worker.sink_file import file_sink

START = datetime(2020, 5, 1, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]


def task(run: int, version: int = 1, timeperiod: str = "2020050100") -> Task:
    token = SinkToken(run, version)
    return Task(process="p", timeperiod=timeperiod, start=START, end=START, run=run, token=token)


def write(target: Path, at: Task, text: str) -> None:
    with file_sink(target, at) as path:
        path.write_text(text)


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_72_a_smaller_token_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.csv"
    write(target, task(1), "1")
    write(target, task(1), "2")  # the same execution may write again
    write(target, task(9, 100), "3")
    write(target, task(10, 2), "4")  # a shorter version after a longer one
    for old in (task(1), task(9, 100), task(10, 1)):
        with pytest.raises(LeaseLost, match=r"p@2020050100: a newer execution \(run 10, version 2\)"):
            write(target, old, "old")
    write(tmp_path / "new" / "other.csv", task(1), "another file")
    assert target.read_text() == "4"
    assert not parts(target.parent)


def test_72_an_older_one_that_began_first_cannot_replace_what_a_newer_one_wrote(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"

    def overtaken() -> None:
        with file_sink(target, task(1)) as path:
            path.write_text("old")
            write(target, task(2), "new")

    with pytest.raises(LeaseLost):
        overtaken()
    assert target.read_text() == "new"
    assert not parts(tmp_path)


def test_an_exception_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    write(target, task(1), "kept")

    def failing() -> None:
        with file_sink(target, task(2)) as path:
            path.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert target.read_text() == "kept"
    assert not parts(tmp_path)


def test_a_folder_an_unwritten_path_and_a_foreign_token_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        write(tmp_path, task(1), "")
    with pytest.raises(ConfigError, match="nothing was written"), file_sink(tmp_path / "out", task(1)):
        pass
    (tmp_path / ".out.p@2020050100.token").write_text("hello")
    with pytest.raises(ConfigError, match="is not a token of a file_sink"):
        write(tmp_path / "out", task(1), "")


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from worker.api import SinkToken, Task
from worker.sink_file import file_sink
now = datetime(2020, 5, 1, tzinfo=UTC)
task = Task(process="p", timeperiod="2020050100", start=now, end=now, token=SinkToken(1, 1))
with file_sink(sys.argv[1], task) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_27_a_writer_that_is_killed_leaves_no_half_file_and_no_lock(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(target)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    write(target, task(1, 2), "whole")
    assert target.read_text() == "whole"
