"""Units of work that ended: what each leaves in its job, and what a report of it may not do."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.ports import REPORT_QUEUE, Outgoing
from scheduler.core.process import Readiness, Retry, managed, tree
from tests.scenario.worlds import hourly
from tests.world import World

JOB = "h@2020050100"
UOW = "h@2020050100#1"


def slices(now: str = "2020-05-01T00:10:00", **more: Any) -> World:
    """A process `h` of hours that are worked at every five minutes, the first of them still open."""
    process = managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300", **more)
    return World([process], start="2020050100", now=now)


def report(w: World, id_: str = UOW) -> None:
    """A report of it, doubled or stale."""
    w.broker.publish([Outgoing(REPORT_QUEUE, id_)])
    w.settle()


# -- what is over is over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["succeed", "no_data", "cancel"])
def test_what_ended_is_not_looked_at_again(verb: str) -> None:
    """§3: a unit of work that is over is due nevermore."""
    w = hourly()
    w.work(JOB, verb)
    assert w.uow(UOW).due_at is None


def test_a_doubled_report_does_not_decide_a_job_that_begins_anew() -> None:
    """29: reprocessed and waiting under a hold, its job is an embryo, whatever its last run says again."""
    w = hourly()
    w.work(JOB)
    w.command("hold", {"scope": "*"})
    w.command("reprocess", JOB)
    report(w)
    job = w.job(JOB)
    assert (job.state, job.produced, job.uow_open) == ("embryo", False, False)


def test_a_stale_report_does_not_decide_the_run_after_it() -> None:
    """29: the second run is under way; what the first one was is history."""
    w = hourly(max_active=3)
    w.work(JOB)
    w.command("reprocess", JOB)
    report(w)
    job = w.job(JOB)
    assert (job.state, job.uow, job.uow_open) == ("in_progress", "h@2020050100#2", True)


def test_late_data_during_a_run_that_succeeds_begins_the_job_anew() -> None:
    """§4 late data: the run ended, but it did not see all data: another one is requested at once, for that reason."""
    w = hourly()
    w.accept(UOW)
    w.command("late_data", JOB, actor="feed", reason="rows")
    w.work(JOB)
    job = w.job(JOB)
    assert (job.state, job.run, job.generation, job.again) == ("in_progress", 2, 1, None)
    assert [event.message for event in w.events("job.reprocess")] == ["late data: rows"]


def test_a_run_of_a_process_that_left_the_context_decides_its_job() -> None:
    """§4 retired: what ran when its process left still counts, by the outcome alone."""
    w = slices(max_active=3)
    w.accept(UOW, lease_s=3600)
    w.redefine([managed("other", "m:f", "hourly")], (), "2020050100")
    w.work(UOW)
    assert (w.job(JOB).state, w.job(JOB).uow_open) == ("processed", False)


# -- what it leaves ---------------------------------------------------------------------------------------


def test_the_cursor_moves_with_what_was_processed_only() -> None:
    """12: it stays where the last processed slice ended: one without a cursor, or without a result, moves nothing."""
    w = slices(retry=Retry(max_retries=0))
    for verb, came_to, cursor in (
        ("succeed", "17", "17"),
        ("succeed", None, "17"),
        ("no_data", "99", "17"),
        ("cancel", "99", "17"),
        ("succeed", "20", "20"),
    ):
        w.work(JOB, verb, cursor_end=came_to)
        assert w.job(JOB).cursor == cursor, f"after {verb} at {came_to}"
        w.wait(300)


@pytest.mark.parametrize(
    ("verb", "more", "runs"), [("succeed", True, 2), ("succeed", False, 1), ("no_data", True, 1)]
)
def test_only_what_was_processed_is_called_again_at_once(verb: str, more: bool, runs: int) -> None:
    """12: there is more, says a slice that was processed; any other waits for its next tick."""
    w = slices()
    w.work(UOW, verb, more=more)
    assert (w.job(JOB).run, w.job(JOB).more) == (runs, False)


def test_a_final_run_that_says_more_ends_its_job_all_the_same() -> None:
    """13: the last unit of work is the last one, whatever it says."""
    w = slices(now="2020-05-01T01:10:00")
    assert w.uow(UOW).final
    w.work(UOW, more=True)
    assert (w.job(JOB).state, w.job(JOB).more) == ("processed", False)


def test_a_slice_that_was_given_up_leaves_a_warning() -> None:
    """§4: the job goes on, and says which of its runs is missing and why; a good slice says nothing."""
    w = slices(retry=Retry(max_retries=0))
    w.work(UOW)
    assert w.job(JOB).warning is None
    w.wait(300)
    w.work(JOB, "fail")
    job = w.job(JOB)
    assert (job.state, job.warning) == ("in_progress", "run 2: failed: ValueError: no")


def test_what_is_usual_is_learned_from_what_succeeded() -> None:
    """§2 usual: by those that were processed, not by what failed or had nothing to do."""
    w = hourly(retry=Retry(max_retries=0))
    for n, verb in enumerate(("succeed", "fail", "no_data")):
        id_ = f"h@202005010{n}#1"
        w.accept(id_)
        w.wait(7)
        w.work(id_, verb)
    w.wait(60)
    assert w.row("h").durations == [7000]


def test_a_slice_that_ends_frees_its_place_at_once() -> None:
    """§4 max_active: a period that waits for a place begins when the slice of another ends, not with a sweep."""
    w = slices(now="2020-05-01T01:00:30", lag_s=600, max_active=1)
    assert [job.run for job in w.jobs("h")] == [1, 0]
    w.work(UOW)
    assert [job.run for job in w.jobs("h")] == [1, 1]


@pytest.mark.parametrize(("blocking", "state"), [("normal", "in_progress"), ("children", "processed")])
def test_a_run_before_its_inputs_are_finished_decides_nothing(blocking: str, state: str) -> None:
    """18: a day that runs early is decided when its hours are finished; one that ran after them is done at once."""
    w = World(
        [managed("h", "m:f", "hourly", max_active=30), managed("d", "m:f", "daily", blocking=blocking)],
        [tree("t", ["h", "d"])],
        start="2020050100",
        now="2020-05-02T00:10:00",
    )
    if blocking == "children":
        w.work_all("h")
    w.work("d@2020050100")
    assert w.job("d@2020050100").state == state
    w.work_all("h")
    w.work_all("d")
    assert w.job("d@2020050100").state == "processed"


# -- the answer of a predicate ----------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "ready"), [("succeed", "yes"), ("no_data", "no"), ("cancel", "no")])
def test_a_predicate_says_yes_by_succeeding_and_no_otherwise(verb: str, ready: str) -> None:
    """§4 readiness: the first run is requested after a yes, and not after a no; the question is over."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    check = f"{JOB}#check-1"
    w.work(check, verb)
    assert (w.job(JOB).ready, w.job(JOB).run, w.uow(check).due_at) == (ready, int(ready == "yes"), None)


def test_a_doubled_answer_does_not_put_off_the_next_question() -> None:
    """29: asked again 300 s after the answer, however late a second report of it comes."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    w.work(f"{JOB}#check-1", "no_data")
    w.wait(299)
    report(w, f"{JOB}#check-1")
    w.wait(1)
    assert w.uow(f"{JOB}#check-2").state == "requested"


def test_the_answer_to_a_question_that_was_overtaken_does_not_count() -> None:
    """§4 readiness: skipped and begun anew, the job waits for the answer to its own question."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    w.command("skip", JOB)
    w.command("reprocess", JOB)
    w.work(f"{JOB}#check-1")
    assert (w.job(JOB).ready, w.job(JOB).run) == ("asked", 0)
    w.work(f"{JOB}#check-2")
    assert (w.job(JOB).ready, w.job(JOB).run) == ("yes", 1)
