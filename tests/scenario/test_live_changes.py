"""A trigger or a limit that is changed while the scheduler runs is live at once, and owes nothing to before (§4)."""

from __future__ import annotations

from scheduler.core.process import Readiness, Retry, freerun, managed
from tests.scenario.worlds import hourly
from tests.world import World


def test_37_a_changed_trigger_is_counted_from_its_change() -> None:
    """37: a changed trigger is live at once; it has missed nothing before it was set."""
    w = World([freerun("f", "m:f", catchup="all", overlap="allow")], now="2020-05-01T00:00:30")
    w.wait(86_400)
    w.command("set_trigger", {"process": "f"}, arguments={"value": "every 60"})
    assert w.jobs("f") == []
    w.wait(60)
    assert len(w.jobs("f")) == 1


def test_max_active_raised_and_lowered_takes_effect_at_once() -> None:
    """§4: enforced at dispatch; an override is live at once."""
    w = hourly(max_active=2)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 3})
    assert len(w.open_uows()) == 3
    w = hourly(now="2020-05-01T09:10:00", max_active=3)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 1})
    w.work("h@2020050100")
    w.work("h@2020050101")
    assert len(w.open_uows()) == 1
    w.work("h@2020050102")
    assert [u.timeperiod[-2:] for u in w.open_uows()] == ["03"]


def test_a_final_run_takes_the_place_of_the_slice_that_it_replaces() -> None:
    """§4: one that is retried holds a place, and the final run takes its range and its place: there are not more than
    before, however few may be."""
    w = World(
        [
            managed(
                "h",
                "m:f",
                "hourly",
                state_machine="continuous",
                trigger="every 300",
                max_active=3,
                lag_s=7200,
                retry=Retry(delay_s=86_400, jitter=0),
            )
        ],
        start="2020050101",
        now="2020-05-01T03:10:00",
    )
    assert len(w.open_uows()) == 3
    w.work("h@2020050101", "fail")
    w.command("set_max_active", {"process": "h"}, arguments={"value": 1})
    w.go("2020-05-01T04:05:00")
    assert w.job("h@2020050101").state == "final_run"
    assert [u.id for u in w.open_uows()] == ["h@2020050101#2", "h@2020050102#1", "h@2020050103#1"]


def test_a_slice_that_asked_for_more_does_not_hurry_the_final_run_past_a_calendar_trigger() -> None:
    """§4: called again at once is a slice, by `every`; a trigger that was set meanwhile says when the final run may."""
    w = World(
        [managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300")],
        start="2020050103",
        now="2020-05-01T03:10:00",
    )
    w.accept("h@2020050103#1")
    w.command("set_trigger", {"process": "h"}, arguments={"value": "at 05:00"})
    w.work("h@2020050103", more=True, cursor_end="a")
    w.go("2020-05-01T04:30:00")
    assert [b.code for b in w.explain("h@2020050103").own] == ["trigger"]
    w.go("2020-05-01T05:00:00")
    assert (w.job("h@2020050103").state, w.uow("h@2020050103#2").cursor) == ("final_run", "a")


def test_run_now_hurries_what_slices_were_requested_for_before_past_a_calendar_trigger() -> None:
    """§4: an operator may: the final run after slices too, which a worker's wish for more does not."""
    w = World(
        [managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300")],
        start="2020050103",
        now="2020-05-01T03:10:00",
    )
    w.command("set_trigger", {"process": "h"}, arguments={"value": "at 05:00"})
    w.work("h@2020050103", more=True)
    w.go("2020-05-01T04:30:00")
    assert w.command("run_now", "h@2020050103").status == 200
    assert w.job("h@2020050103").state == "final_run"


def test_run_now_stands_past_a_trigger_until_readiness_says_yes() -> None:
    """§4: the answer comes in a later turn; the job does not wait for the trigger then."""
    w = World(
        [managed("h", "m:f", "hourly", trigger="at 05:00", lag_s=0, readiness=Readiness("m:ready"))],
        start="2020050103",
        now="2020-05-01T04:00:00",
    )
    assert w.open_uows() == []
    assert w.command("run_now", "h@2020050103").status == 200
    w.work("h@2020050103#check-1")
    assert (w.job("h@2020050103").state, w.job("h@2020050103").more) == ("in_progress", False)
