"""What the SQLite adapter promises beyond the port: its files, its errors, its plans and its checkpoints."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from db.checkpointer import Checkpointer
from db.schema import LOOP_QUERIES, TABLES, UOW_UNFINISHED, LoopQuery
from db.sql import SqlStore
from db.sqlite import SqliteDatabase
from scheduler.core.errors import ConfigError, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import Where
from scheduler.core.records import Fact
from scheduler.core.uow import Uow

T = datetime(2013, 7, 4, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is to be."""
    return tmp_path / "a store, 100%.db"


@pytest.fixture
def opened(path: Path, clock: Any) -> Iterator[SqlStore]:
    """A store on that file."""
    store = open_store(f"sqlite:///{path}", clock=clock)
    assert isinstance(store, SqlStore)
    store.init()
    yield store
    store.close()


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# --- opening


@pytest.mark.parametrize(
    "url",
    ["oracle://x/y", "sqlite", "sqlite:", "sqlite://", "sqlite:///", "", "/var/store.db", "sqlite:/x.db"],
)
def test_nonsense_is_refused(url: str, clock: Any) -> None:
    with pytest.raises(ConfigError) as error:
        open_store(url, clock=clock)
    assert "sqlite" in one_line(error)


def test_synchronous_is_checked(clock: Any) -> None:
    with pytest.raises(ConfigError, match="NORMAL, FULL"):
        open_store("sqlite:///:memory:", clock=clock, synchronous="SOMETIMES")


def test_a_missing_folder(tmp_path: Path, clock: Any) -> None:
    store = open_store(f"sqlite:///{tmp_path}/none/x.db", clock=clock)
    with pytest.raises(StoreUnavailable, match="there is no folder"):
        store.init()
    assert not (tmp_path / "none").exists()


def test_a_store_that_was_not_initialised(path: Path, clock: Any) -> None:
    store = open_store(f"sqlite:///{path}", clock=clock)
    with pytest.raises(StoreUnavailable, match="not initialised"):
        store.find(Fact)
    assert not path.exists(), "reading makes no file"
    path.touch()
    with pytest.raises(StoreUnavailable, match="not initialised"):
        store.find(Fact)


def test_init_again_changes_nothing(path: Path, clock: Any, opened: SqlStore) -> None:
    opened.init()
    again = open_store(f"sqlite:///{path}", clock=clock)
    again.init()
    assert again.find(Fact) == [Fact(key="schema", value={"version": 1})]
    again.close()
    raw = sqlite3.connect(path)
    (first,) = raw.execute("SELECT min(rootpage), name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert first[1] == "facts", "the version is there from the first table on"
    raw.close()


def test_a_newer_schema_is_refused(path: Path, opened: SqlStore) -> None:
    raw = sqlite3.connect(path)
    raw.execute("UPDATE facts SET value = '{\"version\":2}' WHERE key = 'schema'")
    raw.commit()
    raw.close()
    with pytest.raises(ConfigError, match="newer program"):
        opened.init()


@pytest.mark.parametrize("table", ["customers (id)", "facts (id)", "facts (key, value)"])
def test_a_database_of_another_program_is_not_touched(path: Path, clock: Any, table: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute(f"CREATE TABLE {table}")
    values = ", ".join("'schema'" for _ in table.split(","))
    raw.execute(f"INSERT INTO {table.partition(' ')[0]} VALUES ({values})")
    raw.commit()
    raw.close()
    before = path.read_bytes()
    store = open_store(f"sqlite:///{path}", clock=clock, maintain=True)
    with pytest.raises(ConfigError, match="another program") as error:
        store.init()
    one_line(error)
    store.close()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_not_touched(path: Path, clock: Any) -> None:
    path.write_text("name;age\nx;7\n" * 1000)
    before = path.read_bytes()
    store = open_store(f"sqlite:///{path}", clock=clock)
    for attempt in (store.init, lambda: store.find(Fact)):
        with pytest.raises(StoreUnavailable, match="not an SQLite database") as error:
            attempt()
        one_line(error)
    assert path.read_bytes() == before


def test_a_relative_path_stays_where_it_was(path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    store = open_store("sqlite:///x.db", clock=clock)
    monkeypatch.chdir("/")
    store.init()
    assert (path.parent / "x.db").is_file()
    store.close()


# --- trouble


def test_a_lock_held_by_a_stranger(path: Path, clock: Any, opened: SqlStore) -> None:
    impatient = SqlStore(SqliteDatabase(str(path), clock, busy_timeout_s=0.05))
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with (
        pytest.raises(StoreUnavailable, match="another program has locked it") as error,
        impatient.transaction() as transaction,
    ):
        transaction.insert([Fact(key="x", value={})])
    one_line(error)
    assert impatient.count(Fact) == {(): 1}, "readers go on"
    stranger.execute("ROLLBACK")
    with impatient.transaction() as transaction:
        transaction.insert([Fact(key="x", value={})])
    stranger.close()
    impatient.close()


def test_damage_is_named(path: Path, clock: Any, opened: SqlStore) -> None:
    with opened.transaction() as transaction:
        transaction.insert([event(n) for n in range(500)])
    opened.close()
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    store = open_store(f"sqlite:///{path}", clock=clock)
    with pytest.raises(StoreUnavailable, match="damaged") as error:
        store.find(Event)
    one_line(error)
    store.close()


def write_in_a_fork(path: Path, clock: Any, prepare: Callable[[], None]) -> str:
    """What a writer is told, in a child process, after `prepare` made trouble there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = "nothing"
        try:
            store = open_store(f"sqlite:///{path}", clock=clock)
            prepare()
            assert store.count(Fact) == {(): 1}
            for n in range(100):
                with store.transaction() as transaction:
                    transaction.insert([Fact(key=f"{n}.{i}", value={"x": "y" * 5000}) for i in range(10)])
        except BaseException as error:  # noqa: BLE001 the child ends here, whatever it is
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, told.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    assert "\n" not in told
    return told


def test_a_full_disk(path: Path, clock: Any, opened: SqlStore) -> None:
    def no_file_above_400_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    told = write_in_a_fork(path, clock, no_file_above_400_kb)
    assert told.startswith(f"StoreUnavailable: store {path}: ") and "full" in told
    assert opened.count(Fact)[()] % 10 == 1, "whole transactions only"
    with opened.transaction() as transaction:  # and goes on when there is space
        transaction.insert([Fact(key="after", value={})])


def test_a_file_of_somebody_else(clock: Any) -> None:
    """Root becomes somebody who may not write; who is not root has no rights to give away, and takes its own."""
    folder = Path(tempfile.mkdtemp())

    def not_ours() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        else:
            (folder / "x.db").chmod(0o444)
            folder.chmod(0o555)

    try:
        folder.chmod(0o755)
        store = open_store(f"sqlite:///{folder}/x.db", clock=clock)
        store.init()
        told = write_in_a_fork(folder / "x.db", clock, not_ours)
        assert told.startswith("StoreUnavailable: ") and ("Permission denied" in told or "read-only" in told)
        store.close()
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_killed_writer_leaves_a_sound_file(path: Path, opened: SqlStore, child_env: dict[str, str]) -> None:
    child_script = Path(__file__).with_name("store_child.py")
    for _ in range(3):
        command = [sys.executable, str(child_script), "write", f"sqlite:///{path}", "box:a", "1000000"]
        child = subprocess.Popen(command, env=child_env, stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline() == b"ready\n"
        seen = opened.count(Event)[()]
        while opened.count(Event)[()] < seen + 100:
            pass
        child.kill()
        child.communicate()
        raw = sqlite3.connect(path)
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        raw.close()


# --- plans


@pytest.mark.parametrize("query", LOOP_QUERIES, ids=lambda query: query.name)
def test_a_query_of_the_loop_uses_its_index(opened: SqlStore, query: LoopQuery) -> None:
    plan = opened.explain(query.kind, query.where, query.order, query.limit)
    assert plan[0].startswith("SEARCH") or (plan[0].startswith("SCAN") and "INDEX" in plan[0]), plan
    if query.index == "key":
        assert "sqlite_autoindex" in plan[0] or "PRIMARY KEY" in plan[0], plan
    else:
        assert f"INDEX {query.index} " in f"{plan[0]} ", plan


def test_counting_what_is_active_reads_an_index_alone(opened: SqlStore) -> None:
    unfinished = (Where("state", "in", UOW_UNFINISHED), Where("kind", "=", "work"))
    shape, values = opened.statements.conditions(Uow, unfinished)
    count = opened.statements.count(Uow, shape, ("process",))
    raw = sqlite3.connect(opened.database.path)  # type: ignore[attr-defined]
    (plan,) = raw.execute(f"EXPLAIN QUERY PLAN {count.sql}", values).fetchall()
    raw.close()
    assert "USING COVERING INDEX uows_unfinished" in plan[-1], plan


def test_no_index_is_without_a_query() -> None:
    made = {index.name for table in TABLES.values() for index in table.indexes}
    assert made == {query.index for query in LOOP_QUERIES} - {"key"}


def test_the_newest_and_oldest_are_found_without_sorting_everything(opened: SqlStore) -> None:
    for query in LOOP_QUERIES:
        if query.limit and query.index == "key":
            plan = opened.explain(query.kind, query.where, query.order, query.limit)
            assert len(plan) == 1, plan


# --- checkpoints


def event(n: int) -> Event:
    """An event of about 1 KB."""
    return Event(source="s", seq=n, at=T, business_at=T, kind="test.write", message="x" * 1000)


def wait_for(condition: Any) -> None:
    """Wait until a thread did what it should."""
    tick = threading.Event()
    for _ in range(2000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never happened")


def test_nobody_checkpoints_but_the_checkpointer(path: Path, opened: SqlStore) -> None:
    wal = Path(f"{path}-wal")
    before = path.stat().st_size
    for n in range(0, 6000, 100):
        with opened.transaction() as transaction:
            transaction.insert([event(n + i) for i in range(100)])
    assert wal.stat().st_size > 6_000_000
    assert path.stat().st_size == before
    database = opened.database
    assert isinstance(database, SqliteDatabase)
    first = Checkpointer(str(path), database.connect, interval_s=0.01, truncate_bytes=1_000_000)
    second = Checkpointer(str(path), database.connect, interval_s=0.01, truncate_bytes=1_000_000)
    first.start()
    wait_for(lambda: wal.stat().st_size == 0)  # larger than the limit: truncated
    assert first.in_charge
    second.start()
    with opened.transaction() as transaction:
        transaction.insert([event(9000)])
    size = path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns != size)  # small: moved over, file kept
    assert wal.stat().st_size > 0
    assert not second.in_charge, "one of them at a time"
    first.stop()
    wait_for(lambda: second.in_charge)
    second.stop()
    second.stop()
    assert opened.count(Event) == {(): 6001}


def test_a_maintained_store_has_a_checkpointer_until_it_is_closed(path: Path, clock: Any) -> None:
    store = open_store(f"sqlite:///{path}", clock=clock, maintain=True)
    store.init()
    assert [t.name for t in threading.enumerate()].count("checkpointer") == 1
    store.init()
    store.find(Fact)
    assert [t.name for t in threading.enumerate()].count("checkpointer") == 1
    store.close()
    assert "checkpointer" not in [t.name for t in threading.enumerate()]


def test_only_who_holds_the_lock_file_checkpoints(path: Path, opened: SqlStore) -> None:
    database = opened.database
    assert isinstance(database, SqliteDatabase)
    holder = os.open(f"{path}.checkpoint", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    candidate = Checkpointer(str(path), database.connect, interval_s=0.01)
    candidate.start()
    opened.count(Fact)
    assert not candidate.in_charge
    os.close(holder)
    wait_for(lambda: candidate.in_charge)
    candidate.stop()
