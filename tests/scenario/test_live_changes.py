"""A trigger or a limit that is changed while the scheduler runs is live at once, and owes nothing to before (§4)."""

from __future__ import annotations

from scheduler.core.process import freerun
from tests.scenario.worlds import hourly
from tests.world import World


def test_37_a_changed_trigger_is_counted_from_its_change() -> None:
    """37: a changed trigger is live at once; it has missed nothing before it was set."""
    w = World([freerun("f", "m:f", catchup="all", overlap="allow")], now="2020-05-01T00:00:30")
    w.wait(86_400)
    w.command("set_trigger", {"process": "f"}, arguments={"value": "every 60"})
    assert w.jobs("f") == []
    w.wait(60)
    assert len(w.jobs("f")) == 1


def test_max_active_raised_and_lowered_takes_effect_at_once() -> None:
    """§4: enforced at dispatch; an override is live at once."""
    w = hourly(max_active=2)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 3})
    assert len(w.open_uows()) == 3
    w = hourly(now="2020-05-01T09:10:00", max_active=3)
    w.command("set_max_active", {"process": "h"}, arguments={"value": 1})
    w.work("h@2020050100")
    w.work("h@2020050101")
    assert len(w.open_uows()) == 1
    w.work("h@2020050102")
    assert [u.timeperiod[-2:] for u in w.open_uows()] == ["03"]
