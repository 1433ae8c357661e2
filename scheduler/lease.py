"""The leader's lease: taken and handed over by compare-and-set on its one row, with a token that rises.

Who holds it commits through it (`Store.transaction(lease)`), so one that was paused and comes back loses before it
writes. Schedulers take it when it is free (`scheduler.engine`), a person's tool for as long as it works
(`scheduler.charge`). Times are the store's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeGuard

from scheduler.core.errors import Conflict
from scheduler.core.ports import Change, Store
from scheduler.core.records import LEADER, Lease


def is_held(lease: Lease | None, now: datetime) -> TypeGuard[Lease]:
    """Whether somebody leads at `now`, store time."""
    return lease is not None and lease.expires_at > now


def take(store: Store, held: Lease | None, holder: str, length_s: float, now: datetime) -> Lease:
    """Take what was found `held` at `now`. Raises Conflict if it is not so any more, StoreUnavailable."""
    taken = Lease(
        name=LEADER,
        holder=holder,
        token=1 if held is None else held.token + 1,
        expires_at=now + timedelta(seconds=length_s),
        taken_at=now,
        data=store.session(),
    )
    if held is None:
        with store.transaction() as tx:
            tx.insert([taken])
        return taken
    store.end_session(held)
    expect = {"token": held.token, "holder": held.holder, "expires_at": held.expires_at}
    sets = {name: getattr(taken, name) for name in ("holder", "token", "expires_at", "taken_at", "data")}
    with store.transaction() as tx:
        if tx.update([Change(Lease, LEADER, expect, sets)]) != 1:
            raise Conflict
    return taken


def hand_over(store: Store, lease: Lease) -> None:
    """It is free at once, if it is still this one. Raises StoreUnavailable."""
    ours = {"token": lease.token, "holder": lease.holder}
    with store.transaction() as tx:
        tx.update([Change(Lease, LEADER, ours, {"expires_at": store.now()})])
