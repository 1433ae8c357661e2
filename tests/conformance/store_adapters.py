"""The stores that the conformance suite of the `Store` port runs against: add an adapter here, nowhere else.

An adapter gives the URL of an empty store, fresh for every test. A server that is not there is a failure, not a
skip; the tests that need one bear the marker `servers`. Making a schema takes a server a second, so most tests get
one that was used before and is empty again.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from db import open_store
from db.schema import SCHEMA_FACT, TABLES
from scheduler.clock import SystemClock
from scheduler.core.ports import Where
from scheduler.core.records import Fact
from scripts import servers

_number = count(1)
_open = ExitStack()
atexit.register(_open.close)


@dataclass(frozen=True)
class StoreAdapter:
    """One store under test."""

    name: str
    serve: Callable[[Path], AbstractContextManager[str]]  # scratch folder → URL, while the block runs
    processes: bool = True  # can be opened by several processes
    server: bool = False  # needs a server of its own


@contextmanager
def _file(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/the store.db"  # a blank in its name


@contextmanager
def _memory(_folder: Path) -> Iterator[str]:
    yield "sqlite:///:memory:"


def _name() -> str:
    return f"t{os.getpid()}_{next(_number)}"


@contextmanager
def postgres(_folder: Path) -> Iterator[str]:
    """An empty database on a PostgreSQL server, where time is the injected clock's."""
    server = running(servers.postgres)
    url = server.fresh()
    yield f"{url}?clock=given"
    server.delete(url)


@contextmanager
def mariadb(_folder: Path) -> Iterator[str]:
    """An empty database on a MariaDB server, where time is the injected clock's."""
    server = running(servers.mariadb)
    url = server.fresh()
    yield f"{url}?clock=given"
    server.delete(url)


@contextmanager
def mongodb(folder: Path) -> Iterator[str]:
    """An empty database of a replica set, where time is the injected clock's; a private one if none is named."""
    from pymongo import MongoClient

    from tests.mongo_node import MongoNode, initiate

    with ExitStack() as ours:
        given = os.environ.get("SYNERGY_TEST_MONGODB")  # mongodb://host:port/?replicaSet=r
        if given is None:
            node = MongoNode(folder / "mongod", "--replSet=r")
            ours.callback(node.stop)
            node.start()
            initiate([node])
            given = f"mongodb://{node.host}/?replicaSet=r"
        server, name = given.partition("?"), _name()
        yield f"{server[0].rstrip('/')}/{name}?{server[2]}{server[2] and '&'}clock=given"
        with MongoClient[dict[str, Any]](given) as client:
            client.drop_database(name)


S = TypeVar("S", servers.Postgres, servers.MariaDb)
_running: dict[Any, Any] = {}


def running(make: Callable[[], S]) -> S:
    """The private server of a kind, started for the first test that asks; it ends with this process."""
    if make not in _running:
        _running[make] = _open.enter_context(make())
    found: S = _running[make]
    return found


_kept: dict[str, str] = {}


@contextmanager
def again(adapter: StoreAdapter, folder: Path) -> Iterator[str]:
    """The URL of an initialised empty store of `adapter`; on a server always the same, emptied after each test."""
    if not adapter.server:
        with adapter.serve(folder) as url:
            yield url
        return
    if adapter.name not in _kept:
        _kept[adapter.name] = _open.enter_context(adapter.serve(folder))
    yield _kept[adapter.name]
    store = open_store(_kept[adapter.name], clock=SystemClock(lambda: None))
    with store.transaction() as tx:
        for kind in TABLES:
            tx.delete(kind, [Where("key", "!=", SCHEMA_FACT)] if kind is Fact else [])
    store.close()


ADAPTERS = [
    StoreAdapter("sqlite-file", _file),
    StoreAdapter("sqlite-memory", _memory, processes=False),
    StoreAdapter("postgres", postgres, server=True),
    StoreAdapter("mariadb", mariadb, server=True),
    StoreAdapter("mongodb", mongodb, server=True),
]
