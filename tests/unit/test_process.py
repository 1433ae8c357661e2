"""What may be registered: bad definitions are refused in one line that names culprit and remedy."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.process import (
    Retry,
    after,
    context,
    daemon,
    freerun,
    managed,
    queue,
    script,
    tree,
)
from scheduler.core.timetable import Timetable

BAD_MANAGED: list[tuple[dict[str, Any], str]] = [
    ({"name": "Flights"}, "name 'Flights' is not valid"),
    ({"name": "a" * 65}, "is not valid"),
    ({"name": ""}, "is not valid"),
    ({"worker": "nonsense path"}, "worker 'nonsense path' is not a path"),
    ({"worker": 7}, "worker 7 is not a path"),
    ({"time_qualifier": "fortnightly"}, "time_qualifier 'fortnightly' is unknown"),
    ({"time_qualifier": "instant"}, "unknown"),
    ({"time_grouping": 24}, "24"),
    ({"trigger": "every 0"}, "every"),
    ({"trigger": "cron 0 0 9 * * 1"}, "seconds"),
    ({"state_machine": "simple"}, "state_machine 'simple' is unknown; use one of discrete"),
    ({"blocking": "blocking_normal"}, "blocking 'blocking_normal' is unknown"),
    ({"timeout_s": -5}, "timeout_s must be at least"),
    ({"timeout_s": 0}, "timeout_s must be at least"),
    ({"lag_s": -1}, "lag_s must be at least 0"),
    ({"priority": 11}, "priority must be between 1 and 10"),
    ({"priority": True}, "priority must be"),
    ({"max_active": 0}, "max_active must be"),
    ({"retry": Retry(max_retries=-1)}, "retry.max_retries"),
    ({"retry": Retry(jitter=2)}, "retry.jitter"),
    ({"retry": 3}, "retry must be Retry"),
    ({"tags": "daily"}, "tags must be a list"),
    ({"depends_on": [after("x", 1)]}, "offset=0 or less"),
    ({"arguments": [1]}, "arguments must be a dictionary"),
    ({"queue": "Bad Queue"}, "queue"),
    ({"catchup": "some"}, "catchup 'some' is unknown"),
]


@pytest.mark.parametrize(("fields", "words"), BAD_MANAGED, ids=lambda value: str(value)[:40])
def test_a_bad_definition_is_refused_in_one_line(fields: dict[str, Any], words: str) -> None:
    good = {"name": "p", "worker": "m:f", "time_qualifier": "hourly"}
    with pytest.raises(ConfigError) as caught:
        managed(**{**good, **fields})
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    if "name" not in fields:
        assert "'p'" in text


def test_other_constructors_refuse_too() -> None:
    for make, words in (
        (lambda: freerun("f", "m:f", trigger="soon"), "process 'f'"),
        (lambda: freerun("f", "m:f", overlap="pile"), "overlap"),
        (lambda: daemon("D", "m:f"), "'D'"),
        (lambda: tree("t", []), "tree 't' has no processes"),
        (lambda: tree("t", "abc"), "list of names"),
        (lambda: queue("q", slots=0), "slots"),
        (lambda: script(), "needs a command"),
        (lambda: script("x", noop_code=3, cancel_code=3), "both 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()


H, D = managed("h", "m:f", "hourly"), managed("d", "m:f", "daily")


def test_4_what_concerns_several_is_refused_naming_the_culprit() -> None:
    """Acceptance 4."""
    cases: list[tuple[Any, Any, str]] = [
        ([H, H], [], "two processes are named 'h'"),
        ([H, managed("h2", "m:f", "hourly")], [tree("t", ["h", "h2"])], "both hourly"),
        ([H, D], [tree("t", ["h"]), tree("u", ["h", "d"])], "'h' is in two trees"),
        ([H], [tree("t", ["h", "nobody"])], "'nobody', which is not registered"),
        ([H], [tree("t", ["h"], depends_on=["u"])], "depends on tree 'u'"),
        ([H], [tree("t", ["h"], depends_on=["t"])], "depends on itself"),
        ([H, freerun("f", "m:f")], [tree("t", ["h", "f"])], "'f', a freerun process"),
        ([managed("x", "m:f", "daily", depends_on=["y"])], [], "'y', which is not registered"),
        (
            [H, D],
            [tree("t", ["h"], depends_on=["u"]), tree("u", ["d"], depends_on=["t"]), tree("t", ["d"])],
            "named 't'",
        ),
    ]
    for processes, trees, words in cases:
        with pytest.raises(ConfigError, match=words):
            Timetable(context(processes, trees, (), "2020010100"))


def test_4_a_cycle_of_trees_is_refused() -> None:
    """Acceptance 4."""
    a, b = managed("a", "m:f", "daily"), managed("b", "m:f", "daily")
    with pytest.raises(ConfigError, match="a → b → a"):
        Timetable(
            context(
                [a, b],
                [tree("ta", ["a"], depends_on=["tb"]), tree("tb", ["b"], depends_on=["ta"])],
                (),
                "2020010100",
            )
        )


def test_a_managed_process_needs_a_start() -> None:
    with pytest.raises(ConfigError, match="synergy_start_timeperiod"):
        Timetable(context([H]))
    with pytest.raises(ConfigError, match="2020"):
        Timetable(context([H], (), (), "2020"))
