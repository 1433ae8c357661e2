"""The result tables of the example, in one SQLite file: the sink of all its workers.

Three tables, one a subject; every row bears the process and the timeperiod it is the result of, so a parent
sums up the rows of its child, level by level. All numbers are integers (minutes, miles, tenths, hundredths):
totals of two levels compare exactly. `start` is the period's start in seconds since 1970; order and nesting
go by it, the label is for people.

`slice` is the cursor a slice of a continuous process began at (0: at the beginning of the period). What a
unit of work writes replaces what stands there for its job from that cursor on, so it may run twice, or die
half-way, and the sums stay right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, closing
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from synergy import Task, sql_sink

FLIGHT_SUMS = (
    "flights",
    "cancelled",
    "departed",
    "dep_delay_minutes",
    "dep_delay_squares",
    "arrived",
    "arr_delay_minutes",
    "distance",
    "air_minutes",
)
WEATHER_SUMS = (
    "observations",
    "temp_hundredths",
    "temp_known",
    "wind_tenths",
    "wind_known",
    "visib_hundredths",
    "visib_known",
    "precip_hundredths",
    "precip_known",
)
DELAY_SUMS = ("flights", "cancelled", "departed", "delay", "delay_squares", "x", "x_squares", "x_delay")
BUSY_S = 30.0
LONG_LOG = 8 << 20  # bytes
KEYS = {"flights": ("origin", "carrier"), "weather": ("origin",), "delays": ("factor", "bucket")}
SUMS = {"flights": FLIGHT_SUMS, "weather": WEATHER_SUMS, "delays": DELAY_SUMS}


def schema() -> str:
    """The statements that make the three tables."""
    made = []
    for table, keys in KEYS.items():
        texts = "".join(f", {key} TEXT" for key in keys)
        sums = "".join(f", {name} INTEGER NOT NULL DEFAULT 0" for name in SUMS[table])
        made.append(
            f"CREATE TABLE IF NOT EXISTS {table} (process TEXT, start INTEGER, slice INTEGER, timeperiod TEXT"
            f"{texts}{sums}, PRIMARY KEY (process, start, slice, {', '.join(keys)})) WITHOUT ROWID;"
        )
    return "\n".join(made)


def create(path: Path) -> None:
    """Make the file and its tables, if they are not there."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(schema())


@lru_cache(maxsize=4)
def _connection(path: str | None) -> sqlite3.Connection:
    """Opened once: opening a file for every hour would cost ten times the work itself."""
    if not path:
        raise ValueError("this process has no sink: register it with sink=<results file>")
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")  # survives any kill; what a power cut takes is run again
    connection.execute("PRAGMA wal_autocheckpoint=0")  # see `checkpoint`
    return connection


def sink_of(task: Task) -> AbstractContextManager[Any]:
    """The transaction in which this task writes its results; refused if a newer execution has written."""
    return sql_sink(_connection(task.sink), task)


def checkpoint(path: Path) -> None:
    """Move what was written from the log into the file, once the log is long. One process only may call it.

    SQLite before 3.51.3 may, rarely, corrupt a file that two connections checkpoint at the same instant.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > LONG_LOG:
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # if it is busy: at the next look


def seconds(instant: datetime) -> int:
    """Seconds since 1970."""
    return int(instant.timestamp())


def clear(sink: Any, table: str, task: Task, from_slice: int = 0) -> None:
    """Take away what stands there for this job from this cursor on."""
    sink.execute(
        f"DELETE FROM {table} WHERE process = ? AND start = ? AND slice >= ?",
        (task.process, seconds(task.start), from_slice),
    )


def add(
    sink: Any, table: str, task: Task, groups: Mapping[tuple[str, ...], Iterable[int]], from_slice: int = 0
) -> None:
    """Write the sums of each group; `groups` maps the keys of the table to its sums, in their order."""
    marks = ", ".join("?" * (4 + len(KEYS[table]) + len(SUMS[table])))
    head = (task.process, seconds(task.start), from_slice, task.timeperiod)
    for keys, sums in groups.items():
        sink.execute(f"INSERT INTO {table} VALUES ({marks})", (*head, *keys, *sums))


def roll_up(sink: Any, table: str, task: Task, child: str) -> None:
    """Replace this job's result by the sums of its child's rows within the period."""
    clear(sink, table, task)
    keys = ", ".join(KEYS[table])
    sums = ", ".join(f"SUM({name})" for name in SUMS[table])
    sink.execute(
        f"INSERT INTO {table} SELECT ?, ?, 0, ?, {keys}, {sums} FROM {table}"
        f" WHERE process = ? AND start >= ? AND start < ? GROUP BY {keys}",
        (task.process, seconds(task.start), task.timeperiod, child, seconds(task.start), seconds(task.end)),
    )


def totals(sink: Any, table: str, process: str, start: int, end: int) -> dict[str, int]:
    """The sums over all rows of a process whose periods begin in [start, end); zeros if there are none."""
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in SUMS[table])
    found = sink.execute(
        f"SELECT {sums} FROM {table} WHERE process = ? AND start >= ? AND start < ?", (process, start, end)
    ).fetchone()
    return dict(zip(SUMS[table], found, strict=True))


def of_job(sink: Any, table: str, task: Task) -> dict[str, int]:
    """The sums over all rows of this job."""
    return totals(sink, table, task.process, seconds(task.start), seconds(task.start) + 1)
