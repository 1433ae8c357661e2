"""PostgreSQL and MariaDB: no query of the loop reads the history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from db.schema import LOOP_QUERIES, UOW_UNFINISHED, LoopQuery
from db.sql import SqlStore
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Where
from scheduler.core.uow import Uow
from scripts.servers import shared
from tests.conformance.sql_servers.sql_words import KINDS, T, opened, run_sql

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", params=KINDS)
def filled(request: pytest.FixtureRequest) -> Iterator[SqlStore]:
    """A store with some history, whose planner has looked at it."""
    server = shared(request.param)
    url = server.fresh()
    store = opened(url, None)
    store.init()
    hour = timedelta(hours=1)
    with store.transaction() as transaction:
        for process in ("p", "q", "r"):
            span = range(4000)
            transaction.insert(
                [
                    Job(
                        id=f"{process}@{n}",
                        process=process,
                        timeperiod=str(n),
                        start=T + n * hour,
                        end=T + (n + 1) * hour,
                        open=n > 3990,
                    )
                    for n in span
                ]
            )
            transaction.insert(
                [
                    Uow(
                        id=f"{process}@{n}#1",
                        process=process,
                        timeperiod=str(n),
                        run=1,
                        start=T,
                        end=T,
                        created_at=T,
                        requested_at=T,
                        state="requested" if n > 3990 else "processed",
                        due_at=T if n > 3990 else None,
                        owner=f"w{n % 7}",
                        published_at=T,
                    )
                    for n in span
                ]
            )
        transaction.insert(
            [
                Event(
                    source=f"s{n % 3}" if n % 10 else "s",
                    seq=n,
                    at=T,
                    business_at=T,
                    kind=f"job.{n % 9}",
                    process="pqr"[n % 3],
                    timeperiod=str(n % 4000),
                    severity="error" if n % 500 == 0 else "info",
                )
                for n in range(12_000)
            ]
        )
    if request.param == "postgres":
        run_sql(url, "VACUUM ANALYZE")
    else:
        run_sql(url, "ANALYZE TABLE jobs, units_of_work, events, commands, logs, boxes, leases")
    yield store
    store.close()
    server.delete(url)


LARGE = [query for query in LOOP_QUERIES if query.kind in (Job, Uow, Event)]


@pytest.mark.parametrize("query", LARGE, ids=lambda query: query.name)
def test_a_query_of_the_loop_reads_no_history(filled: SqlStore, query: LoopQuery) -> None:
    """No plan goes through a whole table; which index it takes is the planner's affair where several do."""
    plan = " ".join(filled.explain(query.kind, query.where, query.order, query.limit))
    if "postgresql" in filled.database.address.text:  # type: ignore[attr-defined]
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan, plan
    else:
        assert '"access_type": "ALL"' not in plan, plan
        assert '"access_type": "index"' not in plan or '"r_rows"' in plan, plan


def test_counting_what_is_active_reads_an_index(filled: SqlStore) -> None:
    where = (Where("state", "in", UOW_UNFINISHED), Where("kind", "=", "work"))
    assert filled.count(Uow, where, ["process"]) == {("p",): 9, ("q",): 9, ("r",): 9}
