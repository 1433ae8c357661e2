"""A seeded store for reading, and a small world with a scheduler turned by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler.core.process import managed, tree
from tests.integration.mx.mx_client import Seeded
from tests.world import World


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """The store of `mx_seed`; a test that reads it leaves it as it is."""
    found = Seeded(tmp_path_factory.mktemp("mx"))
    yield found
    found.broker.close()
    found.store.close()


@pytest.fixture
def world() -> World:
    """Hours in a day, with words that have to be escaped."""
    return World(
        [
            managed("hourly", "x.y:z", "hourly", tags=["<i>tag</i>"]),
            managed("daily", "x.y:z", "daily", blocking="children"),
        ],
        [tree("t", ["hourly", "daily"], title="<b>tree</b>")],
        start="2020050100",
        now="2020-05-01T03:10",
    )
