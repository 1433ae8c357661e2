"""The benchmarks run, small, and say what they measured as JSON. Their numbers are nobody's promise here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from commands.dispatch import main; sys.exit(main(sys.argv[1:]))"


def bench(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", RUN, "bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_throughput_is_measured_beside_the_floor(tmp_path: Path, synchronous: str) -> None:
    found = bench(
        "throughput", "--jobs", "40", "--rounds", "1", "--slots", "2", "--synchronous", synchronous,
        "--folder", str(tmp_path),
    )  # fmt: skip
    assert found["synchronous"] == synchronous
    assert found["ratio"] > 0
    for side in ("floor", "box"):
        (one,) = found[side]["rounds"]
        assert one["jobs"] == 40
        assert found[side]["jobs_per_second"] > 0
        assert one["queue_commits_per_job"] > 0
        assert set(one["cpu_ms_per_job"]) >= {"scheduler", "workers"}
    assert found["box"]["rounds"][0]["transactions_per_job"] > 0
    assert found["box"]["rounds"][0]["queries_per_job"] > 0
    assert not list(tmp_path.iterdir()), "the scratch folders are gone"


def test_the_gaps_of_a_chain_are_measured_beside_the_floor(tmp_path: Path) -> None:
    found = bench("chain", "--jobs", "30", "--rounds", "1", "--folder", str(tmp_path))
    for side in ("floor", "box"):
        assert 0 < found[side]["gap_ms_median"] <= found[side]["gap_ms_p95"]
    assert found["machine"]["cpus"] >= 1


def test_a_turn_is_measured_with_a_short_and_a_long_history(tmp_path: Path) -> None:
    found = bench("turn", "--jobs", "300", "--rounds", "5", "--folder", str(tmp_path))
    assert (found["few"]["finished"], found["many"]["finished"]) == (100, 300)
    assert found["few"]["queries"] == found["many"]["queries"]
    assert found["ratio"] > 0


def test_a_wrong_number_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "bench", "turn", "--jobs", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--jobs" in done.stderr
