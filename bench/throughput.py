"""How many jobs a second: independent jobs, all due at once, beside the floor in the same run.

Floor and box take turns, so that whatever else the machine does meets both. A round's ratio compares neighbours;
what is reported are medians over the rounds.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import floor
from bench.box import SLOTS, Box, Plan

JOBS, ROUNDS = 20_000, 3  # the periods of a year of hours, and more


def measure(
    *,
    jobs: int = JOBS,
    synchronous: str = "NORMAL",
    slots: int = SLOTS,
    rounds: int = ROUNDS,
    folder: Path | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """`rounds` times floor and box, in turn. `tell` hears how many jobs of the boxes are done."""
    floors, boxes = [], []
    for n in range(rounds):
        floors.append(floor.measure("throughput", jobs, synchronous, folder))
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
            box = Box(Path(scratch), Plan(jobs=jobs, synchronous=synchronous, slots=slots))
            try:
                boxes.append(box.run(lambda done, n=n: tell(n * jobs + done)))  # type: ignore[misc]
            finally:
                box.close()
    return {
        "bench": "throughput",
        "synchronous": synchronous,
        "jobs": jobs,
        "slots": slots,
        "ratio": middle(
            [
                mine["jobs_per_second"] / low["jobs_per_second"]
                for low, mine in zip(floors, boxes, strict=True)
            ]
        ),
        "floor": {"jobs_per_second": middle([low["jobs_per_second"] for low in floors]), "rounds": floors},
        "box": {"jobs_per_second": middle([mine["jobs_per_second"] for mine in boxes]), "rounds": boxes},
    }


def middle(numbers: list[float]) -> float:
    """Their median, to three places."""
    return round(statistics.median(numbers), 3)
