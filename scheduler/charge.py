"""The leader's lease for a person's tool: `store repair`, `copy` and `prune` work while no scheduler leads.

Taken as a scheduler takes it, by compare-and-set on the row, with a higher token. So a scheduler that is started
meanwhile stands by, and one that was paused and comes back loses its lease before it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scheduler.core.errors import Conflict, Refused
from scheduler.core.ports import Store
from scheduler.core.records import LEADER, Lease
from scheduler.lease import hand_over, is_held, take

LENGTH_S = 60.0


@dataclass
class Charge:
    """Being in charge; `keep` is called now and then by whoever works long."""

    store: Store
    lease: Lease
    monotonic: Callable[[], float]
    kept_at: float

    def keep(self) -> None:
        """Renew the lease, when a third of it is over. Raises LeaseLost, StoreUnavailable."""
        length_s = (self.lease.expires_at - self.lease.taken_at).total_seconds()
        if self.monotonic() < self.kept_at + length_s / 3:
            return
        with self.store.transaction(self.lease):
            pass
        self.kept_at = self.monotonic()


def leader_of(store: Store) -> Lease | None:
    """The lease of the scheduler that leads now, if one does. Raises StoreUnavailable."""
    held = store.get(Lease, LEADER)
    return held if is_held(held, store.now()) else None


@contextmanager
def charge(
    store: Store, holder: str, monotonic: Callable[[], float], length_s: float = LENGTH_S
) -> Iterator[Charge]:
    """Lead for the block, and hand the lease over at its end. Raises Refused while somebody else leads."""
    held = store.get(Lease, LEADER)
    now = store.now()
    if is_held(held, now):
        raise Refused(
            f"a scheduler leads, {held.holder}: stop it first (launch.py stop scheduler); if it is dead, its lease"
            f" ends in {max(1, round((held.expires_at - now).total_seconds()))} s"
        )
    try:
        lease = take(store, held, holder, length_s, now)
    except Conflict as error:
        raise Refused("a scheduler took the lead at this moment: stop it first") from error
    try:
        yield Charge(store, lease, monotonic, monotonic())
    finally:
        hand_over(store, lease)


def handed_over(lease: Lease) -> Lease:
    """A lease as it is when nobody holds it."""
    return replace(lease, expires_at=lease.taken_at)
