"""MongoDB as the store: connections cut and servers killed; the same store object goes on, nothing is lost."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from db.mongo import MongoStore
from scheduler.core.errors import StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import Change
from scheduler.core.records import Fact
from scripts.servers import MongoServer, mongo_set, mongod
from tests.conformance.mongo.mongo_words import IMPATIENT, event, insert, opened_at
from tests.cut_proxy import CutProxy

pytestmark = pytest.mark.servers


PATIENCE = 200  # tries, each of which waits for a server by itself


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
