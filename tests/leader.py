"""The leading scheduler's part, played against a worker: a change of a unit of work that it did not ask for."""

from __future__ import annotations

from typing import Any

from scheduler.core.lifecycle import UOW
from scheduler.core.ports import Change
from scheduler.core.uow import Uow


def decide(store: Any, uow: Uow, verb: str, **values: Any) -> None:
    """Write what the verb makes of `uow`, as it was read; it must not have changed since."""
    state = UOW.successor(uow.id, uow.state, verb)
    change = Change(
        Uow, uow.id, {"version": uow.version}, {"state": state, "version": uow.version + 1, **values}
    )
    with store.transaction() as transaction:
        assert transaction.update([change]) == 1
