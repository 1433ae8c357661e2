"""MongoDB as the store: every query of the loop uses its index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from db.mongo import MongoStore
from db.schema import LOOP_QUERIES, UOW_UNFINISHED, LoopQuery
from scheduler.core.command import Command
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.records import BoxProcess, Lease, LogChunk
from scheduler.core.uow import Uow
from scripts.servers import MongoServer
from tests.conformance.mongo.mongo_words import T, insert, opened_at

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def filled(node: MongoServer) -> Iterator[MongoStore]:
    """A store in which little is active and much is history."""
    store = opened_at(node.fresh(), None)
    store.init()
    for part in range(0, 4000, 1000):
        numbers = range(part, part + 1000)
        insert(store, *(some_job(n) for n in numbers), *(some_uow(n) for n in numbers))
        insert(store, *(some_event(n) for n in numbers))
    insert(
        store, *(BoxProcess(id=f"b{n % 9}/{n}", box=f"b{n % 9}", name="w", kind="worker") for n in range(50))
    )
    insert(store, *(Lease(name=str(n), holder="h", token=1, expires_at=T, taken_at=T) for n in range(9)))
    insert(store, *(LogChunk(uow=f"p@{n}#1", attempt=1, n=1, at=T, text="x") for n in range(900)))
    commands = (
        Command(
            id=f"c{n}", verb="skip", actor="a", submitted_at=T, state="pending" if n % 50 == 0 else "done"
        )
        for n in range(900)
    )
    insert(store, *commands)
    yield store
    store.close()


def some_job(n: int) -> Job:
    process, start = f"p{n % 3 or ''}", T + timedelta(hours=n)
    open_ = n % 40 == 0
    return Job(id=f"{process}@{n}", process=process, timeperiod=str(n), start=start, end=start, open=open_)


def some_uow(n: int) -> Uow:
    process, start = f"p{n % 3 or ''}", T + timedelta(hours=n)
    state = UOW_UNFINISHED[n % 3] if n % 40 < 3 else ("processed", "canceled")[n % 2]
    return Uow(
        id=f"{process}@{n}#1",
        process=process,
        timeperiod=str(n),
        run=1,
        state=state,
        start=start,
        end=start,
        created_at=T,
        requested_at=T,
        due_at=T + timedelta(seconds=n) if n % 40 == 0 else None,
        owner=f"w{n % 50}",
        dirty=n % 400 == 0,
        published_at=None if n % 80 == 0 else T,
    )


def some_event(n: int) -> Event:
    severity = "error" if n % 40 == 0 else "info"
    kind = ("job.dispatch", "uow.accept", "hold.set")[n % 3]
    process = f"p{n % 3 or ''}" if n % 10 else None
    source = ("s", "scheduler")[n % 2]
    return Event(
        source=source,
        seq=n,
        at=T,
        business_at=T,
        kind=kind,
        process=process,
        timeperiod=str(n),
        severity=severity,
    )


FEW = (
    "never published",
    "events of a job, newest first",
)  # what the index finds is little more than is asked


@pytest.mark.parametrize("query", LOOP_QUERIES, ids=lambda query: query.name)
def test_every_query_of_the_loop_uses_its_index(filled: MongoStore, query: LoopQuery) -> None:
    plan = filled.explain(query.kind, query.where, query.order, query.limit)
    scans = [stage for stage in plan if stage.startswith(("IXSCAN", "IDHACK", "COLLSCAN", "EXPRESS"))]
    single = query.kind not in (Event, LogChunk)
    key = {"IXSCAN _id_", "IDHACK", "EXPRESS_IXSCAN _id_"} if single else {"IXSCAN key"}
    assert set(scans) <= (key if query.index == "key" else {f"IXSCAN {query.index}"}), plan
    assert scans, plan
    if query.limit is not None and query.name not in FEW:
        assert "SORT" not in plan, f"reads all to give the first {query.limit}: {plan}"
