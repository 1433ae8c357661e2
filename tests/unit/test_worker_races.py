"""What a worker writes after somebody else wrote: each compared field of its compare-and-sets has a race it loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from db import open_store
from scheduler.clock import ManualClock
from scheduler.core.ports import Change, Store
from scheduler.core.uow import Uow
from worker import changes

NOW = datetime(2013, 7, 4, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
NEW = Uow(
    id="hour@2013070400#1",
    process="hour",
    timeperiod="2013070400",
    run=1,
    start=NOW - timedelta(hours=1),
    end=NOW,
    created_at=NOW,
    requested_at=NOW,
)
MINE = replace(
    NEW, state="in_progress", version=1, owner="w1", box="b", token="mine", started_at=NOW, lease_until=LATER
)
THEIRS = replace(MINE, version=3, owner="w2", token="theirs")
CANCELED = replace(MINE, state="canceled", version=2)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store("sqlite:///:memory:", clock=ManualClock(NOW))
    opened.init()
    yield opened
    opened.close()


def hits(store: Store, row: Uow, change: Change) -> int:
    """How many rows the change hits where the store holds `row` by now; what it misses stays as it is."""
    with store.transaction() as transaction:
        transaction.insert([row])
    with store.transaction() as transaction:
        hit = transaction.update([change])
    assert hit or store.find(Uow) == [row]
    return hit


def test_an_accept_of_what_was_accepted_and_released_meanwhile_misses(store: Store) -> None:
    released = replace(NEW, version=2)
    assert hits(store, released, changes.accept(NEW, owner="w1", box="b", token="t", now=NOW, lease_s=9)) == 0


def test_a_renewal_of_what_was_canceled_misses(store: Store) -> None:
    assert hits(store, CANCELED, changes.renew(MINE, now=LATER, lease_s=9)) == 0


def test_a_renewal_of_what_another_worker_holds_misses(store: Store) -> None:
    assert hits(store, THEIRS, changes.renew(MINE, now=LATER, lease_s=9)) == 0


def test_progress_of_what_was_canceled_misses(store: Store) -> None:
    assert hits(store, CANCELED, changes.progress(MINE, {"done": 1})) == 0


def test_progress_of_what_another_worker_holds_misses(store: Store) -> None:
    assert hits(store, THEIRS, changes.progress(MINE, {"done": 1})) == 0


def test_a_stop_is_told_once(store: Store) -> None:
    told = replace(CANCELED, stopped_at=NOW)
    assert hits(store, told, changes.stopped(MINE, now=LATER)) == 0


def test_a_stop_of_what_was_not_canceled_misses(store: Store) -> None:
    assert hits(store, MINE, changes.stopped(MINE, now=LATER)) == 0


def test_a_stop_of_what_another_worker_held_at_the_cancel_misses(store: Store) -> None:
    assert hits(store, replace(THEIRS, state="canceled"), changes.stopped(MINE, now=LATER)) == 0


def test_without_a_race_each_of_them_hits(store: Store) -> None:
    accept = changes.accept(NEW, owner="w1", box="b", token="mine", now=NOW, lease_s=9)
    assert hits(store, NEW, accept) == 1
    for change in (changes.progress(MINE, {"done": 1}), changes.renew(MINE, now=LATER, lease_s=9)):
        with store.transaction() as transaction:
            assert transaction.update([change]) == 1
