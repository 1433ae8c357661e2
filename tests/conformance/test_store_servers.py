"""What PostgreSQL and MariaDB as the store promise beyond the port: errors, outages, the fence, their plans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from db.schema import LOOP_QUERIES, UOW_UNFINISHED, LoopQuery
from db.server import ServerClock
from db.sql import SqlStore
from scheduler.core.errors import ConfigError, Conflict, InvalidRequest, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.records import Fact, Lease
from scheduler.core.uow import Uow
from scripts.servers import mariadb, postgres, shared
from tests.cut_proxy import CutProxy

pytestmark = pytest.mark.servers
T = datetime(2013, 7, 4, tzinfo=UTC)
KINDS = ("postgres", "mariadb")


@dataclass
class Place:
    """An empty database of a server, and SQL past the store."""

    kind: str
    url: str
    sql: Callable[..., list[Any]]

    def with_query(self, query: str) -> str:
        """The URL with parameters."""
        return f"{self.url}?{query}"

    def changed(self, **parts: str) -> str:
        """The URL with other words in it: old=new."""
        url = self.url
        for old, new in parts.items():
            url = url.replace(old, new, 1)
        return url


def run_sql(url: str, text: str) -> list[Any]:
    """Rows of a statement, run past the store."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as raw:
            cursor = raw.execute(text.encode())
            return cursor.fetchall() if cursor.description else []
    import pymysql

    from db.mariadb import EXAMPLE, _connection
    from db.server import address_of

    with pymysql.connect(**_connection(address_of(url, EXAMPLE))) as raw, raw.cursor() as cursor:
        cursor.execute(text)
        return list(cursor.fetchall())


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty database on the shared server."""
    server = shared(request.param)
    url = server.fresh()
    yield Place(request.param, url, lambda text: run_sql(url, text))
    server.delete(url)


@pytest.fixture
def store(place: Place, clock: Any) -> Iterator[SqlStore]:
    """An initialised store there; what lies idle for a second in a transaction is ended."""
    found = opened(place.with_query("clock=given&idle_s=1"), clock)
    found.init()
    yield found
    found.close()


def opened(url: str, clock: Any) -> SqlStore:
    """A store object."""
    found = open_store(url, clock=clock)
    assert isinstance(found, SqlStore)
    return found


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which must be one line and keep the secret."""
    text = str(error.value)
    assert "\n" not in text
    assert "synergy:synergy" not in text
    assert "hunter2" not in text
    return text


def write(store: SqlStore, key: str) -> None:
    """A small transaction."""
    with store.transaction() as transaction:
        transaction.insert([Fact(key=key, value={})])


# --- what is wrong with the URL, or with who asks


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h",
        "postgresql://u:hunter2@h/a/b",
        "postgresql://u:hunter2@h:port/x",
        "postgresql://u:hunter2@h/x?no_such_thing=1",
        "postgresql://u:hunter2@h/x?idle_s=0",
        "mariadb://u:hunter2@h/",
        "mysql://u:hunter2@h/x?no_such_thing=1",
        "mysql://u:hunter2@h/x?clock=mine",
        "mysql://u:hunter2@h/x?ssl_ca=/no/such/file",
    ],
)
def test_nonsense_is_refused(url: str, clock: Any) -> None:
    with pytest.raises(ConfigError) as error:
        open_store(url, clock=clock)
    one_line(error)


def test_wrong_password_database_and_port(place: Place, clock: Any) -> None:
    name = place.url.rpartition("/")[2]
    for url, said in (
        (place.changed(**{"synergy:synergy": "synergy:hunter2"}), "password|denied"),
        (place.changed(**{name: "nobody_made_it"}), "nobody_made_it"),
        (
            place.changed(**{place.url.rpartition("@")[2].partition("/")[0]: "127.0.0.1:1"}),
            "cannot be reached",
        ),
    ):
        store = opened(url, clock)
        for attempt in (store.init, lambda store=store: store.find(Fact), store.transaction().__enter__):
            with pytest.raises(StoreUnavailable, match=said) as error:
                attempt()
            assert one_line(error).startswith("store ")
        store.close()


def test_a_store_that_was_not_initialised(place: Place, clock: Any) -> None:
    store = opened(place.url, clock)
    with pytest.raises(StoreUnavailable, match="not initialised") as error:
        store.find(Fact)
    one_line(error)
    store.close()


def test_a_user_who_may_only_read(place: Place, store: SqlStore, clock: Any) -> None:
    name = place.url.rpartition("/")[2]
    if place.kind == "postgres":
        place.sql("CREATE ROLE reader LOGIN PASSWORD 'hunter2'")
        place.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    else:
        place.sql(f"GRANT SELECT ON {name}.* TO 'reader'@'%' IDENTIFIED BY 'hunter2'")
    try:
        reader = opened(place.changed(**{"synergy:synergy": "reader:hunter2"}), clock)
        assert reader.count(Fact) == {(): 1}
        with pytest.raises(StoreUnavailable, match="may not do that") as error:
            write(reader, "x")
        one_line(error)
        reader.close()
    finally:
        if place.kind == "postgres":
            place.sql("DROP OWNED BY reader")
            place.sql("DROP ROLE reader")
        else:
            place.sql("DROP USER reader")


def test_a_read_only_server(place: Place, store: SqlStore) -> None:
    if place.kind == "postgres":
        place.sql(f"ALTER DATABASE {place.url.rpartition('/')[2]} SET default_transaction_read_only = on")
    read_only = opened(place.url, None)
    if place.kind == "mariadb":
        read_only.database.connect, connect = None, read_only.database.connect  # type: ignore[attr-defined]

        def reading() -> Any:
            raw = connect()
            with raw.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
            return raw

        read_only.database.connect = reading  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="read-only") as error:
        write(read_only, "x")
    one_line(error)
    read_only.close()


# --- what is in it


@pytest.mark.parametrize(
    "table", ["customers (id int)", "facts (id int)", "facts (`key` varchar(20), value int)"]
)
def test_a_database_of_another_program_is_not_touched(place: Place, clock: Any, table: str) -> None:
    quote = '"' if place.kind == "postgres" else "`"
    place.sql(f"CREATE TABLE {table.replace('`', quote)}")
    if "value" in table:
        place.sql("INSERT INTO facts VALUES ('schema', 7)")
    store = opened(place.url, clock)
    with pytest.raises(ConfigError, match="another program") as error:
        store.init()
    one_line(error)
    with store._session() as session:
        assert store.database.tables(session) == {table.partition(" ")[0]}
    store.close()


def test_a_newer_schema_is_refused(place: Place, store: SqlStore) -> None:
    place.sql("UPDATE facts SET value = '{\"version\":2}'")
    with pytest.raises(ConfigError, match="newer program"):
        store.init()


def test_what_is_absent_is_named_and_made(place: Place, store: SqlStore) -> None:
    assert store.absent() == []
    place.sql("DROP INDEX jobs_open" + ("" if place.kind == "postgres" else " ON jobs"))
    place.sql("DROP TABLE holds")
    assert store.absent() == ["table holds", "index jobs_open"]
    store.complete()
    assert store.absent() == []
    store.complete()


def test_a_key_that_is_too_long_is_refused_and_not_cut_off(place: Place, store: SqlStore) -> None:
    if place.kind == "postgres":
        write(store, "k" * 300)
        assert store.get(Fact, "k" * 300) is not None
        return
    with pytest.raises(InvalidRequest, match="at most 255") as error, store.transaction() as transaction:
        transaction.insert([Fact(key="k" * 256, value={})], ignore=True)
    one_line(error)
    assert store.count(Fact) == {(): 1}


def test_blanks_at_the_end_and_control_characters_count(store: SqlStore) -> None:
    keys = ["a", "a ", "a\t", "a\x00", "a\x01", "a\x02", "a\x01\x01", "A"]
    with store.transaction() as transaction:
        transaction.insert([Fact(key=key, value={}) for key in keys])
    found = [key for (key,) in store.select(Fact, ["key"], [Where("key", "!=", "schema")], ["key"])]
    assert found == sorted(keys)
    assert store.get(Fact, "a\x00") is not None


def test_the_servers_clock(place: Place) -> None:
    store = opened(place.url, None)
    now = store.now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert store.now() >= now
    store.close()


def test_the_clock_counts_on_and_asks_again_after_a_jump() -> None:
    answers = iter([1000_000, 2000_000, 3000_000])
    at = {"monotonic": 5.0, "wall": 100.0}
    clock = ServerClock(lambda: next(answers), monotonic=lambda: at["monotonic"], wall=lambda: at["wall"])

    def told() -> float:
        return clock.now().timestamp()

    assert told() == 1000.0
    at["monotonic"] += 0.25
    at["wall"] += 0.25
    assert told() == 1000.25
    at["wall"] += 10.0  # somebody set this machine's clock
    assert told() == 2000.0
    at["monotonic"] += 2.0
    at["wall"] += 2.0
    assert told() == 3000.0


# --- outages


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


# --- the fence


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


# --- plans


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
