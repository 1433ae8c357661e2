"""A backup of a store before it is migrated: always an SQLite file, so it needs no foreign tool and can be looked at.

Of an SQLite store it is the file itself, page by page, by SQLite's own online backup. Of a server it is a store of
the old version with the same records, which the caller writes (`write`); what the newer schema has and the old
one had not is taken out again. Either way nobody leads in it, so a scheduler that is started on it leads at once.

The file has its name only when it is whole, checked and on the disk; it is as private as its store.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from db.migration_sql import write_version
from db.migrations import AddColumn, Progress, Step
from db.schema import TABLES
from db.session import Session
from db.sql import SqlStore
from db.sqlite import MEMORY, SqliteDatabase
from scheduler.core.errors import StoreUnavailable
from scheduler.core.ports import Clock, Store

PAGES = 4096  # copied at a time: 16 MB
PRIVATE = 0o600
_BESIDE = ("-wal", "-shm", "-journal", ".lock", ".checkpoint")  # what SQLite and we keep beside a file


def file_of(store: Store) -> Path | None:
    """The file of an SQLite store."""
    database = store.database if isinstance(store, SqlStore) else None
    if isinstance(database, SqliteDatabase) and database.path != MEMORY:
        return Path(database.path)
    return None


def of_file(source: Path, target: Path, progress: Progress) -> None:
    """Back up an SQLite file. Raises StoreUnavailable; then there is no `target`."""
    with _made(target, source.stat().st_mode & 0o777) as part:
        done = 0

        def copied(_status: int, left: int, total: int) -> None:
            nonlocal done
            progress("backup, in pages", total - left - done)
            done = total - left

        ours = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, isolation_level=None)
        with closing(ours), closing(sqlite3.connect(part)) as theirs:
            ours.execute("BEGIN")  # one snapshot: else each renewal of our lease would begin it anew
            ours.execute("SELECT 1 FROM facts").fetchall()
            ours.backup(theirs, pages=PAGES, progress=copied)
            with theirs:
                theirs.execute("UPDATE leases SET expires_at = taken_at WHERE expires_at > taken_at")


def of_records(
    target: Path, clock: Clock, version: int, steps: Sequence[Step], write: Callable[[Store], None]
) -> None:
    """Back up what `write` puts into an empty store, as one of `version`, before `steps`. Raises StoreUnavailable."""
    with _made(target, PRIVATE) as part:
        store = SqlStore(SqliteDatabase(str(part), clock, maintain=True))
        try:
            store.init()
            write(store)
            with store._session() as session:
                session.begin()
                try:
                    _take_out(store, session, steps)
                    write_version(store.statements, session, version)
                except BaseException:
                    session.rollback()
                    raise
                session.commit()
        finally:
            store.close()


def _take_out(store: SqlStore, session: Session, steps: Sequence[Step]) -> None:
    """What these steps would add."""
    tables = {table.name: table for table in TABLES.values()}
    for step in steps:
        for move in step.moves:
            if not isinstance(move, AddColumn):
                continue
            name = move.column.name
            if name not in store.database.columns(session, move.table):
                continue
            for index in tables[move.table].indexes:
                if name in index.columns_in_full or name in {condition.field for condition in index.where}:
                    session.run(f'DROP INDEX IF EXISTS "{index.name}"', [()])
            session.run(f'ALTER TABLE "{move.table}" DROP COLUMN "{name}"', [()])


@contextmanager
def _made(target: Path, mode: int) -> Iterator[Path]:
    """A new file, which gets its name once the block has filled it and it was checked."""
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        part.chmod(mode)  # whatever the umask is
        yield part
        with closing(sqlite3.connect(part)) as raw:
            (found,) = raw.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StoreUnavailable(f"backup {target}: it is damaged ({found})")
        _sync(part)
        part.rename(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"backup {target}: it cannot be written ({_reason(error)})") from error
    finally:
        for end in ("", *_BESIDE):
            with suppress(OSError):  # it has its name, or is left over from what failed
                Path(f"{part}{end}").unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Unfinished backups of the same store: whoever was at them was killed, or we would not lead."""
    ours = target.name.rpartition(".v")[0] + ".v"
    for path in target.parent.iterdir():
        if path.name.startswith(ours) and ".bak.part" in path.name:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
