"""PostgreSQL and MariaDB: what is wrong with the URL, with who asks, or with what is in the database, is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import open_store
from db.server import ServerClock
from db.sql import SqlStore
from scheduler.core.errors import ConfigError, InvalidRequest, StoreUnavailable
from scheduler.core.ports import Where
from scheduler.core.records import Fact
from tests.conformance.sql_servers.sql_words import Place, one_line, opened, write

pytestmark = pytest.mark.servers


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
