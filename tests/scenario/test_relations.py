"""Relations between periods of different lengths: found both ways, cycles judged by where they arrive (§4, §5)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.process import after, context, managed
from scheduler.core.timetable import Timetable
from tests.world import World, at


def test_71_a_round_trip_over_a_fan_of_periods_is_followed_whole() -> None:
    """§4: a cycle is allowed only if the round trip arrives wholly before the period it began at."""
    processes = [
        managed("d", "m:f", "daily", depends_on=["h"]),
        managed("h", "m:f", "hourly", depends_on=[after("x", -1)]),
        managed("x", "m:f", "hourly", depends_on=["d"]),
    ]
    with pytest.raises(ConfigError, match="hold each other up"):
        Timetable(context(processes, (), (), "2020010100"))
    table = Timetable(
        context(
            [
                processes[0],
                managed("h", "m:f", "hourly"),
                managed("x", "m:f", "hourly", depends_on=[after("h", -1)]),
            ],
            (),
            (),
            "2020010100",
        )
    )
    (edge,) = table.inputs("x")
    span = table.input_span(edge, at("2020-01-01T00:00:00"), at("2020-01-02T00:00:00"))
    assert (span.start, span.end) == (at("2019-12-31T23:00:00"), at("2020-01-01T23:00:00"))


def test_a_wide_context_without_cycles_loads_at_once() -> None:
    """§4: looking for cycles does not walk every path of a graph that has none."""
    layers, width = 16, 4
    processes = [
        managed(
            f"p{layer:02d}.{n}",
            "m:f",
            "hourly",
            depends_on=[f"p{layer - 1:02d}.{m}" for m in range(width)] if layer else (),
        )
        for layer in range(layers)
        for n in range(width)
    ]
    Timetable(context(processes, (), (), "2020010100"))


@pytest.mark.parametrize("offset", [0, -1, -2])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("hourly", 1), ("daily", 1)),
        (("hourly", 5), ("hourly", 3)),
        (("daily", 1), ("weekly", 1)),
        (("weekly", 1), ("monthly", 1)),
        (("daily", 10), ("weekly", 1)),
        (("monthly", 5), ("yearly", 1)),
        (("minutely", 7), ("hourly", 5)),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_60_whoever_stands_on_a_period_is_found_from_it(
    one: tuple[str, int], other: tuple[str, int], offset: int, swap: bool
) -> None:
    """§5: parent, children and dependants are arithmetic; both directions of a relation agree."""
    of, on = (other, one) if swap else (one, other)
    table = Timetable(
        context(
            [
                managed("of", "m:f", of[0], time_grouping=of[1], depends_on=[after("on", offset)]),
                managed("on", "m:f", on[0], time_grouping=on[1]),
            ],
            (),
            (),
            "2020010100",
        )
    )
    (edge,) = table.inputs("of")
    span = table.input_span(edge, *_bounds(table, "of", "2020-02-27T03:07:00"))
    instant = at("2020-02-27T03:07:00")
    for _ in range(40):
        start, end = _bounds(table, "of", instant)
        span = table.input_span(edge, start, end)
        for period in list(table.periods(span))[:: max(1, len(list(table.periods(span))) // 10)]:
            back = table.dependant_span(edge, period.start, period.end)
            assert back.start <= start < back.end, (start, period.label)
        instant = end


def _bounds(table: Timetable, name: str, instant: Any) -> tuple[Any, Any]:
    period = table.containing(name, at(instant) if isinstance(instant, str) else instant)
    return period.start, period.end


def test_a_weekly_process_over_days_and_one_after_last_week() -> None:
    """3, §4: weeks nest days; `offset=-1` of itself is strict order; before the start it counts as finished."""
    w = World(
        [
            managed("d", "m:f", "daily", max_active=30),
            managed(
                "k",
                "m:f",
                "weekly",
                blocking="dependencies",
                max_active=9,
                depends_on=["d", after("k", -1)],
            ),
        ],
        start="2020050400",
        now="2020-05-18T00:10:00",
    )
    assert w.open_uows("k") == []
    w.work_all("d")
    assert [u.timeperiod for u in w.open_uows("k")] == ["2020050400"]
    w.work_all("k")
    assert w.states("k") == ["processed", "processed", "embryo"]
