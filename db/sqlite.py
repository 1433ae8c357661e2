"""SQLite as the store: the embedded default.

The file is in WAL mode: readers never wait for the writer, nor it for them. Writers queue on an
`flock` of `<file>.lock` before BEGIN IMMEDIATE: SQLite's own waiting polls, and of five busy writers
one got a single transaction in five seconds. A transaction of ours never waits inside SQLite, unless
a program that does not know the lock file writes too; then at most `BUSY_TIMEOUT_S`.

A process that is stopped (SIGSTOP) inside a transaction makes all writers wait until it goes on or is
killed; the kernel gives its lock back when it dies, and SQLite then undoes what it had not committed.

Checkpoints are made by `db.checkpointer` alone. `:memory:` is one connection that all threads of one
store object take in turn; it dies with the object.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as dialect

from db.checkpointer import Checkpointer
from db.codec import Converter, decode_json, decode_time, encode_json, encode_time
from db.schema import TABLES
from db.session import Database, Pool, Session, SessionPool, Values
from db.sql import SqlStore
from db.statement import Grammar
from scheduler.core.errors import ConfigError, Conflict, StoreUnavailable
from scheduler.core.ports import Clock, Store

BUSY_TIMEOUT_S = 10.0
SYNCHRONOUS = ("NORMAL", "FULL")
MEMORY = ":memory:"
_HEADER = b"SQLite format 3\0"

_PLAIN = Converter(None, None)
GRAMMAR = Grammar(
    dialect=dialect.dialect(paramstyle="qmark"),
    types={
        "key": sa.Text(),
        "text": sa.Text(),
        "json": sa.Text(),
        "int": sa.Integer(),
        "time": sa.Integer(),  # milliseconds since 1970, UTC
        "float": sa.Float(),
        "bool": sa.Boolean(),
    },
    converters={
        "key": _PLAIN,
        "text": _PLAIN,
        "int": _PLAIN,
        "float": _PLAIN,
        "bool": Converter(None, bool),
        "time": Converter(encode_time, decode_time),
        "json": Converter(encode_json, decode_json),
    },
    insert_ignore=lambda table: dialect.insert(table).on_conflict_do_nothing(
        index_elements=list(table.primary_key)
    ),
    contains=lambda column, text: sa.func.instr(column, text) > sa.literal_column("0"),
)

# what a primary result code means to people
_REASONS = {
    sqlite3.SQLITE_BUSY: "another program has locked it",
    sqlite3.SQLITE_LOCKED: "another program has locked it",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed, or is full",
    sqlite3.SQLITE_READONLY: "it is read-only for this user",
    sqlite3.SQLITE_PERM: "it is not accessible for this user",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_CORRUPT: "it is damaged, restore a backup",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database",
    sqlite3.SQLITE_NOMEM: "out of memory",
}


class SqliteSession:
    """One connection, and its own descriptor of the lock file (None: `:memory:`, which has no others)."""

    def __init__(self, raw: sqlite3.Connection, lock: int | None) -> None:
        self.raw, self._lock = raw, lock
        self._execute, self._executemany = raw.execute, raw.executemany

    def query(self, sql: str, values: Values) -> list[Any]:
        """As `Session.query`."""
        return self._execute(sql, values).fetchall()

    def run(self, sql: str, rows: Any) -> int:
        """As `Session.run`."""
        if len(rows) == 1:
            return self._execute(sql, rows[0]).rowcount
        return self._executemany(sql, rows).rowcount

    def begin(self) -> None:
        """As `Session.begin`."""
        self.take_turn()
        try:
            self._execute("BEGIN IMMEDIATE")
        except BaseException:  # raised again: an interrupt too must not keep the others waiting
            self.end_turn()
            raise

    def commit(self) -> None:
        """As `Session.commit`."""
        self._execute("COMMIT")
        self.end_turn()

    def rollback(self) -> None:
        """As `Session.rollback`."""
        try:
            if self.raw.in_transaction:
                self._execute("ROLLBACK")
        finally:
            self.end_turn()

    def close(self) -> None:
        """As `Session.close`."""
        self.raw.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def take_turn(self) -> None:
        """Wait until no other writer is at work; the lock ends with the process, however it ends."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end_turn(self) -> None:
        """Let the next writer in."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class MemoryPool:
    """The one connection of a store in memory; borrowing it is waiting for it."""

    def __init__(self, session: SqliteSession) -> None:
        self._session = session
        self._turn = threading.RLock()  # a thread may read inside its own transaction
        self._closed = False

    def borrow(self) -> Session:
        """As `Pool.borrow`."""
        self._turn.acquire()
        if self._closed:
            self._turn.release()
            raise StoreUnavailable("the store was closed")
        return self._session

    def give(self, session: Session) -> None:
        """As `Pool.give`."""
        self._turn.release()

    discard = give  # closing it would lose everything

    def close(self) -> None:
        """As `Pool.close`."""
        with self._turn:
            self._closed = True
            self._session.close()


class SqliteDatabase(Database):
    """An SQLite file, or `:memory:`."""

    grammar = GRAMMAR
    driver_error = sqlite3.Error
    explain = "EXPLAIN QUERY PLAN "

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        synchronous: str = "NORMAL",
        maintain: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        if synchronous.upper() not in SYNCHRONOUS:
            raise ConfigError(f"synchronous {synchronous!r}: one of {', '.join(SYNCHRONOUS)}")
        self.path = path if path == MEMORY else str(Path(path).absolute())
        self._clock = clock
        self._synchronous = synchronous.upper()
        self._busy_timeout_s = busy_timeout_s
        self._checkpointer = None if path == MEMORY or not maintain else Checkpointer(self.path, self.connect)

    def now(self) -> datetime:
        """As `Database.now`: the injected clock's real time, to the millisecond."""
        now = self._clock.real().astimezone(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def pool(self) -> Pool:
        """As `Database.pool`."""
        if self.path == MEMORY:
            raw = sqlite3.connect(
                MEMORY, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            return MemoryPool(SqliteSession(raw, None))
        return SessionPool(self._session)

    def _session(self) -> SqliteSession:
        raw = self.connect()
        self.start()
        try:
            return SqliteSession(raw, os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o666))
        except OSError as error:
            raw.close()
            raise self._unavailable(f"its lock file cannot be opened ({error})") from error

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which must be there."""
        if not Path(self.path).is_file():
            raise self._unavailable("there is no such file; the store was not initialised")
        raw = sqlite3.connect(
            f"file:{quote(self.path)}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            raw.execute("PRAGMA wal_autocheckpoint=0")
            raw.execute(f"PRAGMA synchronous={self._synchronous}")
            raw.execute("PRAGMA temp_store=MEMORY")
            raw.execute("PRAGMA cache_size=-16000")
        except sqlite3.Error:
            raw.close()
            raise
        return raw

    def prepare(self) -> None:
        """As `Database.prepare`: makes an empty file if there is none; what is no database stays as it is."""
        if self.path == MEMORY:
            return
        path = Path(self.path)
        if not path.parent.is_dir():
            raise self._unavailable(f"there is no folder {path.parent}")
        try:
            with path.open("ab"):
                pass
            with path.open("rb") as file:
                header = file.read(len(_HEADER))
        except OSError as error:
            raise self._unavailable(f"it cannot be opened ({error.strerror})") from error
        if header not in (b"", _HEADER):
            raise self._unavailable(_REASONS[sqlite3.SQLITE_NOTADB])

    def tables(self, session: Session) -> set[str]:
        """As `Database.tables`."""
        return {name for (name,) in session.query("SELECT name FROM sqlite_master WHERE type = 'table'", ())}

    def indexes(self, session: Session) -> set[str]:
        """As `Database.indexes`."""
        return {name for (name,) in session.query("SELECT name FROM sqlite_master WHERE type = 'index'", ())}

    def columns(self, session: Session, table: str) -> set[str]:
        """As `Database.columns`."""
        return {name for (name,) in session.query("SELECT name FROM pragma_table_info(?)", (table,))}

    def settle(self, session: Session) -> None:
        """As `Database.settle`: WAL mode, which the file remembers."""
        if self.path == MEMORY:
            return
        assert isinstance(session, SqliteSession)
        session.take_turn()
        try:
            deadline = time.monotonic() + self._busy_timeout_s
            while (mode := _wal_mode(session.raw)) is None:  # others look at the file at this moment
                if time.monotonic() > deadline:
                    raise self._unavailable(_REASONS[sqlite3.SQLITE_BUSY])
                time.sleep(0.01)
        finally:
            session.end_turn()
        if mode != "wal":
            raise self._unavailable(
                "its file system cannot share memory (no WAL mode): put it on a local disk"
            )

    def tune(self, session: Session) -> None:
        """As `Database.tune`: fixed statistics, so that plans are the same for every store, at every size.

        Without any, two indexes on the same columns cost the same to SQLite, partial or not.
        """
        session.run("ANALYZE sqlite_schema", [()])  # makes the table for them
        statistics = []
        for table in TABLES.values():
            key = table.name if table.clustered else f"sqlite_autoindex_{table.name}_1"
            statistics.append((table.name, key, _statistics(len(table.key), unique=True)))
            for index in table.indexes:
                active = _statistics(len(index.columns), partial=bool(index.where))
                statistics.append((table.name, index.name, active))
        session.run("DELETE FROM sqlite_stat1", [()])
        session.run("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", statistics)
        session.run("ANALYZE sqlite_schema", [()])  # read them in

    def start(self) -> None:
        """As `Database.start`."""
        if self._checkpointer is not None:
            self._checkpointer.start()

    def stop(self) -> None:
        """As `Database.stop`."""
        if self._checkpointer is not None:
            self._checkpointer.stop()

    def translate(self, error: Exception) -> Exception:
        """As `Database.translate`."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
            return Conflict(f"a record with this key exists already ({error})")
        reason = _REASONS.get(code & 0xFF)
        if reason is None and "no such table" in str(error):
            reason = "it was not initialised"
        return self._unavailable(f"{reason} ({error})") if reason else error

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.path}: {reason}")


def _statistics(columns: int, *, partial: bool = False, unique: bool = False) -> str:
    """Rows in an index, and rows per value of its first column, of its first two, …: few are active."""
    rows, first = (1_000, 50) if partial else (1_000_000, 10_000)
    per_value = [1] if unique and columns == 1 else [first, *[1] * (columns - 1)]
    return " ".join(str(n) for n in (rows, *per_value))


def _wal_mode(raw: sqlite3.Connection) -> str | None:
    """Ask for WAL mode; the mode it is in, or None if the file is busy."""
    try:
        return str(raw.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return None
        raise


def open_adapter(url: str, *, clock: Clock, synchronous: str, maintain: bool) -> Store:
    """The store of a URL `sqlite:////abs/path`, `sqlite:///path` or `sqlite:///:memory:`.

    What follows the third slash is the path as it is: blanks and percent signs need no escape.
    """
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise ConfigError(f"store {url!r}: expected sqlite:////absolute/path or sqlite:///{MEMORY}")
    return SqlStore(SqliteDatabase(path, clock, synchronous=synchronous, maintain=maintain))
