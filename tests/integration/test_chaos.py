"""`chaos`, as it is run for ten minutes by hand: half a minute here, on files and on servers; and a judge that says no.

Scenarios 5, 26, 27, 31 and 43, all at once and at random moments.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from commands.site import Site
from simulation.aftermath import judge
from simulation.model import Broken

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from commands.dispatch import main; sys.exit(main(sys.argv[1:]))"
CONTEXT = "examples.flights.process_context"
SHORT = ("--from", "2013-12-20", "--live", "2013-12-31T12")


def chaos(folder: Path, raw: Path, *options: str) -> dict[str, Any]:
    """The result of one; it must hold."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "chaos", "--json", *SHORT, "--state-folder", str(folder), *options],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("SYNERGY_", "FLIGHTS_"))},
            "FLIGHTS_DATA": str(raw),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["broken"] == [] and found["events"] > 1000
    return found


@pytest.mark.timeout(300)
def test_scenarios_5_26_27_and_43_on_files(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = chaos(tmp_path / "rounds", raw, "--seconds", "20", "--kills", "10", "--seed", "1")
    assert sum(found["kills"].values()) >= 10

    state = tmp_path / "rounds" / "round-1" / "state"
    monkeypatch.setenv("FLIGHTS_STATE", str(state / "flights"))
    monkeypatch.setenv("FLIGHTS_START", "2013122000")
    sys.modules.pop(CONTEXT, None)  # it was read with another start
    site = Site(
        {
            "context": str(ROOT / "process_context.py"),
            "state_folder": str(state),
            "store_url": f"sqlite:///{state}/synergy.sqlite",
        }
    )
    store, _broker, clock = site.connect()
    context = site.project.context
    try:
        assert judge(store, context, clock) > 1000
        with (
            closing(sqlite3.connect(state / "synergy.sqlite")) as file,
            file,
        ):  # a finished day, never accepted
            lost = "source = 'scheduler' AND kind = 'uow.accept' AND process = 'flights_daily'"
            assert file.execute(f"DELETE FROM events WHERE {lost}").rowcount >= 1
        with pytest.raises(Broken, match="invariant 8: event"):
            judge(store, context, clock)
    finally:
        site.close()
        sys.modules.pop(CONTEXT, None)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_scenarios_26_27_and_31_on_servers(tmp_path: Path, raw: Path) -> None:
    words = ("--seconds", "10", "--kills", "3", "--stops", "2", "--seed", "2")
    found = chaos(tmp_path / "rounds", raw, "--servers", *words)
    assert sum(found["kills"].values()) >= 3
    assert sum(found["stops"].values()) >= 2


def test_the_script_is_the_command_wherever_a_link_to_it_lies(tmp_path: Path) -> None:
    (tmp_path / "chaos").symlink_to(ROOT / "scripts" / "chaos")
    done = subprocess.run(
        [tmp_path / "chaos", "--stops", "1"],
        cwd=tmp_path,
        env={**os.environ, "SYNERGY_VENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "there are servers to stop with --servers only" in done.stderr
