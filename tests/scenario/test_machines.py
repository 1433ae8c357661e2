"""Acceptance scenarios 12-18, 20, 60, 61, 69, 70: machines, blocking types, children and dependencies."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.process import managed, tree
from tests.world import World


def one(machine: str, now: str = "2020-05-01T03:10:00", **more: Any) -> World:
    more.setdefault("trigger", "every 300")
    return World(
        [managed("h", "m:f", "hourly", state_machine=machine, **more)],
        start="2020050103",
        now=now,
    )


def pyramid(blocking: str = "children", now: str = "2020-05-02T00:10:00", **more: Any) -> World:
    return World(
        [
            managed("h", "m:f", "hourly", max_active=30),
            managed("d", "m:f", "daily", blocking=blocking, **more),
        ],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now=now,
    )


def test_12_an_open_period_gets_one_uow_a_tick_from_the_last_cursor() -> None:
    w = one("continuous")
    first = w.open_uows()[0]
    assert (first.run, first.cursor, first.final) == (1, None, False)
    w.work(first.id, cursor_end="17")
    assert w.job("h@2020050103").state == "in_progress"
    assert w.open_uows() == []
    w.go("2020-05-01T03:15:00")
    second = w.open_uows()[0]
    assert (second.run, second.cursor) == (2, "17")


def test_70_an_open_period_is_no_hot_loop() -> None:
    w = one("continuous")
    for _ in range(5):
        for uow in w.open_uows():
            w.work(uow.id)
        w.wait(60)
    assert len(w.uows()) == 2  # 03:10 and 03:15


def test_70_a_trigger_at_six_starts_nothing_before() -> None:
    w = World(
        [managed("d", "m:f", "daily", trigger="at 06:00")], start="2020050100", now="2020-05-02T00:10:00"
    )
    assert w.uows() == []
    w.go("2020-05-02T05:59:59")
    assert w.uows() == []
    w.go("2020-05-02T06:00:00")
    assert [u.id for u in w.uows()] == ["d@2020050100#1"]


def test_more_is_called_again_at_once() -> None:
    w = one("continuous")
    w.work(w.open_uows()[0].id, more=True, cursor_end="a")
    assert [u.run for u in w.open_uows()] == [2]


def test_13_one_final_run_when_the_period_closes() -> None:
    w = one("continuous")
    w.work(w.open_uows()[0].id, cursor_end="5")
    w.go("2020-05-01T04:05:00")
    uow = w.open_uows()[0]
    assert w.job("h@2020050103").state == "final_run"
    assert (uow.final, uow.cursor) == (True, "5")
    w.work(uow.id)
    assert w.job("h@2020050103").state == "processed"
    w.wait(3600)
    assert len(w.uows(Where("timeperiod", "=", "2020050103"))) == 2


@pytest.mark.parametrize("machine", ["continuous", "recomputing"])
def test_14_a_long_past_embryo_goes_straight_to_its_final_run(machine: str) -> None:
    w = one(machine, now="2020-05-01T09:00:00")
    assert w.job("h@2020050103").state == "final_run"
    assert [u.final for u in w.uows()] == [True]


def test_15_recomputing_covers_the_whole_period_each_time() -> None:
    w = one("recomputing", max_active=2)
    w.work(w.open_uows()[0].id, cursor_end="5")
    w.go("2020-05-01T03:15:00")
    assert w.open_uows()[0].cursor is None
    w.work_all()
    w.go("2020-05-01T04:10:00")
    w.work("h@2020050103")
    assert w.job("h@2020050103").state == "processed"
    runs = w.job("h@2020050103").run
    w.command("reprocess", "h@2020050103")
    w.work("h@2020050103")
    assert (w.job("h@2020050103").state, w.job("h@2020050103").run) == ("processed", runs + 1)


def test_16_a_day_waits_for_its_hours_and_starts_when_the_last_one_finishes() -> None:
    w = pyramid()
    hours = [uow.id for uow in w.open_uows("h")]
    assert len(hours) == 24
    for n, id_ in enumerate(hours):
        assert w.open_uows("d") == []
        w.work(id_, ("succeed", "no_data", "cancel")[n % 3])
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def trio(blocking: str) -> World:
    return World(
        [
            managed("a", "m:f", "daily"),
            managed("b", "m:f", "daily", blocking=blocking),
            managed("c", "m:f", "daily", blocking="dependencies"),
        ],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"]), tree("tc", ["c"], depends_on=["tb"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )


def test_17_dependencies_wait_run_or_are_skipped_with_their_blocker() -> None:
    w = trio("dependencies")
    assert w.open_uows("b") == []
    found = w.explain("b@2020050100")
    assert [b.job for b in found.own] == ["a@2020050100"]
    w.work("a@2020050100", "no_data")
    assert [u.id for u in w.open_uows("b")] == ["b@2020050100#1"]
    w = trio("dependencies")
    w.work("a@2020050100", "cancel", error="no")
    b, c = w.job("b@2020050100"), w.job("c@2020050100")
    assert (b.state, b.reason, b.detail) == ("skipped", "dependency", "a@2020050100 was skipped")
    assert (c.state, c.reason, c.detail) == ("skipped", "dependency", "b@2020050100 was skipped")


def test_18_normal_runs_early_and_once_more_when_an_input_came_later() -> None:
    w = trio("normal")
    w.work("b@2020050100")
    assert w.job("b@2020050100").state == "in_progress"
    w.wait(600)
    assert w.job("b@2020050100").run == 1
    w.work("a@2020050100")
    assert w.job("b@2020050100").state == "final_run"
    w.work("b@2020050100")
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("processed", 2)


def test_18_normal_takes_the_outcome_when_the_inputs_were_there_before_it() -> None:
    w = World(
        [managed("a", "m:f", "daily"), managed("b", "m:f", "daily", trigger="at 06:00")],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )
    w.work("a@2020050100")
    w.go("2020-05-02T06:00:00")
    w.work("b@2020050100")
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("processed", 1)


@pytest.mark.parametrize("now", ["2020-05-02T00:10:00", "2020-06-01T00:10:00", "2021-01-01T00:10:00"])
def test_20_all_children_skipped_skips_the_parent_at_month_and_year_ends_too(now: str) -> None:
    starts = {
        "2020-05-02T00:10:00": "2020050100",
        "2020-06-01T00:10:00": "2020053100",
        "2021-01-01T00:10:00": "2020123100",
    }
    w = World(
        [
            managed("h", "m:f", "hourly", max_active=30),
            managed("d", "m:f", "daily", blocking="children"),
            managed("m", "m:f", "monthly", blocking="children"),
            managed("y", "m:f", "yearly", blocking="children"),
        ],
        [tree("t", ["h", "d", "m", "y"])],
        start=starts[now],
        now=now,
    )
    w.work_all("h", "cancel")
    day = w.jobs("d")[0]
    assert (day.state, day.reason) == ("skipped", "children")
    expected = {
        "2020050100": ["embryo", "embryo"],
        "2020053100": ["skipped", "embryo"],
        "2020123100": ["skipped", "skipped"],
    }
    assert [w.jobs("m")[0].state, w.jobs("y")[0].state] == expected[starts[now]]


def test_60_grouping_is_even_and_the_last_group_is_shorter() -> None:
    w = World(
        [
            managed("g", "m:f", "hourly", time_grouping=5),
            managed("h", "m:f", "hourly", max_active=9, blocking="dependencies"),
        ],
        [tree("tg", ["g"]), tree("th", ["h"], depends_on=["tg"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )
    spans = [(job.start.hour, (job.end - job.start).total_seconds() / 3600) for job in w.jobs("g")]
    assert spans == [(0, 5), (5, 5), (10, 5), (15, 5), (20, 4), (0, 5)]
    assert w.open_uows("h") == []
    w.work("g@2020050100")
    assert [u.timeperiod[-2:] for u in w.open_uows("h")] == ["00", "01", "02", "03", "04"]


@pytest.mark.parametrize(
    ("qualifier", "grouping"), [("hourly", 24), ("daily", 29), ("monthly", 13), ("yearly", 2)]
)
def test_60_groupings_that_do_not_fit_are_refused(qualifier: str, grouping: int) -> None:
    with pytest.raises(ConfigError, match="g"):
        managed("g", "m:f", qualifier, time_grouping=grouping)


def test_61_a_canceled_slice_does_not_end_an_open_period() -> None:
    w = one("continuous")
    w.work(w.open_uows()[0].id, cursor_end="9")
    w.go("2020-05-01T03:15:00")
    w.work(w.open_uows()[0].id, "cancel", error="bad")
    assert w.job("h@2020050103").state == "in_progress"
    assert "bad" in str(w.job("h@2020050103").warning)
    w.go("2020-05-01T03:20:00")
    assert w.open_uows()[0].cursor == "9"


@pytest.mark.parametrize(("verb", "state"), [("cancel", "skipped"), ("no_data", "noop")])
def test_61_the_final_run_decides(verb: str, state: str) -> None:
    w = one("continuous", now="2020-05-01T09:00:00")
    w.work("h@2020050103", verb, error="x")
    assert w.job("h@2020050103").state == state


def test_69_one_failed_or_empty_slice_neither_skips_nor_ends_an_open_period() -> None:
    w = one("continuous")
    w.work(w.open_uows()[0].id, "no_data")
    assert w.job("h@2020050103").state == "in_progress"
    w.go("2020-05-01T03:15:00")
    w.work(w.open_uows()[0].id)
    w.go("2020-05-01T04:05:00")
    w.work("h@2020050103", "no_data")
    assert w.job("h@2020050103").state == "processed"  # something was produced


def test_69_the_last_two_hours_in_one_batch_start_the_day_at_once() -> None:
    w = pyramid()
    hours = [uow.id for uow in w.open_uows("h")]
    for id_ in hours[:-2]:
        w.work(id_)
    for id_ in hours[-2:]:
        w.work(id_, settle=False)
    w.settle()
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_an_invalid_slice_yields_to_the_final_run_at_the_close() -> None:
    w = one("continuous", now="2020-05-01T04:04:00")
    w.work(w.open_uows()[0].id, "fail", error="broken")
    w.go("2020-05-01T04:05:00")
    assert w.uow("h@2020050103#1").state == "canceled"
    assert w.job("h@2020050103").state == "final_run"
