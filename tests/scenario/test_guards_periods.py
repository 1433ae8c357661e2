"""Periods that open: how many at once, for whom no more, what of them is looked at, and what they reopen (§5)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import control
from scheduler.core import new_periods
from scheduler.core.known import Known
from scheduler.core.process import context, freerun, managed, tree
from scheduler.core.slice import Item, Slice
from scheduler.core.timetable import Span, Timetable
from tests.scenario.worlds import NOW, hourly
from tests.world import World, at

AT_ONCE = 3  # rows a turn, in these tests


def half_opened(monkeypatch: pytest.MonkeyPatch) -> World:
    """Ten hours have passed; the first turn since made some of their rows, and left the rest."""
    monkeypatch.setattr(new_periods, "ROWS_A_TURN", AT_ONCE)
    w = hourly("2020-05-01T00:10:00")
    w.clock.advance(10 * 3600)
    w.engine.turn(w.engine.due())
    return w


def days_over_hours(start: str) -> World:
    """A day over its hours; the day has closed."""
    return World(*of_days_over_hours(), start=start, now=NOW)


def of_days_over_hours() -> tuple[Any, Any]:
    hour, day = (
        managed("h", "m:f", "hourly", max_active=30),
        managed("d", "m:f", "daily", blocking="children"),
    )
    return [hour, day], [tree("t", ["h", "d"])]


# -- how many, and for whom no more -------------------------------------------------------------------


def test_a_turn_opens_so_many_periods_and_the_next_ones_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that opened a year of minutes would outlast the leader's lease."""
    w = half_opened(monkeypatch)
    assert len(w.jobs("h")) == 1 + AT_ONCE
    w.settle()
    assert len(w.jobs("h")) == 1 + 10


def test_who_is_expired_while_its_periods_open_gets_no_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left for the next turn is asked again whether it still is to be done."""
    w = half_opened(monkeypatch)
    control.submit(w.store, w.broker, "expire", {"process": "h"}, actor="anna")
    w.settle()
    assert (w.row("h").state, len(w.jobs("h"))) == ("expired", 1 + AT_ONCE)


def test_who_leaves_the_context_while_its_periods_open_gets_no_more_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload comes between two turns; what the first of them left is about a process nobody knows any more."""
    w = half_opened(monkeypatch)
    w.engine.turn(
        w.engine.reload_context(Timetable(context([managed("x", "m:f", "daily")], [], [], "2020050100")))
    )
    w.settle()
    assert (w.row("h").state, len(w.jobs("h"))) == ("expired", 1 + AT_ONCE)


def test_a_row_that_the_context_does_not_name_gets_no_periods() -> None:
    """Whatever left it in the store as scheduled: a period without a process is nobody's."""
    w = hourly("2020-05-01T00:10:00")
    nobody = Timetable(context([], [], [], "2020050100"))
    s = Slice(Known(nobody, w.engine.known.rows), at("2020-05-01T03:10:00"), w.clock.real())
    assert new_periods.advance(s, "h") == []
    assert s.drain().is_empty()


def test_a_name_that_was_an_entry_and_is_a_process_leaves_with_the_context() -> None:
    """It was an entry of `f`, was deleted, came back as a process of hours: it is no entry of `f` any more."""
    entries = freerun("f", "m:f", trigger="every 3600")
    w = World([entries], start="2020050100", now="2020-05-01T00:10:00")
    w.command("submit", {"process": "h"}, arguments={"base": "f"})
    w.command("delete", {"process": "h"})
    w.redefine([entries, managed("h", "m:f", "hourly")], (), "2020050100")
    w.command("submit", {"process": "h"})
    assert (w.row("h").kind, w.row("h").state, w.states("h")) == ("managed", "scheduled", ["embryo"])
    w.redefine([entries], (), "2020050100")
    assert w.row("h").state == "expired"


def test_a_process_without_periods_opens_none() -> None:
    """A name that was deleted and is a freerun process by now, while periods of the managed one were put off."""
    w = World([freerun("f", "m:f", trigger="every 3600")], now=NOW)
    w.engine.turn([Item("advance", "f")])
    w.settle()
    assert w.jobs("f") == []
    assert w.row("f").frontier is None


# -- what is told and looked at -----------------------------------------------------------------------


def test_it_is_told_which_periods_opened_where_others_of_them_were_there() -> None:
    """The audit asks the events which rows must be there; a lowered start passes some that are."""
    w = hourly("2020-05-01T05:10:00")
    w.redefine([managed("h", "m:f", "hourly")], (), "2020043022")
    told = [event.data or {} for event in w.events("process.advance")]
    assert [(data["jobs"], data["from"], data["to"], data.get("labels")) for data in told] == [
        (6, "2020050100", "2020050105", None),
        (2, "2020043022", "2020043023", ["2020043022", "2020043023"]),
    ]


def test_a_period_that_opens_is_looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait before it, they are not walked: nothing changed for them."""
    w = World(*of_days_over_hours(), start="2020050100", now="2020-05-01T00:10:00", sweep_s=1e9)
    w.command("hold", {"scope": "*"})
    asked = wants_of(w, monkeypatch)
    w.wait(3600)
    assert len(w.jobs("h")) == 2
    assert [want for want in asked if want[0] == "window"] == []


def test_many_periods_that_open_are_looked_at_until_the_places_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred rows, one place: a turn looks at a few of them."""
    w = World([managed("h", "m:f", "hourly")], start="2020050100", now="2020-05-01T00:10:00", sweep_s=1e9)
    w.clock.advance(100 * 3600)
    report = w.engine.turn(w.engine.due())
    assert len(w.jobs("h")) == 101
    assert report.decided < 10


def wants_of(w: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is gathered from now on."""
    asked: list[tuple[Any, ...]] = []
    gather = w.engine.gatherer.gather

    def seen(s: Any, wants: Any) -> None:
        asked.extend(wants)
        gather(s, wants)

    monkeypatch.setattr(w.engine.gatherer, "gather", seen)
    return asked


def test_rows_that_come_into_view_again_are_looked_at_as_new_ones() -> None:
    """Rows that are there may wait: each is looked at once the frontier passes it again."""
    w = hourly("2020-05-01T04:10:00")
    s = Slice(w.engine.known, w.clock.business(), w.clock.real())
    s.change_row(s.row("h"), start=at("2020-05-01T02:00"), frontier=at("2020-05-01T02:00"))
    w.engine.gatherer.gather(s, [("range", Span("h", at("2020-05-01T02:00"), at("2020-05-01T05:00")))])
    assert new_periods.advance(s, "h") == [Item("job", f"h@202005010{hour}") for hour in (2, 3, 4)]


# -- what was missed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("catchup", "left"), [("last", ["04", "05"]), ("none", ["05"])])
def test_38_periods_missed_later_on_are_caught_up_with_as_the_first_ones(
    catchup: str, left: list[str]
) -> None:
    """38: it holds for what was missed while nobody was there, not for the first look alone."""
    w = World([managed("h", "m:f", "hourly", catchup=catchup)], start="2020050100", now="2020-05-01T00:10:00")
    w.clock.advance(5 * 3600)
    w.settle()
    assert [job.timeperiod[-2:] for job in w.jobs("h")[1:] if job.state != "skipped"] == left


def test_38_a_period_whose_data_may_still_come_was_not_missed() -> None:
    """The lag of a process is part of its period: 03 is over at 04:10, and waited for until 04:30."""
    process = managed("h", "m:f", "hourly", catchup="none", lag_s=1800)
    w = World([process], start="2020050100", now="2020-05-01T04:10:00")
    assert [job.timeperiod[-2:] for job in w.jobs("h") if job.state != "skipped"] == ["03", "04"]


# -- what comes into view again -----------------------------------------------------------------------


def test_a_day_that_had_not_begun_is_left_as_it_is_when_hours_come_into_view() -> None:
    w = days_over_hours("2020050112")
    w.redefine(*of_days_over_hours(), start="2020050111")
    assert (w.job("d@2020050100").state, w.job("d@2020050100").generation) == ("embryo", 0)
    assert w.events("job.reprocess") == []


def without_its_first_hour() -> World:
    """A day is processed without an hour that waited, because the start was raised above it."""
    w = days_over_hours("2020050111")
    w.command("kill", "h@2020050111")
    w.command("hold", {"scope": "job:h@2020050111"})
    w.command("reprocess", "h@2020050111")
    w.redefine(*of_days_over_hours(), start="2020050112")
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    return w


def test_a_day_begins_anew_when_an_hour_comes_into_view_that_still_waits() -> None:
    w = without_its_first_hour()
    w.redefine(*of_days_over_hours(), start="2020050111")
    assert (w.job("d@2020050100").state, w.job("d@2020050100").generation) == ("embryo", 1)


def test_a_day_begins_anew_when_an_hour_comes_into_view_that_finished_after_it() -> None:
    """A day was worked on without it: what it says is not what its hours say."""
    w = without_its_first_hour()
    w.command("mark_done", "h@2020050111")
    assert w.job("d@2020050100").generation == 0
    w.redefine(*of_days_over_hours(), start="2020050111")
    assert w.job("d@2020050100").generation == 1
    w.work_all("d")
    assert (w.job("d@2020050100").state, w.job("d@2020050100").run) == ("processed", 2)
