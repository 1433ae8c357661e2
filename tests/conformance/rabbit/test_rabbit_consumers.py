"""RabbitMQ's channels and subscriptions: ones that end are made again, and a consumer hoards nothing."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mq.rabbit import RabbitBroker
from scheduler.core.errors import BrokerUnavailable
from scripts.servers import Rabbit
from tests.conformance.rabbit.rabbit_words import (
    KINDS,
    LONG,
    UOW,
    bodies,
    fresh,
    next_of,
    out,
    published,
    until,
    vhost_of,
)

pytestmark = pytest.mark.servers


@contextmanager
def late_consumers_closed(node: Rabbit, after_ms: int) -> Iterator[None]:
    """Channels opened meanwhile are closed after so long without an ack."""
    try:
        node.control("eval", f"application:set_env(rabbit, consumer_timeout, {after_ms}).")
        yield
    finally:
        node.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_closed_by_consumer_timeout_is_noticed(
    node: Rabbit, opened: Callable[[str], RabbitBroker], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server closes the channel only, and says nothing on the connection: the consumer is not deaf."""
    with late_consumers_closed(node, 600):
        broker = opened(fresh(node, f"?queues={kind}"))
        consumer = broker.consume(["work"], 1)
        broker.publish(out(1))
        first = next_of(consumer)
        with caplog.at_level(logging.WARNING, "synergy.mq"):
            descriptor = consumer.fileno()
            assert descriptor is not None
            assert select.select([descriptor], [], [], LONG)[0], "it comes again by itself"
            again = next_of(consumer)
        assert again.body == first.body and again.redelivered
        consumer.ack([again.tag])
        broker.publish(out(2))
        assert next_of(consumer).body == UOW.format(2)
        assert any("timed out" in line and "consuming anew" in line for line in caplog.messages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_deleted_under_its_consumer_is_made_again(
    node: Rabbit, opened: Callable[[str], RabbitBroker], kind: str
) -> None:
    """The server sends `basic.cancel`."""
    url = fresh(node, f"?queues={kind}")
    broker = opened(url)
    consumer = broker.consume(["work"], 1)
    broker.publish(out(1))
    consumer.ack([next_of(consumer).tag])
    session = consumer._session
    node.delete_queue(url, f"synergy.{kind}.work")
    until(lambda: consumer.is_open and consumer._session is not session, "a new channel")
    until(lambda: published(broker, 2), "published")
    assert next_of(consumer).body == UOW.format(2)


def test_a_message_that_no_queue_takes_makes_its_queue(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """The publisher knew the queue, and somebody deleted it: mandatory messages come back."""
    url = fresh(node)
    broker = opened(url)
    broker.publish(out(1))
    node.delete_queue(url, "synergy.classic.work")
    broker.publish(out(2))
    assert bodies(broker.consume(["work"], 1).receive(1, LONG)) == [UOW.format(2)]


def test_a_queue_with_other_arguments_is_named(node: Rabbit, opened: Callable[[str], RabbitBroker]) -> None:
    url = fresh(node)
    node.ask("PUT", f"/api/queues/{vhost_of(url)}/synergy.classic.work", {"durable": True})
    broker = opened(url)
    for act in (lambda: broker.publish(out(1)), lambda: broker.consume(["work"], 1)):
        with pytest.raises(BrokerUnavailable, match=r"406 PRECONDITION_FAILED .*synergy\.classic\.work"):
            act()
    broker.publish(out(1, queue="other"))  # and the rest goes on


def test_a_busy_worker_hoards_no_messages(node: Rabbit, opened: Callable[[str], RabbitBroker]) -> None:
    """What its slots cannot start goes to another, although it acked what it had."""
    broker = opened(fresh(node))
    busy, idle = broker.consume(["work"], 1), broker.consume(["work"], 1)
    broker.publish(out(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mq.rabbit_consumer.KEEP_S", 0.1)
        first = [m for consumer in (busy, idle) for m in consumer.receive(1, 1.0)]
        owner = busy if busy._given else idle
        other = idle if owner is busy else busy
        owner.ack([first[0].tag])
        until(lambda: owner._session and not owner._session._outstanding, "its ack went out")
        broker.publish(out(2, 3))
        received = [next_of(other)]
        other.ack([received[0].tag])
        received.append(next_of(other))
        assert bodies(received) == [UOW.format(2), UOW.format(3)]


def test_an_ack_goes_out_while_the_work_runs(
    node: Rabbit, opened: Callable[[str], RabbitBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody asks the consumer for more; the server must not wait for the ack until somebody does."""
    with late_consumers_closed(node, 3000):
        broker = opened(fresh(node))
        consumer = broker.consume(["work"], 2)
        broker.publish(out(1, 2))
        messages = [next_of(consumer), next_of(consumer)]
        session = consumer._session
        assert session is not None
        consumer.ack(message.tag for message in messages)
        until(lambda: not session._outstanding, "both acks went out")
        assert consumer._session is session, caplog.text
        broker.publish(out(3))
        assert next_of(consumer).body == UOW.format(3)


def test_a_message_that_nobody_takes_goes_back(
    node: Rabbit, opened: Callable[[str], RabbitBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mq.rabbit_consumer.KEEP_S", 0.1)
    monkeypatch.setattr("mq.rabbit_consumer.GIVE_BACK_S", 0.3)
    broker = opened(fresh(node))
    consumer = broker.consume(["work"], 2)
    broker.publish(out(1, 2))
    consumer.ack([next_of(consumer).tag])
    until(lambda: broker.depth(["work"]) == {"work": 1}, "the second waits for others")
    assert next_of(consumer).body == UOW.format(2)


def test_a_thread_that_is_idle_for_longer_than_the_heartbeat(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """A server that hears nothing for two heartbeats closes; ours are sent by a thread of their own."""
    broker = opened(fresh(node, "?heartbeat=1"))
    consumer = broker.consume(["work"], 1)
    broker.publish(out(1))
    session = consumer._session
    threading.Event().wait(3.2)  # the one thing here that only time can show
    assert consumer._session is session
    assert next_of(consumer).body == UOW.format(1)


def test_a_foreign_message_goes_to_the_dead_ones(
    node: Rabbit, opened: Callable[[str], RabbitBroker], caplog: pytest.LogCaptureFixture
) -> None:
    url = fresh(node)
    broker = opened(url)
    broker.publish(out(1))
    vhost = vhost_of(url)
    foreign = {"properties": {}, "routing_key": "synergy.classic.work", "payload_encoding": "string"}
    node.ask("POST", f"/api/exchanges/{vhost}/amq.default/publish", {**foreign, "payload": "hello\nworld"})
    consumer = broker.consume(["work"], 5)
    assert bodies(consumer.receive(5, LONG)) == [UOW.format(1)]
    until(lambda: caplog.messages, "a line about it")
    (line,) = caplog.messages
    assert line.startswith("queue work: dropped") and "\n" not in line
    get = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
    until(lambda: node.ask("POST", f"/api/queues/{vhost}/synergy.dead/get", get), "it lies with the dead")
