"""`store copy`, check and repair from any store to any other: the same rows, the same hashes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from scheduler import moving
from scheduler.charge import charge
from scheduler.core.errors import Refused
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import Hold, LogChunk, User
from scheduler.storekeeper import check, repair
from tests.conformance.store_adapters import ADAPTERS, StoreAdapter
from tests.world import World, a_small_world

OTHERS = [
    pytest.param(adapter, id=adapter.name, marks=[pytest.mark.servers] if adapter.server else [])
    for adapter in ADAPTERS
    if adapter.processes
]


@pytest.fixture(scope="module")
def world() -> World:
    """A scheduler that has worked for a day, on SQLite in memory."""
    found = a_small_world()
    for _ in range(28):
        found.wait(3600)
        found.work_all(limit=10_000)
    now = found.clock.real()
    found.wait(1800)  # some are requested and not accepted
    odd = "äöü 🚲 \x00 ' \" % \\ \n end "
    with found.store.transaction() as tx:
        tx.insert([LogChunk(uow="u", attempt=n % 2, n=n, at=now, text=odd) for n in range(30)])
        tx.insert([Hold(scope="process:hourly", actor=odd, reason=odd, since=now)])
        tx.insert([User(name="anna", tokens=[{"id": 1, "scopes": ["é"]}])])
    found.engine.step_down()
    return found


def nothing(*_: Any) -> None:
    """No progress."""


def copied(source: Store, destination: Store) -> list[moving.Table]:
    """Copy and compare."""
    moving.copy(source, destination, nothing, nothing)
    return moving.compare(source, destination, nothing, nothing)


@pytest.mark.parametrize("adapter", OTHERS)
def test_there_and_back(adapter: StoreAdapter, world: World, tmp_path: Path) -> None:
    with ExitStack() as ends:
        url = ends.enter_context(adapter.serve(tmp_path))
        there = open_store(url, clock=world.clock)
        back = open_store("sqlite:///:memory:", clock=world.clock)
        for store in (there, back):
            ends.callback(store.close)
            store.init()
            moving.refuse_if_used(store, "it")
        tables = copied(world.store, there)
        assert [table.name for table in tables if not table.is_same] == []
        assert {table.name for table in tables if table.rows} >= {
            "jobs",
            "units_of_work",
            "events",
            "logs",
            "holds",
        }
        with pytest.raises(Refused, match="not empty"):
            moving.refuse_if_used(there, "it")
        again = copied(there, back)
        assert {table.name: table.hash for table in again} == {table.name: table.hash for table in tables}
        assert back.find(Event, order=["source", "seq"]) == world.store.find(Event, order=["source", "seq"])


@pytest.mark.parametrize("adapter", OTHERS)
def test_check_and_repair(adapter: StoreAdapter, world: World, tmp_path: Path) -> None:
    """Scenario 64, on every store."""
    with ExitStack() as ends:
        url = ends.enter_context(adapter.serve(tmp_path))
        store = open_store(url, clock=world.clock)
        ends.callback(store.close)
        store.init()
        moving.copy(world.store, store, nothing, nothing)
        assert check(store, world.clock).findings == []
        before = {job.id: job for job in store.find(Job)}
        with store.transaction() as tx:
            assert tx.delete(Job, [Where("process", "=", "hourly")])
        found = check(store, world.clock)
        assert set(found.counts()) <= {"job.lost", "job.missing"}
        with charge(store, "store", world.clock.monotonic) as lead:
            done = repair(lead, world.clock, check(store, world.clock).findings, actor="anna")
        assert (done.missed, done.left) == ([], [])
        assert check(store, world.clock).findings == []
        after = {job.id: job for job in store.find(Job)}
        assert after.keys() == before.keys()
        for id_, job in before.items():
            assert (after[id_].state, after[id_].run, after[id_].uow_open) == (
                job.state,
                job.run,
                job.uow_open,
            )
