"""A real Chromium before a real server: a seeded store without a scheduler, and a small world with one.

Chromium that is missing is a failure, not a skip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from db import open_store
from mq import open_broker
from mx import main
from scheduler import daemon
from scheduler.core.ports import Broker, Clock, Store
from scheduler.core.process import context, managed, tree
from scheduler.core.records import Fact
from scheduler.core.timetable import Timetable
from tests.browser.mx_seed import NightClock, open_seeded

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


@dataclass(frozen=True)
class Settings:
    """What run_mx reads."""

    mx_host: str = "127.0.0.1"
    mx_port: int = 0
    mx_title: str = "Synergy Scheduler"
    box: str = "here"


@dataclass(frozen=True)
class Served:
    """A running dashboard and what it stands on."""

    url: str
    store: Store
    broker: Broker
    clock: Clock
    timetable: Timetable


@contextmanager
def serving(store: Store, broker: Broker, clock: Clock, timetable: Timetable) -> Iterator[Served]:
    """A dashboard on a free port until the block ends."""
    stopping, told, ends = threading.Event(), threading.Event(), list[int]()
    announce = main.announce

    def announce_and_tell(*args: Any) -> None:
        announce(*args)
        told.set()

    def run() -> None:
        ends.append(main.run_mx(Settings(), store, broker, clock, timetable, stopping))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "announce", announce_and_tell)
        thread = threading.Thread(target=run, name="mx")
        thread.start()
        assert told.wait(20), "the dashboard did not start"
    fact = store.get(Fact, "mx:here")
    assert fact is not None
    try:
        yield Served(str(fact.value["url"]), store, broker, clock, timetable)
    finally:
        stopping.set()
        thread.join(10)
    assert ends == [0]


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """20,000 jobs and one bad night; nothing in it changes by itself."""
    store, broker, clock, timetable = open_seeded(tmp_path_factory.mktemp("mx"))
    with serving(store, broker, clock, timetable) as found:
        yield found
    broker.close()
    store.close()


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Served]:
    """Three days of hours with a scheduler in charge; there is no worker, so nothing ends by itself."""
    clock = NightClock()
    begin = clock.business() - timedelta(days=2)
    timetable = Timetable(
        context(
            [
                managed("hourly", "x.y:z", "hourly", max_active=2),
                managed("daily", "x.y:z", "daily", blocking="children"),
            ],
            [tree("t", ["hourly", "daily"], title="Tree")],
            [],
            f"{begin:%Y%m%d}00",
        )
    )
    store = open_store(f"sqlite:///{tmp_path}/store.db", clock=clock)
    store.init()
    broker = open_broker(f"embedded://{tmp_path}/queues.db")
    stopping = threading.Event()
    parts = store, broker, clock, timetable, stopping
    leader = threading.Thread(target=lambda: daemon.run(*parts, holder="here/scheduler", tick_s=0.2))
    leader.start()
    try:
        with serving(store, broker, clock, timetable) as found:
            yield found
    finally:
        stopping.set()
        leader.join(10)
        broker.close()
        store.close()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The driver."""
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """One browser for all tests."""
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is missing: apt-get install chromium"
    browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False, args=FLAGS)
    yield browser
    browser.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Opens pages of a context of their own; every console message and error of theirs fails the test."""
    contexts: list[BrowserContext] = []
    said: list[str] = []
    expected: list[str] = []

    def open_(
        url: str, *, theme: str = "light", width: int = 1280, height: int = 900, expect: str = ""
    ) -> Page:
        if expect:
            expected.append(expect)
        found = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
        )
        found.set_default_timeout(15_000)
        contexts.append(found)
        page = found.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.goto(url)
        return page

    yield open_
    for each in contexts:
        each.close()
    loud = [text for text in said if not any(part in text for part in expected)]
    assert not loud, loud
