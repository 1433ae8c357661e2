"""Cascades: what stands on a job is reopened or driven with it, except what a person closed (§4, §8.3)."""

from __future__ import annotations

import pytest

from scheduler.core.process import managed, tree
from tests.scenario.worlds import NOW, pyramid
from tests.world import World


def test_run_now_that_ends_a_job_drives_what_stands_on_it() -> None:
    """§4: a finished job at once evaluates its dependants."""
    w = World(
        [
            managed("a", "m:f", "daily"),
            managed("b", "m:f", "daily", blocking="dependencies", trigger="at 06:00"),
            managed("c", "m:f", "daily", blocking="dependencies"),
        ],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"]), tree("tc", ["c"], depends_on=["tb"])],
        start="2020050100",
        now=NOW,
    )
    w.command("run_now", "a@2020050100")
    w.work("a@2020050100", "cancel")
    assert w.job("b@2020050100").state == "skipped"
    assert w.job("c@2020050100").state == "skipped"


def test_late_data_beyond_the_limit_waits_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: beyond the cascade limit late data stays a pending command, with a critical event."""
    from scheduler.core import plan

    w = pyramid()
    w.work_all()
    monkeypatch.setattr(plan, "CASCADE_MAX", 1)
    result = w.command("late_data", "h@2020050105", actor="feed", reason="rows", expiry_s=None)
    assert (result.state, result.status) == ("pending", 409)
    w.wait(3600)
    w.restart()
    assert len(w.events("command.waits")) == 1
    assert w.job("h@2020050105").state == "processed"
    assert w.engine.due() == []


def test_late_data_leaves_an_ancestor_that_a_person_closed_and_says_so() -> None:
    """§4: a job that a person skipped, killed or marked done is not reopened by late data."""
    w = pyramid()
    w.work_all("h")
    w.command("mark_done", "d@2020050100")
    w.command("late_data", "h@2020050105", actor="feed", reason="rows")
    assert w.job("d@2020050100").state == "processed"
    assert len(w.events("job.left")) == 1
    w.work_all()
    assert w.job("d@2020050100").run == 1


def test_late_data_twice_while_the_cascade_runs_ends_with_fresh_results() -> None:
    """§8.3: at rest no result is older than its inputs, by event number."""
    w = pyramid()
    w.work_all()
    w.command("late_data", "h@2020050105", actor="feed", reason="a")
    w.work("h@2020050105")
    w.accept("d@2020050100#2")
    w.command("late_data", "h@2020050106", actor="feed", reason="b")
    assert w.job("d@2020050100").again == "b"
    w.work("d@2020050100#2")
    w.work_all()
    day, hour = w.job("d@2020050100"), w.job("h@2020050106")
    assert (day.state, day.run) == ("processed", 3)
    assert hour.settled_seq < day.requested_seq
