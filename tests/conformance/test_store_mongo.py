"""What the MongoDB adapter promises beyond the port: whom it refuses, what it survives, and its plans."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import db.mongo
from db import open_store
from db.mongo import MongoStore
from db.schema import LOOP_QUERIES, SCHEMA_VERSION, UOW_UNFINISHED, LoopQuery
from scheduler.clock import ManualClock
from scheduler.core.command import Command
from scheduler.core.errors import ConfigError, Conflict, LeaseLost, Refused, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.process import context
from scheduler.core.records import BoxProcess, Fact, Lease, LogChunk
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow
from scheduler.engine import Engine
from scripts.servers import MongoServer, mongo_set, mongod
from tests.cut_proxy import CutProxy

pytestmark = pytest.mark.servers

T = datetime(2013, 7, 4, tzinfo=UTC)
IMPATIENT = "serverSelectionTimeoutMS=500&connectTimeoutMS=500"
PATIENCE = 200  # tries, each of which waits for a server by itself


@pytest.fixture(scope="module")
def node() -> Iterator[MongoServer]:
    """A replica set of one."""
    with mongod() as server:
        yield server


@pytest.fixture
def url(node: MongoServer) -> str:
    """The URL of an empty database on it."""
    return f"{node.fresh()}&{IMPATIENT}"


@pytest.fixture
def opened(url: str, clock: Any) -> Iterator[MongoStore]:
    """A store on that database."""
    store = opened_at(url, clock)
    store.init()
    yield store
    store.close()


def opened_at(url: str, clock: Any) -> MongoStore:
    store = open_store(url, clock=clock)
    assert isinstance(store, MongoStore)
    return store


def refusal(url: str, clock: Any, kind: type[Exception] = ConfigError) -> str:
    """What `init` says, which must be one line."""
    store = opened_at(url, clock)
    try:
        with pytest.raises(kind) as refused:
            store.init()
    finally:
        store.close()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def event(seq: int, source: str = "s") -> Event:
    return Event(source=source, seq=seq, at=T, business_at=T, kind="test.write")


def insert(store: MongoStore, *records: Any) -> None:
    with store.transaction() as transaction:
        assert transaction.insert(records) == len(records)


def lease_of(store: MongoStore, **changed: Any) -> Lease:
    now = store.now()
    given = Lease(name="leader", holder="a", token=1, taken_at=now, expires_at=now + timedelta(seconds=30))
    return replace(given, data=store.session(), **changed)


# --- whom it refuses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mongodb://localhost:1", "expected mongodb://user:password@host:port/database?replicaSet=name"),
        ("mongodb://localhost:1/a.b", "expected mongodb://"),
        ("mongodb://localhost:1/a?clock=mine", "expected mongodb://"),
        ("mongodb://localhost:port/a", "port"),
        ("mongodb://user:pass word@localhost:1/a?tls=perhaps", "tls"),
    ],
)
def test_a_url_that_makes_no_sense(url: str, expected: str, clock: Any) -> None:
    with pytest.raises(ConfigError, match="store mongodb://") as refused:
        open_store(url, clock=clock)
    assert expected in str(refused.value) and "pass word" not in str(refused.value)


def test_nobody_there(clock: Any) -> None:
    for host in ("127.0.0.1:1", "no-such-host.invalid:27017"):
        said = refusal(f"mongodb://me:secret@{host}/db?replicaSet=r&{IMPATIENT}", clock, StoreUnavailable)
        assert said.startswith(f"store mongodb://me:***@{host}/db: no primary can be reached ({host}: ")
        assert "secret" not in said and "Topology" not in said


def test_a_standalone_is_refused_with_the_commands_that_fix_it(clock: Any) -> None:
    with mongod(replica_set="") as alone:
        for options in (IMPATIENT, f"replicaSet=r&{IMPATIENT}"):
            said = refusal(f"mongodb://{alone.host}/db?{options}", clock)
            assert "mongod … --replSet rs0" in said and "rs.initiate()" in said


def test_a_set_that_was_not_initiated_or_has_another_name(node: MongoServer, clock: Any) -> None:
    with MongoServer(is_member=True) as fresh:
        assert "rs.initiate()" in refusal(f"{fresh.url_of('db')}&{IMPATIENT}", clock)
    said = refusal(f"mongodb://{node.host}/db?replicaSet=other&{IMPATIENT}", clock)
    assert "called 'r', not 'other'" in said


def test_a_database_of_somebody_else_stays_untouched(node: MongoServer, url: str, clock: Any) -> None:
    name = url.partition("?")[0].rpartition("/")[2]
    with node.client() as client:
        client[name]["orders"].insert_one({"_id": 1})
        assert "belongs to another program: it has a collection 'orders'" in refusal(url, clock)
        assert client[name].list_collection_names() == ["orders"]
        client[name]["orders"].drop()
        client[name]["facts"].insert_one({"_id": "schema", "value": 3})
        assert "its collection 'facts' is not ours" in refusal(url, clock)
        client[name]["facts"].delete_one({"_id": "schema"})
        client[name]["facts"].insert_one({"_id": 7})
        assert "its collection 'facts' is not ours" in refusal(url, clock)


def test_a_newer_schema_is_refused(opened: MongoStore, url: str, clock: Any) -> None:
    newer = Change(Fact, "schema", {}, {"value": {"version": SCHEMA_VERSION + 1}})
    with opened.transaction() as transaction:
        assert transaction.update([newer]) == 1
    assert f"schema version {SCHEMA_VERSION + 1}, we know {SCHEMA_VERSION}" in refusal(url, clock)


def test_users_passwords_and_the_least_of_rights(tmp_path: Path, clock: Any) -> None:
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    with mongod(options=["--auth", f"--keyFile={key}"], account=("root", "r00t")) as guarded:
        with guarded.client() as client:
            client["db"].command("createUser", "us", pwd="p@ss", roles=["readWrite"])
        there = f"@{guarded.host}/db?replicaSet=r&{IMPATIENT}"
        said = refusal(f"mongodb://us:wr%40ng{there}", clock)
        assert "user or password is wrong" in said and "us:***@" in said and "wr" + "@ng" not in said
        assert "may not" in refusal(f"mongodb://{guarded.host}/db?replicaSet=r&{IMPATIENT}", clock)
        store, other = (opened_at(f"mongodb://us:p%40ss{there}", clock) for _ in range(2))
        store.init()
        other.init()
        held = lease_of(store)
        insert(store, held)
        insert(store, event(1))
        block = store.transaction(held)
        block.__enter__().update([Change(Lease, "leader", {}, {"token": 1})])  # … and there it is stopped
        other.end_session(held)  # with no right but to read and write this database
        with other.transaction() as transaction:
            assert transaction.update([Change(Lease, "leader", {"token": 1}, {"token": 2})]) == 1
        with pytest.raises(LeaseLost):
            block.__exit__(None, None, None)
        other.end_abandoned()
        store.close()
        other.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_server_that_speaks_tls_only(tmp_path: Path, clock: Any) -> None:
    key, certificate, both = (tmp_path / name for name in ("key.pem", "certificate.pem", "both.pem"))
    made = [
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *map(str, made)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    options = [
        "--tlsMode=requireTLS",
        f"--tlsCertificateKeyFile={both}",
        "--tlsAllowConnectionsWithoutCertificates",
    ]
    options.append(f"--tlsCAFile={certificate}")
    with mongod(options=options, query=f"tls=true&tlsCAFile={certificate}") as guarded:
        store = opened_at(f"{guarded.url}&{IMPATIENT}", clock)
        store.init()
        insert(store, event(1))
        assert store.count(Event) == {(): 1}
        store.close()
        plain = f"mongodb://{guarded.host}/db?replicaSet=r&{IMPATIENT}"
        for wrong in (plain, f"{plain}&tls=true"):  # no TLS; a certificate that nobody vouches for
            assert "no primary can be reached" in refusal(wrong, clock, StoreUnavailable)


def test_a_record_that_is_too_large_is_refused(opened: MongoStore) -> None:
    chunk = LogChunk(uow="u", attempt=1, n=1, at=T, text="x" * 17_000_000)
    with pytest.raises(Refused, match="16 MB"), opened.transaction() as transaction:
        transaction.insert([chunk])
    insert(opened, replace(chunk, text="x"))
    grown = Change(LogChunk, ("u", 1, 1), {}, {"text": "x" * 16_777_210})
    with pytest.raises(Refused, match="16 MB"), opened.transaction() as transaction:
        transaction.update([grown])
    assert opened.count(LogChunk) == {(): 1}


# --- time


def test_now_is_the_clock_of_the_server(opened: MongoStore, clock: Any) -> None:
    told = opened.link.hello()["localTime"].replace(tzinfo=UTC)
    assert told <= opened.now() + timedelta(seconds=1) and opened.now() != clock.at
    assert opened.now().microsecond % 1000 == 0


# --- the fence


def take_over(store: MongoStore, held: Lease) -> int:
    with store.transaction() as transaction:
        taken = {"holder": "b", "token": held.token + 1, "data": store.session()}
        return transaction.update([Change(Lease, held.name, {"token": held.token}, taken)])


def test_a_leader_stopped_before_its_commit_is_ended_by_its_successor(
    opened: MongoStore, url: str, clock: Any
) -> None:
    successor = opened_at(url, clock)
    held = lease_of(opened)
    insert(opened, held)
    block = opened.transaction(held)
    transaction = block.__enter__()
    transaction.insert([event(1)])
    opened.renew(transaction, held)  # the lease row is written, the commit is not
    found = successor.get(Lease, "leader")
    assert found == held
    successor.end_session(found)
    assert take_over(successor, found) == 1
    with pytest.raises(LeaseLost, match="leader"):
        block.__exit__(None, None, None)
    assert opened.count(Event) == {(): 0}
    with pytest.raises(LeaseLost), opened.transaction(held) as transaction:  # and ever after
        transaction.insert([event(1)])
    with opened.transaction() as transaction:  # though the store is as good as before
        transaction.insert([event(1)])
    with successor.transaction(successor.get(Lease, "leader")) as transaction:
        transaction.insert([event(2)])
    assert opened.count(Event) == {(): 2}
    successor.close()


def test_a_scheduler_ends_what_the_last_leader_left_under_way(
    opened: MongoStore, url: str, clock: Any
) -> None:
    other = opened_at(url, clock)
    nothing = Timetable(context([], start="2026010100"))
    broker: Any = None  # taking the lead sends nothing
    first, second = (
        Engine(store, broker, ManualClock(T), nothing, holder=name, leader_lease_s=0.1)
        for name, store in (("a", opened), ("b", other))
    )
    assert first.lead() and first.lease is not None and first.lease.data == opened.session()
    block = opened.transaction(first.lease)
    transaction = block.__enter__()
    transaction.insert([event(1)])
    opened.renew(transaction, first.lease)  # stopped here
    for _ in range(10_000):  # until its lease ran out
        if second.lead():
            break
    assert second.lease is not None and (second.lease.token, second.lease.data) == (2, other.session())
    assert other.get(Lease, "leader") == second.lease
    with pytest.raises(LeaseLost):
        block.__exit__(None, None, None)
    assert opened.count(Event) == {(): 0}
    other.close()


def test_a_lease_taken_between_two_statements(opened: MongoStore, url: str, clock: Any) -> None:
    successor = opened_at(url, clock)
    held = lease_of(opened)
    insert(opened, held)
    with pytest.raises(LeaseLost), opened.transaction(held) as transaction:  # noqa: PT012
        transaction.insert([event(1)])
        assert take_over(successor, held) == 1
    assert opened.count(Event) == {(): 0}
    successor.close()


def test_a_lease_that_names_no_session(opened: MongoStore) -> None:
    opened.end_session(replace(lease_of(opened), data=None))
    opened.end_session(replace(lease_of(opened), data={"session": 7}))


# --- conflicts


def test_a_transaction_of_a_process_that_stopped_is_ended(
    opened: MongoStore, url: str, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.mongo, "IDLE_S", 0.3)
    stopped = opened_at(url, clock)
    insert(opened, Fact(key="n", value={"n": 0}))
    block = stopped.transaction()
    block.__enter__().update([Change(Fact, "n", {}, {"value": {"n": 1}})])
    with opened.transaction() as transaction:
        assert transaction.update([Change(Fact, "n", {"value": {"n": 0}}, {"value": {"n": 2}})]) == 1
    block.__exit__(None, None, None)  # goes on: its change is made again, on what there is now
    assert opened.get(Fact, "n") == Fact(key="n", value={"n": 1})
    stopped.close()


def test_what_was_read_and_changed_meanwhile_is_a_conflict(opened: MongoStore, url: str, clock: Any) -> None:
    other = opened_at(url, clock)
    insert(opened, Fact(key="n", value={"n": 0}))
    with pytest.raises(Conflict), opened.transaction() as transaction:  # noqa: PT012
        transaction.find(Fact, [Where("key", "=", "n")])
        with other.transaction() as faster:
            faster.update([Change(Fact, "n", {}, {"value": {"n": 5}})])
        transaction.update([Change(Fact, "n", {}, {"value": {"n": 1}})])
    assert opened.get(Fact, "n") == Fact(key="n", value={"n": 5})
    other.close()


def test_a_transaction_whose_ground_did_not_change_is_made_again(
    opened: MongoStore, url: str, clock: Any
) -> None:
    other = opened_at(url, clock)
    insert(opened, Fact(key="n", value={"n": 0}), Fact(key="m", value={"n": 0}))
    with opened.transaction() as transaction:
        assert transaction.update([Change(Fact, "m", {}, {"value": {"n": 1}})]) == 1
        assert transaction.insert([event(1), event(2)], ignore=True) == 2
        with other.transaction() as faster:
            faster.update([Change(Fact, "n", {}, {"value": {"n": 5}})])
        assert transaction.update([Change(Fact, "n", {}, {"value": {"n": 6}})]) == 1
    assert [fact.value for fact in opened.find(Fact, [Where("key", "!=", "schema")])] == [{"n": 1}, {"n": 6}]
    assert opened.count(Event) == {(): 2}
    other.close()


def test_an_insert_that_leaves_what_came_into_being_meanwhile(
    opened: MongoStore, url: str, clock: Any
) -> None:
    other = opened_at(url, clock)
    with opened.transaction() as transaction:
        transaction.insert([Fact(key="first", value={})])
        insert(other, event(1), Fact(key="n", value={"by": "other"}))
        assert transaction.insert([event(1), event(2)], ignore=True) == 1
        assert transaction.insert([Fact(key="n", value={"by": "us"})], ignore=True) == 0
    assert opened.get(Fact, "n") == Fact(key="n", value={"by": "other"})
    other.close()


# --- outages


def through(proxy: CutProxy, name: str) -> str:
    return f"mongodb://{proxy.host}:{proxy.port}/{name}?directConnection=true&socketTimeoutMS=5000"


@pytest.mark.parametrize("marker", [b"commitTransaction", b"ordered"])
def test_a_connection_cut_after_the_server_did_it(
    node: MongoServer, opened: MongoStore, clock: Any, marker: bytes
) -> None:
    """Whatever reply is lost, each write is there once."""
    insert(opened, Fact(key="n", value={"n": 0}))
    with CutProxy("127.0.0.1", node.port) as proxy:
        store = opened_at(through(proxy, opened.link.database), clock)
        assert store.count(Event) == {(): 0}
        proxy.drop_reply_to(marker)
        with store.transaction() as transaction:
            assert transaction.insert([event(1), event(2)]) == 2
            changed = Change(Fact, "n", {"value": {"n": 0}}, {"value": {"n": 1}})
            assert transaction.update([changed]) == 1
        assert proxy.dropped == 1
        store.close()
    assert [e.seq for e in opened.find(Event)] == [1, 2]
    assert opened.get(Fact, "n") == Fact(key="n", value={"n": 1})


def test_a_commit_whose_outcome_nobody_knows(node: MongoServer, opened: MongoStore, clock: Any) -> None:
    proxy = CutProxy("127.0.0.1", node.port)
    store = opened_at(through(proxy, opened.link.database) + "&" + IMPATIENT, clock)
    assert store.count(Event) == {(): 0}
    with pytest.raises(StoreUnavailable, match="not known"), store.transaction() as transaction:  # noqa: PT012
        transaction.insert([event(1)])
        proxy.drop_reply_to(b"commitTransaction", times=10**6)
        threading.Thread(target=close_once_cut, args=(proxy,)).start()
    assert opened.count(Event) == {(): 1}, "it was committed; whoever reads again knows"
    store.close()


def close_once_cut(proxy: CutProxy) -> None:
    proxy.cut.wait(20)
    proxy.close()


def test_a_server_killed_and_started_again(clock: Any) -> None:
    """31: the store is away and comes back; the same store object goes on."""
    with mongod() as one:
        store = opened_at(f"{one.url}&{IMPATIENT}", clock)
        store.init()
        insert(store, event(1))
        block = store.transaction()
        block.__enter__().insert([event(2)])
        one.kill()
        with pytest.raises(StoreUnavailable):
            block.__exit__(None, None, None)
        with pytest.raises(StoreUnavailable, match="store mongodb://"):
            store.find(Event)
        with pytest.raises(StoreUnavailable), store.transaction() as transaction:
            transaction.insert([event(3)])
        one.start()
        assert eventually(store, 4) == [1, 4], "what was acknowledged, and nothing else"
        assert store.now().year > 2000
        store.close()


def eventually(store: MongoStore, seq: int) -> list[int]:
    """Insert an event as soon as the store is back; what is there then."""
    for _ in range(PATIENCE):
        try:
            with store.transaction() as transaction:
                transaction.insert([event(seq)], ignore=True)
            return [found for (found,) in store.select(Event, ["seq"])]
        except StoreUnavailable:
            continue
    raise AssertionError("the store did not come back")


def test_the_primary_of_three_is_killed(clock: Any) -> None:
    with mongo_set() as three:
        store = opened_at(f"{three.url}&{IMPATIENT}", clock)
        store.init()
        primary = three.primary()
        acknowledged: list[int] = []
        for seq in range(1, 201):
            if seq == 100:
                primary.kill()
            there = eventually(store, seq)
            acknowledged.append(seq)
            assert there == acknowledged
        assert store.link.hello()["primary"] != primary.host
        store.close()


# --- plans


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
