"""The real application of the dashboard on a real store, and the ways to ask it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from werkzeug.test import Client, TestResponse

from db.schema import TABLES
from mx.app import App
from mx.live import Hub
from mx.security import Tokens, check_bind
from mx.site import Site
from scheduler.core.ports import Store
from tests.browser.mx_seed import open_seeded

HOST = {"Host": "localhost"}
HTML = {"Host": "localhost", "Accept": "text/html"}


def make_client(world: Any, store: Store | None = None, *, wait_s: float = 0.0) -> Client:
    """A client of the application; `wait_s` 0: an outcome that is not there at once is none."""
    site = Site(
        store=store or world.store,
        broker=world.broker,
        clock=world.clock,
        timetable=world.timetable,
        tokens=Tokens(),
        hub=Hub(world.clock, threading.Event(), cap=2, interval_s=0.01),
        hosts=check_bind("127.0.0.1"),
        wait_s=wait_s,
    )
    client = Client(App(site))
    client.site = site  # type: ignore[attr-defined]
    return client


class Seeded:
    """The seeded store, with the names that `make_client` reads."""

    def __init__(self, folder: Path) -> None:
        self.store, self.broker, self.clock, self.timetable = open_seeded(folder)


def dump(store: Store) -> str:
    """Everything in the store."""
    return "\n".join(repr(store.find(kind)) for kind in TABLES)


def get(client: Client, path: str, **headers: str) -> TestResponse:
    """As a browser would."""
    return client.get(path, headers={**HTML, **headers})
