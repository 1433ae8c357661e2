"""Retention in passes: each is bounded, under the leader's lease, and made by the daemon between its turns."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler.core.errors import LeaseLost
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.process import managed
from scheduler.core.records import Fact, Lease, LogChunk
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from scheduler.daemon import PRUNE_EVERY_S, PRUNE_LATE_PASSES, PRUNE_LATE_S, Daemon
from scheduler.retention import Pruned
from tests.scenario.retention_world import (
    DAY,
    HOUR,
    POLICY,
    check_replay,
    dump,
    events_of,
    live,
    log,
    make_world,
    prune_all,
    prune_once,
)
from tests.world import World, at


@pytest.mark.parametrize("limit", [2, 7, 50])
def test_a_pass_is_bounded_and_many_small_ones_do_what_a_large_one_does(limit: int) -> None:
    small, large = make_world(), make_world()
    for world in (small, large):
        live(world, "2020-05-04T12:10")
    total = Pruned()
    while True:
        rows = {kind: small.store.count(kind)[()] for kind in (Job, Uow, Event, LogChunk)}
        one = prune_once(small, limit)
        gone = sum(rows[kind] - small.store.count(kind).get((), 0) for kind in rows)
        assert gone == one.logs + one.uows + one.jobs + one.events <= limit
        total.events += one.events
        if not one.more:
            break
    assert total.events > limit
    prune_all(large)
    for kind in (Job, Uow, LogChunk):
        assert dump(small, kind) == dump(large, kind)
    assert [e for e in small.events() if e.kind != "process.advance"] == [
        e for e in large.events() if e.kind != "process.advance"
    ]
    check_replay(small)


def test_a_job_of_many_units_of_work_and_a_long_log_goes_piece_by_piece() -> None:
    world = World(
        [managed("daily", "x.y:z", "daily", state_machine="recomputing", trigger="every 1800")],
        start="2020050100",
        now="2020-05-01T00:10",
    )
    while world.clock.business() < at("2020-05-02T06:00"):
        world.wait(1800)
        for id_ in world.work_all():
            log(world, id_, 5)
    assert world.job(DAY).state == "processed"
    assert world.job(DAY).run > 40
    world.command("hold", {"scope": "*"})
    world.go("2020-05-06T00:10")
    for _ in range(1000):
        one = prune_once(world, 20)
        assert one.logs + one.uows + one.events <= 20
        check_replay(world)
        if not one.more:
            break
    assert not world.store.find(Uow, (Where("timeperiod", "=", "2020050100"),))
    assert [e.kind for e in events_of(world, "daily", "2020050100")] == ["job.snapshot"]


def test_a_lost_lease_prunes_nothing() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    lease = world.engine.lease
    assert lease is not None
    taken = {"holder": "another", "token": lease.token + 1}
    with world.store.transaction() as tx:
        assert tx.update([Change(Lease, lease.name, {"token": lease.token}, taken)]) == 1
    before = dump(world)
    with pytest.raises(LeaseLost):
        prune_once(world)
    assert dump(world) == before
    daemon = Daemon(world.engine, retention=POLICY)
    with pytest.raises(LeaseLost):
        daemon._prune()
    assert world.engine.lease is None, "it knows that it leads no more"
    assert dump(world) == before


def test_the_marks_survive_a_restart_and_their_loss_only_costs_a_walk() -> None:
    world = make_world()
    live(world, "2020-05-04T12:10")
    prune_all(world)
    fact = world.store.get(Fact, "retention")
    assert fact is not None
    assert set(fact.value) == {"logs", "uows", "events"}
    before = dump(world, Job, Uow, Event, LogChunk)
    with world.store.transaction() as tx:
        tx.delete(Fact, (Where("key", "=", "retention"),))
    done = prune_all(world)
    assert replace(done, more=False) == Pruned()
    assert dump(world, Job, Uow, Event, LogChunk) == before
    assert world.store.get(Fact, "retention") == fact


def test_the_daemon_prunes_once_a_minute_and_at_once_where_there_is_more() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    daemon, passes = Daemon(world.engine, retention=POLICY), 0
    while True:
        before = dump(world, Fact)
        daemon._prune()
        if dump(world, Fact) == before:
            break
        passes += 1
    assert passes > 1
    live(world, "2020-05-05T20:10")  # its own clock went on: an hour of events is old by now
    daemon._prune()
    first = dump(world, Fact)
    assert first != before
    world.clock.advance(PRUNE_EVERY_S / 2)
    count = world.store.counts.queries  # type: ignore[attr-defined]
    daemon._prune()
    assert world.store.counts.queries == count  # type: ignore[attr-defined]
    silent = Daemon(world.engine)
    silent._prune()
    assert dump(world, Fact) == first


def test_a_running_daemon_prunes_while_it_has_nothing_else_to_do() -> None:
    world = make_world()
    live(world, "2020-05-05T12:10")
    uow = str(world.job(HOUR).uow)
    daemon = Daemon(world.engine, retention=POLICY)
    loop, tick = threading.Thread(target=daemon.run, daemon=True), threading.Event()
    loop.start()
    for _ in range(3000):
        if len(events_of(world, "hourly", "2020050300")) == 1:
            break
        tick.wait(0.01)
    daemon.stop()
    loop.join(30)
    assert not loop.is_alive()
    assert world.store.get(Uow, uow) is None
    check_replay(world)


def test_without_an_idle_round_a_few_passes_are_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbroken load: each round has something to decide, and what is old goes bit by bit."""
    world = make_world()
    live(world, "2020-05-05T12:10")
    uow = str(world.job(HOUR).uow)
    daemon = Daemon(world.engine, retention=POLICY)
    monkeypatch.setattr(daemon, "_inputs", lambda: [Item("job", HOUR)])
    passes: list[float] = []
    once = daemon._prune

    def counted() -> None:
        passes.append(world.clock.monotonic())
        once()

    monkeypatch.setattr(daemon, "_prune", counted)
    for _ in range(400):
        daemon._step()
        world.clock.advance(0.25)
        world.engine.keep_lease()
    assert world.store.get(Uow, uow) is None
    assert 1 < max(passes.count(at) for at in passes) <= PRUNE_LATE_PASSES
    rounds = sorted(set(passes))
    assert all(after - before >= PRUNE_LATE_S for before, after in pairwise(rounds))
    check_replay(world)
    daemon.listener.stop()
