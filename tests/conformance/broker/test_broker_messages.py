"""The contract of the `Broker` port, against every adapter: what is published comes, in its order, bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scheduler.core.errors import InvalidRequest
from scheduler.core.ports import Broker, Outgoing
from tests.conformance.broker.broker_words import LONG, Client, bodies, out, uow, uows
from tests.conformance.broker_adapters import BrokerAdapter


def test_a_message_published_before_any_consumer_is_delivered(broker: Broker) -> None:
    """Scenario 30."""
    broker.publish(out(1))
    consumer = broker.consume(["work"], 1)
    assert bodies(consumer.receive(1, LONG)) == uows(1)


def test_a_message_survives_its_publisher(client: Callable[[], Client]) -> None:
    """Scenario 30, between processes: neither worker nor queue nor publisher is there."""
    publisher = client()
    assert publisher.ask("publish", [["work", uow(1)]]) is None
    publisher.kill()
    worker = client()
    worker.ask("consume", ["work"], 1)
    assert worker.ask("receive", 1, LONG)[0][0] == uow(1)


def test_publishing_nothing_is_allowed(broker: Broker) -> None:
    broker.publish([])
    assert broker.depth(["work"]) == {"work": 0}


def test_highest_priority_first_then_oldest(broker: Broker) -> None:
    broker.publish(out(1, 2, priority=5) + out(3, priority=9) + out(4, priority=0))
    broker.publish(out(5, priority=9) + out(6, priority=5))
    consumer = broker.consume(["work"], 10)
    assert bodies(consumer.receive(10, LONG)) == uows(3, 5, 1, 2, 6, 4)


def test_priority_and_age_count_across_queues(broker: Broker) -> None:
    broker.publish(out(1, queue="a") + out(2, queue="b") + out(3, queue="a"))
    broker.publish(out(4, queue="b", priority=10))
    consumer = broker.consume(["a", "b"], 10)
    received = [message for _ in range(4) for message in consumer.receive(1, LONG)]
    assert bodies(received) == uows(4, 1, 2, 3)


def test_an_urgent_message_overtakes_what_waits(broker: Broker, adapter: BrokerAdapter) -> None:
    broker.publish(out(*range(1, 6)))
    consumer = broker.consume(["work"], 1)
    consumer.ack(message.tag for message in consumer.receive(1, LONG))
    broker.publish(out(9, priority=6))
    assert bodies(consumer.receive(1, LONG)) == uows(9 if adapter.priorities else 2)


def test_receive_gives_no_more_than_its_limit(broker: Broker) -> None:
    broker.publish(out(*range(1, 6)))
    consumer = broker.consume(["work"], 10)
    assert bodies(consumer.receive(3, LONG)) == uows(1, 2, 3)
    assert bodies(consumer.receive(3, LONG)) == uows(4, 5)
    assert consumer.receive(3, 0) == []


def test_prefetch_bounds_what_is_not_acked(broker: Broker) -> None:
    broker.publish(out(*range(1, 7)))
    consumer = broker.consume(["work"], 4)
    first = consumer.receive(10, LONG)
    assert bodies(first) == uows(1, 2, 3, 4)
    assert consumer.receive(10, 0) == []
    consumer.ack([first[0].tag])
    assert bodies(consumer.receive(10, LONG)) == uows(5)
    consumer.ack([first[1].tag])
    consumer.nack([first[3].tag])
    assert len(consumer.receive(10, LONG)) == 2


def test_queues_are_separate(broker: Broker) -> None:
    broker.publish(out(1, queue="a") + out(2, queue="b"))
    assert bodies(broker.consume(["b"], 5).receive(5, LONG)) == uows(2)
    assert broker.depth(["a", "b", "none"]) == {"a": 1, "b": 0, "none": 0}


def test_receive_returns_empty_after_its_timeout(broker: Broker) -> None:
    consumer = broker.consume(["work"], 1)
    assert consumer.receive(1, 0) == []
    assert consumer.receive(1, 0.01) == []


def test_names_beyond_ascii(broker: Broker) -> None:
    body = uow(1, "größe-时间-🕐")
    broker.publish([Outgoing("очередь é", body)])
    assert bodies(broker.consume(["очередь é"], 1).receive(1, LONG)) == [body]


def test_the_longest_body(broker: Broker) -> None:
    tail = "@2013070400#1"
    body = "ß" * (255 - len(tail)) + tail
    broker.publish([Outgoing("work", body)])
    assert bodies(broker.consume(["work"], 1).receive(1, LONG)) == [body]


@pytest.mark.parametrize(
    "message",
    [
        Outgoing("work", ""),
        Outgoing("work", "hourly"),
        Outgoing("work", "hourly@2013070400#0"),
        Outgoing("work", "hourly@2013070400#1\n"),
        Outgoing("work", "a b@2013070400#1"),
        Outgoing("work", "\udc80@2013070400#1"),
        Outgoing("\udc80" * 99, uow(1)),
        Outgoing("work", "h" * 250 + "@2013070400#1"),
        Outgoing("", uow(1)),
        Outgoing("a\nb", uow(1)),
        Outgoing("q" * 256, uow(1)),
        Outgoing("work", uow(1), 11),
        Outgoing("work", uow(1), -1),
    ],
)
def test_a_malformed_message_is_refused_with_its_batch(broker: Broker, message: Outgoing) -> None:
    with pytest.raises(InvalidRequest) as caught:
        broker.publish([*out(1), message])
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    assert broker.depth(["work"]) == {"work": 0}


def test_ten_thousand_messages(broker: Broker) -> None:
    for start in range(1, 10_001, 1000):
        broker.publish(out(*range(start, start + 1000)))
    assert broker.depth(["work"]) == {"work": 10_000}
    consumer = broker.consume(["work"], 500)
    received: list[str] = []
    while messages := consumer.receive(500, 0 if len(received) == 10_000 else LONG):
        received += bodies(messages)
        consumer.ack(message.tag for message in messages)
    assert received == uows(*range(1, 10_001))
