"""The funnel and the heat map: which periods are shown, and where a cell leads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mx.marks import Marks
from mx.present import Brief
from mx.view_timetable import heat, levels, parse_at, span_of
from scheduler.core.process import Context, Process, context, managed, tree
from scheduler.core.timeperiod import timeperiods_between
from scheduler.core.timetable import Timetable

NOW = datetime(2013, 12, 13, 3, 7, tzinfo=UTC)
START = datetime(2012, 11, 10, tzinfo=UTC)


def made(*processes: Process) -> Timetable:
    """A timetable of processes outside of trees."""
    return Timetable(context(processes, start="2012111000"))


def marks(timetable: Timetable) -> Marks:
    """None."""
    return Marks.of_facts(timetable, {}, [], [], NOW, NOW)


def jobs(process: Process, begin: datetime, end: datetime, state: str = "processed") -> list[Brief]:
    """All jobs of a span in one state."""
    return [
        Brief(
            f"{process.name}@{p.label}", process.name, p.label, p.start, p.end, state, state == "embryo", None
        )
        for p in timeperiods_between(begin, end, process.qualifier, process.grouping)
    ]


def columns(timetable: Timetable, text: str) -> dict[str, int]:
    """Process to number of cells."""
    at = parse_at(text, NOW, START)
    found = levels(timetable.processes.values(), {}, at, START, NOW, marks(timetable), "", "/timetable")
    return {row.process: row.columns for level in found for row in level.rows}


def test_each_row_opens_the_chosen_period_of_the_row_above() -> None:
    pyramid = made(
        managed("m5", "x:y", "minutely", time_grouping=5),
        managed("h", "x:y", "hourly"),
        managed("h3", "x:y", "hourly", time_grouping=3),
        managed("d", "x:y", "daily"),
        managed("w", "x:y", "weekly"),
        managed("m", "x:y", "monthly"),
        managed("q", "x:y", "monthly", time_grouping=3),
        managed("y", "x:y", "yearly"),
    )
    assert columns(pyramid, "2013") == {"y": 2, "m": 12, "q": 4}
    assert columns(pyramid, "201302") == {"y": 2, "m": 12, "q": 4, "w": 5, "d": 28}
    assert columns(pyramid, "20131212") == {"y": 2, "m": 12, "q": 4, "w": 6, "d": 31, "h": 24, "h3": 8}
    assert columns(pyramid, "2013121222")["m5"] == 12
    assert columns(pyramid, "2012") == {"y": 1, "m": 12, "q": 4}


def test_a_cell_without_a_row_leads_nowhere() -> None:
    timetable = made(managed("d", "x:y", "daily"))
    process, at = timetable.processes["d"], parse_at("201312", NOW, START)
    span = span_of(process, at, START)
    assert span is not None
    there = {"d": jobs(process, span.start, datetime(2013, 12, 13, tzinfo=UTC))}
    (level,) = levels([process], there, at, START, NOW, marks(timetable), "d@2013121200", "/timetable")
    cells = level.rows[0].cells
    assert [bool(cell.href) for cell in cells] == [True] * 12 + [False] * 19
    assert cells[11].is_chosen and cells[11].href == "/timetable?at=20131212&job=d@2013121200"
    assert cells[12].state == "none" and "not due" in cells[12].title
    assert level.rows[0].done == "12 of 12 done"


def test_the_wedge_leads_from_the_chosen_cell() -> None:
    timetable = made(managed("d", "x:y", "daily"), managed("h", "x:y", "hourly"))
    at = parse_at("20131201", NOW, START)
    found = levels(timetable.processes.values(), {}, at, START, NOW, marks(timetable), "", "/timetable")
    assert [level.wedge for level in found] == [None, (0.0, 3.23)]


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ([], "processed"),
        (["noop"] * 5, "processed"),
        (["noop"] * 24, "noop"),
        (["noop", "embryo"], "embryo"),
        (["skipped", "in_progress"], "skipped"),
    ],
)
def test_a_day_shows_its_worst_hour(states: list[str], shown: str) -> None:
    day = datetime(2013, 3, 4, tzinfo=UTC)
    rows = [(day + timedelta(hours=n), state) for n, state in enumerate(states)]
    months = heat(
        managed("h", "x:y", "hourly", start="2012111000"),
        2013,
        rows,
        NOW,
        START,
        parse_at("2013", NOW, START),
        "/t",
    )
    cell = months[2].cells[3]
    assert cell is not None and cell.state == shown
    assert months[1].cells[28] is None  # no 29 February 2013
    assert (months[0].done, months[0].due) == ("31", "31")
    after = months[11].cells[13]
    assert after is not None and after.state == "none" and after.href == ""


def test_a_tree_is_shown_coarsest_first() -> None:
    one: Context = context(
        [managed("h", "x:y", "hourly"), managed("d", "x:y", "daily")],
        [tree("t", ["h", "d"])],
        start="2012111000",
    )
    timetable = Timetable(one)
    at = parse_at("20131212", NOW, START)
    found = levels(timetable.processes.values(), {}, at, START, NOW, marks(timetable), "", "/timetable/t")
    assert [level.qualifier for level in found] == ["daily", "hourly"]
