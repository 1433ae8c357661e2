"""Acceptance 51: the digest counts every outcome once."""

from __future__ import annotations

from typing import Any

from scheduler.core.digest import COUNTERS, OUTCOMES, digest
from scheduler.core.process import Retry, managed, tree
from tests.world import World


def test_51_every_outcome_is_counted_once_by_tag_and_reason() -> None:
    once: dict[str, Any] = {"retry": Retry(max_retries=0)}
    tagged = {"a": ("critical",), "b": ("minor",), "c": ("test", "critical"), "d": ("dev",), "e": (), "g": ()}
    processes = [managed(name, "m:f", "daily", tags=tags, **once) for name, tags in tagged.items()]
    w = World(
        [*processes, managed("z", "m:f", "daily", blocking="dependencies")],
        [tree("ta", ["a"]), tree("tz", ["z"], depends_on=["ta"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )
    for name in tagged:
        w.work(f"{name}@2020050100", "succeed" if name in "eg" else "fail")
    counted = digest(w.events())
    assert counted == {"critical": 1, "minor": 1, "warning": 1, "test": 1, "dev": 1, "success": 2}
    assert tuple(counted) == COUNTERS
    assert sum(counted.values()) == len(w.events(*OUTCOMES))
