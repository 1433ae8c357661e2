"""Late data beyond the cascade limit: an operator lists it, drops it, or narrows it (§5, commands)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core import plan
from scheduler.core.command import Command
from scheduler.core.process import after, managed, tree
from tests.world import World


def world(monkeypatch: pytest.MonkeyPatch, limit: int = 3) -> tuple[World, Command]:
    """Two days of hours, their days and month, and a chain of hours on the side: all processed; late data waits."""
    w = World(
        [
            managed("h", "m:f", "hourly", max_active=100),
            managed("d", "m:f", "daily", max_active=100),
            managed("m", "m:f", "monthly"),
            managed("chain", "m:f", "hourly", depends_on=[after("h"), after("chain", -1)]),
        ],
        [tree("t", ["h", "d", "m"])],
        start="2020042900",
        now="2020-05-01T03:10",
    )
    for _ in range(60):
        if not w.work_all():
            break
    monkeypatch.setattr(plan, "CASCADE_MAX", limit)
    found = w.command("late_data", "h@2020043005", actor="feed", reason="3 rows", expiry_s=None)
    assert (found.state, found.status) == ("pending", 409)
    return w, found


def narrow(w: World, late: Command, **arguments: Any) -> Command:
    return w.command("narrow_late", {"command": late.id}, arguments=arguments, reason="only what matters")


def test_it_is_dropped_with_who_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    w, late = world(monkeypatch)
    done = w.command("drop_late", {"command": late.id}, actor="anna", reason="a test file")
    assert (done.state, done.message) == ("done", "the late data for h@2020043005 was dropped")
    found = w.store.get(Command, late.id)
    assert found is not None and (found.state, found.status) == ("refused", 409)
    assert found.message == "dropped by anna: a test file" and found.resolved_at is not None
    assert [e.actor for e in w.events("command.dropped")] == ["anna"]
    assert w.job("h@2020043005").state == "processed"
    again = w.command("drop_late", {"command": late.id})
    assert (again.state, again.status) == ("refused", 409)
    assert again.message == f"late data {late.id} is refused; only what waits is dropped or narrowed"
    w.restart()
    assert w.open_uows() == [] and w.engine.due() == []


def test_it_is_narrowed_to_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    w, late = world(monkeypatch)
    before = {j.id: j.generation for name in ("h", "d", "m", "chain") for j in w.jobs(name)}
    done = narrow(w, late, processes=["h", "d"])
    assert (done.state, done.message) == ("done", "2 jobs changed")
    found = w.store.get(Command, late.id)
    assert found is not None and (found.state, found.status) == ("done", 200)
    assert found.message == "2 jobs changed, narrowed by anna to d, h"
    assert len(w.events("command.narrowed")) == 1
    w.work_all()
    changed = {id_ for id_, n in before.items() if w.job(id_).generation != n}
    assert changed == {"h@2020043005", "d@2020043000"}
    assert {w.job(id_).state for id_ in changed} == {"processed"}


def test_it_is_narrowed_to_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods that overlap it, however long: the day and the month of the hour too, the chain only so far."""
    w, late = world(monkeypatch, limit=10)
    before = {j.id: j.generation for name in ("h", "d", "m", "chain") for j in w.jobs(name)}
    end = "2020-04-30T08:00:00+00:00"
    done = narrow(w, late, to=end)
    assert done.state == "done", done.message
    w.work_all()
    changed = {id_ for id_, n in before.items() if w.job(id_).generation != n}
    chain = {f"chain@20200430{hour:02}" for hour in (5, 6, 7)}
    assert changed == {"h@2020043005", "d@2020043000", "m@2020040000", *chain} & set(before)
    assert {w.job(id_).state for id_ in changed} - {"embryo"} == {"processed"}


def test_what_is_still_too_much_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    w, late = world(monkeypatch)
    done = narrow(w, late, processes=["h", "chain"])
    assert (done.state, done.status) == ("refused", 409) and "at most 3 at once" in done.message
    found = w.store.get(Command, late.id)
    assert found is not None and (found.state, found.status) == ("pending", 409)
    assert w.job("h@2020043005").state == "processed"
    assert narrow(w, late, processes=["h"]).state == "done"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ({}, 400, "needs processes, from or to"),
        ({"processes": []}, 400, "list of names"),
        ({"processes": "h"}, 400, "list of names"),
        ({"processes": ["nobody"]}, 404, "there is no process 'nobody'"),
        ({"processes": ["d"]}, 409, "none of h@2020043005 is within d"),
        ({"from": "yesterday"}, 400, "from must be like"),
        ({"from": "2020-05-01T00:00:00+00:00"}, 409, "none of h@2020043005 is within from 2020-05-01"),
        (
            {"from": "2020-05-01T00:00:00+00:00", "to": "2020-04-01T00:00:00+00:00"},
            400,
            "its end is before its beginning",
        ),
    ],
)
def test_a_senseless_narrowing_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], status: int, words: str
) -> None:
    w, late = world(monkeypatch)
    done = narrow(w, late, **arguments)
    assert (done.state, done.status) == ("refused", status) and words in done.message
    found = w.store.get(Command, late.id)
    assert found is not None and found.state == "pending"


@pytest.mark.parametrize("target", [{}, {"command": 3}, {"command": "nobody"}])
def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch, target: dict[str, Any]) -> None:
    w, _ = world(monkeypatch)
    done = w.command("drop_late", target)
    assert (done.state, done.status) == ("refused", 404 if target.get("command") == "nobody" else 400)


def test_only_late_data_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    w, late = world(monkeypatch)
    hold = w.command("hold", {"scope": "process:h"})
    done = w.command("drop_late", {"command": hold.id})
    assert done.message == f"command {hold.id} is a hold; only late data that waits is dropped or narrowed"
    assert late.state == "pending"


def test_two_operators_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commands are decided in one turn: the second one sees what the first did."""
    from scheduler import control

    w, late = world(monkeypatch)
    ids = [
        control.submit(w.store, w.broker, verb, {"command": late.id}, actor="anna", arguments=arguments)
        for verb, arguments in (("narrow_late", {"processes": ["h"]}), ("drop_late", {}))
    ]
    w.settle()
    found = [w.store.get(Command, id_) for id_ in ids]
    assert sorted(command.state for command in found if command is not None) == ["done", "refused"]
    assert w.job("h@2020043005").generation in (0, 1)


def test_the_limit_counts_all_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several periods in one command are one cascade."""
    w, _ = world(monkeypatch, limit=7)
    days = {"jobs": ["d@2020042900", "d@2020043000"]}
    done = w.command("late_data", days, actor="feed", reason="x", expiry_s=None)
    assert done.state == "done"  # days and their month
    monkeypatch.setattr(plan, "CASCADE_MAX", 2)
    w.work_all()
    done = w.command("late_data", days, actor="feed", reason="x", expiry_s=None)
    assert (done.state, done.status) == ("pending", 409)
