"""The supervisor's smaller parts: what belongs on a box, who is silent, and what an outage of the store costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from scheduler.clock import ManualClock
from scheduler.core.command import Command
from scheduler.core.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import Store, Where
from scheduler.core.process import context, daemon, managed, queue
from scheduler.core.records import BoxProcess, Lease
from supervisor.ledger import KEPT_EVENTS, Ledger
from supervisor.roster import Registered, kind_of, roster
from supervisor.silence import Silence

NOW = datetime(2026, 11, 21, tzinfo=UTC)


# -- what belongs on a box --------------------------------------------------------------------------------


def names(box: str, *processes: Any, queues: Any = ()) -> list[str]:
    return list(roster(context(processes, (), queues), box))


def test_scenario_44_only_what_is_meant_for_this_box() -> None:
    everywhere = managed("a", "m:f", "hourly")
    gpu = managed("b", "m:f", "hourly", queue="gpu", boxes=["gpu-*"])
    feed = daemon("feed", "m:f", boxes=["left", "gpu-1"])
    queues = [queue("default", workers=2), queue("slow", boxes=["right"]), queue("none", workers=0)]
    built_in = ["scheduler", "mx"]
    workers = ["worker.default.1", "worker.default.2"]
    assert names("left", everywhere, gpu, feed, queues=queues) == [*built_in, *workers, "feed"]
    assert names("right", everywhere, gpu, feed, queues=queues) == [*built_in, *workers, "worker.slow.1"]
    assert names("gpu-1", everywhere, gpu, feed, queues=queues) == [
        *built_in,
        *workers,
        "worker.gpu.1",
        "feed",
    ]
    assert names("GPU-1", gpu) == built_in, "case matters"


def test_one_queue_for_processes_of_different_boxes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'b'.*differ.*'a'.*queue 'default'"):
        names("x", managed("a", "m:f", "hourly"), managed("b", "m:f", "hourly", boxes=["y"]))


@pytest.mark.parametrize("name", ["scheduler", "mx", "supervisor", "worker.default.1"])
def test_a_daemon_cannot_take_a_name_of_ours(name: str) -> None:
    assert kind_of(name) != "daemon"
    with pytest.raises(ConfigError, match="rename it"):
        names("x", daemon(name, "m:f"))


# -- who is silent ----------------------------------------------------------------------------------------


def lease(renewals: int, holder: str = "here/scheduler") -> Lease:
    return Lease(
        name="leader", holder=holder, token=1, expires_at=NOW + timedelta(seconds=renewals), taken_at=NOW
    )


def test_silent_after_two_leases_without_a_renewal() -> None:
    silence = Silence("here/scheduler", 5)
    assert [silence.look(lease(0), float(now)) for now in range(13)] == [False] * 10 + [True] * 3
    assert not silence.look(lease(1), 13.0), "it renewed"


@pytest.mark.parametrize("found", [None, lease(0, holder="there/scheduler")])
def test_nobody_else_is_silent(found: Lease | None) -> None:
    silence = Silence("here/scheduler", 5)
    assert not any(silence.look(found, float(now)) for now in range(60))


def test_after_a_pause_of_our_own_nothing_can_be_said() -> None:
    silence = Silence("here/scheduler", 5)
    assert not silence.look(lease(0), 0.0)
    assert not silence.look(lease(0), 1000.0), "we were suspended too"
    assert [silence.look(lease(0), 1000.0 + now) for now in (4, 8, 12)] == [False, False, True]


# -- an outage --------------------------------------------------------------------------------------------


class Away:
    """A store that can be taken away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_away = False

    def transaction(self) -> AbstractContextManager[Any]:
        if self.is_away:
            raise StoreUnavailable("the store is away")
        return self._store.transaction()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class DeafBroker:
    """A broker that cannot be reached."""

    def __init__(self) -> None:
        self.nudges: list[str] = []

    def nudge(self, queue: str) -> None:
        self.nudges.append(queue)
        raise BrokerUnavailable


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Away]:
    real = open_store(f"sqlite:///{tmp_path}/store.db", clock=ManualClock(NOW))
    real.init()
    yield Away(real)
    real.close()


def make(store: Any, broker: Any) -> tuple[Ledger, list[Event]]:
    spoken: list[Event] = []
    ledger = Ledger("here", store, broker, ManualClock(NOW), speak=spoken.append)
    return ledger, spoken


def events(store: Away) -> list[Event]:
    return store.find(Event, [Where("source", "=", "box:here")], ["seq"])


def test_an_outage_delays_and_loses_nothing(store: Away) -> None:
    broker = DeafBroker()
    ledger, spoken = make(store, broker)
    ledger.register([Registered("feed", "daemon", is_on=False)], {})
    ledger.emit("supervisor.start", "one")
    assert ledger.flush()
    store.is_away = True
    ledger.set("feed", state="RUNNING", pid=7)
    ledger.set("feed", state="EXITED")
    ledger.emit("os_process.die", "two")
    ledger.worker_died("here/worker.a.1/x", "it died")
    assert not ledger.flush() and not ledger.flush()
    store.is_away = False
    assert ledger.flush()
    assert [(event.seq, event.message) for event in events(store)] == [(1, "one"), (2, "two")]
    assert spoken == events(store), "told once, and only what was written"
    row = store.get(BoxProcess, "here/feed")
    assert (row.desired, row.state, row.pid) == ("off", "EXITED", 7)
    assert store.get(Command, "worker_died:here/worker.a.1/x").reason == "it died"
    assert broker.nudges == ["report"], "the broker may be away too"
    assert ledger.flush() and len(events(store)) == 2


def test_events_go_on_where_the_last_supervisor_ended(store: Away) -> None:
    for number in (1, 2, 3):
        ledger, _ = make(store, DeafBroker())
        ledger.emit("supervisor.start", str(number))
        assert ledger.flush()
    assert [event.seq for event in events(store)] == [1, 2, 3]


def test_a_foreign_writer_under_our_source_costs_one_turn(store: Away) -> None:
    ledger, _ = make(store, DeafBroker())
    ledger.emit("supervisor.start", "mine")
    assert ledger.flush()
    other, _ = make(store, DeafBroker())
    other.emit("supervisor.start", "theirs")
    assert other.flush()
    ledger.emit("os_process.die", "mine too")
    assert not ledger.flush()
    assert ledger.flush()
    assert [event.seq for event in events(store)] == [1, 2, 3]


def test_a_long_outage_keeps_the_newest_events(store: Away) -> None:
    ledger, _ = make(store, DeafBroker())
    for number in range(KEPT_EVENTS + 10):
        ledger.emit("os_process.die", str(number))
    assert ledger.flush()
    found = events(store)
    assert (found[0].message, found[-1].message) == ("10", str(KEPT_EVENTS + 9))
    assert [event.seq for event in found] == list(range(1, KEPT_EVENTS + 1))


def test_a_restart_is_taken_back_only_where_it_was_asked(store: Away) -> None:
    ledger, _ = make(store, DeafBroker())
    ledger.register([Registered("feed", "daemon", is_on=False)], {})
    assert ledger.flush()
    ledger.restarted("feed")
    assert ledger.flush()
    assert store.get(BoxProcess, "here/feed").desired == "off"
