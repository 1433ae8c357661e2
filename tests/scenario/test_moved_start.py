"""The start of the timetable is raised and lowered: what is hidden, waited for, shown again, and reopened (§5)."""

from __future__ import annotations

from scheduler.core.process import managed, tree
from tests.scenario.worlds import NOW
from tests.world import World


def test_59_a_hidden_job_that_still_runs_is_waited_for() -> None:
    """§5: older rows count as finished once no uow of theirs is unfinished or still held by a worker."""
    processes = [
        managed("h", "m:f", "hourly", max_active=30),
        managed("d", "m:f", "daily", blocking="children"),
    ]
    trees = [tree("t", ["h", "d"])]
    w = World(processes, trees, start="2020050100", now=NOW)
    w.accept("h@2020050100#1")
    w.accept("h@2020050101#1")
    w.redefine(processes, trees, "2020050122")
    w.work("h@2020050122")
    w.work("h@2020050123")
    assert w.open_uows("d") == []
    assert {b.job for b in w.explain("d@2020050100").own} >= {"h@2020050100", "h@2020050101"}
    w.command("kill", "h@2020050101")
    w.work_all("h")
    w.work("h@2020050100")
    assert w.open_uows("d") == []
    w.stopped("h@2020050101#1")
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_59_a_start_raised_and_lowered_again_shows_the_rows_at_once() -> None:
    """§5: a lowered start lets the frontier pass again; rows that are there are driven too."""
    processes = [managed("h", "m:f", "hourly", max_active=30)]
    w = World(processes, start="2020050106", now="2020-05-01T09:10:00")
    w.command("suspend", {"process": "h"})
    w.command("reprocess", ["h@2020050106", "h@2020050107"])
    w.redefine(processes, (), "2020050108")
    w.command("resume", {"process": "h"})
    w.redefine(processes, (), "2020050106")
    assert w.job("h@2020050106").uow_open
    assert w.job("h@2020050107").uow_open


def test_a_parent_in_flight_is_canceled_when_a_lowered_start_shows_its_children() -> None:
    """§5: each non-embryo ancestor is reprocessed if the row is unfinished, running ones too."""
    processes = [
        managed("h", "m:f", "hourly", max_active=30),
        managed("d", "m:f", "daily", blocking="children"),
    ]
    trees = [tree("t", ["h", "d"])]
    w = World(processes, trees, start="2020050112", now=NOW)
    w.work_all("h")
    w.accept("d@2020050100#1")
    w.redefine(processes, trees, "2020050111")
    assert w.uow("d@2020050100#1").state == "canceled"
    w.work("h@2020050111")
    assert w.job("d@2020050100").run == 1
    w.stopped("d@2020050100#1")
    assert w.job("d@2020050100").run == 2
