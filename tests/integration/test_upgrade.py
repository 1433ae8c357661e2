"""A store and a program of different versions, as people meet them: what is typed, one line, the exit code."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from commands import upgrade
from commands.dispatch import main
from commands.site import Site
from db import migrations, open_store
from db.migrations import AddColumn, Step, version_of
from db.schema import Column
from scheduler.charge import charge
from scheduler.clock import SystemClock
from scheduler.core.errors import ConfigError, Refused
from scheduler.core.ports import Change
from scheduler.core.records import Fact
from scheduler.daemon import Daemon
from tests.integration.test_box_commands import Project
from tests.world import a_small_world

NEXT = (Step(2, "jobs know their region", (AddColumn("jobs", Column("region", "text", True), "x"),)),)
Capture = pytest.CaptureFixture[str]


def raise_version(file: Path, version: int) -> None:
    """As a newer program leaves it."""
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("UPDATE facts SET value = ? WHERE key = 'schema'", (f'{{"version":{version}}}',))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose store was made."""
    made = Project(tmp_path / "my project")
    made.write()
    made.ok("store", "init")
    yield made
    made.clean()


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of an installation of version 1, for a program that knows version 2 and is in this process."""
    found = f"sqlite:///{tmp_path}/store.sqlite"
    monkeypatch.setenv("SYNERGY_STORE_URL", found)
    monkeypatch.setenv("SYNERGY_STATE_FOLDER", str(tmp_path / "state"))
    assert main(["store", "init"]) == 0
    monkeypatch.setattr(migrations, "STEPS", NEXT)
    return found


def found_version(url: str) -> int | None:
    """Of the store."""
    store = open_store(url, clock=SystemClock(lambda: None))
    try:
        return version_of(store)
    finally:
        store.close()


def test_every_command_and_process_refuses_a_newer_store(project: Project) -> None:
    """An older program says so in one line, ends with 2, and leaves everything as it is."""
    file = project.folder / ".synergy" / "synergy.sqlite"
    raise_version(file, 2)
    before = file.read_bytes()
    other = f"sqlite:///{project.folder}/other.sqlite"
    words = [["store", what] for what in ("init", "check", "repair", "prune", "migrate")]
    words += [["store", "copy", f"sqlite:///{file}", other], ["start"], ["jobs"]]
    words += [["start", name, "--foreground"] for name in ("scheduler", "worker.default.1", "mx")]
    for typed in words:
        code, out, err = project.type(*typed)
        assert code == 2, (typed, code, out, err)
        (line,) = [line for line in err.splitlines() if "schema version" in line]
        assert "has schema version 2, we know 1: use a newer program" in line, typed
    assert file.read_bytes() == before
    assert project.living() == []


def test_migrate_as_it_is_typed(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["store", "migrate", "--json"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out[out.index("{") :])["migrated"]
    assert (told["old"], told["new"]) == (1, 2)
    assert Path(told["backup"]).is_file()
    assert main(["store", "migrate"]) == 0
    assert "there is nothing to migrate" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.bak"))) == 1


def test_migrate_without_a_backup(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["store", "migrate", "--no-backup"]) == 0
    assert capsys.readouterr().out.endswith(": migrated from schema version 1 to 2\n")
    assert list(tmp_path.glob("*.bak")) == []


def test_migrate_is_refused_while_a_scheduler_leads(url: str, tmp_path: Path, capsys: Capture) -> None:
    store = open_store(url, clock=(clock := SystemClock(lambda: None)))
    with charge(store, "b:scheduler", clock.monotonic):
        assert main(["store", "migrate"]) == 5
    assert "a scheduler leads, b:scheduler: stop it first" in capsys.readouterr().err
    store.close()
    assert found_version(url) == 1
    assert list(tmp_path.glob("*.bak")) == []


def test_the_start_of_a_box_migrates(url: str, tmp_path: Path, capsys: Capture) -> None:
    site = Site()
    upgrade.at_start(site)
    assert "migrated from schema version 1 to 2; as it was before: " in capsys.readouterr().err
    assert found_version(url) == 2
    upgrade.at_start(site)
    assert capsys.readouterr().err == "", "the next start has nothing to say"
    assert len(list(tmp_path.glob("*.bak"))) == 1
    site.close()


def test_a_start_that_may_not_migrate_changes_nothing(url: str, tmp_path: Path) -> None:
    store = open_store(url, clock=(clock := SystemClock(lambda: None)))
    with charge(store, "b:scheduler", clock.monotonic), pytest.raises(Refused, match="a scheduler leads"):
        upgrade.at_start(Site())
    store.close()
    assert found_version(url) == 1


def test_a_scheduler_that_stood_by_does_not_lead_a_migrated_store() -> None:
    """It began on the older store, and a newer program migrated it meanwhile."""
    world = a_small_world()
    daemon = Daemon(world.engine)
    daemon._step()
    daemon._step()  # leads, and goes on
    world.engine.step_down()
    daemon._stand_by()
    with world.store.transaction() as tx:
        assert tx.update([Change(Fact, "schema", {}, {"value": {"version": 2}})]) == 1
    with pytest.raises(
        ConfigError, match="was migrated to schema version 2 while this scheduler stood by"
    ) as error:
        daemon._step()
    assert "\n" not in str(error.value)
    daemon._hand_over()
    assert world.engine.lease is None
