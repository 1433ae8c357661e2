"""The contract of the `Store` port, against every adapter: all or nothing, under the lease, between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scheduler.core.errors import Conflict, LeaseLost, StoreUnavailable
from scheduler.core.job import Job
from scheduler.core.ports import Change, Store, Where
from scheduler.core.records import Fact, Lease
from scheduler.core.uow import Uow
from tests.conformance.store_records import ids, insert, job, uow, update


def test_an_exception_rolls_back_everything(store: Store) -> None:
    insert(store, job(1), job(2))
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:  # noqa: PT012
        transaction.insert([job(3)])
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
        transaction.delete(Job, [Where("id", "=", "p@002")])
        raise ZeroDivisionError
    assert store.find(Job) == [job(1), job(2)]
    insert(store, job(3))  # and the store is as good as before
    assert store.count(Job) == {(): 3}


def test_a_transaction_sees_its_own_writes(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.insert([job(1), job(2)])
        assert ids(transaction.find(Job)) == ["p@001", "p@002"]
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
        transaction.delete(Job, [Where("id", "=", "p@002")])
        assert transaction.find(Job, [Where("state", "=", "skipped")]) == [job(1, state="skipped")]
        assert transaction.find(Job, order=["-start"], limit=1) == [job(1, state="skipped")]


def test_a_failed_transaction_does_not_commit_even_if_the_error_was_caught(store: Store) -> None:
    insert(store, job(1))
    with pytest.raises(Conflict), store.transaction() as transaction:  # noqa: PT012
        transaction.insert([job(2)])
        with pytest.raises(Conflict):
            transaction.insert([job(1)])
    assert store.find(Job) == [job(1)]


def test_a_transaction_inside_a_transaction_is_a_bug(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.insert([job(1)])
        with pytest.raises(AssertionError), store.transaction():
            pass
    assert ids(store.find(Job)) == ["p@001"]


def test_an_empty_transaction(store: Store) -> None:
    with store.transaction() as transaction:
        assert transaction.update([]) == 0
    insert(store, job(1))


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.find(Job)
    with pytest.raises(StoreUnavailable, match="closed"), store.transaction():
        pass


def lease(store: Store, **changed: Any) -> Lease:
    """A lease of 30 s from now."""
    now = store.now()
    taken = Lease(name="scheduler", holder="a", token=1, taken_at=now, expires_at=now + timedelta(seconds=30))
    return replace(taken, **changed)


def test_a_commit_renews_the_lease(store: Store, clock: Any) -> None:
    mine = lease(store, data={"session": 7})
    insert(store, mine, lease(store, name="other"))
    clock.move(20)
    with store.transaction(mine) as transaction:
        transaction.insert([job(1)])
    assert store.get(Lease, "scheduler") == replace(mine, expires_at=store.now() + timedelta(seconds=30))
    assert store.get(Lease, "other") == lease(
        store, name="other", taken_at=mine.taken_at, expires_at=mine.expires_at
    )
    clock.move(20)
    with store.transaction(mine):  # a transaction without another write renews it as well
        pass
    assert store.get(Lease, "scheduler") == replace(mine, expires_at=store.now() + timedelta(seconds=30))
    assert store.count(Job) == {(): 1}


@pytest.mark.parametrize("now_held_by", [{"token": 2}, {"holder": "b"}, {"token": 2, "holder": "b"}, None])
def test_a_lost_lease_keeps_nothing(store: Store, now_held_by: dict[str, Any] | None) -> None:
    mine = lease(store)
    current = replace(mine, **now_held_by) if now_held_by else None
    insert(store, job(1), *([current] if current else []))
    with pytest.raises(LeaseLost, match="scheduler"), store.transaction(mine) as transaction:  # noqa: PT012
        transaction.insert([job(2)])
        transaction.update([Change(Job, "p@001", {}, {"state": "skipped"})])
    assert store.find(Job) == [job(1)]
    assert store.get(Lease, "scheduler") == current


def test_a_lease_that_ran_out_but_was_not_taken_is_still_ours(store: Store, clock: Any) -> None:
    mine = lease(store)
    insert(store, mine)
    clock.move(3600)
    with store.transaction(mine) as transaction:
        transaction.insert([job(1)])
    assert store.count(Job) == {(): 1}


def test_a_take_over_by_compare_and_set(store: Store, clock: Any) -> None:
    insert(store, lease(store))
    clock.move(60)
    now = store.now()
    taken: dict[str, Any] = {
        "holder": "b",
        "token": 2,
        "taken_at": now,
        "expires_at": now + timedelta(seconds=30),
    }
    assert update(store, Change(Lease, "scheduler", {"token": 1}, taken)) == 1
    assert update(store, Change(Lease, "scheduler", {"token": 1}, taken | {"holder": "c"})) == 0
    assert store.get(Lease, "scheduler") == Lease(name="scheduler", **taken)


def together(*functions: Callable[[], None]) -> None:
    """Run them in threads at the same time; raises what they raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_write_and_read_at_once(store: Store) -> None:
    insert(store, *(uow(n) for n in range(40)))
    won: list[int] = []

    def claim(name: str) -> None:
        for n in range(40):
            accept = Change(Uow, f"p@{n:03}#1", {"owner": None}, {"owner": name}, f"{name}\n")
            if update(store, accept):
                won.append(n)
            assert store.count(Uow) == {(): 40}

    together(*(lambda name=f"t{i}": claim(name) for i in range(6)))
    assert sorted(won) == list(range(40))
    assert {u.history_n for u in store.find(Uow)} == {1}


def test_nothing_is_lost_between_threads_that_read_and_write(store: Store) -> None:
    insert(store, Fact(key="n", value={"n": 0}))

    def add() -> None:
        for _ in range(25):
            with store.transaction() as transaction:
                (fact,) = transaction.find(Fact, [Where("key", "=", "n")])
                transaction.update([Change(Fact, "n", {}, {"value": {"n": fact.value["n"] + 1}})])

    together(*[add] * 4)
    assert store.get(Fact, "n") == Fact(key="n", value={"n": 100})
