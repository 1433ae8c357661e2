"""A daemon's handle, and one run in this process."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import open_store
from mq import open_broker
from scheduler.clock import ManualClock
from scheduler.core.command import Command
from scheduler.core.process import daemon, script
from worker.api import Daemon
from worker.daemon_process import run_daemon

NOW = datetime(2020, 5, 1, tzinfo=UTC)
seen: list[Any] = []


class Fast:
    """A clock on which an hour passes between two looks."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return NOW + timedelta(hours=self.looks)


def test_wait_until_follows_a_scaled_clock_and_the_word_to_stop() -> None:
    handle = Daemon("feed", {}, Fast(), lambda *_: None)
    assert handle.wait_until(NOW + timedelta(hours=2))
    assert handle.now() >= NOW + timedelta(hours=2)
    standing = Daemon("feed", {}, lambda: NOW, lambda *_: None)
    threading.Timer(0.05, standing.stopping.set).start()
    assert not standing.wait_until(NOW + timedelta(hours=1))


def feed(handle: Daemon) -> None:
    seen.append((handle.name, dict(handle.arguments), handle.now()))
    handle.reprocess("hourly", "2020050107", "2 rows")


def broken(handle: Daemon) -> None:
    raise ValueError("no feed")


def run(worker: Any, **values: Any) -> tuple[int, Any]:
    import sys

    module = type(sys)("daemon_jobs")
    module.feed, module.broken = feed, broken  # type: ignore[attr-defined]
    sys.modules["daemon_jobs"] = module
    clock = ManualClock(NOW)
    store = open_store("sqlite:///:memory:", clock=clock)
    store.init()
    process = daemon("feed", worker, arguments={"file": "x"})
    code = run_daemon(process, store=store, broker=open_broker("embedded:///:memory:"), clock=clock, **values)
    return code, store


def test_a_daemon_speaks_up_about_late_data() -> None:
    seen.clear()
    code, store = run("daemon_jobs:feed")
    assert code == 0 and seen == [("feed", {"file": "x"}, NOW)]
    (command,) = store.find(Command)
    assert (command.verb, command.actor, command.reason) == ("late_data", "feed", "2 rows")
    assert command.target == {"jobs": ["hourly@2020050107"]} and command.expires_at is None


def test_a_daemon_that_raises_ends_with_one_line_and_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        code, _store = run("daemon_jobs:broken")
    assert code == 1 and "daemon feed ended with ValueError" in caplog.text and "no feed" in caplog.text


def test_a_command_line_as_a_daemon(caplog: pytest.LogCaptureFixture) -> None:
    assert run(script("test", "{process}{file}", "=", "feedx"))[0] == 0
    assert run(script("false"))[0] == 1
    assert "daemon feed: false ended with exit code 1" in caplog.text
