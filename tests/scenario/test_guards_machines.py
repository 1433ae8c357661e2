"""The machines at their edges: what decides a job and what does not, at the close and after an expiry (§4)."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.process import Retry, freerun, managed, tree
from tests.world import World, at

SLICE = "h@2020050103"
DAY = "d@2020050100"


def sliced(now: str = "2020-05-01T03:10:00", **more: Any) -> World:
    """A continuous process of hours, called each five minutes while an hour is open."""
    more.setdefault("trigger", "every 300")
    return World(
        [managed("h", "m:f", "hourly", state_machine="continuous", **more)], start="2020050103", now=now
    )


def evening(now: str = "2020-05-02T00:10:00", **more: Any) -> World:
    """A day `d` over its last two hours `h`, which close at once."""
    return World(
        [managed("h", "m:f", "hourly", lag_s=0, max_active=9), managed("d", "m:f", "daily", **more)],
        [tree("t", ["h", "d"])],
        start="2020050122",
        now=now,
    )


def after(blocking: str = "normal", trigger: str = "every 60", **more: Any) -> World:
    """A day `b` that depends on the day `a`; both have closed."""
    return World(
        [
            managed("a", "m:f", "daily"),
            managed("b", "m:f", "daily", blocking=blocking, trigger=trigger, **more),
        ],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )


# -- what decides a job -------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", ["normal", "children", "dependencies"])
def test_no_slice_of_an_open_period_decides_it_whatever_it_waits_for(blocking: str) -> None:
    """§4: only the final run decides a continuous job, with each blocking type."""
    w = sliced(blocking=blocking)
    w.work(SLICE)
    assert w.job(SLICE).state == "in_progress"
    w.go("2020-05-01T03:15:00")
    assert w.job(SLICE).run == 2


@pytest.mark.parametrize(
    ("verb", "state"), [("succeed", "processed"), ("no_data", "noop"), ("cancel", "skipped")]
)
def test_a_hold_does_not_keep_the_outcome_of_what_ran_before_it(verb: str, state: str) -> None:
    """§2 hold: no new unit of work; a freerun job is decided by its only one."""
    w = World([freerun("f", "m:f")], now="2020-05-01T00:00:30")
    w.command("submit", {"process": "f"})
    (uow,) = w.open_uows("f")
    w.accept(uow.id)
    w.command("hold", {"scope": "process:f"})
    w.work(uow.id, verb)
    assert w.jobs("f")[0].state == state


def test_a_canceled_final_run_skips_the_job_though_slices_were_processed() -> None:
    """61: the final run decides; what the slices produced does not make it complete."""
    w = sliced()
    w.work(SLICE)
    w.go("2020-05-01T04:05:00")
    w.work(SLICE, "cancel", error="bad")
    assert (w.job(SLICE).state, w.job(SLICE).reason) == ("skipped", "canceled")


def test_an_empty_final_run_completes_what_its_slices_produced() -> None:
    """69: there was nothing more to do, and something was done."""
    w = sliced()
    w.work(SLICE)
    w.go("2020-05-01T04:05:00")
    w.work(SLICE, "no_data")
    assert w.job(SLICE).state == "processed"


@pytest.mark.parametrize(("retries", "reason"), [(0, "failed"), (1, "retries_exhausted")])
def test_what_failed_too_often_says_so(retries: int, reason: str) -> None:
    """The reason of a skipped job: all its retries were used, or there were none."""
    w = sliced(now="2020-05-01T04:10:00", retry=Retry(max_retries=retries, delay_s=10, jitter=0))
    for _ in range(retries + 1):
        w.work(SLICE, "fail")
        w.wait(10)
    assert (w.job(SLICE).state, w.job(SLICE).reason) == ("skipped", reason)


@pytest.mark.parametrize(
    ("more", "reason"), [({}, "failed"), ({"timed_out": True}, "timed_out"), ({"permanent": True}, "failed")]
)
def test_a_failure_after_its_process_left_the_context_says_what_happened(
    more: dict[str, Any], reason: str
) -> None:
    """66: there is no retry policy any more; the job ends with what is known of the attempt."""
    h, x = managed("h", "m:f", "hourly"), managed("x", "m:f", "hourly")
    w = World([h, x], start="2020050103", now="2020-05-01T04:10:00")
    w.accept("x@2020050103#1", lease_s=600)
    w.redefine([h], (), "2020050103")
    w.work("x@2020050103", "fail", **more)
    assert (w.job("x@2020050103").state, w.job("x@2020050103").reason) == ("skipped", reason)


# -- while the period is open -------------------------------------------------------------------------


def test_a_continuous_process_with_times_of_day_runs_after_the_close() -> None:
    """70: `at` says when it may: no slice of an open period, and the final run at the first time after it."""
    w = sliced(trigger="at 03:30,04:30")
    w.go("2020-05-01T03:30:00")
    assert w.uows() == []
    w.go("2020-05-01T04:05:00")
    assert w.uows() == []
    w.go("2020-05-01T04:30:00")
    assert [(u.id, u.final) for u in w.uows()] == [(f"{SLICE}#1", True)]


def test_after_the_end_of_its_trigger_a_continuous_process_has_its_final_run_alone() -> None:
    """70: no tick is to come: explain knows no instant, and after the close `every` is no limit."""
    w = sliced(trigger_end=at("2020-05-01T03:12:00"))
    w.work(SLICE)
    w.go("2020-05-01T03:30:00")
    assert w.job(SLICE).run == 1
    (blocker,) = w.explain(SLICE).own
    assert (blocker.code, blocker.until) == ("trigger", None)
    w.go("2020-05-01T04:05:00")
    assert w.job(SLICE).state == "final_run"


def test_a_slice_that_says_more_is_called_again_at_once_and_at_the_next_tick_otherwise() -> None:
    """§4 more: the worker had no room for the rest; it does not wait for the next tick."""
    w = sliced()
    w.work(SLICE, more=True, cursor_end="a")
    assert (w.job(SLICE).run, w.uow(f"{SLICE}#2").cursor) == (2, "a")
    w.work(SLICE, cursor_end="b")
    assert w.job(SLICE).run == 2


# -- at the close -------------------------------------------------------------------------------------


def test_a_slice_that_runs_over_the_close_is_not_disturbed() -> None:
    """13: only an invalid slice yields to the final run; a running one is waited for."""
    w = sliced()
    w.accept(f"{SLICE}#1", lease_s=6000)
    w.go("2020-05-01T04:05:00")
    assert (w.job(SLICE).state, w.uow(f"{SLICE}#1").state) == ("in_progress", "in_progress")
    w.work(SLICE, cursor_end="9")
    assert (w.job(SLICE).state, w.uow(f"{SLICE}#2").cursor) == ("final_run", "9")


def test_a_final_run_that_failed_is_retried_and_replaced_by_nothing() -> None:
    """§4: there is one final run; its failures are retries of it."""
    w = sliced(now="2020-05-01T09:00:00", retry=Retry(delay_s=60, jitter=0))
    w.work(SLICE, "fail")
    assert (w.job(SLICE).state, w.uow(f"{SLICE}#1").state) == ("final_run", "invalid")
    assert [b.code for b in w.explain(SLICE).own] == ["uow"]
    w.wait(60)
    assert (w.job(SLICE).run, w.uow(f"{SLICE}#1").attempt) == (1, 2)


def test_a_failed_run_of_a_discrete_process_is_retried_and_replaced_by_nothing() -> None:
    """§4: discrete has one unit of work; it does not yield to another at the close."""
    w = after()
    w.work("b@2020050100", "fail")
    w.work("a@2020050100")
    assert w.uow("b@2020050100#1").state == "invalid"
    assert [b.code for b in w.explain("b@2020050100").own] == ["uow"]


def test_an_invalid_slice_is_retried_while_the_period_is_open_though_all_children_were_skipped() -> None:
    """§4: before the close nothing replaces it: what failed is tried again when it is due."""
    w = evening(
        state_machine="continuous",
        trigger="every 300",
        lag_s=7200,
        max_active=2,
        retry=Retry(delay_s=600, jitter=0),
    )
    w.work(DAY, "fail")
    w.work_all("h", "cancel")
    assert (w.job(DAY).state, w.uow(f"{DAY}#1").state) == ("in_progress", "invalid")
    w.wait(600)
    assert (w.uow(f"{DAY}#1").state, w.uow(f"{DAY}#1").attempt) == ("requested", 2)


def test_an_invalid_slice_gives_way_when_its_children_are_skipped_after_the_close() -> None:
    """20: nothing was produced and no child has anything: the day is skipped, its slice is not retried."""
    w = evening(
        state_machine="continuous", trigger="every 300", max_active=2, lag_s=900, retry=Retry(delay_s=7200)
    )
    w.work(DAY, "fail")
    w.go("2020-05-02T00:15:00")
    assert w.uow(f"{DAY}#1").state == "invalid"
    w.work_all("h", "cancel")
    assert (w.job(DAY).state, w.job(DAY).reason) == ("skipped", "children")
    assert w.uow(f"{DAY}#1").state == "canceled"


# -- what it stands on --------------------------------------------------------------------------------


def test_a_final_run_waits_for_the_inputs_even_if_nothing_ran_before() -> None:
    """13, 18: `normal` lets a discrete job run early, never a continuous one be decided early."""
    w = after(state_machine="continuous", max_active=2)
    assert w.job("b@2020050100").state == "embryo"
    w.work("a@2020050100")
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("final_run", 1)


def test_what_is_reprocessed_with_its_input_waits_for_it() -> None:
    """18: the early run was had before; after a reprocess it comes when the inputs are there."""
    w = after(trigger="at 06:00")
    w.work("a@2020050100")
    w.go("2020-05-02T06:00:00")
    w.work("b@2020050100")
    w.command("reprocess", "a@2020050100")
    assert (w.job("b@2020050100").state, w.open_uows("b")) == ("embryo", [])
    w.work("a@2020050100")
    w.work("b@2020050100")
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("processed", 2)


def test_what_was_produced_early_is_not_thrown_away_when_all_children_are_skipped() -> None:
    """18, 20: a day whose early run was processed runs once more; only one without a result is skipped."""
    w = evening()
    w.work(DAY)
    assert w.job(DAY).state == "in_progress"
    w.work_all("h", "cancel")
    assert (w.job(DAY).state, w.job(DAY).run) == ("final_run", 2)


def test_only_who_blocks_by_dependencies_is_skipped_with_one() -> None:
    """17: a skipped dependency skips it, `normal` runs without its data."""
    for blocking, state in (("dependencies", "skipped"), ("normal", "in_progress")):
        w = after(blocking=blocking)
        w.work("a@2020050100", "cancel", error="no")
        assert w.job("b@2020050100").state == state


def test_an_hour_that_was_hidden_while_it_ran_is_waited_for_still() -> None:
    """59: a raised start cancels nothing, and the day does not begin over the head of a worker."""
    w = evening(blocking="children")
    processes, trees = w.timetable.processes.values(), w.timetable.trees.values()
    w.accept("h@2020050122#1", lease_s=600)
    w.redefine(processes, trees, "2020050123")
    w.work("h@2020050123")
    assert w.open_uows("d") == []
    assert [(b.code, b.job) for b in w.explain(DAY).own] == [("children", "h@2020050122")]
    w.work("h@2020050122")
    w.wait(30)
    assert [u.id for u in w.open_uows("d")] == [f"{DAY}#1"]


def test_a_job_before_a_raised_start_says_so_and_is_not_run() -> None:
    """59: older rows stay, and nothing new is requested for them."""
    h = managed("h", "m:f", "hourly")
    w = World([h], start="2020050100", now="2020-05-01T03:10:00")
    w.redefine([h], (), "2020050102")
    w.work("h@2020050100")
    assert w.explain("h@2020050101").own[0].code == "hidden"
    assert [u.id for u in w.open_uows()] == ["h@2020050102#1"]


# -- after its process was suspended or expired -------------------------------------------------------


def test_a_suspended_process_decides_nothing_before_it_is_resumed() -> None:
    """§4 suspended: what ran ends, and its job waits; the outcome is taken then."""
    w = after(trigger="at 06:00")
    w.work("a@2020050100")
    w.go("2020-05-02T06:00:00")
    w.command("suspend", {"process": "b"})
    w.work("b@2020050100")
    assert w.job("b@2020050100").state == "in_progress"
    assert [b.code for b in w.explain("b@2020050100").own] == ["suspended"]
    w.command("resume", {"process": "b"})
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("processed", 1)


@pytest.mark.parametrize("verb", ["expire", "delete"])
def test_what_ran_when_its_process_ended_still_decides_its_job(verb: str) -> None:
    """§4 expired: nothing new is requested, and the work that was done is not lost."""
    w = after(trigger="at 06:00")
    w.work("a@2020050100")
    w.go("2020-05-02T06:00:00")
    w.accept("b@2020050100#1")
    w.command(verb, {"process": "b"})
    w.work("b@2020050100")
    assert w.job("b@2020050100").state == "processed"


def test_a_job_of_an_expired_process_names_all_that_is_in_its_way_and_runs_no_more() -> None:
    """§8.10, §4 expired: its input is named too; when that came later than its run, it is not run again."""
    w = after()
    w.work("b@2020050100")
    w.command("expire", {"process": "b"})
    assert [b.code for b in w.explain("b@2020050100").own] == ["suspended", "dependency"]
    w.work("a@2020050100")
    assert (w.job("b@2020050100").state, w.job("b@2020050100").run) == ("in_progress", 1)
    assert [b.code for b in w.explain("b@2020050100").own] == ["suspended"]


def test_a_job_of_an_expired_process_that_never_ran_is_decided_by_nobody_else() -> None:
    """§4 expired: only what ran decides: skipped hours do not skip a day that was given up before."""
    w = evening(blocking="children")
    w.command("expire", {"process": "d"})
    w.work_all("h", "cancel")
    assert w.job(DAY).state == "embryo"


def test_an_open_slice_job_of_an_expired_process_is_decided_by_nobody_else() -> None:
    """§4 expired: a continuous job is decided by its final run, and there will be none."""
    w = evening(state_machine="continuous", trigger="every 300", lag_s=7200, max_active=2)
    w.command("expire", {"process": "d"})
    assert w.job(DAY).run == 1
    w.work(DAY, "no_data")
    w.work_all("h", "cancel")
    assert w.job(DAY).state == "in_progress"
