"""The stores that the conformance suite of the `Store` port runs against: add an adapter here, nowhere else.

An adapter gives the URL of an empty store, fresh for every test. A server that is not there is a failure, not a
skip; the tests that need one bear the marker `servers`. Making a schema takes a server a second, so most tests get
one that was used before and is empty again.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from db import open_store
from db.schema import SCHEMA_FACT, TABLES
from scheduler.clock import SystemClock
from scheduler.core.ports import Store, Where
from scheduler.core.records import Fact
from scripts.servers import shared

S = TypeVar("S", bound=Store)


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


def _on(name: str) -> Callable[[Path], AbstractContextManager[str]]:
    """An empty database of the shared server of that name, where time is the injected clock's."""

    @contextmanager
    def serve(_folder: Path) -> Iterator[str]:
        server = shared(name)
        url = server.fresh()
        yield f"{url}{'&' if '?' in url else '?'}clock=given"
        server.delete(url)

    return serve


postgres, mariadb, mongodb = _on("postgres"), _on("mariadb"), _on("mongod")
_kept: dict[str, str] = {}


@contextmanager
def again(adapter: StoreAdapter, folder: Path) -> Iterator[str]:
    """The URL of an initialised empty store of `adapter`; on a server always the same, emptied after each test."""
    if not adapter.server:
        with adapter.serve(folder) as url:
            yield url
        return
    if adapter.name not in _kept:
        stack = ExitStack()
        _kept[adapter.name] = stack.enter_context(adapter.serve(folder))
        atexit.register(stack.close)  # now: so it is called while the server still runs
    yield _kept[adapter.name]
    store = open_store(_kept[adapter.name], clock=SystemClock(lambda: None))
    with store.transaction() as tx:
        for kind in TABLES:
            tx.delete(kind, [Where("key", "!=", SCHEMA_FACT)] if kind is Fact else [])
    store.close()


def opened_as(kind: type[S], url: str, clock: Any) -> S:
    """The store at `url`, which is one of that kind; not initialised."""
    store = open_store(url, clock=clock)
    assert isinstance(store, kind)
    return store


@contextmanager
def initialised(store: S) -> Iterator[S]:
    """The store, initialised; closed after the block."""
    store.init()
    yield store
    store.close()


ADAPTERS = [
    StoreAdapter("sqlite-file", _file),
    StoreAdapter("sqlite-memory", _memory, processes=False),
    StoreAdapter("postgres", postgres, server=True),
    StoreAdapter("mariadb", mariadb, server=True),
    StoreAdapter("mongodb", mongodb, server=True),
]
