"""Words of the RabbitMQ suite: virtual hosts, messages by number, waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from mq.rabbit import RabbitBroker
from mq.rabbit_consumer import RabbitConsumer
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Message, Outgoing
from scripts.servers import Rabbit

LONG = 30.0  # seconds: as long as something that must come may take
KINDS = ["classic", "quorum"]
UOW = "hourly@2013070400#{}"


def vhost_of(url: str) -> str:
    """The virtual host of a URL."""
    return urlsplit(url).path[1:]


def fresh(node: Rabbit, options: str = "") -> str:
    """The URL of a new virtual host."""
    return node.fresh() + options


def out(*numbers: int, queue: str = "work", priority: int = 5) -> list[Outgoing]:
    """Messages by their numbers."""
    return [Outgoing(queue, UOW.format(n), priority) for n in numbers]


def bodies(messages: list[Message]) -> list[str]:
    """What messages say."""
    return [message.body for message in messages]


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that must come."""
    ends = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < ends, f"not in {LONG:g} s: {what}"
        threading.Event().wait(0.02)


def next_of(consumer: RabbitConsumer) -> Message:
    """The next message, however long it takes."""
    ends = time.monotonic() + LONG
    while time.monotonic() < ends:
        if messages := consumer.receive(1, 1.0):
            return messages[0]
    raise AssertionError("the consumer is deaf")


def published(broker: RabbitBroker, n: int) -> bool:
    """Whether the broker took a message."""
    try:
        broker.publish(out(n))
    except BrokerUnavailable:
        return False
    return True
