"""Back-off while a server cannot be reached: one log line when it begins, one when it ends."""

from __future__ import annotations

import logging

from scheduler.core.errors import SchedulerError

FIRST_S, MOST_S = 0.1, 5.0

log = logging.getLogger("synergy.worker")


class Outage:
    """Whether `what` (store, broker) may be tried now. Times are seconds of a monotonic clock."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.since: float | None = None
        self.again_at = 0.0
        self._delay_s = FIRST_S

    def is_open(self, now: float) -> bool:
        """Still too early to try again."""
        return self.since is not None and now < self.again_at

    def failed(self, error: SchedulerError, now: float) -> None:
        """It could not be reached; the next try comes later than the last one did."""
        if self.since is None:
            self.since, self._delay_s = now, FIRST_S
            log.warning("the %s cannot be reached, trying again until it can: %s", self.what, error)
        self.again_at = now + self._delay_s
        self._delay_s = min(MOST_S, self._delay_s * 2)

    def answered(self, now: float) -> None:
        """It was reached."""
        if self.since is not None:
            log.info("the %s is back after %.1f s", self.what, now - self.since)
            self.since = None
