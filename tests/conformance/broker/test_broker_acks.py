"""The contract of the `Consumer` port, against every adapter: what is held, given back, counted and dropped."""

from __future__ import annotations

import time

import pytest

from mq import open_broker
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Broker
from tests.conformance.broker.broker_words import LONG, bodies, out, uow, uows
from tests.conformance.broker_adapters import BrokerAdapter


def test_acked_messages_never_come_again(broker: Broker) -> None:
    broker.publish(out(1, 2))
    consumer = broker.consume(["work"], 5)
    consumer.ack(message.tag for message in consumer.receive(5, LONG))
    consumer.close()
    assert broker.consume(["work"], 5).receive(5, 0) == []
    assert broker.depth(["work"]) == {"work": 0}


def test_what_was_not_acked_is_given_back_on_close(broker: Broker) -> None:
    broker.publish(out(1, 2, 3))
    first = broker.consume(["work"], 5)
    messages = first.receive(5, LONG)
    assert not any(message.redelivered for message in messages)
    first.ack([messages[1].tag])
    first.close()
    again = broker.consume(["work"], 5).receive(5, LONG)
    assert bodies(again) == uows(1, 3)
    assert all(message.redelivered for message in again)


def test_closing_the_broker_closes_its_consumers(url: str, broker: Broker, adapter: BrokerAdapter) -> None:
    other = open_broker(url)
    other.publish(out(1))
    consumer = other.consume(["work"], 1)
    assert len(consumer.receive(1, LONG)) == 1
    other.close()
    other.close()
    if adapter.processes:  # else a broker ends with its object
        assert bodies(broker.consume(["work"], 1).receive(1, LONG)) == uows(1)
    with pytest.raises(BrokerUnavailable):
        consumer.receive(1, 0)
    with pytest.raises(BrokerUnavailable):
        other.publish(out(2))


def test_nacked_messages_are_for_somebody_else_at_once(broker: Broker) -> None:
    broker.publish(out(1))
    first, second = broker.consume(["work"], 1), broker.consume(["work"], 1)
    first.nack([first.receive(1, LONG)[0].tag])
    (message,) = second.receive(1, LONG)
    assert message.body == uow(1) and message.redelivered
    second.ack([message.tag])
    assert first.receive(1, 0) == []


def test_nack_keeps_the_place_in_the_order(broker: Broker, adapter: BrokerAdapter) -> None:
    broker.publish(out(1, 2, 3))
    consumer = broker.consume(["work"], 5)
    messages = consumer.receive(2, LONG)
    consumer.nack(message.tag for message in messages)
    received = bodies(consumer.receive(5, LONG))
    assert sorted(received) == uows(1, 2, 3)
    if adapter.strict:
        assert received == uows(1, 2, 3)


def test_foreign_and_repeated_tags_do_nothing(broker: Broker) -> None:
    broker.publish(out(1, 2))
    first, second = broker.consume(["work"], 1), broker.consume(["work"], 1)
    mine, theirs = first.receive(1, LONG)[0], second.receive(1, LONG)[0]
    second.ack([mine.tag])
    second.ack([theirs.tag, theirs.tag])
    second.nack([theirs.tag])
    assert second.receive(1, 0) == []
    first.close()
    assert bodies(second.receive(1, LONG)) == [mine.body]


def test_close_may_be_called_twice(broker: Broker) -> None:
    consumer = broker.consume(["work"], 1)
    consumer.close()
    consumer.close()


def test_depth_counts_what_waits(broker: Broker, adapter: BrokerAdapter) -> None:
    broker.publish(out(1, 2, 3))
    consumer = broker.consume(["work"], 1)
    (message,) = consumer.receive(1, LONG)
    assert broker.depth(["work"]) == {"work": 2}
    consumer.nack([message.tag])
    until = time.monotonic() + LONG
    while not adapter.prompt and broker.depth(["work"]) != {"work": 3} and time.monotonic() < until:
        pass
    assert broker.depth(["work"]) == {"work": 3}


def test_purge_drops_what_waits_in_one_queue(broker: Broker) -> None:
    broker.publish(out(1, 2, 3, queue="a") + out(4, queue="b"))
    consumer = broker.consume(["a"], 1)
    consumer.receive(1, LONG)
    assert broker.purge("a") == 2
    assert broker.purge("a") == 0
    assert broker.depth(["a", "b"]) == {"a": 0, "b": 1}
    consumer.close()
    assert bodies(broker.consume(["a"], 1).receive(1, LONG)) == uows(1), "what was taken is not purged"
