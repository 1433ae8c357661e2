"""Workers that may be lost, and those that must let go: nobody is called lost early, and nothing waits for ever."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler.core.ports import REPORT_QUEUE, Change, Outgoing
from scheduler.core.process import Readiness
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from scheduler.engine import Engine
from tests.scenario.worlds import hourly, pyramid
from tests.world import World

JOB = "h@2020050100"
UOW = "h@2020050100#1"


def one(**more: Any) -> World:
    """Hours, one of them at a time."""
    return hourly(max_active=1, **more)


def edit(w: World, id_: str, **sets: Any) -> None:
    """Write marks of a unit of work, as whoever shares the store may."""
    with w.store.transaction() as tx:
        assert tx.update([Change(Uow, id_, {}, sets)]) == 1


def report(w: World, id_: str = UOW) -> None:
    """A report of it, doubled or stale."""
    w.broker.publish([Outgoing(REPORT_QUEUE, id_)])
    w.settle()


def take_over(w: World, **options: Any) -> None:
    """Another scheduler takes over, and trusts no lease yet."""
    w.engine.step_down()
    w.engine = Engine(w.store, w.broker, w.clock, w.timetable, holder="another", **options)
    assert w.engine.lead()
    w.settle()


def looks(w: World) -> list[datetime]:
    """When the scheduler looks at the unit of work again, from now on until its attempt changes."""
    found: list[datetime] = []
    attempt = w.uow(UOW).attempt
    while w.uow(UOW).attempt == attempt:
        due = w.uow(UOW).due_at
        assert due is not None and due > w.clock.real(), "what was looked at is not due at once again"
        found.append(due)
        w.wait((due - w.clock.real()).total_seconds())
    return found


# -- a lease that ends ------------------------------------------------------------------------------------


def test_what_is_unknown_is_passed_over() -> None:
    """A report of a unit of work that is not there, or whose job is not, stops nobody."""
    w = one()
    w.accept(UOW)
    report(w, "h@2020050199#7")
    report(w, "h@2020050100#7")
    assert w.uow(UOW).state == "in_progress"


def test_a_report_that_came_early_does_not_end_a_lease() -> None:
    """§3: a worker has its whole lease, however often it is looked at meanwhile; then it is lost."""
    w = one()
    until = w.accept(UOW).lease_until
    w.wait(30)
    report(w)
    assert (w.uow(UOW).state, w.uow(UOW).due_at) == ("in_progress", until)
    w.wait(30)
    assert (w.uow(UOW).state, w.uow(UOW).losses) == ("requested", 1)


def test_a_worker_that_was_seen_dead_is_not_waited_for() -> None:
    """27: its supervisor saw it die: what it held is requested again long before the lease ends."""
    w = one()
    w.accept(UOW, owner="b1/worker/1")
    w.command("worker_died", {"owner": "b1/worker/1"}, actor="box:b1")
    assert (w.uow(UOW).state, w.uow(UOW).attempt) == ("requested", 2)


def test_after_a_take_over_a_worker_is_called_lost_when_its_chance_is_over_and_not_later() -> None:
    """§3: what cannot be decided yet is looked at seldom, and at the very end of the time that workers were given."""
    w = one()
    w.accept(UOW)
    w.clock.advance(100)
    begin = w.clock.real()
    take_over(w, worker_lease_s=45.0)
    assert looks(w) == [begin + timedelta(seconds=30), begin + timedelta(seconds=45)]


def test_a_store_that_was_away_for_long_gives_workers_a_chance_even_if_the_context_is_loaded_anew_then() -> (
    None
):
    """§3: after an outage nobody is called lost for one lease, whatever is done first when the store is back."""
    w = one()
    w.accept(UOW)
    w.clock.advance(100)
    w.engine.outage()
    w.engine.turn(w.engine.reload_context(w.timetable))
    w.settle()
    assert w.uow(UOW).attempt == 1
    w.wait(60)
    assert w.uow(UOW).attempt == 2


# -- letting go -------------------------------------------------------------------------------------------


def test_a_job_stays_closed_while_the_worker_of_a_canceled_run_is_at_it() -> None:
    """§4 one at a time: a stale report says nothing of a worker that has not let go."""
    w = hourly(max_active=3)
    w.accept(UOW)
    w.command("kill", JOB)
    report(w)
    assert w.job(JOB).stopping == UOW
    w.command("reprocess", JOB)
    assert w.job(JOB).run == 1
    w.stopped(UOW)
    assert (w.job(JOB).stopping, w.job(JOB).run) == (None, 2)
    assert w.events("uow.let_go") == []


def test_a_worker_that_does_not_answer_a_kill_is_waited_for_until_its_lease_ends() -> None:
    """§4: not longer, though a stale report came meanwhile; and it is told that nobody answered."""
    w = one()
    w.accept(UOW)
    w.command("kill", JOB)
    report(w)
    w.wait(59)
    assert w.job(JOB).stopping == UOW
    w.wait(1)
    assert w.job(JOB).stopping is None
    assert [(e.uow, e.severity) for e in w.events("uow.let_go")] == [(UOW, "warning")]


def test_a_job_that_waits_for_nobody_has_nothing_let_go() -> None:
    """29: a doubled report of what ended long ago is no news of a worker."""
    w = one()
    w.work(JOB)
    report(w)
    assert w.events("uow.let_go") == []


def test_what_waited_for_a_killed_job_goes_on_when_its_worker_let_go() -> None:
    """72: the day starts with the last of its hours, which is finished once nobody is at it any more."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("kill", JOB)
    w.work_all("h")
    assert w.open_uows("d") == []
    w.stopped(UOW)
    assert [uow.id for uow in w.open_uows("d")] == ["d@2020050100#1"]


@pytest.mark.parametrize("state", ["in_progress", "canceled"])
def test_nobody_is_waited_for_who_holds_no_lease(state: str) -> None:
    """64: rows of a backup, with a worker and without its lease: tried again, or let go of, when it is looked at."""
    w = hourly(max_active=3)
    w.accept(UOW)
    if state == "canceled":
        w.command("kill", JOB)
        w.command("reprocess", JOB)
    edit(w, UOW, lease_until=None)
    report(w)
    assert (w.job(JOB).stopping, w.job(JOB).run) == (None, 2 if state == "canceled" else 1)
    assert w.uow(str(w.job(JOB).uow)).state == "requested"


# -- nobody takes it --------------------------------------------------------------------------------------


def test_a_take_over_sends_again_what_perhaps_was_not_sent_and_nothing_else() -> None:
    """§3: requested and never marked as sent; not what is gone, taken, or marked meanwhile."""
    w = one()
    for uow, messages in (
        ({"published_at": None}, 1),
        ({"published_at": w.clock.real()}, 0),
        ({"published_at": None, "state": "in_progress", "owner": "w1"}, 0),
    ):
        edit(w, UOW, **uow)
        w.broker.purge("default")
        w.engine.turn([Item("resend", UOW), Item("resend", "h@2020050100#7")])
        assert len(w.messages()) == messages, uow


def test_what_was_released_is_sent_again_at_once() -> None:
    """§3: a worker that leaves gives back what it holds, and another one gets it without waiting."""
    w = one()
    w.accept(UOW)
    w.broker.purge("default")
    w.finish(UOW, "release", owner=None)
    w.settle()
    assert w.messages() == [UOW]


def test_a_report_that_came_early_does_not_send_anything_twice() -> None:
    """30: what waits for a worker is sent again when nobody answered for long, not whenever it is looked at."""
    w = one()
    w.wait(59)
    report(w)
    assert w.messages() == [UOW]
    w.wait(1)
    assert w.messages() == [UOW, UOW]
    assert w.uow(UOW).publishes == 1


def test_what_nobody_would_look_at_again_is_sent() -> None:
    """64: no instant says when to look at it, as in a store that was mended by hand: it is sent, and looked at."""
    w = one()
    edit(w, UOW, due_at=None)
    w.broker.purge("default")
    report(w)
    assert w.messages() == [UOW]
    assert w.uow(UOW).due_at == w.clock.real() + timedelta(seconds=120)


def test_a_wait_ends_at_its_limit_and_says_what_that_was() -> None:
    """§4 wait_timeout: looked at earlier it goes on waiting; at the limit it is given up."""
    w = one(wait_timeout_s=90)
    w.wait(80)
    report(w)
    assert w.job(JOB).state == "in_progress"
    w.wait(10)
    job = w.job(JOB)
    assert (job.state, job.reason, job.detail) == ("skipped", "timed_out", "no worker took it within 90 s")


def test_without_a_limit_it_waits_for_ever() -> None:
    """§4: without a wait_timeout nothing is given up because nobody took it."""
    w = one(wait_timeout_s=None)
    w.wait(200_000)
    assert w.uow(UOW).state == "requested"


def test_under_a_hold_no_wait_ends() -> None:
    """§2 hold: the time of what waits stands still, also when the limit passes under the hold."""
    w = one(wait_timeout_s=90)
    w.command("hold", {"scope": "*"})
    w.wait(600)
    assert w.uow(UOW).state == "requested"


def test_a_question_that_was_overtaken_is_not_asked_again() -> None:
    """§4 readiness: after a reprocess the new question waits for an answer; the old one ends when it is looked at."""
    w = one(readiness=Readiness("m:ready", every_s=300))
    w.command("skip", JOB)
    w.command("reprocess", JOB)
    w.broker.purge("default")
    w.wait(60)
    assert [id_ for id_ in w.messages() if id_.startswith(JOB)] == [f"{JOB}#check-2"]
    assert (w.uow(f"{JOB}#check-1").state, w.uow(f"{JOB}#check-1").due_at) == ("canceled", None)
    assert [uow.id for uow in w.open_uows() if uow.id.startswith(JOB)] == [f"{JOB}#check-2"]
