"""`launch.py store …` as it is typed: what it prints, what it returns, what it refuses."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from commands.dispatch import main
from db import open_store
from db.schema import TABLES
from scheduler import moving
from scheduler.clock import SystemClock
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Store, Where
from scheduler.core.records import Fact, Lease, LogChunk
from scheduler.core.uow import Uow
from tests.world import a_small_world

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of a small installation that has worked for half a day, and whose scheduler is stopped."""
    found = f"sqlite:///{tmp_path}/store.sqlite"
    monkeypatch.setenv("SYNERGY_STORE_URL", found)
    monkeypatch.setenv("SYNERGY_STATE_FOLDER", str(tmp_path / "state"))
    world = a_small_world()
    for _ in range(24):
        world.wait(1800)
        for id_ in world.work_all():
            with world.store.transaction() as tx:
                log = [LogChunk(uow=id_, attempt=1, n=n, at=world.clock.real(), text="é\n") for n in range(3)]
                tx.insert(log)
    world.engine.step_down()
    store = opened(found)
    store.init()
    moving.copy(world.store, store, lambda: None, lambda _name, _rows: None)
    store.close()
    return found


def opened(url: str) -> Store:
    """A store of ours."""
    return open_store(url, clock=SystemClock(lambda: None))


def lose(url: str, kind: type, *where: Where) -> None:
    """Rows are lost."""
    store = opened(url)
    with store.transaction() as tx:
        assert tx.delete(kind, where)
    store.close()


def lead(url: str) -> None:
    """A scheduler leads."""
    store = opened(url)
    until = store.now() + timedelta(seconds=30)
    with store.transaction() as tx:
        change = Change(Lease, "leader", {}, {"holder": "box:scheduler", "expires_at": until})
        assert tx.update([change]) == 1
    store.close()


def told(capsys: Capture) -> Any:
    """What --json printed."""
    return json.loads(capsys.readouterr().out)


# -- init and check -----------------------------------------------------------------------------------------


def test_init_says_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    path = tmp_path / "new.sqlite"
    monkeypatch.setenv("SYNERGY_STORE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("SYNERGY_STATE_FOLDER", str(tmp_path / "state"))
    assert main(["store", "check"]) == 3
    assert "there is no such file" in capsys.readouterr().err
    assert not path.exists()
    assert main(["store", "init"]) == 0
    assert "made everything" in capsys.readouterr().out
    assert main(["store", "init"]) == 0
    assert "everything was there" in capsys.readouterr().out
    with sqlite3.connect(path) as raw:
        raw.execute("DROP INDEX jobs_open")
    raw.close()
    assert main(["store", "check", "--json"]) == 1
    assert [f["about"] for f in told(capsys)["findings"]] == ["index jobs_open"]
    assert main(["store", "init", "--json"]) == 0
    assert told(capsys)["made"] == ["index jobs_open"]
    assert main(["store", "check"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_a_lost_table_is_made_again_by_repair(url: str, capsys: Capture) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        raw.execute("DROP TABLE holds")
    raw.close()
    assert main(["store", "check"]) == 1
    assert "table holds" in capsys.readouterr().out
    assert main(["store", "repair"]) == 0
    assert main(["store", "check"]) == 0


def test_check_and_repair_of_lost_rows(url: str, capsys: Capture) -> None:
    """Scenario 64, as it is typed."""
    assert main(["store", "check"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    lose(url, Job, Where("process", "=", "hourly"))
    before = Path(url.removeprefix("sqlite:///")).read_bytes()
    assert main(["store", "check"]) == 1
    out = capsys.readouterr().out
    assert "hourly@2020050103" in out
    assert "1 unit of work of it kept" in out
    assert main(["store", "repair", "--dry-run"]) == 0
    assert "would be repaired" in capsys.readouterr().out
    assert Path(url.removeprefix("sqlite:///")).read_bytes() == before, "both only read"
    assert main(["store", "repair", "--json"]) == 0
    assert {finding["code"] for finding in told(capsys)["repaired"]} == {"job.lost", "job.missing"}
    assert main(["store", "check"]) == 0


def test_what_has_no_remedy_ends_with_1(url: str, capsys: Capture) -> None:
    lose(url, Event, Where("seq", "=", 20))
    assert main(["store", "check"]) == 0, "retention may have taken it"
    kept = ["--set", "event_retention_days=36500", "--set", "uow_retention_days=36500"]
    assert main(["store", "repair", "--json", *kept]) == 1
    parts = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert [finding["says"] for finding in parts["left"]] == ["number 20 is missing"]
    assert main(["store", "repair", *kept]) == 1
    assert "1 left to you" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["repair", "prune"])
def test_a_scheduler_that_leads_is_left_alone(url: str, capsys: Capture, action: str) -> None:
    lead(url)
    assert main(["store", action]) == 5
    assert "a scheduler leads, box:scheduler: stop it first" in capsys.readouterr().err
    assert main(["store", "check"]) == 0, "to look is harmless"


# -- copy ---------------------------------------------------------------------------------------------------


def test_copy_and_compare(url: str, tmp_path: Path, capsys: Capture) -> None:
    other = f"sqlite:///{tmp_path}/copy.sqlite"
    assert main(["store", "copy", url, other, "--json"]) == 0
    copied = told(capsys)
    assert copied["same"] is True
    rows = {table["name"]: table["rows"] for table in copied["tables"]}
    assert rows["jobs"] > 12
    assert rows["logs"] == 3 * rows["units_of_work"]
    assert main(["store", "copy", url, other]) == 5
    assert "is not empty" in capsys.readouterr().err
    assert main(["store", "check", "--set", f"store_url={other}"]) == 0


def test_a_copy_that_differs_is_told(
    url: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = moving.copy

    def careless(source: Store, destination: Store, *more: Any) -> None:
        copy(source, destination, *more)
        with destination.transaction() as tx:
            tx.update([Change(Job, "hourly@2020050103", {}, {"detail": "x"})])

    monkeypatch.setattr(moving, "copy", careless)
    assert main(["store", "copy", url, f"sqlite:///{tmp_path}/copy.sqlite"]) == 1
    out = capsys.readouterr().out
    assert "1 tables differ" in out
    assert "DIFFERENT" in out


def test_a_source_that_is_in_use_is_refused(url: str, tmp_path: Path, capsys: Capture) -> None:
    other = f"sqlite:///{tmp_path}/copy.sqlite"
    store = opened(url)
    (uow,) = store.find(Uow, (), ("id",), 1)
    held = {"state": "in_progress", "owner": "b/w", "lease_until": store.now() + timedelta(seconds=60)}
    with store.transaction() as tx:
        tx.update([Change(Uow, uow.id, {}, held)])
    store.close()
    assert main(["store", "copy", url, other]) == 5
    assert "workers are at work there (b/w)" in capsys.readouterr().err
    lead(url)
    assert main(["store", "copy", url, other]) == 5
    assert "a scheduler leads" in capsys.readouterr().err


def test_nonsense_is_refused(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["store", "copy", url, url]) == 2
    assert main(["store", "copy", f"sqlite:///{tmp_path}/none.sqlite", url]) == 3
    assert main(["store", "copy", url, "oracle://u:secret@h/x"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_every_table_is_copied() -> None:
    ours = {table.name: (table.kind, table.key) for table in TABLES.values()}
    assert ours == moving.KINDS


def test_pages_end_for_keys_that_share_their_first_part(tmp_path: Path) -> None:
    store = opened(f"sqlite:///{tmp_path}/x.sqlite")
    store.init()
    chunks = [
        LogChunk(uow=f"u{n % 3}", attempt=1, n=n, at=store.now(), text="x") for n in range(moving.PAGE * 3)
    ]
    with store.transaction() as tx:
        tx.insert(chunks)
    found = [chunk for page in moving.pages(store, "logs") for chunk in page]
    assert found == sorted(chunks, key=lambda c: (c.uow, c.attempt, c.n))
    store.close()


def test_canonical_bytes_know_every_field() -> None:
    fact = Fact(key="k", value={"b": 1, "a": "é"})
    assert moving.canonical(fact) == '{"key":"k","value":{"a":"é","b":1}}\n'.encode()
    assert {field.name for field in fields(Fact)} == {"key", "value"}


# -- prune --------------------------------------------------------------------------------------------------


def test_prune_says_what_went(url: str, capsys: Capture) -> None:
    assert main(["store", "prune", "--json"]) == 0
    gone = told(capsys)
    assert gone["logs"] > 0
    assert gone["events"] > 0
    assert gone["snapshots"] > 0
    assert main(["store", "prune"]) == 0
    assert "nothing removed" in capsys.readouterr().out
    assert main(["store", "check"]) == 0
    assert main(["store", "prune", "--log-days", "0"]) == 2
