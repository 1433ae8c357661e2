"""The SQLite file behind the embedded broker: one connection, one writer at a time, one line for every error.

Why a file of its own beside the store's: a commit here costs microseconds and is never synced to the disk,
and neither publishing nor claiming waits for a store transaction. `synchronous=OFF` is right because a
message is only a wake-up call: a killed process loses nothing, and after a power cut the sweep publishes
again.

* Writers queue on an `flock` of `<file>.lock`: SQLite's own waiting is sleeping, and starves somebody.
* Opening, checkpointing and closing happen under that same lock, so no two connections ever checkpoint or
  reset the WAL at the same instant (before SQLite 3.51.3 that can corrupt the file), and the WAL stays
  bounded.
* What a power cut may have damaged is found when the file is first opened after the machine started; a
  damaged file is set aside as `<file>.damaged` and made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from mq import rows
from scheduler.core.errors import BrokerUnavailable

VERSION = 1
APPLICATION = 0x53594E51  # "SYNQ": tells our file from any other SQLite file
BUSY_S = 10.0  # only programs that are not ours are waited for this way
CHECKPOINT_PAGES = 1000
_SCHEMA = (
    # `rank` is minus the priority: the rows lie in the order in which they are taken, in a single tree.
    """CREATE TABLE messages (
        queue TEXT NOT NULL,
        rank INTEGER NOT NULL CHECK (typeof(rank) = 'integer'),
        id INTEGER NOT NULL CHECK (typeof(id) = 'integer'),
        body TEXT NOT NULL,
        redelivered INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (queue, rank, id)) WITHOUT ROWID""",
    # What a consumer took in one go, as JSON: [[queue, rank, id, body], ...] of what is not acked yet.
    "CREATE TABLE claims (id INTEGER PRIMARY KEY, consumer INTEGER NOT NULL, messages TEXT NOT NULL)",
    """CREATE TABLE consumers (
        queue TEXT, id INTEGER, address TEXT, pid INTEGER, PRIMARY KEY (queue, id)) WITHOUT ROWID""",
    "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
)
_inherited: list[object] = []  # connections of a parent process: closing them here would harm its locks


class QueueFile:
    """The connection to one queue file (`:memory:` for none). Text comes out of it as bytes.

    Shared by all threads of a broker: whoever is in `with file:` has it alone, inside one write transaction.
    """

    def __init__(self, path: str) -> None:
        self.in_memory = path == ":memory:"
        self.path = (
            path if self.in_memory else os.path.realpath(path)
        )  # one lock file, whatever link led here
        self._mutex = threading.Lock()
        self._lock_fd = -1
        self._closed = False
        self.commits = 0  # what a message costs is counted, not guessed
        self._connection: sqlite3.Connection | None = self._open()

    def __enter__(self) -> sqlite3.Connection:
        """Begin a write transaction; raises BrokerUnavailable."""
        self._mutex.acquire()
        try:
            connection = self._connection or self._reopen()
            if self._lock_fd >= 0:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            connection.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._unlock()
            self._mutex.release()
            self._explain(error)
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or roll back after an exception."""
        assert self._connection is not None
        try:
            if error is None:
                self._connection.execute("COMMIT")
                self.commits += 1
        except sqlite3.Error as failed:
            error = failed
        finally:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # `error` is what is told
                    self._connection.execute("ROLLBACK")
            self._unlock()
            self._mutex.release()
        if error is not None:
            self._explain(error)

    def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, without queueing behind writers. Raises BrokerUnavailable."""
        with self._mutex:
            try:
                return (self._connection or self._reopen()).execute(sql, parameters).fetchall()
            except (sqlite3.Error, OSError) as error:
                self._explain(error)
                raise

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        with self._mutex:
            self._closed = True
            if self._connection is not None:
                self._lock()  # the last connection checkpoints as it closes
                self._connection.close()
                self._connection = None
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def abandon(self) -> None:
        """In a forked child: touch nothing of the parent's; what is needed is opened again when used."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection, self._mutex = None, threading.Lock()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)  # the parent's lock stays: it has the same description open
            self._lock_fd = -1

    def _reopen(self) -> sqlite3.Connection:
        if self._closed or self.in_memory:
            raise BrokerUnavailable(f"the broker on {self.path} was closed")
        self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if self.in_memory:
            connection = self._connect()
            self._create(connection)
            return connection
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._lock()
            return self._open_checked()
        except (OSError, sqlite3.Error, BrokerUnavailable) as error:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            self._explain(error)
            raise
        finally:
            self._unlock()

    def _open_checked(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            ours = _number(connection, "application_id") == APPLICATION
            if ours and self._is_sound(connection):
                return connection
            if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise BrokerUnavailable(
                    f"{self.path} is not a queue file but some other SQLite file; name another path"
                )
        except sqlite3.DatabaseError as error:
            if not _is_damage(error) or not _has_our_mark(self.path):
                connection.close()
                raise
            ours = True
        except BaseException:
            connection.close()
            raise
        if ours:  # damaged: nothing is lost by beginning anew, the sweep publishes again
            connection.close()
            Path(self.path).replace(self.path + ".damaged")
            for suffix in ("-wal", "-shm"):
                Path(self.path + suffix).unlink(missing_ok=True)
            connection = self._connect()
        self._create(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.text_factory = bytes  # a foreign program's text may not even be UTF-8
        if not self.in_memory:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        if not self.in_memory:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO facts VALUES ('boot', ?)", (_boot(),))
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("COMMIT")

    def _is_sound(self, connection: sqlite3.Connection) -> bool:
        version = _number(connection, "user_version")
        if version != VERSION:
            raise BrokerUnavailable(
                f"the queue file {self.path} is of version {version}, this program's is {VERSION}: "
                "stop everything and delete it; nothing is lost, what waits is published again"
            )
        row = connection.execute("SELECT value FROM facts WHERE key = 'boot'").fetchone()
        boot = _boot()
        if boot and row and row[0].decode() == boot:
            return True
        if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != b"ok":
            return False
        connection.execute("BEGIN IMMEDIATE")
        if boot:  # whoever held something before the machine started is dead
            rows.unsubscribe_all(connection)
        rows.make_older(connection)
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('boot', ?)", (boot,))
        connection.execute("COMMIT")
        return True

    def _lock(self) -> None:
        if self._lock_fd >= 0:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            with contextlib.suppress(OSError):  # closed with its file: then it is unlocked
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _explain(self, error: BaseException) -> None:
        """Raise BrokerUnavailable, in one line, for what SQLite and the system say; else return."""
        if isinstance(error, sqlite3.Error) and _is_damage(error):
            raise BrokerUnavailable(
                f"the queue file {self.path} is damaged ({error}): stop everything and delete it; "
                "nothing is lost, what waits is published again"
            ) from error
        if isinstance(error, (sqlite3.Error, OSError)):
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise BrokerUnavailable(f"the queue file {self.path} cannot be used: {said}") from error


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _has_our_mark(path: str) -> bool:
    """Whether the file's header bears our application id: only such a file is ever set aside."""
    with Path(path).open("rb") as file:
        return file.read(72)[68:72] == APPLICATION.to_bytes(4, "big")


def _boot() -> str:
    """Names this start of the machine; empty where the system does not tell: then every opening checks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
