"""The one thread, among all processes, that moves an SQLite file's WAL into the file.

Why one: SQLite before 3.51.3 can, rarely, damage a file when two connections checkpoint at the same
instant; so no connection checkpoints by itself (`wal_autocheckpoint=0`), and without anybody who does
the WAL grew to a gigabyte in five seconds of writing. Whoever holds the `flock` of `<file>.checkpoint`
is the one; the others try again each second, so a successor is there as soon as it dies.

Each second PASSIVE, which waits for nobody. Above 64 MB TRUNCATE, in turn with the writers.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from scheduler.core.errors import StoreUnavailable

INTERVAL_S = 1.0
TRUNCATE_BYTES = 64 * 1024 * 1024
READERS_WAIT_MS = 100  # how long a TRUNCATE, and with it the writers, waits for readers

log = logging.getLogger(__name__)


class Checkpointer:
    """The maintenance of one file. `connect` makes a connection to it, with autocheckpoint off."""

    def __init__(
        self,
        path: str,
        connect: Callable[[], sqlite3.Connection],
        *,
        interval_s: float = INTERVAL_S,
        truncate_bytes: int = TRUNCATE_BYTES,
    ) -> None:
        self._path, self._connect = path, connect
        self._interval_s, self._truncate_bytes = interval_s, truncate_bytes
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._complaint = ""
        self.in_charge = False

    def start(self) -> None:
        """Start the thread, if it does not run in this process."""
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid != os.getpid() and not self._stopping.is_set():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop it and wait for its end; may be called twice."""
        self._stopping.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()

    def _run(self) -> None:
        """Wait to be in charge, and then be it, until stopped. Nothing that fails here loses data."""
        while not self._stopping.wait(self._interval_s):
            try:
                self._be_in_charge()
            except (sqlite3.Error, OSError, StoreUnavailable) as error:
                self._complain(str(error))
            self.in_charge = False

    def _be_in_charge(self) -> None:
        lock = os.open(f"{self._path}.checkpoint", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self.in_charge = True
            raw = self._connect()
            try:
                raw.execute(f"PRAGMA busy_timeout={READERS_WAIT_MS}")
                while True:
                    self._checkpoint(raw)
                    if self._stopping.wait(self._interval_s):
                        return
            finally:
                raw.close()
        finally:
            os.close(lock)

    def _checkpoint(self, raw: sqlite3.Connection) -> None:
        try:
            large = Path(f"{self._path}-wal").stat().st_size > self._truncate_bytes
        except FileNotFoundError:
            return
        if not large:
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return
        turn = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            os.close(turn)

    def _complain(self, complaint: str) -> None:
        """Say it once, not each second."""
        if complaint != self._complaint:
            self._complaint = complaint
            log.warning("checkpoint of %s failed: %s", self._path, complaint)
