"""Holds: what waits under one, whose time stands still, and what follows its end (§2)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.core.process import Retry, freerun, managed
from tests.scenario.worlds import hourly, pyramid
from tests.world import World


def test_wait_timeout_stands_still_under_a_hold() -> None:
    """§2 hold: `wait_timeout` stands still; what is left of it counts on after the release."""
    w = hourly(wait_timeout_s=3600)
    w.wait(1800)
    w.command("hold", {"scope": "process:h"})
    w.wait(7200)
    w.command("release", {"scope": "process:h"})
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(1700)
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(200)
    assert w.job("h@2020050100").reason == "timed_out"


def test_overlapping_holds_count_once() -> None:
    """§2 hold: two holds over the same time stop the clock once."""
    w = hourly(wait_timeout_s=3600)
    w.wait(600)
    w.command("hold", {"scope": "process:h"})
    w.wait(600)
    w.command("hold", {"scope": "*"})
    w.wait(600)
    w.command("release", {"scope": "process:h"})
    w.wait(600)
    w.command("release", {"scope": "*"})
    w.wait(2900)
    assert w.uow("h@2020050100#1").state == "requested"
    w.wait(200)
    assert w.job("h@2020050100").reason == "timed_out"


@pytest.mark.parametrize("scope", ["*", "tree:t", "process:d", "job:d@2020050100"])
def test_a_hold_with_an_end_lifts_itself(scope: str) -> None:
    """§2 hold: optional end; when it is over, what waited starts."""
    w = pyramid()
    until = (w.clock.real() + timedelta(hours=1)).isoformat()
    for id_ in [uow.id for uow in w.open_uows("h")][:-1]:
        w.work(id_)
    w.command("hold", {"scope": scope}, arguments={"until": until})
    w.work_all("h")
    assert w.open_uows("d") == []
    w.wait(3600)
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


@pytest.mark.parametrize(("overlap", "jobs"), [("skip", 0), ("queue", 3), ("allow", 3)])
def test_39_firings_under_a_hold(overlap: str, jobs: int) -> None:
    """§2, §4: no new uow under a hold; `skip` drops the firing, the others wait for the release."""
    w = World([freerun("f", "m:f", trigger="every 60", overlap=overlap)], now="2020-05-01T00:00:30")
    w.command("hold", {"scope": "process:f"})
    for _ in range(3):
        w.wait(60)
    assert w.uows() == []
    assert len(w.jobs("f")) == jobs
    w.command("release", {"scope": "process:f"})
    assert len(w.open_uows()) == {"skip": 0, "queue": 1, "allow": 3}[overlap]
    w.work_all()
    assert {job.state for job in w.jobs("f")} <= {"processed"}


def test_readiness_of_a_suspended_or_held_process_is_asked_when_it_may_run() -> None:
    """§4 readiness: no uow while suspended; wait_timeout stands still under a hold."""
    from scheduler.core.process import Readiness

    w = hourly(readiness=Readiness("m:ready", every_s=300, wait_timeout_s=1000))
    w.work(w.open_uows()[0].id, "no_data")
    w.command("hold", {"scope": "process:h"})
    w.wait(5000)
    w.command("release", {"scope": "process:h"})
    w.wait(31)
    assert w.job("h@2020050100").state == "embryo"
    check = next(u for u in w.open_uows() if u.timeperiod == "2020050100")
    w.work(check.id)
    assert w.job("h@2020050100").state == "in_progress"


@pytest.mark.parametrize("how", ["release", "until"])
def test_after_a_hold_a_failed_slice_yields_to_the_final_run_at_once(how: str) -> None:
    """§4: at the close an invalid slice is canceled; a hold that stood over the close only delays it."""
    slow = Retry(delay_s=7200, jitter=0, max_delay_s=7200)
    w = World(
        [managed("h", "m:f", "hourly", state_machine="continuous", trigger="every 300", retry=slow)],
        start="2020050103",
        now="2020-05-01T03:10:00",
    )
    w.work(w.open_uows()[0].id, "fail")
    until = (w.clock.real() + timedelta(seconds=5000)).isoformat()
    w.command("hold", {"scope": "process:h"}, arguments={"until": until})
    w.go("2020-05-01T04:20:00")
    assert w.uow("h@2020050103#1").state == "invalid"
    if how == "release":
        w.command("release", {"scope": "process:h"})
    else:
        w.wait(1000)
    assert (w.job("h@2020050103").state, w.uow("h@2020050103#1").state) == ("final_run", "canceled")
