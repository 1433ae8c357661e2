"""The thread that prolongs leases, whatever the worker's loop is waiting for."""

from __future__ import annotations

import logging
import threading

from scheduler.core.errors import Conflict, StoreUnavailable
from worker.outage import MOST_S
from worker.runner import Runner

log = logging.getLogger("synergy.worker")


class Renewal:
    """Calls `runner.renew` every `every_s` seconds, sooner again after a failure, until it is closed."""

    def __init__(self, runner: Runner, every_s: float) -> None:
        self._runner, self._every_s = runner, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="renewal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; waits a moment for a renewal under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _loop(self) -> None:
        wait_s, failed = self._every_s, False
        while not self._stop.wait(wait_s):
            try:
                self._runner.renew()
                wait_s, failed = self._every_s, False
            except (StoreUnavailable, Conflict) as error:
                if not failed:
                    log.warning("leases could not be renewed, trying again until they end: %s", error)
                wait_s, failed = min(self._every_s, MOST_S / 5), True
            except Exception:  # the one place of this loop: a defect must not end the renewals silently
                log.exception("a renewal failed")
                wait_s = min(self._every_s, MOST_S)
