"""The counts of the overview: right as of the newest event, without counting history at every look."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from mx import tally
from mx.tally import Tally
from scheduler.core.job import Job
from scheduler.core.process import freerun, managed, tree
from tests.world import World


def world() -> World:
    return World(
        [
            managed("h", "m:f", "hourly", max_active=10),
            managed("d", "m:f", "daily", max_active=10),
            freerun("f", "m:f"),
        ],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now="2020-05-02T00:10",
    )


def truth(w: World) -> dict[str, int]:
    return dict(Counter(job.state for job in w.store.find(Job)))


def test_the_counts_are_right_whatever_happened() -> None:
    w, found, rng = world(), Tally(), Random(5)
    assert found.states(w.store, w.clock) == truth(w)
    for _ in range(120):
        jobs = w.store.find(Job)
        job = rng.choice(jobs)
        match rng.choice(
            ("work", "work", "noop", "wait", "skip", "reprocess", "mark_done", "submit", "nothing")
        ):
            case "work" | "noop" as what:
                open_ = w.open_uows()
                if open_:
                    w.work(rng.choice(open_).id, "succeed" if what == "work" else "no_data")
            case "wait":
                w.wait(rng.choice((1, 3600)))
            case "submit":
                w.command("submit", {"process": "f"})
            case "skip" | "reprocess" | "mark_done" as verb:
                w.command(verb, job.id)
        assert found.states(w.store, w.clock) == truth(w)


def test_a_look_costs_what_happened_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    w, found = world(), Tally()
    found.states(w.store, w.clock)
    full: list[int] = []
    anew = found._anew

    def counted(store: Any, clock: Any) -> Any:
        full.append(1)
        return anew(store, clock)

    monkeypatch.setattr(found, "_anew", counted)
    for _ in range(5):
        w.work(w.open_uows("h")[0].id)
        assert found.states(w.store, w.clock) == truth(w)
    assert full == [], "what was finished is not counted again"
    w.command("reprocess", w.jobs("h")[0].id)
    assert found.states(w.store, w.clock) == truth(w)
    assert full == [1], "a reprocess does not tell what a job was"
    monkeypatch.setattr(tally, "EVENTS_MAX", 2)
    w.work(w.open_uows("h")[0].id)
    assert found.states(w.store, w.clock) == truth(w) and full == [1, 1]
    monkeypatch.undo()
    w.clock.advance(tally.AGAIN_S)
    before = found._counted
    found.states(w.store, w.clock)
    assert before is not None and found._counted is not None and found._counted.at > before.at
