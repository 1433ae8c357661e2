"""What stands in the way of a job is named, all of it and nothing else; what a lost row leaves unsaid too (§8.10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler.core.facts import Absent
from scheduler.core.process import Retry, freerun, managed
from scheduler.core.slice import Slice
from scheduler.core.strategy import Assessment, assess
from tests.scenario.worlds import hourly
from tests.world import World, at

HOUR = "h@2020050100"


def told(w: World, id_: str, change: Callable[[Slice], None], *, everything: bool = True) -> Assessment:
    """What the rules say of a job if what a turn knows of it is changed like this."""
    s = w.engine._slice()
    s.jobs[id_] = w.job(id_)
    change(s)
    while True:
        try:
            job = s.job(id_)
            assert job is not None
            return assess(s, job, everything=everything)
        except Absent as lack:
            w.engine.gatherer.gather(s, lack.wants)


def codes(w: World, id_: str) -> list[str]:
    """The codes of everything that explain names in a job's own way, in their order."""
    return [blocker.code for blocker in w.explain(id_).own]


def test_nothing_is_in_the_way_of_a_job_that_is_done() -> None:
    """Neither a hold nor a suspended process is in the way of a job that is finished, and nothing is done with it."""
    w = hourly()
    w.work(HOUR)
    assert (w.explain(HOUR).act, w.explain(HOUR).own) == (None, ())
    w.command("suspend", {"process": "h"})
    w.command("hold", {"scope": "*"})
    assert (w.explain(HOUR).act, w.explain(HOUR).own) == (None, ())


def test_a_job_whose_process_left_the_context_says_so() -> None:
    """The code of a retired process is gone: that is all that is in the way."""
    h, x = managed("h", "m:f", "hourly"), managed("x", "m:f", "hourly")
    w = World([h, x], start="2020050100", now="2020-05-01T03:10:00")
    w.redefine([h], (), "2020050100")
    (blocker,) = w.explain("x@2020050102").own
    assert (blocker.code, blocker.sentence) == ("retired", "x is not registered any more")


def test_a_job_that_stops_names_who_has_to_let_go_and_when_it_does_at_the_latest() -> None:
    """24, 72: nothing starts before; the worker is named, and the end of its lease."""
    w = hourly()
    w.accept(f"{HOUR}#1", "w7", 600)
    w.command("kill", HOUR)
    w.command("reprocess", HOUR)
    stopping = w.explain(HOUR).own[0]
    assert (stopping.code, stopping.sentence) == ("stopping", "stopping on w7")
    assert stopping.until == w.uow(f"{HOUR}#1").lease_until
    assert stopping.until is not None
    assert w.job(HOUR).state == "embryo"


def test_a_failed_unit_of_work_says_when_it_is_tried_again() -> None:
    """An operator reads what failed and until when it waits."""
    w = hourly(retry=Retry(delay_s=600, jitter=0))
    assert w.explain(HOUR).own[0].until is None
    w.work(HOUR, "fail", error="no such file")
    (blocker,) = w.explain(HOUR).own
    assert blocker.sentence == "run 1, attempt 1 failed (no such file) and waits for its retry"
    assert blocker.until == w.uow(f"{HOUR}#1").retry_at
    assert blocker.until is not None


def test_a_unit_of_work_that_was_answered_before_says_nothing_of_a_retry() -> None:
    """Only what failed waits for an instant; a finished one whose report is under way ends when that is read."""
    w = hourly()

    def answered(s: Slice) -> None:
        late = replace(w.uow(f"{HOUR}#1"), state="processed", retry_at=at("2020-05-01T04:00"))
        s.uows[late.id] = late

    (blocker,) = told(w, HOUR, answered).blockers
    assert (blocker.until, blocker.unblock) == (None, "it ends")


@pytest.mark.parametrize("everything", [False, True])
def test_a_unit_of_work_that_is_missing_is_named_and_nothing_is_started_beside_it(everything: bool) -> None:
    """A store that was mended by hand lacks a row: its job waits and says for what."""
    w = hourly()

    def lost(s: Slice) -> None:
        s.uows[f"{HOUR}#1"] = None

    found = told(w, HOUR, lost, everything=everything)
    assert found.act is None
    assert [(b.code, b.sentence) for b in found.blockers] == [("uow", f"{HOUR}#1 is missing from the store")]


def test_a_first_run_that_is_missing_is_run_once_more() -> None:
    """Nobody can tell its outcome any more: the job is not ended by what is not known."""
    w = hourly()

    def lost(s: Slice) -> None:
        s.jobs[HOUR] = replace(w.job(HOUR), uow_open=False)
        s.uows[f"{HOUR}#1"] = None
        s.active = {}

    assert told(w, HOUR, lost).act == "dispatch_final"


@pytest.mark.parametrize("state", ["embryo", "in_progress"])
def test_a_process_that_was_registered_after_the_look_at_it_is_new(state: str) -> None:
    """Who explains reads the rows first and the jobs then: between the two a process may be registered."""
    w = hourly()

    def unknown(s: Slice) -> None:
        s.jobs[HOUR] = replace(w.job(HOUR), state=state, uow_open=False)
        s.known.rows = {}

    rows = w.engine.known.rows
    try:
        first = told(w, HOUR, unknown).blockers[0]
    finally:
        w.engine.known.rows = rows
    assert (first.code, first.sentence) == ("suspended", "h is new")


def test_a_suspended_process_is_named_by_its_state() -> None:
    """The sentence says what the process is, and what brings it back."""
    w = hourly()
    w.command("suspend", {"process": "h"})
    blocker = w.explain("h@2020050101").own[0]
    assert (blocker.sentence, blocker.unblock) == ("h is suspended", "resume h")


def test_a_hold_is_named_with_its_reason_if_it_has_one() -> None:
    """Who holds it, and why."""
    w = hourly()
    w.command("hold", {"scope": "process:h"}, reason="the disk is full")
    w.command("hold", {"scope": "job:h@2020050101"})
    assert w.explain("h@2020050101").own[0].sentence == "held by anna: the disk is full"
    w.command("release", {"scope": "process:h"})
    assert w.explain("h@2020050101").own[0].sentence == "held by anna"


def test_a_period_that_has_not_begun_says_when_it_does() -> None:
    """The clock of who asks may be behind the one by which the period was opened."""
    w = hourly()

    def earlier(s: Slice) -> None:
        s.now = at("2020-05-01T02:30")

    found = told(w, "h@2020050103", earlier).blockers
    not_begun = next(b for b in found if b.code == "not_begun")
    assert not_begun.until == at("2020-05-01T03:00")
    (first,) = told(w, "h@2020050103", earlier, everything=False).blockers
    assert first == not_begun


def test_what_was_submitted_in_the_same_millisecond_begins_at_once() -> None:
    """A freerun job's label is the next free millisecond: it is no appointment."""
    w = World([freerun("f", "m:f", max_active=3)], now="2020-05-01T00:00:30")
    for _ in range(3):
        w.command("submit", {"process": "f"})
    assert len(w.open_uows("f")) == 3


def test_overlapping_firings_of_a_process_that_allows_them_have_no_limit() -> None:
    """§2 overlap: with `allow` a place is never lacking, with `queue` it is."""
    for overlap, running in (("allow", 3), ("queue", 1)):
        w = World(
            [freerun("f", "m:f", trigger="every 60", overlap=overlap, max_active=1)],
            now="2020-05-01T00:00:30",
        )
        for _ in range(3):
            w.wait(60)
        assert len(w.open_uows("f")) == running


def test_a_trigger_that_has_ended_is_in_the_way_without_an_end() -> None:
    """It will not fire again: explain knows no instant, and the scheduler goes on with everything else."""
    w = World(
        [managed("h", "m:f", "hourly", trigger="at 06:00", trigger_end=at("2020-05-01T05:00"))],
        start="2020050103",
        now="2020-05-01T07:10:00",
    )
    assert w.uows() == []
    (blocker,) = w.explain("h@2020050103").own
    assert (blocker.code, blocker.until) == ("trigger", None)


def test_a_trigger_to_come_says_when() -> None:
    """70: `at 06:00` starts nothing before, and explain says so."""
    w = World([managed("d", "m:f", "daily", trigger="at 06:00")], start="2020050100", now="2020-05-02T00:10")
    (blocker,) = w.explain("d@2020050100").own
    assert (blocker.code, blocker.until) == ("trigger", at("2020-05-02T06:00"))


def test_a_job_that_waits_to_hear_whether_it_runs_again_lacks_no_place_yet() -> None:
    """18: whether its first run was the last is known when its inputs are finished; before, a place is no matter."""
    w = World(
        [managed("a", "m:f", "hourly", max_active=30), managed("b", "m:f", "daily", depends_on=["a"])],
        start="2020050122",
        now="2020-05-03T00:10:00",
    )
    w.work("b@2020050100")
    assert w.job("b@2020050200").uow_open
    w.work("a@2020050122")
    assert w.job("b@2020050100").state == "in_progress"
    assert codes(w, "b@2020050100") == ["dependency"]


def test_an_open_period_names_all_it_waits_for() -> None:
    """§8.10: while it is open: its close, and its trigger, which has not fired."""
    w = World(
        [managed("h", "m:f", "hourly", trigger="at 06:00")], start="2020050103", now="2020-05-01T03:10:00"
    )
    own = w.explain("h@2020050103").own
    assert [(b.code, b.until) for b in own] == [
        ("not_closed", at("2020-05-01T04:05")),
        ("trigger", at("2020-05-01T06:00")),
    ]
