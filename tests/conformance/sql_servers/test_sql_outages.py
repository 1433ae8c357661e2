"""PostgreSQL and MariaDB: connections cut, servers killed, leaders paused; an error says it, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from db.sql import SqlStore
from scheduler.core.errors import Conflict, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import Change, Where
from scheduler.core.records import Fact, Lease
from scripts.servers import mariadb, postgres
from tests.conformance.sql_servers.sql_words import Place, T, one_line, opened, write
from tests.cut_proxy import CutProxy

pytestmark = pytest.mark.servers


def end_connections(place: Place) -> None:
    """The server ends every connection to the database but that of who asks."""
    name = place.url.rpartition("/")[2]
    if place.kind == "postgres":
        place.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        return
    shown = place.sql(
        f"SELECT id FROM information_schema.processlist WHERE db = '{name}' AND id <> CONNECTION_ID()"
    )
    for (number,) in shown:
        place.sql(f"KILL {number}")


def test_an_idle_connection_that_was_cut_is_replaced(place: Place, store: SqlStore) -> None:
    write(store, "a")
    end_connections(place)
    assert store.count(Fact) == {(): 2}
    end_connections(place)
    write(store, "b")
    assert store.count(Fact) == {(): 3}


def test_a_connection_that_is_cut_in_a_transaction(place: Place, store: SqlStore) -> None:
    with pytest.raises(StoreUnavailable) as error, store.transaction() as transaction:  # noqa: PT012
        transaction.insert([Fact(key="a", value={})])
        end_connections(place)
        transaction.insert([Fact(key="b", value={})])
    one_line(error)
    assert store.count(Fact) == {(): 1}


@pytest.mark.parametrize("when", ["the write", "the commit"])
def test_a_reply_that_is_lost(place: Place, store: SqlStore, clock: Any, when: str) -> None:
    """An unknown outcome is StoreUnavailable, and all or nothing is there."""
    host, _, port = place.url.rpartition("@")[2].partition("/")[0].partition(":")
    with CutProxy(host, int(port)) as proxy:
        url = place.changed(**{f"{host}:{port}": f"{proxy.host}:{proxy.port}"})
        query = "?sslmode=disable" if place.kind == "postgres" else ""
        through = opened(url + query, clock)
        write(through, "before")
        proxy.drop_reply_to(b"mark" if when == "the write" else b"COMMIT")
        with pytest.raises(StoreUnavailable) as error:
            write(through, "mark")
        one_line(error)
        assert through.count(Fact, [Where("key", "=", "mark")]) == {(): int(when == "the commit")}
        write(through, "after")
        through.close()


def test_a_server_killed_and_started_again(
    request: pytest.FixtureRequest, clock: Any, tmp_path: Path
) -> None:
    """Nothing that was acknowledged is lost, and the same store object goes on."""
    for make in (postgres, mariadb):
        with make(tmp_path) as server:
            store = opened(f"{server.fresh()}?clock=given", clock)
            store.init()
            told: list[int] = []
            stopping = threading.Event()

            def writer(store: SqlStore = store, told: list[int] = told, stopping: Any = stopping) -> None:
                n = 0
                while not stopping.is_set():
                    try:
                        with store.transaction() as transaction:
                            transaction.insert([event(2 * n), event(2 * n + 1)])
                        told.append(n)
                    except StoreUnavailable:
                        stopping.wait(0.02)
                    n += 1

            thread = threading.Thread(target=writer)
            thread.start()
            wait_for(partial(_is_longer, told, 50))
            server.kill()
            seen = len(told)
            with pytest.raises(StoreUnavailable):
                store.count(Fact)
            server.start()
            wait_for(partial(_is_longer, told, seen + 50))
            stopping.set()
            thread.join()
            numbers = {seq for (seq,) in store.select(Event, ["seq"])}
            assert {2 * n for n in told} <= numbers
            assert all(seq ^ 1 in numbers for seq in numbers), "whole transactions only"
            store.close()


def _is_longer(found: list[int], n: int) -> bool:
    return len(found) > n


def event(n: int) -> Event:
    """Some event."""
    return Event(source="s", seq=n, at=T, business_at=T, kind="test.write", message="x" * 200)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a thread did what it should."""
    tick = threading.Event()
    for _ in range(3000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never happened")


def test_what_a_full_disk_is_called(clock: Any) -> None:
    """Tried on size-limited mounts too: what was acknowledged is there, and it goes on when there is space."""
    import pymysql
    from psycopg import errors

    for url, error in (
        (
            "postgresql://u:hunter2@h/x",
            errors.DiskFull("could not extend file\nHINT: Check free disk space."),
        ),
        ("mariadb://u:hunter2@h/x", pymysql.err.OperationalError(1114, "The table 'facts' is full")),
        ("mariadb://u:hunter2@h/x", pymysql.err.OperationalError(1021, "Disk full (/tmp)")),
    ):
        told = opened(url, clock).database.translate(error)
        assert isinstance(told, StoreUnavailable)
        assert "the disk is full" in str(told)
        assert "\n" not in str(told)


def test_a_refused_batch_is_told_once(
    place: Place, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "a")
    with pytest.raises(Conflict), store.transaction() as transaction:
        transaction.insert([Fact(key=key, value={}) for key in ("b", "a", "c")])
    assert caplog.records == []
    assert store.count(Fact) == {(): 2}


def test_a_leader_that_is_paused_in_a_transaction_blocks_nobody(store: SqlStore, clock: Any) -> None:
    """The server ends its transaction after a lease; what it had written is undone, and it learns it."""
    now = store.now()
    lease = Lease(name="leader", holder="a", token=1, taken_at=now, expires_at=now + timedelta(seconds=1))
    with store.transaction() as transaction:
        transaction.insert([lease, Fact(key="row", value={"by": 0})])
    with pytest.raises(StoreUnavailable) as error, store.transaction(lease) as paused:  # noqa: PT012
        paused.update([Change(Fact, "row", {}, {"value": {"by": 1}})])
        paused.update([Change(Lease, "leader", {}, {"expires_at": now})])
        successor = threading.Thread(target=lambda: take_over(store))
        begun = time.monotonic()
        successor.start()  # waits for the row, until the server has ended us
        successor.join(30)
        assert not successor.is_alive()
        assert time.monotonic() - begun < 10, "bounded by the limit, not by the wait for a lock"
    one_line(error)
    assert store.get(Fact, "row") == Fact(key="row", value={"by": 2})
    held = store.get(Lease, "leader")
    assert held is not None
    assert held.token == 2


def take_over(store: SqlStore) -> None:
    """A successor takes the lease and writes."""
    with store.transaction() as transaction:
        assert transaction.update([Change(Lease, "leader", {"token": 1}, {"token": 2})]) == 1
        transaction.update([Change(Fact, "row", {}, {"value": {"by": 2}})])


def test_two_that_wait_for_each_other_is_a_conflict(store: SqlStore) -> None:
    with store.transaction() as transaction:
        transaction.insert([Fact(key="a", value={}), Fact(key="b", value={})])
    both = threading.Barrier(2)
    raised: list[BaseException] = []

    def change(first: str, second: str) -> None:
        try:
            with store.transaction() as transaction:
                transaction.update([Change(Fact, first, {}, {"value": {"by": first}})])
                both.wait(10)
                transaction.update([Change(Fact, second, {}, {"value": {"by": first}})])
        except Conflict as error:
            raised.append(error)

    threads = [threading.Thread(target=change, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(raised) == 1
    assert len({str(fact.value) for fact in store.find(Fact, [Where("key", "in", ["a", "b"])])}) == 1
