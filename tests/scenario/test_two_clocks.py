"""The two clocks: business time opens periods, real time governs leases and retries (§5)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.core.process import Retry
from tests.scenario.worlds import hourly


def test_leases_are_measured_on_the_stores_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: no box compares its own clock with another's."""
    w = hourly()
    skew = timedelta(minutes=10)
    now = type(w.store).now
    monkeypatch.setattr(type(w.store), "now", lambda self: now(self) - skew)
    w.restart()
    w.accept("h@2020050100#1")
    w.settle()
    assert (w.uow("h@2020050100#1").state, w.uow("h@2020050100#1").losses) == ("in_progress", 0)
    w.wait(59)
    assert w.uow("h@2020050100#1").losses == 0
    w.wait(31)
    assert w.uow("h@2020050100#1").losses == 1


def test_set_clock_is_in_force_at_once_for_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5: the mapping is read by all; the leader that saved it does not wait to read it."""
    w = hourly()
    refreshed: list[int] = []
    monkeypatch.setattr(w.clock, "refresh", lambda: refreshed.append(1), raising=False)
    value = {
        "real_anchor": "2020-05-01T03:10:00+00:00",
        "business_anchor": "2020-05-01T04:10:00+00:00",
        "rate": 1.0,
    }
    w.command("set_clock", {}, arguments={"value": value})
    assert refreshed


def test_the_business_clock_a_year_ahead_opens_every_period_once() -> None:
    """§5 two clocks: business time decides periods; leases and retries do not notice."""
    from scheduler.clock import Mapping

    w = hourly()
    w.accept("h@2020050100#1")
    real = w.clock.real()
    w.clock.set_mapping(Mapping(real, real + timedelta(days=100), 1.0))
    w.settle()
    assert len(w.jobs("h")) == 4 + 2400
    assert w.uow("h@2020050100#1").state == "in_progress"
    w.clock.set_mapping(Mapping(real, real, 1.0))
    w.settle()
    assert len(w.jobs("h")) == 4 + 2400
    w.work_all("h", limit=3)


def test_a_frozen_business_clock_lets_leases_and_retries_go_on() -> None:
    """§5 two clocks: real time alone governs leases and retries."""
    from scheduler.clock import Mapping

    w = hourly(retry=Retry(delay_s=10, jitter=0))
    real = w.clock.real()
    w.clock.set_mapping(Mapping(real, real, 0.0))
    w.work("h@2020050100", "fail")
    w.clock.advance(10)
    w.settle()
    assert w.uow("h@2020050100#1").attempt == 2
