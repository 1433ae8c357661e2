"""What becomes due when: what is remembered of the calendar hides nothing, however the clock and the rows move."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.due import due_items, next_due
from scheduler.core.known import Known
from scheduler.core.process import Context, context, freerun, managed, tree
from scheduler.core.records import ProcessRow
from scheduler.core.timetable import Timetable

START = datetime(2026, 3, 28, 20, tzinfo=UTC)  # the clocks of Berlin change in the night after
WORKER = "simulated:worker"


def everything() -> Context:
    members = [
        managed("hour", WORKER, "hourly", lag_s=600),
        managed("day", WORKER, "daily", blocking="children"),
        managed("slices", WORKER, "daily", state_machine="continuous", trigger="every 900"),
        managed("morning", WORKER, "daily", trigger="at 06:00", time_zone="Europe/Berlin"),
        freerun("tick", WORKER, trigger="every 420"),
    ]
    trees = [tree("t", ("hour", "day")), tree("u", ("slices",)), tree("v", ("morning",))]
    return context(members, trees, (), "2026032820")


def at_the_start() -> Known:
    known = Known(Timetable(everything()))
    known.rows = {
        name: ProcessRow(name=name, kind=process.kind, state="scheduled", frontier=START, last_fire=START)
        for name, process in known.timetable.processes.items()
    }
    return known


MOVES = st.one_of(
    st.tuples(st.just("clock"), st.integers(-3 * 86_400, 3 * 86_400)),  # it may be set back
    st.tuples(st.sampled_from(["frontier", "last_fire"]), st.integers(0, 3 * 86_400)),
    st.tuples(st.sampled_from(["expired", "scheduled", "suspended"]), st.just(0)),
    st.tuples(st.just("trigger"), st.integers(1, 7200)),
)


@given(st.lists(st.tuples(st.integers(0, 4), MOVES), max_size=25), st.integers(1, 7200))
def test_what_is_remembered_hides_nothing(moves: list[tuple[int, tuple[str, int]]], step_s: int) -> None:
    known = at_the_start()
    names = list(known.rows)
    now = START
    for at, (what, number) in moves:
        row = known.rows[names[at]]
        match what:
            case "clock":
                now += timedelta(seconds=number)
            case "frontier" | "last_fire":
                moved: dict[str, Any] = {what: START + timedelta(seconds=number)}
                known.rows[row.name] = replace(row, **moved)
            case "trigger":
                known.rows[row.name] = replace(row, overrides={"trigger": {"value": f"every {number}"}})
            case _:
                known.rows[row.name] = replace(row, state=what)
        since, now = now, now + timedelta(seconds=step_s)
        fresh = Known(known.timetable, dict(known.rows))
        assert due_items(known, since, now) == due_items(fresh, since, now)
        assert next_due(known, now) == next_due(Known(known.timetable, dict(known.rows)), now)


def test_a_close_is_due_once_when_the_clock_passes_it() -> None:
    known = at_the_start()
    known.rows = {"hour": replace(known.rows["hour"], frontier=START + timedelta(hours=5))}
    close = START + timedelta(hours=1, minutes=10)  # with its lag
    assert next_due(known, START + timedelta(minutes=30)) == close
    before, after = close - timedelta(milliseconds=1), close
    assert due_items(known, START + timedelta(minutes=30), before) == []
    assert [item.what for item in due_items(known, before, after)] == ["hour@2026032820"]
    assert due_items(known, after, after + timedelta(minutes=5)) == []
