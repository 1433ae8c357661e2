"""An empty database on each shared SQL server, and a store there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db.sql import SqlStore
from scripts.servers import shared
from tests.conformance.sql_servers.sql_words import KINDS, Place, opened, run_sql
from tests.conformance.store_adapters import initialised


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty database on the shared server."""
    server = shared(request.param)
    url = server.fresh()
    yield Place(request.param, url, lambda text: run_sql(url, text))
    server.delete(url)


@pytest.fixture
def store(place: Place, clock: Any) -> Iterator[SqlStore]:
    """An initialised store there; what lies idle for a second in a transaction is ended."""
    with initialised(opened(place.with_query("clock=given&idle_s=1"), clock)) as found:
        yield found
