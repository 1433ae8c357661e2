"""Notices a scheduler that leads and is silent: alive for the kernel, and dead for everybody else.

SQLite has no sessions that a successor could end, so a leader that was stopped in the middle of a transaction
would keep the file locked. Whoever is of the same box may kill it; this file only says when.

A lease that is not renewed is watched on a monotonic clock: nothing is compared with another clock, a leap of
the store's own has no effect, and while the store cannot be read nobody counts as silent.
"""

from __future__ import annotations

from scheduler.core.records import Lease

LEASES = 2
AWAY_LEASES = 1  # after a pause of our own so long, nothing can be said


class Silence:
    """Watches the leader's lease. Feed it what is read, as often as once in a quarter of a lease."""

    def __init__(self, holder: str, lease_s: float) -> None:
        """`holder` is the name under which this box's scheduler leads; its lease lasts `lease_s` seconds."""
        self.holder, self.lease_s = holder, lease_s
        self._seen: tuple[object, ...] | None = None
        self._since = 0.0
        self._looked = 0.0

    def look(self, lease: Lease | None, now: float) -> bool:
        """Whether the scheduler of this box leads, and has not renewed for two leases. `now` is monotonic."""
        seen = None if lease is None or lease.holder != self.holder else (lease.token, lease.expires_at)
        if (
            seen != self._seen or now - self._looked > self.lease_s * AWAY_LEASES
        ):  # changed, or we were away ourselves
            self._seen, self._since = seen, now
        self._looked = now
        return seen is not None and now - self._since >= LEASES * self.lease_s

    def forget(self) -> None:
        """It was started anew: its time counts from now."""
        self._seen = None
