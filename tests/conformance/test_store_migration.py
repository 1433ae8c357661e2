"""From one schema version to the next, on every store that lasts: with a backup, in one piece, by one at a time.

No older version was ever released, so the next one is made up here: a column that is added and filled, one that
is filled from another, an index that goes. It is handed in; the shipped table of steps stays as it is.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from commands.upgrade import Upgraded, renewing, upgrade
from db import backup, open_store
from db.migrations import (
    STEPS,
    AddColumn,
    DropIndex,
    Fill,
    Migratable,
    Step,
    added,
    latest,
    require_current,
    version_of,
)
from db.mongo import MongoStore
from db.schema import SCHEMA_VERSION, TABLES, Column
from db.sql import SqlStore
from scheduler import moving
from scheduler.charge import charge
from scheduler.core.errors import ConfigError, Refused, StoreUnavailable
from scheduler.core.ports import Change
from scheduler.core.records import BoxProcess, Fact, Hold, Lease, LogChunk
from tests.conformance.store_records import T, event, insert, job, uow

NEXT = (
    Step(
        2,
        "jobs know their region",
        (
            AddColumn("jobs", Column("region", "key", True), "nowhere"),
            AddColumn("jobs", Column("label", "text", True)),
            Fill("jobs", "label", "timeperiod"),
            AddColumn("units_of_work", Column("extra", "json", True), {"n": 1}),
            DropIndex("jobs", "jobs_period"),
        ),
    ),
    Step(3, "boxes count their starts", (AddColumn("boxes", Column("starts", "int", True), 0),)),
)
CHILD = Path(__file__).with_name("migration_child.py")


@pytest.fixture
def store(shared_url_of_its_own: str, clock: Any) -> Iterator[Migratable]:
    """A store of version 1 with something in every corner, which is thrown away afterwards."""
    found = cast("Migratable", open_store(shared_url_of_its_own, clock=clock))
    found.init()
    insert(found, *[job(n) for n in range(30)], *[uow(n) for n in range(30)])
    insert(
        found, *[event("s", n) for n in range(1, 40)], Hold(scope="all", actor="anna", reason="é", since=T)
    )
    insert(found, *[LogChunk(uow="p@1#1", attempt=1, n=n, at=T, text="ö\n") for n in range(5)])
    insert(found, Lease(name="leader", holder="old:scheduler", token=7, expires_at=T, taken_at=T))
    insert(found, BoxProcess(id="old/scheduler", box="old", name="scheduler", kind="scheduler", seen_at=T))
    yield found
    found.close()


@pytest.fixture
def shared_url_of_its_own(new_url: str) -> str:
    """A database of its own: it is changed for good."""
    return new_url


def migrated(store: Migratable, clock: Any, folder: Path, **more: Any) -> Upgraded | None:
    """Migrate as the command does, to version 3."""
    given: dict[str, Any] = {"steps": NEXT, "folder": folder, "holder": "store@here:1", "shown": "it"}
    given |= {"progress": lambda _what, _rows: None, "monotonic": clock.monotonic}
    return upgrade(store, clock, **given | more)


def newer(store: Migratable) -> Migratable:
    """The store as the next program opens it."""
    store.version = latest(NEXT)
    return store


def column(store: Migratable, table: str, name: str) -> list[Any]:
    """All values of a column of the database, as its driver gives them."""
    if isinstance(store, MongoStore):
        documents = store.link.live().database[table].find(sort=[("_id", 1)])
        return [document.get(name) for document in documents]
    assert isinstance(store, SqlStore)
    with store._session() as session:
        key = next(found.key[0] for found in TABLES.values() if found.name == table)
        return [value for (value,) in session.query(f"SELECT {name} FROM {table} ORDER BY {key}", ())]


def everything(store: Any) -> dict[str, list[Any]]:
    """All records, but for the version and who leads."""
    kinds = {name: list(moving.pages(store, name)) for name in moving.KINDS}
    leases = [replace(lease, token=0, holder="", expires_at=T, taken_at=T, data=None)
              for page in kinds.pop("leases") for lease in page]  # fmt: skip
    return {name: [row for page in pages for row in page] for name, pages in kinds.items()} | {
        "leases": leases
    }


# -- the table of steps -------------------------------------------------------------------------------------


def test_the_steps_lead_to_the_version_of_the_schema() -> None:
    assert latest(STEPS) == SCHEMA_VERSION
    assert added(STEPS).keys() <= {table.name for table in TABLES.values()} - {"facts", "leases"}
    assert added(NEXT) == {
        "jobs": {"region", "label"},
        "units_of_work": {"extra"},
        "boxes": {"starts"},
    }


# -- on every store -----------------------------------------------------------------------------------------


def test_a_newer_program_migrates_with_a_backup(store: Migratable, clock: Any, tmp_path: Path) -> None:
    before = everything(store)
    done = migrated(store, clock, tmp_path / "backups")
    assert done is not None and (done.old, done.new) == (1, 3)
    assert version_of(store) == 3
    assert set(column(store, "jobs", "region")) == {"nowhere"}
    assert column(store, "jobs", "label") == [f"{n:03}" for n in range(30)]
    assert [value.replace(" ", "") for value in column(store, "units_of_work", "extra")] == ['{"n":1}'] * 30
    assert column(store, "boxes", "starts") == [0]
    newer(store).init()
    assert getattr(store, "absent", list)() == [], "an index that the schema has is made again"
    assert everything(store) == before
    with charge(store, "anna", clock.monotonic):
        pass  # nobody leads: the lease was handed over
    assert migrated(store, clock, tmp_path) is None, "there is nothing left to do"
    # the backup is a store of the old version, with the same records, in which nobody leads
    assert done.backup is not None and done.backup.is_file()
    assert [path.name for path in done.backup.parent.glob(f"{done.backup.name}?*")] == [], "nothing beside it"
    old = open_store(f"sqlite:///{done.backup}", clock=clock)
    old.init()
    assert everything(old) == before
    lease = old.get(Lease, "leader")
    assert lease is not None and lease.expires_at <= old.now()
    old.close()


def test_the_backup_of_records_lacks_what_is_new(
    store: Migratable, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server, when the record of the new program has a field that the old store has not."""
    step = (Step(2, "jobs have details", (AddColumn("jobs", Column("detail", "text", True)),)),)
    monkeypatch.setattr(backup, "file_of", lambda _store: None)  # an SQLite store too is copied by records
    done = migrated(store, clock, tmp_path, steps=step)
    assert done is not None and done.backup is not None
    with closing(sqlite3.connect(done.backup)) as raw:
        names = [row[1] for row in raw.execute("PRAGMA table_info(jobs)")]
        assert "detail" not in names and "process" in names
        assert raw.execute("SELECT count(*) FROM jobs").fetchone() == (30,)
        assert raw.execute("SELECT value FROM facts WHERE key = 'schema'").fetchone() == ('{"version":1}',)
    assert stat.S_IMODE(done.backup.stat().st_mode) == 0o600


def test_an_older_store_is_refused_until_it_is_migrated(store: Migratable) -> None:
    with pytest.raises(
        ConfigError, match=r"has schema version 1, this program works with 3: .*store migrate"
    ) as e:
        newer(store).init()
    assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="store migrate"):
        require_current(store, "it", 3)
    assert version_of(store) == 1


def test_an_older_program_refuses_a_newer_store(store: Migratable, clock: Any, tmp_path: Path) -> None:
    migrated(store, clock, tmp_path, backup=False)
    for refuse in (
        store.init,
        lambda: require_current(store, "it"),
        lambda: migrated(store, clock, tmp_path, steps=()),
    ):
        with pytest.raises(
            ConfigError, match="has schema version 3, we know 1: use a newer program"
        ) as error:
            refuse()
        assert "\n" not in str(error.value)


def test_a_migration_that_broke_off_is_repeated(store: Migratable, clock: Any, tmp_path: Path) -> None:
    """Wherever it breaks off: all of it is undone, or what was done is not done twice; the version is the last."""
    breaks = 0
    while True:
        left = breaks

        def tick(_what: str, _rows: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("the machine is gone")

        try:
            store.migrate(NEXT, tick)
        except RuntimeError:
            assert version_of(store) == 1
            breaks += 1
            continue
        break
    assert breaks == 9, "it broke off between any two moves"
    assert version_of(store) == 3
    assert set(column(store, "jobs", "region")) == {"nowhere"}
    newer(store).init()


def test_nobody_may_be_at_work(store: Migratable, clock: Any, tmp_path: Path) -> None:
    row = BoxProcess(
        id="b2/worker.1", box="b2", name="w", kind="worker", state="RUNNING", seen_at=store.now()
    )
    insert(store, row)
    clock.move(3)
    with pytest.raises(Refused, match=r"b2/worker.1 ran 3 s ago: stop every box"):
        migrated(store, clock, tmp_path)
    clock.move(20)  # it is dead
    with (
        charge(store, "b2:scheduler", clock.monotonic),
        pytest.raises(Refused, match="a scheduler leads, b2:scheduler"),
    ):
        migrated(store, clock, tmp_path)
    held = {"state": "in_progress", "owner": "b2/w", "lease_until": store.now() + timedelta(seconds=9)}
    with store.transaction() as tx:
        assert tx.update([Change(type(uow(1)), uow(1).id, {}, held)]) == 1
    with pytest.raises(Refused, match="workers are at work there"):
        migrated(store, clock, tmp_path)
    assert version_of(store) == 1
    clock.move(10)
    assert migrated(store, clock, tmp_path) is not None


def test_the_lead_is_kept_while_one_statement_takes_long(store: Migratable, clock: Any) -> None:
    with charge(store, "store", clock.monotonic) as lead:
        clock.move(50)
        with renewing(lead, every_s=0.01):
            until = store.now() + timedelta(seconds=30)
            while (lease := store.get(Lease, "leader")) is None or lease.expires_at < until:
                pass  # the time limit of the test ends it
    with charge(store, "store", clock.monotonic):
        pass  # it was handed over


def test_without_a_backup_nothing_is_changed(
    store: Migratable, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").write_text("a file")
    path = backup.file_of(store)
    if path is not None:  # beside it there is no room either
        target = tmp_path / "plain" / "x"
        monkeypatch.setattr(
            Path, "with_name", lambda self, name: target if ".bak" in name else self.parent / name
        )
    with pytest.raises(StoreUnavailable, match=r"backup .*cannot be written \(") as error:
        migrated(store, clock, tmp_path / "plain")
    monkeypatch.undo()
    assert "\n" not in str(error.value)
    assert version_of(store) == 1
    store.init()
    if isinstance(store, SqlStore):
        with store._session() as session:
            assert "region" not in store.database.columns(session, "jobs")
    with charge(store, "anna", clock.monotonic):
        pass


def test_a_server_is_put_back_from_its_backup(store: Migratable, clock: Any, tmp_path: Path) -> None:
    """The way back, as the older program goes it: `store copy` into an empty store."""
    before = everything(store)
    done = migrated(store, clock, tmp_path)
    assert done is not None
    old = open_store(f"sqlite:///{done.backup}", clock=clock)
    again = open_store(f"sqlite:///{tmp_path}/again.db", clock=clock)
    again.init()
    moving.copy(old, again, lambda: None, lambda _name, _rows: None)
    assert everything(again) == before
    assert version_of(again) == 1
    old.close()
    again.close()


# -- processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def child(child_env: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a migrating process."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        argv = [sys.executable, str(CHILD), *map(str, words)]
        started.append(subprocess.Popen(argv, env=child_env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("moves", [0, 3, 6])
def test_kill_9_in_the_middle(
    store: Migratable, shared_url_of_its_own: str, child: Any, moves: int, clock: Any, tmp_path: Path
) -> None:
    process = child("pause", shared_url_of_its_own, moves)
    assert said(process) == "paused"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert version_of(store) == 1
    assert migrated(store, clock, tmp_path) is not None
    assert version_of(store) == 3
    assert set(column(store, "jobs", "region")) == {"nowhere"}
    assert column(store, "boxes", "starts") == [0]


def test_two_at_once(store: Migratable, shared_url_of_its_own: str, child: Any, tmp_path: Path) -> None:
    """One does it; the other is told who is at it, or finds it done."""
    both = [child("upgrade", shared_url_of_its_own, tmp_path) for _ in range(2)]
    found = sorted(said(process) for process in both)
    assert "migrated" in found
    assert found in (["migrated", "nothing"], ["migrated", "refused"])
    assert version_of(store) == 3
    assert len(list(tmp_path.rglob("*.bak"))) == 1


def test_somebody_was_faster(
    store: Migratable, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at the version and our lead another migrated all of it: there is nothing left, no backup."""

    def later(*given: Any) -> Any:
        store.migrate(NEXT, lambda _what, _rows: None)
        return charge(*given)

    monkeypatch.setattr("scheduler.charge.charge", later)
    assert migrated(store, clock, tmp_path) is None
    assert not list(tmp_path.rglob("*.bak"))


# -- SQLite: the file itself --------------------------------------------------------------------------------


def test_the_file_is_put_back(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "the store.db"
    store = cast("Migratable", open_store(f"sqlite:///{path}", clock=clock))
    store.init()
    insert(store, *[job(n) for n in range(5)])
    insert(store, Lease(name="leader", holder="old:scheduler", token=7, expires_at=T, taken_at=T))
    path.chmod(0o640)
    before = everything(store)
    done = migrated(store, clock, tmp_path)
    assert done is not None and done.backup is not None
    assert done.backup.parent == tmp_path and done.backup.name.startswith("the store.db.v1-")
    assert stat.S_IMODE(done.backup.stat().st_mode) == 0o640
    store.close()
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    shutil.copy(done.backup, path)
    again = open_store(f"sqlite:///{path}", clock=clock)
    again.init()
    assert everything(again) == before
    insert(again, job(7))
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    again.close()


def test_what_a_killed_backup_left_is_removed(tmp_path: Path, clock: Any) -> None:
    for name in ("store.db.v1-2026.bak.part", "store.db.v1-2026.bak.part-wal"):
        (tmp_path / name).write_text("half of it")
    kept = ["other.db.v1-2026.bak.part", "store.db.v0-2025.bak", "store.db.bak.part"]
    for name in kept:
        (tmp_path / name).write_text("somebody's")
    store = cast("Migratable", open_store(f"sqlite:///{tmp_path}/store.db", clock=clock))
    store.init()
    done = migrated(store, clock, tmp_path)
    store.close()
    assert done is not None and done.backup is not None
    assert sorted(path.name for path in tmp_path.glob("*.bak*")) == sorted([*kept, done.backup.name])


def test_a_backup_is_one_moment(tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals of our own lease meanwhile do not begin it anew."""
    monkeypatch.setattr(backup, "PAGES", 1)
    path = tmp_path / "store.db"
    store = cast("Migratable", open_store(f"sqlite:///{path}", clock=clock))
    store.init()
    insert(store, *[event("s", n, message="x" * 500) for n in range(1, 300)])
    calls = []

    def tick(what: str, rows: int) -> None:
        calls.append(rows)
        if len(calls) % 7 == 0:
            insert(store, Fact(key=f"more.{len(calls)}", value={}))

    backup.of_file(path, tmp_path / "copy.bak", tick)
    with closing(sqlite3.connect(tmp_path / "copy.bak")) as raw:
        assert raw.execute("SELECT count(*) FROM facts").fetchone() == (1,)
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
    assert sum(calls) == len(calls) == pages, "each page once"
    store.close()


def test_progress_is_told_after_two_seconds() -> None:
    from commands.upgrade import Teller

    now = [0.0]
    lines: list[str] = []
    tell = Teller(lines.append, lambda: now[0])
    for seconds in (0.5, 1.0, 0.6, 1.0, 1.1):
        now[0] += seconds
        tell("jobs", 1000)
    assert lines == [
        "migrating the store: jobs, 3,000 rows so far",
        "migrating the store: jobs, 5,000 rows so far",
    ]
