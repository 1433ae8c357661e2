"""Commands: those of one batch are decided in their order, and a malformed or late one changes nothing (§5)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import control
from scheduler.core.process import freerun, managed
from scheduler.core.records import Fact
from tests.scenario.worlds import hourly, pyramid
from tests.world import World


def together(w: World, *commands: tuple[str, dict[str, Any], dict[str, Any]]) -> list[Any]:
    """Several commands in one batch; returns their rows."""
    ids = []
    for n, (verb, target, arguments) in enumerate(commands):
        ids.append(
            control.submit(
                w.store, w.broker, verb, target, actor="anna", arguments=arguments, key=f"k{n:04d}"
            )
        )
    w.settle()
    return [control.wait(w.store, id_, 0) for id_ in ids]


def test_commands_of_one_batch_are_decided_in_their_order() -> None:
    """§5: order is (submitted_at, id); each sees what those before it decided, also where facts are missing."""
    w = World(
        [managed("d", "m:f", "daily", trigger="at 06:00")], start="2020050100", now="2020-05-02T00:10:00"
    )
    first, second = together(w, ("run_now", {"jobs": ["d@2020050100"]}, {}), ("hold", {"scope": "*"}, {}))
    assert (first.status, second.status) == (200, 200), first.message
    assert [u.id for u in w.open_uows()] == ["d@2020050100#1"]


@pytest.mark.parametrize(
    ("verb", "target", "arguments"),
    [
        ("hold", {"scope": "*"}, {"until": "tomorrow"}),
        ("hold", {"scope": "*"}, {"until": "2020-05-03T00:00:00"}),
        ("hold", {"scope": "*"}, {"until": 7}),
        ("release", {"scope": ["*"]}, {}),
        ("late_data", {"jobs": [["h"]]}, {}),
        ("worker_died", {"owner": None}, {}),
        ("run_now", {"jobs": [None]}, {}),
        ("set_clock", {}, {"value": {"rate": 1}}),
        ("set_clock", {}, {"value": {"real_anchor": "x", "business_anchor": "y", "rate": 1}}),
        (
            "set_clock",
            {},
            {
                "value": {
                    "real_anchor": "2020-01-01T00:00:00+00:00",
                    "business_anchor": "2020-01-01T00:00:00+00:00",
                    "rate": -1,
                }
            },
        ),
    ],
)
def test_a_malformed_command_is_refused_and_poisons_nothing(
    verb: str, target: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """§3: an illegal input is an error that names itself; it never stops the scheduler."""
    w = hourly()
    before = w.store.find(Fact)
    result = w.command(verb, target, arguments=arguments)
    assert result.status in (400, 404, 409), result.message
    assert w.store.find(Fact) == before
    w.wait(60)


def test_mark_done_of_a_job_and_of_what_stands_on_it_in_one_command() -> None:
    """§5: a bulk action is one command; each job sees what was decided for those before it."""
    w = pyramid()
    w.work("h@2020050105", "cancel")
    w.work_all("h")
    assert w.job("d@2020050100").state == "in_progress"
    result = w.command("mark_done", ["h@2020050105", "d@2020050100"])
    assert result.status == 200, result.message
    assert (w.job("h@2020050105").state, w.job("d@2020050100").state) == ("processed", "processed")


def test_two_clock_commands_in_one_batch() -> None:
    """§5: the mapping is one row; the later command wins."""
    w = hourly()
    value = {
        "real_anchor": "2020-05-01T03:10:00+00:00",
        "business_anchor": "2020-05-01T04:10:00+00:00",
        "rate": 1.0,
    }
    later = {**value, "rate": 2.0}
    rows = together(w, ("set_clock", {}, {"value": value}), ("set_clock", {}, {"value": later}))
    assert [row.status for row in rows] == [200, 200]
    fact = w.store.get(Fact, "clock")
    assert fact is not None
    assert fact.value == later


def test_many_submissions_in_one_batch_take_the_next_free_milliseconds() -> None:
    """§4: a submission takes the next free millisecond."""
    w = World([freerun("f", "m:f", max_active=500)], now="2020-05-01T00:00:30")
    rows = together(w, *[("submit", {"process": "f"}, {}) for _ in range(120)])
    assert {row.status for row in rows} == {200}
    assert len(w.jobs("f")) == 120


def test_an_expired_command_changes_nothing() -> None:
    """§5: too late → `expired`."""
    w = hourly()
    id_ = control.submit(w.store, w.broker, "kill", {"jobs": ["h@2020050100"]}, actor="anna", expiry_s=10)
    w.clock.advance(11)
    w.settle()
    row = control.wait(w.store, id_, 0)
    assert (row.state, row.status) == ("expired", 409)
    assert w.job("h@2020050100").uow_open
