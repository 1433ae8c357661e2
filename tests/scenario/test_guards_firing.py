"""When a trigger fires: for whom nothing is made, what is made up for in which order, and how little is read."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core import firing
from scheduler.core.ports import Change
from scheduler.core.process import freerun, managed
from scheduler.core.records import ProcessRow
from scheduler.core.slice import Item
from tests.world import World

NOW = "2020-05-01T00:00:30"


def every_minute(**more: Any) -> World:
    """A freerun process each minute, half a minute before it fires."""
    return World([freerun("f", "m:f", trigger="every 60", **more)], now=NOW)


def minutes(w: World) -> list[str]:
    """The minutes that there is a job for."""
    return [job.timeperiod[8:12] for job in w.jobs("f")]


def test_a_firing_that_a_suspension_overtook_makes_nothing() -> None:
    """It was left for a later turn; when that comes, the process is suspended, and its next instant has passed."""
    w = every_minute()
    w.command("suspend", {"process": "f"})
    w.clock.advance(60)
    w.engine.turn([Item("fire", "f")])
    assert w.jobs("f") == []


def test_a_row_that_does_not_say_when_it_fired_last_has_missed_nothing() -> None:
    """Somebody repaired the store by hand: it goes on from now, whatever is made up for otherwise."""
    w = every_minute(overlap="allow", catchup="all")
    with w.store.transaction() as tx:
        tx.update([Change(ProcessRow, "f", {}, {"last_fire": None})])
    w.clock.advance(600)
    w.restart()
    assert w.row("f").last_fire == w.clock.business()
    w.wait(60)
    assert minutes(w) == ["0011"]


@pytest.mark.parametrize("there", [[], [freerun("f", "m:f")]])
def test_a_firing_of_what_the_context_no_longer_has_or_triggers_is_nothing(there: list[Any]) -> None:
    """Reloaded between the instant and the turn: without the process, or without its trigger."""
    w = every_minute()
    w.redefine([managed("h", "m:f", "hourly"), *there], start="2020050100")
    w.clock.advance(60)
    w.engine.turn([Item("fire", "f")])
    assert w.jobs("f") == []


def test_looking_too_early_changes_nothing() -> None:
    """No firing since the last look: nothing is written, and the next one comes when it would have come."""
    w = every_minute()
    before = w.row("f")
    w.clock.advance(10)
    assert w.engine.turn([Item("fire", "f")]).writes == 0
    assert w.row("f") == before


def test_38_of_more_missed_firings_than_a_turn_takes_only_the_last_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """38: `catchup="last"` after a long time down: not one job for each turn's worth of firings."""
    monkeypatch.setattr(firing, "FIRINGS_A_TURN", 3)
    w = every_minute(catchup="last", overlap="allow")
    w.go("2020-05-01T00:08:00")
    assert minutes(w) == ["0008"]


def test_38_of_more_missed_firings_than_a_turn_takes_all_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """38: `catchup="all"`, turn by turn and at once: the rest does not wait for the next firing."""
    monkeypatch.setattr(firing, "FIRINGS_A_TURN", 3)
    w = every_minute(catchup="all", overlap="allow")
    w.go("2020-05-01T00:08:00")
    assert minutes(w) == [f"{minute:04}" for minute in range(1, 9)]


def test_38_without_catchup_one_that_was_just_missed_is_made_and_an_older_one_is_not() -> None:
    """38: the scheduler was busy for a moment, which is no time down; a minute and more is."""
    for late, made in ((59, ["0001"]), (60, [])):
        w = World([freerun("f", "m:f", trigger="at 00:01", catchup="none")], now=NOW)
        w.wait(30 + late)
        assert minutes(w) == made


@pytest.mark.parametrize("scope", ["*", "process:f"])
def test_39_a_firing_under_a_hold_is_skipped_like_one_while_it_is_busy(scope: str) -> None:
    """39: `overlap="skip"`: no job waits for the end of the hold."""
    w = every_minute()
    w.command("hold", {"scope": scope})
    w.wait(60)
    assert (w.jobs("f"), len(w.events("process.fire_skipped"))) == ([], 1)
    w.command("release", {"scope": scope})
    assert w.jobs("f") == []
    w.wait(60)
    assert minutes(w) == ["0002"]


@pytest.mark.parametrize("overlap", ["queue", "allow"])
def test_39_a_firing_under_a_hold_waits_where_firings_queue(overlap: str) -> None:
    w = every_minute(overlap=overlap)
    w.command("hold", {"scope": "process:f"})
    w.wait(60)
    assert (minutes(w), w.states("f"), w.events("process.fire_skipped")) == (["0001"], ["embryo"], [])


def test_39_a_firing_is_skipped_until_the_last_one_is_finished() -> None:
    """39: told once for each, and over when the job has ended, not when its period has."""
    w = every_minute()
    w.go("2020-05-01T00:03:00")
    assert minutes(w) == ["0003"]
    w.wait(60)
    assert (minutes(w), len(w.events("process.fire_skipped"))) == (["0003"], 1)
    w.work(w.jobs("f")[0].id)
    w.wait(60)
    assert minutes(w) == ["0003", "0005"]


def test_39_a_submission_has_its_own_arguments_over_those_of_its_process() -> None:
    """39: and those of the process alone where it names none."""
    w = every_minute(arguments={"a": 1, "b": 2}, overlap="allow")
    w.command("run_now", {"process": "f"}, arguments={"arguments": {"b": 3}})
    w.wait(60)
    assert [job.arguments for job in w.jobs("f")] == [{"a": 1, "b": 3}, None]


def test_what_many_firings_need_is_read_at_once() -> None:
    """Forty firings are made up for with a few reads, not with one each."""
    w = every_minute(overlap="allow", catchup="all")
    w.clock.advance(40 * 60)
    reads = w.engine.gatherer.reads
    w.engine.turn([Item("fire", "f")])
    assert len(w.jobs("f")) == 40
    assert w.engine.gatherer.reads - reads < 10


def test_what_many_submissions_in_one_millisecond_need_is_read_at_once() -> None:
    """Whoever submits a batch does not have the store asked for each millisecond that is taken."""
    w = World([freerun("f", "m:f", max_active=30)], now=NOW)
    for _ in range(20):
        w.command("run_now", {"process": "f"})
    assert len(w.jobs("f")) == 20
    reads = w.engine.gatherer.reads
    w.command("run_now", {"process": "f"})
    assert len(w.jobs("f")) == 21
    assert w.engine.gatherer.reads - reads < 10
