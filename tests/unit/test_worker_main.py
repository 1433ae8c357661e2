"""The worker process around its loop: what it does when a pass of the loop fails."""

from __future__ import annotations

from worker.main import WorkerProcess


def test_a_drain_ends_the_pause_after_a_failed_pass() -> None:
    def connect() -> None:
        raise AssertionError("it is not run")

    worker = WorkerProcess(connect=connect, processes={}, queues=["default"], owner="w", box="b")  # type: ignore[arg-type]
    worker.drain()
    worker._pause(3600.0, 0)  # the test's own limit would end it
