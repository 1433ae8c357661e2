"""Writing results so that an older execution can never overwrite a newer one's: `sql_sink`.

The contract at every sink: the output of a range *replaces what was written for this job from that cursor on*, in
one transaction that refuses a token smaller than the largest it has seen. Tokens `(run, version)` rise with every
accept of a job; so whatever a lost or canceled worker still tries to write, it cannot. An example, in SQLite::

    with sql_sink(task.sink, task) as sink:
        sink.execute("DELETE FROM sums WHERE job = ? AND slice >= ?", (task.timeperiod, int(task.cursor or 0)))
        sink.execute("INSERT INTO sums (job, slice, n) VALUES (?, ?, ?)", (task.timeperiod, last, n))

The tokens are in a table beside the data, `synergy_sink_tokens`, one row per job.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scheduler.core.errors import ConfigError, LeaseLost
from worker.api import SinkToken, Task

BUSY_S = 60.0  # how long a SQLite sink waits for other writers

_CREATE = (
    "CREATE TABLE IF NOT EXISTS synergy_sink_tokens (process VARCHAR(64) NOT NULL, timeperiod VARCHAR(32) NOT NULL,"
    " run INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (process, timeperiod))"
)
_LOCK = "UPDATE synergy_sink_tokens SET run = run WHERE process = {0} AND timeperiod = {1}"
_READ = "SELECT run, version FROM synergy_sink_tokens WHERE process = {0} AND timeperiod = {1}"
_UPDATE = "UPDATE synergy_sink_tokens SET run = {0}, version = {1} WHERE process = {2} AND timeperiod = {3}"
_INSERT = "INSERT INTO synergy_sink_tokens (run, version, process, timeperiod) VALUES ({0}, {1}, {2}, {3})"


@contextmanager
def sql_sink(target: Any, task: Task) -> Iterator[Any]:
    """One transaction at `target` for `task`; commits at the end, rolls back on an exception.

    `target`: the path of a SQLite file or `sqlite:///path` (yields a sqlite3 connection); another SQLAlchemy URL,
    or an Engine (yields a SQLAlchemy connection); or an open DB-API connection, which stays open.
    Raises LeaseLost if a newer execution of this job has written already; ConfigError for another target.
    """
    if target is None:
        raise ConfigError(
            f"process {task.process!r} has no sink; register it with sink='results.sqlite', or name one"
        )
    path = _sqlite_path(target)
    if path is not None:
        yield from _sqlite(path, task)
    elif isinstance(target, str) or (hasattr(target, "begin") and hasattr(target, "dialect")):
        yield from _sqlalchemy(target, task)
    elif hasattr(target, "cursor") and hasattr(target, "commit"):
        yield from _db_api(target, task)
    else:
        raise ConfigError(
            f"a sink is a path, a URL, an engine or a DB-API connection, not {type(target).__name__}"
        )


def _sqlite_path(target: Any) -> str | None:
    """The file of a SQLite target, or None if it is another kind."""
    if isinstance(target, Path):
        return str(target)
    if not isinstance(target, str):
        return None
    if target.startswith("sqlite:///"):
        return unquote(target.removeprefix("sqlite:///").partition("?")[0]) or ":memory:"
    return None if "://" in target else target


def _sqlite(path: str, task: Task) -> Iterator[sqlite3.Connection]:
    if path != ":memory:":
        Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _claim(lambda sql, values: connection.execute(sql, values), task, "?")
            yield connection
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        connection.close()


def _db_api(connection: Any, task: Task) -> Iterator[Any]:
    """An open connection: its marks for parameters are those of its module."""

    def execute(sql: str, values: tuple[Any, ...]) -> Any:
        cursor = connection.cursor()
        cursor.execute(sql, values)
        return cursor

    module = type(connection).__module__.partition(".")[0]
    if module == "sqlite3" and not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")
    try:
        _claim(execute, task, "?" if module in ("sqlite3", "duckdb", "pyodbc") else "%s")
        yield connection
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _sqlalchemy(target: Any, task: Task) -> Iterator[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(target) if isinstance(target, str) else target
    try:
        with engine.begin() as connection:
            places = [":a", ":b", ":c", ":d"]

            def execute(sql: str, values: tuple[Any, ...]) -> Any:
                named = dict(zip("abcd", values, strict=False))
                return connection.execute(sqlalchemy.text(sql), named)

            _claim(execute, task, *places)
            yield connection
    finally:
        if engine is not target:
            engine.dispose()


def _claim(execute: Callable[[str, tuple[Any, ...]], Any], task: Task, *places: str) -> None:
    """Write our token where the largest one stands. Raises LeaseLost if that is larger than ours."""
    marks = places * 4 if len(places) == 1 else places
    execute(_CREATE, ())
    key = (task.process, task.timeperiod)
    token = tuple(task.token)
    execute(_LOCK.format(*marks), key)  # two executions must not both find it small
    row = execute(_READ.format(*marks), key).fetchone()
    if row is None:
        execute(_INSERT.format(*marks), (*token, *key))
        return
    refuse_older(task, SinkToken(int(row[0]), int(row[1])))
    execute(_UPDATE.format(*marks), (*token, *key))


def refuse_older(task: Task, seen: SinkToken) -> None:
    """Raises LeaseLost if `seen`, the largest token that has written for this job, is larger than the task's."""
    if task.token < seen:
        raise LeaseLost(
            f"{task.process}@{task.timeperiod}: a newer execution (run {seen.run}, version {seen.version}) has written"
            f" already; run {task.token.run}, version {task.token.version} may not any more"
        )
