"""The broker suite against every adapter of `broker_adapters`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mq import open_broker
from scheduler.core.ports import Broker
from tests.conformance.broker.broker_words import Client
from tests.conformance.broker_adapters import ADAPTERS, BrokerAdapter


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test against every adapter; those with several processes only where there can be several."""
    if "adapter" in metafunc.fixturenames:
        several = "client" in metafunc.fixturenames
        adapters = [adapter for adapter in ADAPTERS if adapter.processes or not several]
        metafunc.parametrize(
            "adapter",
            [
                pytest.param(adapter, id=adapter.name, marks=[pytest.mark.servers] if adapter.servers else [])
                for adapter in adapters
            ],
        )


@pytest.fixture
def url(adapter: BrokerAdapter, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty broker."""
    with adapter.serve(tmp_path) as url:
        yield url


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    """A broker there."""
    broker = open_broker(url)
    yield broker
    broker.close()


@pytest.fixture
def client(url: str) -> Iterator[Callable[[], Client]]:
    """Starts processes that use the broker; they are killed at the end."""
    clients: list[Client] = []

    def start() -> Client:
        clients.append(Client(url))
        return clients[-1]

    yield start
    for one in clients:
        one.kill()
        assert one.process.stdin and one.process.stdout
        one.process.stdout.close()
        one.process.stdin.close()
