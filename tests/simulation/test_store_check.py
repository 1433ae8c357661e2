"""The self-check has nothing to say of a sound store, at whatever moment and under whatever faults."""

from __future__ import annotations

import pytest

from scheduler.storekeeper import check
from simulation.run import Run

SEEDS = (3, 6)
EVERY_S = 6120.0


@pytest.mark.parametrize("seed", SEEDS)
def test_no_findings_in_the_middle_of_anything(seed: int) -> None:
    run = Run(seed)
    world, go = run.world, run.world.run
    looks = 0

    def go_and_look(seconds: float) -> None:
        nonlocal looks
        while seconds > 0:
            go(min(seconds, EVERY_S))
            seconds -= EVERY_S
            found = check(world.store, world.clock).findings
            assert found == [], [finding.line for finding in found]
            looks += 1

    world.run = go_and_look  # type: ignore[method-assign]
    result = run.play()
    assert result.ok, result.text
    assert looks > 10
