"""Attempts that failed: retried, given up, left alone, or out of date; each for its own reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from scheduler.core.job import Job
from scheduler.core.ports import REPORT_QUEUE, Change, Outgoing, Where
from scheduler.core.process import Readiness, Retry, managed
from scheduler.core.records import ProcessRow
from tests.scenario.worlds import hourly
from tests.world import World

JOB = "h@2020050100"
UOW = "h@2020050100#1"
SLOW = Retry(delay_s=100, jitter=0)


def edit(w: World, kind: type, id_: str, **sets: Any) -> None:
    """Rows that disagree, as after a restore in part."""
    with w.store.transaction() as tx:
        assert tx.update([Change(kind, id_, {}, sets)]) == 1


def report(w: World, id_: str = UOW) -> None:
    """A report of it, doubled or stale."""
    w.broker.publish([Outgoing(REPORT_QUEUE, id_)])
    w.settle()


def given_up(w: World) -> list[tuple[str | None, str]]:
    """What was given up, and in which words."""
    return [(event.uow, event.message) for event in w.events("uow.give_up")]


# -- retried ----------------------------------------------------------------------------------------------


def test_a_failure_is_retried_when_its_delay_is_over() -> None:
    """§4 retry: not earlier, though a stale report came meanwhile, and not later."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail")
    due = w.clock.real() + timedelta(seconds=100)
    w.wait(50)
    report(w)
    uow = w.uow(UOW)
    assert (uow.state, uow.retry_at, uow.due_at) == ("invalid", due, due)
    w.wait(49)
    assert w.uow(UOW).state == "invalid"
    w.wait(1)
    uow = w.uow(UOW)
    assert (uow.state, uow.attempt, uow.failures, uow.losses) == ("requested", 2, 1, 0)


def test_a_retry_that_is_due_at_once_is_made_at_once() -> None:
    """§4 retry: without a delay the next attempt is requested with the report of the last."""
    w = hourly(retry=Retry(delay_s=0, jitter=0))
    w.work(JOB, "fail")
    assert (w.uow(UOW).state, w.uow(UOW).attempt) == ("requested", 2)


def test_a_lost_attempt_is_not_delayed() -> None:
    """27: a worker that is gone says nothing of the work: it is tried again at once."""
    w = hourly(retry=SLOW)
    w.accept(UOW)
    w.wait(60)
    assert (w.uow(UOW).state, w.uow(UOW).attempt, w.uow(UOW).losses) == ("requested", 2, 1)


def test_a_failure_that_is_permanent_is_not_retried() -> None:
    """§4 retry: the worker knows that a retry would fail too."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail", permanent=True)
    assert (w.job(JOB).state, w.job(JOB).reason) == ("skipped", "failed")
    assert given_up(w) == [(UOW, "not to be retried")]


def test_a_failed_slice_leaves_its_range_to_the_final_run() -> None:
    """§4: it fails after the close: not retried, one final run covers what is left of the period."""
    w = World(
        [managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300", retry=SLOW)],
        start="2020050103",
        now="2020-05-01T03:10:00",
    )
    slice_ = w.open_uows()[0].id
    w.accept(slice_, lease_s=7200)
    w.go("2020-05-01T04:10:00")
    w.work(slice_, "fail")
    assert (w.job("h@2020050103").state, w.uow(slice_).state) == ("final_run", "canceled")


# -- while the process stands still -----------------------------------------------------------------------


def test_a_suspended_process_has_its_failures_left_alone_without_being_looked_at() -> None:
    """§4: suspended, it is neither retried nor canceled; nobody looks at it again and again for nothing."""
    w = hourly(retry=Retry(max_retries=0))
    w.accept(UOW)
    w.command("suspend", {"process": "h"})
    w.work(JOB, "fail")
    assert (w.uow(UOW).state, w.uow(UOW).due_at) == ("invalid", None)
    w.wait(3600)
    assert w.uow(UOW).state == "invalid"
    w.command("resume", {"process": "h"})
    assert (w.uow(UOW).state, w.job(JOB).reason) == ("canceled", "failed")


def test_late_data_under_a_suspended_process_waits_with_the_failure() -> None:
    """63: it fails while suspended, and late data waits: begun anew when the process is resumed, not before."""
    w = hourly(retry=SLOW)
    w.accept(UOW)
    w.command("late_data", JOB, actor="feed", reason="rows")
    w.command("suspend", {"process": "h"})
    w.work(JOB, "fail")
    assert (w.uow(UOW).state, w.job(JOB).again) == ("invalid", "rows")
    w.command("resume", {"process": "h"})
    assert (w.uow(UOW).state, w.job(JOB).run) == ("canceled", 2)


def test_a_process_that_is_resumed_in_time_retries_when_it_was_going_to() -> None:
    """§4: a short suspension changes nothing of when the next attempt is."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail")
    w.wait(10)
    w.command("suspend", {"process": "h"})
    assert w.uow(UOW).due_at is None
    w.wait(10)
    w.command("resume", {"process": "h"})
    w.wait(79)
    assert w.uow(UOW).state == "invalid"
    w.wait(1)
    assert w.uow(UOW).state == "requested"


@pytest.mark.parametrize("verb", ["expire", "delete"])
def test_what_failed_is_given_up_when_its_process_ends(verb: str) -> None:
    """§4: expired or deleted, nothing new is requested, and a retry would be."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail")
    w.command(verb, {"process": "h"})
    assert (w.uow(UOW).state, w.job(JOB).state, w.job(JOB).reason) == ("canceled", "skipped", "failed")


def test_what_failed_is_given_up_though_the_row_of_its_process_is_lost() -> None:
    """64: a job of a process that neither the store nor the context knows any more stops nobody."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail")
    w.engine.step_down()
    with w.store.transaction() as tx:
        tx.delete(ProcessRow, (Where("name", "=", "h"),))
    w.redefine([managed("other", "m:f", "hourly")], (), "2020050103")
    report(w)
    assert (w.uow(UOW).state, w.job(JOB).reason) == ("canceled", "failed")


def test_what_failed_is_given_up_though_its_definition_is_lost() -> None:
    """64: what the leader remembers says scheduled, and the context has it no more: it ends, and stops nobody."""
    w = hourly(retry=SLOW)
    w.work(JOB, "fail")
    processes = cast("dict[str, Any]", w.engine.known.timetable.processes)
    del processes["h"]
    w.engine.known.definitions.clear()
    report(w)
    assert (w.uow(UOW).state, w.job(JOB).reason) == ("canceled", "failed")


# -- out of date ------------------------------------------------------------------------------------------


def test_late_data_during_an_attempt_that_fails_begins_the_job_anew_instead_of_a_retry() -> None:
    """§4 late data: what failed would not have seen all data: a new run from the beginning takes its place at once."""
    w = hourly(retry=SLOW)
    w.accept(UOW)
    w.command("late_data", JOB, actor="feed", reason="rows")
    w.work(JOB, "fail")
    job = w.job(JOB)
    assert (w.uow(UOW).state, job.run, job.generation, job.again) == ("canceled", 2, 1, None)
    assert given_up(w) == [(UOW, "late data came")]


@pytest.mark.parametrize("job", [{"uow": "h@2020050100#2"}, {"uow_open": False}])
def test_a_failure_that_its_job_does_not_wait_for_is_never_retried(job: dict[str, Any]) -> None:
    """64: rows that disagree, after a restore in part: no second execution beside that of the job."""
    w = hourly(retry=Retry(delay_s=0, jitter=0))
    w.accept(UOW)
    w.finish(UOW, "fail", report=False)
    edit(w, Job, JOB, **job)
    before = w.job(JOB)
    report(w)
    assert (w.uow(UOW).state, w.uow(UOW).attempt, w.uow(UOW).due_at) == ("canceled", 1, None)
    assert given_up(w) == [(UOW, "its job went on without it")]
    assert w.job(JOB) == before


def test_an_unfinished_run_that_its_job_does_not_wait_for_is_not_sent_again() -> None:
    """64: rows that disagree: nobody is asked to do what the job did without."""
    w = hourly()
    edit(w, Job, JOB, uow_open=False, uow="h@2020050100#2", run=2)
    w.broker.purge("default")
    w.wait(60)
    assert UOW not in w.messages()
    due = w.uow(UOW).due_at
    assert due is not None and due > w.clock.real()


# -- a predicate that fails -------------------------------------------------------------------------------


def test_a_predicate_that_fails_says_no_and_is_asked_again() -> None:
    """§4 readiness: an error is a no; the question is over, and another one follows in its time."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    w.work(f"{JOB}#check-1", "fail", error="OSError: no such host")
    uow, job = w.uow(f"{JOB}#check-1"), w.job(JOB)
    assert (uow.state, uow.due_at) == ("canceled", None)
    assert (job.ready, job.ready_detail) == ("no", "OSError: no such host")
    assert given_up(w) == [(f"{JOB}#check-1", "a check is not retried, it is asked again")]
    w.wait(300)
    assert w.uow(f"{JOB}#check-2").state == "requested"


def test_a_predicate_whose_worker_is_lost_says_no() -> None:
    """§4 readiness: the worker that was asked is gone: asked again in its time, not retried."""
    w = hourly(readiness=Readiness("m:ready", every_s=300))
    w.accept(f"{JOB}#check-1")
    w.wait(60)
    assert (w.uow(f"{JOB}#check-1").state, w.job(JOB).ready) == ("canceled", "no")
