"""MongoDB as the store: the fence of the leader, and conflicts between transactions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import pytest

import db.mongo
from db.mongo import MongoStore
from scheduler.clock import ManualClock
from scheduler.core.errors import Conflict, LeaseLost
from scheduler.core.event import Event
from scheduler.core.ports import Change, Where
from scheduler.core.process import context
from scheduler.core.records import Fact, Lease
from scheduler.core.timetable import Timetable
from scheduler.engine import Engine
from tests.conformance.mongo.mongo_words import T, event, insert, lease_of, opened_at

pytestmark = pytest.mark.servers


def test_now_is_the_clock_of_the_server(opened: MongoStore, clock: Any) -> None:
    told = opened.link.hello()["localTime"].replace(tzinfo=UTC)
    assert told <= opened.now() + timedelta(seconds=1) and opened.now() != clock.at
    assert opened.now().microsecond % 1000 == 0


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
