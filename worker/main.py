"""One worker process from beginning to end: children first, then the connections, then the loop.

TERM and INT drain: nothing is accepted any more, running work gets its grace and is then released. A second one
does not wait.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from scheduler.core.ports import Broker, Clock, Store
from scheduler.core.process import Process
from worker.leases import Renewal
from worker.runner import Runner
from worker.slots import ProcessExecutor

log = logging.getLogger("synergy.worker")

STEP_S = 1.0
Connect = Callable[[], tuple[Store, Broker, Clock]]


class WorkerProcess:
    """A worker that can be told to drain. `connect` is called once the children exist, in `run`'s thread.

    `ready` is called with the runner when the loop begins. Seconds: `lease_s`, `renew_s`, `grace_s`.
    """

    def __init__(
        self,
        *,
        connect: Connect,
        processes: Mapping[str, Process],
        queues: Sequence[str],
        owner: str,
        box: str,
        slots: int = 2,
        context_folder: str | Path | None = None,
        lease_s: float = 60.0,
        renew_s: float = 10.0,
        grace_s: float = 30.0,
        ready: Callable[[Runner], object] | None = None,
    ) -> None:
        self._connect, self._processes, self._queues = connect, processes, queues
        self._owner, self._box, self._slots, self._folder = owner, box, slots, context_folder
        self._lease_s, self._renew_s, self._grace_s = lease_s, renew_s, grace_s
        self._ready = ready
        self._runner: Runner | None = None
        self._drains = 0

    def drain(self) -> None:
        """Stop gently; the second time at once. From any thread or a signal handler."""
        self._drains += 1
        if self._runner is not None:
            self._runner.drain(now=self._drains > 1)

    def run(self) -> int:
        """Work until drained; the exit code. Raises what `connect` raises."""
        executor = ProcessExecutor(self._slots, self._folder, lease_s=self._lease_s)
        try:
            store, broker, clock = self._connect()
            executor.clock = clock
            self._runner = runner = Runner(
                store=store,
                broker=broker,
                clock=clock,
                executor=executor,
                processes=self._processes,
                queues=self._queues,
                owner=self._owner,
                box=self._box,
                lease_s=self._lease_s,
                grace_s=self._grace_s,
            )
            if self._drains:
                runner.drain(now=self._drains > 1)
            renewal = Renewal(runner, self._renew_s)
            renewal.start()
            try:
                if self._ready is not None:
                    self._ready(runner)
                self._loop(runner)
            finally:
                renewal.close()
                runner.close()
        finally:
            executor.close()
        return 0

    def _loop(self, runner: Runner) -> None:
        failures = 0
        while not runner.is_done:
            drains = self._drains
            try:
                runner.step(STEP_S)
                failures = 0
            except Exception:  # the one place of this loop: what runs goes on, whatever one pass met
                failures += 1
                if failures in (1, 10, 100) or failures % 1000 == 0:
                    log.exception("a pass of the worker failed, %d in a row", failures)
                self._pause(min(5.0, 0.1 * failures), drains)

    def _pause(self, seconds: float, drains: int) -> None:
        """Wait, at most until told more often than `drains` times to drain. In looks: a signal handler may not set
        an event that its own thread waits for."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self._drains == drains:
            time.sleep(0.05)


def run_worker(
    *,
    connect: Connect,
    processes: Mapping[str, Process],
    queues: Sequence[str],
    owner: str,
    box: str,
    slots: int = 2,
    context_folder: str | Path | None = None,
    lease_s: float = 60.0,
    renew_s: float = 10.0,
    grace_s: float = 30.0,
    ready: Callable[[Runner], object] | None = None,
) -> int:
    """Run one worker in this process until TERM or INT; the exit code. As `WorkerProcess`, with signals.

    `connect` opens store, broker and clock; it is called after the children were made.
    """
    worker = WorkerProcess(
        connect=connect,
        processes=processes,
        queues=queues,
        owner=owner,
        box=box,
        slots=slots,
        context_folder=context_folder,
        lease_s=lease_s,
        renew_s=renew_s,
        grace_s=grace_s,
        ready=ready,
    )

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        worker.drain()

    if threading.current_thread() is threading.main_thread():
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, on_signal)
    return worker.run()
