"""A MongoDB replica set of one, and an empty database on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db.mongo import MongoStore
from scripts.servers import MongoServer, mongod
from tests.conformance.mongo.mongo_words import IMPATIENT, opened_at
from tests.conformance.store_adapters import initialised


@pytest.fixture(scope="session")
def node() -> Iterator[MongoServer]:
    """A replica set of one."""
    with mongod() as server:
        yield server


@pytest.fixture
def url(node: MongoServer) -> str:
    """The URL of an empty database on it."""
    return f"{node.fresh()}&{IMPATIENT}"


@pytest.fixture
def opened(url: str, clock: Any) -> Iterator[MongoStore]:
    """A store on that database."""
    with initialised(opened_at(url, clock)) as store:
        yield store
