"""Fixtures of the conformance suites: each adapter of a port is one parameter.

A new adapter is one more entry of `STORES`: a function that gets a temporary folder and a clock and
gives the URL of an empty store. A server that is not there is a failure, not a skip.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from db import open_store
from scheduler.core.ports import Store

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


STORES: dict[str, Callable[[Path], str]] = {
    "sqlite-file": lambda folder: f"sqlite:///{folder}/the store.db",  # a blank in its name
    "sqlite-memory": lambda folder: "sqlite:///:memory:",
}
SHARED = [name for name in STORES if name != "sqlite-memory"]  # what several processes can open


@pytest.fixture
def clock() -> TestClock:
    """The clock of the store under test."""
    return TestClock()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> Iterator[Store]:
    """An empty store, once per adapter."""
    yield from _opened(STORES[request.param](tmp_path), clock)


@pytest.fixture(params=SHARED)
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> str:
    """The URL of an initialised store that several processes can open."""
    url = STORES[request.param](tmp_path)
    for _ in _opened(url, clock):
        pass
    return url


def _opened(url: str, clock: TestClock) -> Iterator[Store]:
    opened = open_store(url, clock=clock)
    opened.init()
    yield opened
    opened.close()


@pytest.fixture
def child_env() -> dict[str, str]:
    """The environment of a child process that finds our modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
