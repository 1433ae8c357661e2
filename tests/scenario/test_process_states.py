"""States of a process: deleted, suspended, retired, resumed, submitted again; what each leaves and allows (§4)."""

from __future__ import annotations

from scheduler.core.process import After, Retry, freerun, managed, tree
from tests.scenario.worlds import NOW, hourly, pyramid
from tests.world import World


def test_5_a_deleted_process_stays_deleted_over_a_restart_and_can_be_submitted_again() -> None:
    """§4: delete: any→deleted; after it the name can be submitted again and continues with higher runs."""
    w = hourly()
    w.work("h@2020050100")
    w.command("delete", {"process": "h"})
    before = w.jobs("h")
    w.restart()
    assert w.row("h").state == "deleted"
    assert w.jobs("h") == before
    assert w.command("submit", {"process": "h"}).status == 200
    assert w.row("h").state == "scheduled"
    assert w.job("h@2020050100").state == "processed"
    assert w.command("reprocess", "h@2020050100").status == 200
    w.work_all()
    assert w.job("h@2020050100").run == 2


def test_what_stands_on_a_job_that_a_shown_row_reopens_is_reopened_with_it() -> None:
    """§5: the day was skipped with its hours; they come back, it is driven again, and so is what stands on it."""
    w = World(
        [
            managed("h", "m:f", "hourly", max_active=30),
            managed("d", "m:f", "daily", blocking="children"),
            managed("x", "m:f", "daily", blocking="children", depends_on=[After("d")]),
        ],
        [tree("t", ["h", "d"])],
        start="2020050123",
        now=NOW,
    )
    w.command("kill", "h@2020050123")
    w.work("x@2020050100")
    assert (w.job("d@2020050100").reason, w.job("x@2020050100").state) == ("children", "processed")
    gone_for_a_moment(w)
    w.work_all()
    day, over = w.job("d@2020050100"), w.job("x@2020050100")
    assert (over.state, over.run) == ("processed", 2)
    assert over.requested_seq > day.settled_seq


def test_what_finished_after_a_shown_row_is_left_as_it_is() -> None:
    """§5: only what is older than the row is driven again: its process was gone for a moment, and nothing changed."""
    w = pyramid()
    w.work_all()
    gone_for_a_moment(w)
    assert (w.job("d@2020050100").state, w.job("d@2020050100").run) == ("processed", 1)
    assert w.events("job.reprocess") == []


def test_a_shown_row_reopens_no_job_that_is_embryo() -> None:
    """§4: reprocess takes what is not embryo back to it; of what is, nothing is told."""
    w = pyramid()
    w.command("hold", {"scope": "process:d"})
    w.work_all("h")
    gone_for_a_moment(w)
    assert w.job("d@2020050100").generation == 0
    assert w.events("job.reprocess") == []


def gone_for_a_moment(w: World) -> None:
    """The hours are deleted and registered again: their rows come into view."""
    w.command("delete", {"process": "h"})
    w.command("submit", {"process": "h"})


def test_a_context_that_turns_a_process_on_or_off_is_followed_unless_a_person_did() -> None:
    """§4: the context is the base; on/off by an operator is an override and wins until reset."""
    on, off = [managed("h", "m:f", "hourly")], [managed("h", "m:f", "hourly", is_on=False)]
    w = World(off, start="2020050100", now="2020-05-01T03:10:00")
    assert w.row("h").state == "suspended"
    w.redefine(on, (), "2020050100")
    assert w.row("h").state == "scheduled"
    w.command("suspend", {"process": "h"})
    w.redefine(on, (), "2020050100")
    assert w.row("h").state == "suspended"
    w.command("reset", {"process": "h"})
    assert w.row("h").state == "scheduled"


def test_a_retired_process_can_be_cleared_up() -> None:
    """§4: retired: rows readable; an operator can still skip what is left of them."""
    w = World(
        [managed("h", "m:f", "hourly"), managed("x", "m:f", "hourly")],
        start="2020050100",
        now="2020-05-01T03:10:00",
    )
    w.redefine([managed("h", "m:f", "hourly")], (), "2020050100")
    assert w.command("skip", "x@2020050102").status == 200


def test_63_late_data_does_not_cancel_an_invalid_uow_of_a_suspended_process() -> None:
    """§4: while suspended invalid uows are neither retried nor canceled."""
    w = hourly(retry=Retry(delay_s=10, jitter=0))
    w.work("h@2020050100", "fail")
    w.command("late_data", "h@2020050100", actor="feed", reason="rows")
    w.command("suspend", {"process": "h"})
    w.wait(60)
    assert w.uow("h@2020050100#1").state == "invalid"
    w.command("resume", {"process": "h"})
    w.wait(60)
    assert w.job("h@2020050100").run == 2


def test_an_entry_may_take_the_name_of_a_deleted_process() -> None:
    """§2 entry: a freerun process, whatever the name stood for before."""
    free = freerun("f", "m:f")
    w = World([managed("h", "m:f", "hourly"), free], start="2020050100", now="2020-05-01T03:10:00")
    w.redefine([free])
    w.command("delete", {"process": "h"})
    assert w.command("submit", {"process": "h"}, arguments={"base": "f"}).status == 200
    assert w.row("h").kind == "freerun"
    assert w.command("submit", {"process": "h"}).status == 200
    w.work_all()
    assert w.jobs("h")[-1].state == "processed"


def test_63_a_suspended_process_is_resumed_before_it_is_retried() -> None:
    """§4: suspended, an invalid uow is not retried; the answer says what is to be done."""
    w = hourly(retry=Retry(delay_s=100, jitter=0))
    w.work("h@2020050100", "fail")
    w.command("suspend", {"process": "h"})
    result = w.command("retry", "h@2020050100")
    assert (result.status, result.message) == (409, "process 'h' is suspended; resume it first")
    w.command("resume", {"process": "h"})
    assert w.command("retry", "h@2020050100").status == 200
