"""The contract of the `Broker` port between threads and processes, some of them killed: no doubles, no losses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from scheduler.core.ports import Broker
from tests.conformance.broker.broker_words import LONG, Client, bodies, out, uow, uows
from tests.conformance.broker_adapters import BrokerAdapter


def test_threads_share_a_broker(broker: Broker) -> None:
    """Four publish, four consume: each message comes once."""
    everything = [uow(n) for n in range(1, 801)]
    received: list[str] = []
    complete = threading.Event()

    def publish(part: int) -> None:
        for n in range(part * 200 + 1, part * 200 + 201):
            broker.publish(out(n))

    def consume() -> None:
        consumer = broker.consume(["work"], 10)
        while not complete.is_set():
            messages = consumer.receive(10, 0.05)
            received.extend(bodies(messages))
            consumer.ack(message.tag for message in messages)
            if len(received) >= len(everything):
                complete.set()
        consumer.close()

    threads = [threading.Thread(target=consume) for _ in range(4)]
    threads += [threading.Thread(target=publish, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * LONG)
    assert Counter(received) == Counter(everything)


def test_processes_compete_without_doubles_or_losses(
    broker: Broker, client: Callable[[], Client], adapter: BrokerAdapter
) -> None:
    empty_s = 0 if adapter.prompt else 2
    everything = [uow(n) for n in range(1, 2001)]
    clients = [client() for _ in range(3)]
    for one in clients:
        one.ask("consume", ["work"], 10)
    broker.publish(out(*range(1, 1001)))
    for one in clients:
        one.tell("drain", empty_s)
    for n in range(1001, 2001):  # while they drain
        broker.publish(out(n))
    received = [body for one in clients for body in one.answer()]
    received += [body for one in clients for body in one.ask("drain", empty_s)]
    assert Counter(received) == Counter(everything)


def test_publishers_in_many_processes(client: Callable[[], Client], broker: Broker) -> None:
    clients = [client() for _ in range(3)]
    for part, one in enumerate(clients):
        for n in range(50):
            one.tell("publish", [["work", uow(part * 50 + n + 1)]])
    for one in clients:
        assert [one.answer() for _ in range(50)] == [None] * 50
    received = bodies(broker.consume(["work"], 200).receive(200, LONG))
    assert sorted(received) == sorted(uows(*range(1, 151)))
    for part in range(3):
        mine = uows(*range(part * 50 + 1, part * 50 + 51))
        assert [body for body in received if body in mine] == mine, "first in, first out for each publisher"


def test_what_a_killed_consumer_held_is_delivered_again(broker: Broker, client: Callable[[], Client]) -> None:
    broker.publish(out(1, 2, 3))
    victim = client()
    victim.ask("consume", ["work"], 2)
    assert len(victim.ask("receive", 2, LONG)) == 2
    victim.kill()
    again = broker.consume(["work"], 5).receive(5, LONG)
    assert bodies(again) == uows(1, 2, 3)
    assert [message.redelivered for message in again] == [True, True, False]


def test_a_waiting_consumer_gets_what_a_killed_one_held(broker: Broker, client: Callable[[], Client]) -> None:
    broker.publish(out(1))
    victim, heir = client(), client()
    victim.ask("consume", ["work"], 1)
    assert len(victim.ask("receive", 1, LONG)) == 1
    heir.ask("consume", ["work"], 1)
    assert heir.ask("waiting", 1, LONG) == "waiting"
    victim.kill()
    assert heir.answer()[0][0] == uow(1)


def test_the_acks_of_a_killed_consumer_hold(broker: Broker, client: Callable[[], Client]) -> None:
    """An ack that was followed by a receive is written."""
    broker.publish(out(1, 2))
    victim = client()
    victim.ask("consume", ["work"], 1)
    victim.ask("ack", [victim.ask("receive", 1, LONG)[0][1]])
    victim.ask("receive", 1, LONG)
    victim.kill()
    consumer = broker.consume(["work"], 5)
    assert bodies(consumer.receive(5, LONG)) == uows(2)
    assert consumer.receive(5, 0) == []


def test_killing_workers_at_any_moment_loses_nothing(
    broker: Broker, client: Callable[[], Client], adapter: BrokerAdapter
) -> None:
    everything = [uow(n) for n in range(1, 1501)]
    broker.publish(out(*range(1, 1501)))
    for _ in range(3):
        victim = client()
        victim.ask("consume", ["work"], 50)
        # 7 taken and never acked; what is drained after them is gone for good, wherever the kill comes
        assert len(victim.ask("receive", 7, LONG)) == 7
        victim.kill()
    victims = [client() for _ in range(2)]
    for victim in victims:
        victim.ask("consume", ["work"], 50)
        victim.tell("receive", 50, LONG)
        victim.kill()  # somewhere inside
    consumer = broker.consume(["work"], 2000)
    received: list[str] = []
    while len(received) < len(everything) and (messages := consumer.receive(2000, LONG)):
        received += bodies(messages)
        consumer.ack(message.tag for message in messages)
    assert Counter(received) == Counter(everything)
    assert consumer.receive(2000, 0 if adapter.prompt else 0.5) == []


def test_what_a_killed_publisher_had_confirmed_is_there(broker: Broker, client: Callable[[], Client]) -> None:
    publisher = client()
    for n in range(200):
        publisher.tell("publish", [["work", uow(n * 10 + i)] for i in range(1, 11)])
    for _ in range(20):
        assert publisher.answer() is None
    publisher.kill()
    received: list[str] = []
    consumer = broker.consume(["work"], 5000)
    while len(received) < 200 and (messages := consumer.receive(5000, LONG)):
        received += bodies(messages)
    assert received[:200] == uows(*range(1, 201))
    broker.publish(out(1, queue="b"))
    assert bodies(broker.consume(["b"], 1).receive(1, LONG)) == uows(1), "and all goes on"
