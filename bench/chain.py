"""How long from the end of one work to the beginning of the next that waits for it, beside the floor in the same run.

Each hour stands on the hour before it. The gap holds everything: the child's reply, the worker's finish and report,
the scheduler's turn, the message, the worker's accept, the request to a child. It is measured where the work is
done, with the machine's fine clock: the store keeps milliseconds.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import floor
from bench.box import Box, Plan
from bench.throughput import middle
from bench.works import read_notes

JOBS, ROUNDS, SLOTS = 1000, 3, 2


def measure(
    *,
    jobs: int = JOBS,
    synchronous: str = "NORMAL",
    slots: int = SLOTS,
    rounds: int = ROUNDS,
    folder: Path | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """`rounds` times floor and box, in turn. Gaps in milliseconds."""
    floors, boxes = [], []
    for n in range(rounds):
        floors.append(floor.measure("chain", jobs, synchronous, folder))
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
            box = Box(Path(scratch), Plan(jobs=jobs, synchronous=synchronous, slots=slots, chain=True))
            try:
                numbers = box.run(lambda done, n=n: tell(n * jobs + done))  # type: ignore[misc]
                boxes.append({**numbers, **_gaps(Path(scratch, "notes"))})
            finally:
                box.close()
    return {
        "bench": "chain",
        "synchronous": synchronous,
        "jobs": jobs,
        "slots": slots,
        "ratio": middle(
            [mine["gap_ms_median"] / low["gap_ms_median"] for low, mine in zip(floors, boxes, strict=True)]
        ),
        "floor": _summary(floors),
        "box": _summary(boxes),
    }


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: middle([one[key] for one in rounds]) for key in ("gap_ms_median", "gap_ms_p95")} | {
        "rounds": rounds
    }


def _gaps(notes: Path) -> dict[str, float]:
    works = read_notes(notes)
    gaps = sorted((after[0] - before[1]) / 1e6 for before, after in itertools.pairwise(works))
    return {
        "gap_ms_median": round(statistics.median(gaps), 3),
        "gap_ms_p95": round(gaps[int(len(gaps) * 0.95)], 3),
    }
