"""Acceptance scenarios 36-39, 59 and 66: freerun processes, triggers that change, contexts that change."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.process import freerun, managed, tree
from scheduler.core.slice import Item
from tests.world import World, at

NOW = "2020-05-01T00:00:30"


def every_minute(**more: Any) -> World:
    return World([freerun("f", "m:f", trigger="every 60", arguments={"a": 1}, **more)], now=NOW)


def test_a_firing_makes_a_job_that_is_decided_by_its_uow() -> None:
    w = every_minute()
    assert w.jobs("f") == []
    w.go("2020-05-01T00:01:00")
    job = w.jobs("f")[0]
    assert (job.timeperiod, job.state) == ("20200501000100000", "in_progress")
    w.work(job.id)
    assert w.job(job.id).state == "processed"


def test_39_a_firing_while_the_last_one_is_unfinished_makes_no_second_uow() -> None:
    w = every_minute()
    w.go("2020-05-01T00:01:00")
    w.go("2020-05-01T00:02:00")
    assert len(w.uows()) == 1
    assert len(w.events("process.fire_skipped")) == 1
    w.work(w.uows()[0].id)
    w.go("2020-05-01T00:03:00")
    assert len(w.uows()) == 2


def test_39_arguments_of_one_entry_never_appear_in_another() -> None:
    w = every_minute()
    for name, value in (("one", 1), ("two", 2)):
        result = w.command("submit", {"process": name}, arguments={"base": "f", "arguments": {name: value}})
        assert result.status == 200, result.message
    for name in ("one", "two"):
        w.command("submit", {"process": name})
    arguments = {uow.process: uow.arguments for uow in w.uows()}
    assert arguments == {"one": {"a": 1, "one": 1}, "two": {"a": 1, "two": 2}}
    assert {uow.definition for uow in w.uows()} == {"f"}
    w.command("submit", {"process": "f"}, arguments={"arguments": {"b": 3}})
    assert w.uows(Where("process", "=", "f"))[0].arguments == {"a": 1, "b": 3}


def test_what_was_submitted_in_one_millisecond_waits_for_its_turn_and_not_for_the_sweep() -> None:
    """Each bears a millisecond of its own, and the later ones have not come when the first is done."""
    w = World([freerun("f", "m:f", max_active=1, overlap="queue")], now=NOW)
    for _ in range(5):
        assert w.command("submit", {"process": "f"}).status == 200
    for n in range(5):
        assert w.states("f")[n] == "in_progress"
        w.work(w.jobs("f")[n].id)
    assert w.clock.business() == at(NOW)
    assert w.states("f") == ["processed"] * 5


def test_the_sweep_finds_all_that_was_submitted_in_one_millisecond() -> None:
    w = World([freerun("f", "m:f", max_active=3, overlap="queue")], now=NOW)
    w.command("hold", {"scope": "*"})
    for _ in range(3):
        assert w.command("submit", {"process": "f"}).status == 200
    w.engine.known.holds.clear()  # as if its end had been missed
    w.engine.turn([Item("scan", "f")])
    assert w.states("f") == ["in_progress"] * 3


def test_two_submissions_in_one_millisecond_are_two_jobs() -> None:
    w = World([freerun("f", "m:f", max_active=2)], now=NOW)
    for _ in range(2):
        assert w.command("submit", {"process": "f"}).status == 200
    assert len(w.jobs("f")) == 2


@pytest.mark.parametrize(("catchup", "runs"), [("all", 3), ("last", 1), ("none", 0)])
def test_38_missed_fire_times(catchup: str, runs: int) -> None:
    w = World([freerun("f", "m:f", trigger="every 3600", catchup=catchup, overlap="allow")], now=NOW)
    w.clock.advance(3 * 3600 + 600)
    w.restart()
    assert len(w.jobs("f")) == runs


@pytest.mark.parametrize(("catchup", "embryos"), [("all", 0), ("last", 4), ("none", 5)])
def test_38_catchup_of_a_managed_process(catchup: str, embryos: int) -> None:
    w = World([managed("h", "m:f", "hourly", catchup=catchup)], start="2020050100", now="2020-05-01T05:10:00")
    assert w.states("h").count("skipped") == embryos
    assert w.job("h@2020050105").state == "embryo"


def test_36_nonsense_is_refused_and_nothing_is_stored() -> None:
    w = every_minute()
    before = w.row("f")
    for text in ("every 0", "every -5", "at 25:00", "cron", "soon"):
        result = w.command("set_trigger", {"process": "f"}, arguments={"value": text})
        assert result.status == 400, text
        assert w.row("f") == before


def test_37_a_changed_trigger_is_live_at_once_between_kinds_and_survives_a_restart() -> None:
    w = every_minute()
    w.command("set_trigger", {"process": "f"}, arguments={"value": "at 06:00"})
    w.go("2020-05-01T05:59:00")
    assert w.jobs("f") == []
    w.restart()
    w.go("2020-05-01T06:00:00")
    assert len(w.jobs("f")) == 1
    w.work(w.jobs("f")[0].id)
    w.command("set_trigger", {"process": "f"}, arguments={"value": "every 30"})
    w.go("2020-05-01T06:00:30")
    assert len(w.jobs("f")) == 2


def test_37_trigger_now_runs_at_once_and_leaves_the_next_fire_time_alone() -> None:
    w = every_minute(overlap="allow")
    result = w.command("run_now", {"process": "f"})
    assert result.status == 200
    assert [job.timeperiod for job in w.jobs("f")] == ["20200501000030000"]
    w.go("2020-05-01T00:01:00")
    assert [job.timeperiod for job in w.jobs("f")][-1] == "20200501000100000"


HOURS_AND_DAY = [
    managed("h", "m:f", "hourly", max_active=30),
    managed("d", "m:f", "daily", blocking="children"),
]
TREE = [tree("t", ["h", "d"])]


def test_59_a_lowered_start_makes_older_periods_and_reopens_finished_parents() -> None:
    w = World(HOURS_AND_DAY, TREE, start="2020050112", now="2020-05-02T00:10:00")
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    w.redefine(HOURS_AND_DAY, TREE, "2020050106")
    assert [u.timeperiod[-2:] for u in w.open_uows("h")] == ["06", "07", "08", "09", "10", "11"]
    assert w.job("d@2020050100").state == "embryo"
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    assert w.job("h@2020050112").run == 1


def test_59_a_raised_start_hides_older_periods_and_cancels_nothing() -> None:
    hours = [managed("h", "m:f", "hourly"), HOURS_AND_DAY[1]]
    w = World(hours, TREE, start="2020050100", now="2020-05-02T00:10:00")
    w.redefine(hours, TREE, "2020050122")
    assert w.uow("h@2020050100#1").state == "requested"
    assert w.job("h@2020050101").state == "embryo"
    assert [b.code for b in w.explain("h@2020050101").own][:1] == ["hidden"]
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    assert w.job("h@2020050101").state == "embryo"


def test_66_an_override_survives_and_a_removed_process_is_retired() -> None:
    extra = managed("x", "m:f", "hourly")
    w = World([*HOURS_AND_DAY, extra], TREE, start="2020050100", now="2020-05-01T03:10:00")
    w.command("set_max_active", {"process": "h"}, arguments={"value": 1})
    w.redefine(HOURS_AND_DAY, TREE, "2020050100")
    assert w.row("h").overrides["max_active"]["value"] == 1
    assert w.engine.known.process("h").max_active == 1  # type: ignore[union-attr]
    assert w.row("x").state == "expired"
    assert len(w.jobs("x")) == 4


def test_66_a_context_that_changes_what_a_name_stands_for_is_refused_whole() -> None:
    from scheduler.core.process import context
    from scheduler.core.timetable import Timetable

    w = World(HOURS_AND_DAY, TREE, start="2020050100", now="2020-05-01T03:10:00")
    changed = [managed("h", "m:f", "hourly", time_grouping=2), HOURS_AND_DAY[1], managed("n", "m:f", "daily")]
    before = w.store.find(type(w.row("h")))
    with pytest.raises(ConfigError, match="time_grouping was 1 and is now 2"):
        w.engine.reload_context(Timetable(context(changed, TREE, (), "2020050100")))
    assert w.store.find(type(w.row("h"))) == before
    w.wait(3600)
    assert len(w.jobs("h")) == 5


def test_a_suspended_freerun_is_quiet_and_does_not_make_up_for_it() -> None:
    w = every_minute()
    w.command("suspend", {"process": "f"})
    w.wait(600)
    assert w.jobs("f") == []
    assert w.engine.due() == []
    w.command("resume", {"process": "f"})
    assert w.jobs("f") == []
    w.wait(60)
    assert len(w.jobs("f")) == 1


def test_51_66_tags_are_overridden_until_reset() -> None:
    """Events carry the tags in force; the override has an author and survives another context."""
    hourly = managed("h", "m:f", "hourly", tags=["dev"])
    w = World([hourly], start="2020050100", now="2020-05-01T03:10:00")
    done = w.command("set_tags", {"process": "h"}, arguments={"value": ["critical", "night", "critical"]})
    assert (done.state, done.message) == ("done", "tags of h is critical, night")
    override = w.row("h").overrides["tags"]
    assert (override["value"], override["actor"]) == (["critical", "night"], "anna")
    w.work("h@2020050100#1")
    assert {e.tags for e in w.events("job.complete")} == {"critical night"}
    w.redefine([managed("h", "m:f", "hourly", tags=["other"])], start="2020050100")
    w.work_all()
    assert {e.tags for e in w.events("job.complete")} == {"critical night"}
    w.command("set_tags", {"process": "h"}, arguments={"value": []})
    w.wait(3600)
    w.work_all()
    assert w.events("job.complete")[-1].tags == ""
    w.command("reset", {"process": "h"})
    w.wait(3600)
    w.work_all()
    assert w.events("job.complete")[-1].tags == "other"


@pytest.mark.parametrize("value", [None, "critical", [1], [""], ["a b"], ["a,b"], ["x" * 65], ["t"] * 21])
def test_senseless_tags_are_refused(value: object) -> None:
    w = World([managed("h", "m:f", "hourly")], start="2020050100", now="2020-05-01T03:10:00")
    done = w.command("set_tags", {"process": "h"}, arguments={"value": value})
    assert (done.state, done.status) == ("refused", 400)
    assert w.row("h").overrides == {}


@pytest.mark.parametrize("catchup", ["all", "last", "none"])
@pytest.mark.parametrize("how", ["restart", "reload"])
def test_37_38_a_trigger_that_the_context_changed_fires_for_nothing_before_it_was_known(
    catchup: str, how: str
) -> None:
    """Down since 00:01:30, started at 03:00:15 with another trigger; or that one is reloaded while it runs."""
    from scheduler.core.process import context
    from scheduler.core.timetable import Timetable

    def process(trigger: str) -> Any:
        return freerun("f", "m:f", trigger=trigger, overlap="allow", catchup=catchup)

    w, changed = World([process("at 00:01")], now=NOW), Timetable(context([process("every 60")]))
    w.go("2020-05-01T00:01:30")
    assert [job.timeperiod for job in w.jobs("f")] == ["20200501000100000"]
    if how == "restart":
        w.clock.advance(3 * 3600 - 75)
        w.restart(changed)
    else:
        w.go("2020-05-01T03:00:15")
        w.engine.turn(w.engine.reload_context(changed))
        w.settle()
    assert len(w.jobs("f")) == 1, "nothing was missed"
    assert [e.message for e in w.events("process.trigger")] == ["its trigger is 'every 60' now"]
    w.go("2020-05-01T03:01:00")
    assert [job.timeperiod for job in w.jobs("f")][1:] == ["20200501030100000"], "it is live at once"
    w.clock.advance(180)
    w.restart(changed)
    fired = {"all": 3, "last": 1, "none": 1}[catchup]  # the last of them came just now
    assert len(w.jobs("f")) == 2 + fired, "one that did not change is caught up with"


def test_66_a_context_does_not_touch_a_trigger_that_an_operator_set() -> None:
    w = World([freerun("f", "m:f", trigger="at 06:00", overlap="allow", catchup="all")], now=NOW)
    w.command("set_trigger", {"process": "f"}, arguments={"value": "every 60"})
    w.go("2020-05-01T00:01:30")
    w.clock.advance(120)
    w.redefine([freerun("f", "m:f", trigger="every 7", overlap="allow", catchup="all")])
    assert [job.timeperiod[:12] for job in w.jobs("f")] == ["202005010001", "202005010002", "202005010003"]
    w.command("reset", {"process": "f"})
    assert len(w.jobs("f")) == 3
    w.wait(7)
    assert len(w.jobs("f")) == 4


def test_38_catchup_none_drops_a_single_missed_firing_too() -> None:
    """38: fire times missed while down: none."""
    w = World(
        [freerun("f", "m:f", trigger="every 3600", catchup="none", overlap="allow")],
        now="2020-05-01T00:30:00",
    )
    w.clock.advance(3000)
    w.restart()
    assert w.jobs("f") == []
    w.go("2020-05-01T02:00:00")
    assert len(w.jobs("f")) == 1
