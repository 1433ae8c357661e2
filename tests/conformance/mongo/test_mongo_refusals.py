"""MongoDB as the store: servers, sets, databases, users and records that it refuses, each by its name."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from db.mongo import MongoStore
from db.schema import SCHEMA_VERSION
from scheduler.core.errors import ConfigError, LeaseLost, Refused, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import Change
from scheduler.core.records import Fact, Lease, LogChunk
from scripts.servers import MongoServer, mongod
from tests.certificate import make_certificate
from tests.conformance.mongo.mongo_words import IMPATIENT, T, event, insert, lease_of, opened_at

pytestmark = pytest.mark.servers


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


def test_a_server_that_speaks_tls_only(tmp_path: Path, clock: Any) -> None:
    key, certificate = make_certificate(tmp_path)
    both = tmp_path / "both.pem"
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
