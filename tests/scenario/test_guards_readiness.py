"""Readiness: the predicate is asked once at a time, again when it said no, and not for ever (§4)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from scheduler.core.ports import Where
from scheduler.core.process import Readiness, managed
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from tests.world import World

JOB = "h@2020050103"


def asking(**more: Any) -> World:
    """One hour that has closed, and the next, which is open; each is asked for before its first run."""
    return World(
        [managed("h", "m:f", "hourly", readiness=Readiness("m:ready", every_s=300, **more))],
        start="2020050103",
        now="2020-05-01T04:10:00",
    )


def checks(w: World) -> list[Uow]:
    """What the predicate was asked."""
    return w.uows(Where("timeperiod", "=", "2020050103"), Where("kind", "=", "check"))


def look(w: World) -> None:
    """Look at the job once more, as any event may."""
    w.engine.turn([Item("job", JOB)])
    w.settle()


def sentence(w: World) -> str:
    """The only thing in the job's way."""
    (blocker,) = w.explain(JOB).own
    assert blocker.code == "readiness"
    return blocker.sentence


def test_it_is_asked_before_the_first_run_and_runs_after_a_yes() -> None:
    """A check is no run: it takes no number, and after a yes nobody asks again."""
    w = asking()
    assert [u.id for u in w.uows()] == [f"{JOB}#check-1"]
    w.work(f"{JOB}#check-1")
    assert [u.id for u in w.open_uows()] == [f"{JOB}#1"]
    w.work(JOB, "fail", permanent=True)
    w.wait(600)
    assert len(checks(w)) == 1


def test_one_that_is_being_asked_is_not_asked_a_second_time() -> None:
    """However long the answer takes, and however often somebody looks; explain says who is waited for."""
    w = asking()
    assert sentence(w) == "m:ready is being asked"
    w.wait(400)
    look(w)
    assert len(checks(w)) == 1
    w.work(f"{JOB}#check-1", "no_data")
    w.wait(301)
    assert len(checks(w)) == 2
    w.wait(400)
    look(w)
    assert len(checks(w)) == 2
    assert sentence(w) == "m:ready is being asked"


def test_after_a_no_it_is_asked_again_when_it_is_time_and_not_before() -> None:
    """Without a time-out it is asked for ever; explain says what it said, and when it is asked next."""
    w = asking()
    w.work(f"{JOB}#check-1", "no_data", error="the file is not there")
    assert sentence(w) == "m:ready says no (the file is not there)"
    said_at = w.job(JOB).ready_at
    assert said_at is not None
    assert w.explain(JOB).own[0].until == said_at + timedelta(seconds=300)
    w.wait(299)
    look(w)
    assert len(checks(w)) == 1
    w.wait(2)
    look(w)
    assert len(checks(w)) == 2
    w.work(f"{JOB}#check-2", "no_data")
    assert sentence(w) == "m:ready says no"
    w.wait(100_000)
    assert w.job(JOB).state == "embryo"


def test_who_never_says_yes_is_not_waited_for_longer_than_its_time_out() -> None:
    """The job is skipped at its time-out, counted from the first question, and not before."""
    w = asking(wait_timeout_s=400)
    w.work(f"{JOB}#check-1", "no_data")
    assert w.job(JOB).state == "embryo"
    w.wait(301)
    w.work(f"{JOB}#check-2", "no_data")
    assert w.job(JOB).state == "embryo"
    w.wait(301)
    look(w)
    job = w.job(JOB)
    assert (job.state, job.reason, job.detail) == (
        "skipped",
        "timed_out",
        "m:ready did not say yes in 400 s",
    )


def test_what_is_held_is_not_asked_for_and_explain_says_both() -> None:
    """§8.10: the question is asked when nothing else is in the way; that it is to come is told."""
    w = asking()
    w.command("hold", {"scope": "process:h"})
    w.wait(3600)
    own = w.explain("h@2020050104").own
    assert [b.code for b in own] == ["held", "readiness"]
    assert own[1].sentence == "m:ready was not asked yet"
    assert len(w.uows()) == 1
