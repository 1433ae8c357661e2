"""RabbitMQ goes and comes, falls silent, has an alarm, or its connections are cut: nothing saved is lost."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from mq.rabbit import RabbitBroker
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Outgoing
from scheduler.core.process import managed
from scheduler.outbox import Outbox
from scripts.servers import Rabbit, free_port
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
from tests.cut_proxy import CutProxy
from tests.world import World

pytestmark = pytest.mark.servers


def through(proxy: CutProxy, url: str) -> str:
    """The same by way of the proxy."""
    return re.sub(r"@[^/]+/", f"@127.0.0.1:{proxy.port}/", url)


@pytest.mark.parametrize("kind", KINDS)
def test_31_nothing_saved_is_lost_over_a_restart_of_the_server(
    node: Rabbit, opened: Callable[[str], RabbitBroker], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 31: who publishes again what was not confirmed loses nothing, and the consumer resumes by itself."""
    broker = opened(fresh(node, f"?queues={kind}&timeout=1"))
    everything = [UOW.format(n) for n in range(1, 401)]
    consumer = broker.consume(["work"], 10)
    received: set[str] = set()
    complete = threading.Event()

    def consume() -> None:
        while not complete.is_set():
            messages = consumer.receive(10, 0.5)
            received.update(bodies(messages))
            consumer.ack(message.tag for message in messages)
            if len(received) == len(everything):
                complete.set()

    def publish() -> None:
        for body in everything:
            while not complete.is_set():
                try:
                    broker.publish([Outgoing("work", body)])
                    break
                except BrokerUnavailable:
                    complete.wait(0.05)
            if body == everything[100]:
                half.set()

    half = threading.Event()
    threads = [threading.Thread(target=act) for act in (consume, publish)]
    with caplog.at_level(logging.INFO, "synergy.mq"):
        for thread in threads:
            thread.start()
        assert half.wait(LONG)
        node.stop()
        node.start()
        assert complete.wait(3 * LONG), f"{len(received)} of {len(everything)} came"
        for thread in threads:
            thread.join(LONG)
    lines = [record.getMessage() for record in caplog.records if record.name == "synergy.mq"]
    assert any("is back after" in line for line in lines)
    assert len(lines) <= 16, "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_30_a_message_waits_for_the_first_worker(
    node: Rabbit, opened: Callable[[str], RabbitBroker], kind: str
) -> None:
    """Scenario 30: when it is published there is neither worker nor queue, and its publisher is gone."""
    url = fresh(node, f"?queues={kind}")
    publisher = opened(url)
    publisher.publish(out(1))
    publisher.close()
    assert bodies(opened(url).consume(["work"], 1).receive(1, LONG)) == [UOW.format(1)]


def test_31_the_server_is_killed_and_started_again(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """Scenario 31: a unit of work that could not be published stays saved, and goes out without a restart."""
    broker = opened(fresh(node, "?timeout=1"))
    world = World([managed("hourly", "m:f", "hourly", lag_s=0)], start="2020050100", now="2020-05-01T00:30")
    world.engine.outbox = Outbox(broker, world.clock, world.clock.real)
    consumer = broker.consume(["default"], 1)
    broker.publish(out(*range(1, 51), queue="default"))
    node.write_down()  # the queue; else it may be gone with what it holds
    node.kill()
    world.go("2020-05-01T01:10")
    (uow,) = world.open_uows("hourly")
    node.start()
    expected = {uow.id, *(UOW.format(n) for n in range(1, 51))}
    received: set[str] = set()
    ends = time.monotonic() + LONG
    while received != expected and time.monotonic() < ends:
        world.wait(2)
        for message in consumer.receive(1, 0.2):
            received.add(message.body)
            consumer.ack([message.tag])
    assert received == expected, "what was confirmed survives `kill -9` of the server"


def test_a_connection_cut_after_the_server_applied_a_publish(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """It is not known whether the message is there; publishing again makes a double at most."""
    url = fresh(node)
    with CutProxy("127.0.0.1", node.port) as proxy:
        broker = opened(through(proxy, url + "?timeout=5"))
        broker.publish(out(1))
        proxy.drop_reply_to(UOW.format(2).encode())
        with pytest.raises(BrokerUnavailable, match="messages are open"):
            broker.publish(out(2))
        assert proxy.cut.is_set()
        until(lambda: opened(url).depth(["work"]) == {"work": 2}, "the server has it")
        until(lambda: published(broker, 2), "published again over a new connection")
        received = bodies(broker.consume(["work"], 5).receive(5, LONG))
        assert received == [UOW.format(1), UOW.format(2), UOW.format(2)]


def test_a_server_that_falls_silent_holds_nobody_for_long(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """Half-open: the connection stands, and nothing comes any more."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    broker = opened(f"amqp://guest:guest@127.0.0.1:{port}/?timeout=0.3")
    with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.3 s"):
        broker.publish(out(1))
    with pytest.raises(BrokerUnavailable):
        broker.consume(["work"], 1)
    broker.nudge("work")  # is lost, and says nothing
    silent.close()


def test_a_server_that_stands_still_while_we_publish(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    """The connection is open, and no confirm comes: the publisher waits for its time-out and no longer."""
    broker = opened(fresh(node, "?timeout=1"))
    broker.publish(out(1))
    node.pause()
    try:
        with pytest.raises(BrokerUnavailable, match="no confirm came within 1 s"):
            broker.publish(out(2))
        with pytest.raises(BrokerUnavailable):
            broker.depth(["work"])
    finally:
        node.resume()
    until(lambda: published(broker, 2), "it goes on")
    assert UOW.format(2) in bodies(broker.consume(["work"], 9).receive(9, LONG))


def test_a_server_with_an_alarm_takes_no_messages(
    node: Rabbit, opened: Callable[[str], RabbitBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """It blocks whoever publishes; nobody hangs, consuming goes on, and publishing too when the alarm is over."""
    broker = opened(fresh(node, "?timeout=5"))
    broker.publish(out(1))
    consumer = broker.consume(["work"], 9)
    try:
        node.control("set_vm_memory_high_watermark", "absolute", "1MB")
        until(lambda: not published(broker, 2), "the alarm is raised")
        with pytest.raises(BrokerUnavailable, match="takes no messages"):
            broker.publish(out(1000))
        assert next_of(consumer).body == UOW.format(1)
    finally:
        node.control("set_vm_memory_high_watermark", "absolute", "512MB")
    until(lambda: published(broker, 1001), "it goes on")
    assert sum("messages" in line for line in caplog.messages) <= 4


def test_the_consumer_resumes_after_a_cut_and_old_acks_are_ignored(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    url = fresh(node)
    with CutProxy("127.0.0.1", node.port) as proxy:
        consumer = opened(through(proxy, url)).consume(["work"], 1)
        other = opened(url)
        other.publish(out(1))
        first = next_of(consumer)
        proxy.cut_all()
        again = next_of(consumer)
        assert again.body == first.body and again.redelivered
        consumer.ack([first.tag])
        consumer.ack([again.tag])
        other.publish(out(2))
        assert next_of(consumer).body == UOW.format(2)


def test_the_second_host_is_taken_when_the_first_is_away(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{node.port}"
    vhost = vhost_of(fresh(node))
    broker = opened(f"amqp://guest:guest@{hosts}/{vhost}")
    broker.publish(out(1))
    assert bodies(broker.consume(["work"], 1).receive(1, LONG)) == [UOW.format(1)]
