"""On every store the same seed gives the same event history, faults included."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db import open_store
from scheduler.clock import ManualClock
from scheduler.core.errors import Refused
from scheduler.core.records import ProcessRow
from simulation.run import run_seed
from simulation.world import MEMORY, opened
from tests.conformance.store_adapters import ADAPTERS, StoreAdapter

BEGIN = datetime(2026, 11, 21, tzinfo=UTC)
SEEDS = (1, 2)
OTHERS = [
    pytest.param(adapter, id=adapter.name, marks=[pytest.mark.servers] if adapter.server else [])
    for adapter in ADAPTERS
    if adapter.processes
]


@pytest.fixture(params=OTHERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store."""
    adapter: StoreAdapter = request.param
    with adapter.serve(tmp_path) as served:
        yield served


@pytest.mark.timeout(300)
def test_the_same_seed_gives_the_same_history(url: str) -> None:
    for seed in SEEDS:
        expected, found = run_seed(seed, MEMORY), run_seed(seed, url)
        assert (found.text, found.digest, found.events) == ("", expected.digest, expected.events), seed
        assert found.counts == expected.counts


def test_a_store_that_is_in_use_is_not_emptied(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/used.db"
    store = open_store(url, clock=ManualClock(BEGIN))
    store.init()
    with store.transaction() as tx:
        tx.insert([ProcessRow(name="p", kind="managed")])
    with pytest.raises(Refused, match="in use"):
        opened(url, ManualClock(BEGIN))
    assert store.count(ProcessRow) == {(): 1}
    store.close()
