"""A RabbitMQ node of our own, and brokers on it that are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mq import open_broker
from mq.rabbit import RabbitBroker
from scripts.servers import Rabbit, rabbitmq


@pytest.fixture(scope="session")
def one_node() -> Iterator[Rabbit]:
    """A node of our own: it is stopped, started, and set anew."""
    with rabbitmq() as node:
        yield node


@pytest.fixture
def node(one_node: Rabbit) -> Rabbit:
    """The node, running."""
    if not one_node.is_running:
        one_node.start()
    return one_node


@pytest.fixture
def opened() -> Iterator[Callable[[str], RabbitBroker]]:
    """Opens brokers, and closes them at the end."""
    brokers: list[RabbitBroker] = []

    def open_one(url: str) -> RabbitBroker:
        broker = open_broker(url)
        assert isinstance(broker, RabbitBroker)
        brokers.append(broker)
        return broker

    yield open_one
    for broker in brokers:
        broker.close()
