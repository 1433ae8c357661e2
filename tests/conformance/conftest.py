"""Fixtures of the conformance suites: each adapter of a port is one parameter.

The adapters stand in `store_adapters` and `broker_adapters`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from scheduler.core.ports import Store
from tests.conformance.store_adapters import ADAPTERS, StoreAdapter, again, initialised

START = datetime(2026, 11, 21, 3, 0, 0, 123_000, tzinfo=UTC)


@dataclass
class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False
    at: datetime = field(default=START)

    def real(self) -> datetime:
        """The time it was set to."""
        return self.at

    def business(self) -> datetime:
        """The same."""
        return self.at

    def real_for(self, instant: datetime) -> datetime | None:
        """The same instant."""
        return instant

    def monotonic(self) -> float:
        """Seconds since its start."""
        return (self.at - START).total_seconds()

    def refresh(self) -> None:
        """There is nothing to read."""

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


def _parameters(adapters: list[StoreAdapter]) -> list[Any]:
    return [
        pytest.param(adapter, id=adapter.name, marks=[pytest.mark.servers] if adapter.server else [])
        for adapter in adapters
    ]


EVERY = _parameters(ADAPTERS)
SHARED = _parameters([adapter for adapter in ADAPTERS if adapter.processes])


@pytest.fixture
def clock() -> TestClock:
    """The clock of the store under test."""
    return TestClock()


@pytest.fixture(params=EVERY)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> Iterator[Store]:
    """An empty store, once per adapter."""
    with again(request.param, tmp_path) as url, initialised(open_store(url, clock=clock)) as opened:
        yield opened


@pytest.fixture(params=SHARED)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a store that is not initialised yet, and that several processes can open."""
    with request.param.serve(tmp_path) as url:
        yield url


@pytest.fixture(params=SHARED)
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> Iterator[str]:
    """The URL of an initialised store that several processes can open."""
    with again(request.param, tmp_path) as url:
        with initialised(open_store(url, clock=clock)):
            pass
        yield url


@pytest.fixture
def child_env() -> dict[str, str]:
    """The environment of a child process that finds our modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
