"""`sql_sink`: the newest execution of a job wins, whatever older ones still try (72)."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scheduler.core.errors import ConfigError, LeaseLost
from worker.api import SinkToken, Task
from worker.sink import sql_sink

START = datetime(2020, 5, 1, tzinfo=UTC)


def task(run: int, version: int = 1, timeperiod: str = "2020050100") -> Task:
    token = SinkToken(run, version)
    return Task(process="p", timeperiod=timeperiod, start=START, end=START, run=run, token=token)


def targets(folder: Path) -> dict[str, Any]:
    path = folder / "new" / "sink.sqlite"
    path.parent.mkdir()
    return {
        "path": str(path),
        "Path": path,
        "url": f"sqlite:///{path}",
        "driver url": f"sqlite+pysqlite:///{path}",
        "engine": sa.create_engine(f"sqlite:///{path}"),
        "connection": sqlite3.connect(path),
    }


def write(target: Any, at: Task, value: int) -> None:
    with sql_sink(target, at) as sink:
        execute = sink.execute if isinstance(sink, sqlite3.Connection) else sink.exec_driver_sql
        execute("CREATE TABLE IF NOT EXISTS results (value INTEGER)")
        execute("DELETE FROM results")
        execute("INSERT INTO results VALUES (?)", (value,))


@pytest.mark.parametrize("kind", ["path", "Path", "url", "driver url", "engine", "connection"])
def test_72_a_smaller_token_is_refused_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    target = targets(tmp_path)[kind]
    write(target, task(1), 1)
    write(target, task(1), 2)  # the same execution may write again
    write(target, task(1, 3), 3)
    write(target, task(2, 1), 4)
    for old in (task(1, 1), task(1, 3)):
        with pytest.raises(LeaseLost, match=r"p@2020050100: a newer execution \(run 2, version 1\)"):
            write(target, old, 5)
    write(target, task(1, 1, "2020050101"), 4)  # another job
    rows = sqlite3.connect(tmp_path / "new" / "sink.sqlite").execute("SELECT value FROM results").fetchall()
    assert rows == [(4,)]


@pytest.mark.parametrize("kind", ["path", "driver url", "engine", "connection"])
def test_an_exception_rolls_all_back(tmp_path: Path, kind: str) -> None:
    target = targets(tmp_path)[kind]
    write(target, task(1), 1)
    with pytest.raises(sqlite3.Error if kind in ("path", "connection") else sa.exc.SQLAlchemyError):
        write(target, task(2), object())  # type: ignore[arg-type]
    write(target, task(1), 2)  # run 2 left no token behind
    rows = sqlite3.connect(tmp_path / "new" / "sink.sqlite").execute("SELECT value FROM results").fetchall()
    assert rows == [(2,)]


def test_what_is_no_sink_is_named() -> None:
    with pytest.raises(ConfigError, match="process 'p' has no sink"), sql_sink(None, task(1)):
        pass
    with pytest.raises(ConfigError, match="not int"), sql_sink(5, task(1)):
        pass
