"""The contract of the `Consumer` port, against every adapter: what ends a wait, and that nothing else does."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

from mq import open_broker
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Broker
from tests.conformance.broker.broker_words import LONG, Client, bodies, out, uow, uows
from tests.conformance.broker_adapters import BrokerAdapter


def in_thread(act: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `act` in a thread; its result is put into the list."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(act()))
    thread.start()
    return thread, result


def test_a_waiting_receive_gets_what_is_published(broker: Broker) -> None:
    consumer = broker.consume(["work", "control.w1"], 5)
    thread, result = in_thread(lambda: consumer.receive(5, LONG))
    broker.publish(out(1, queue="control.w1"))
    thread.join(LONG)
    assert bodies(result[0]) == uows(1)


def test_wake_ends_a_waiting_receive(broker: Broker) -> None:
    consumer = broker.consume(["work"], 5)
    thread, result = in_thread(lambda: consumer.receive(5, LONG))
    consumer.wake()
    thread.join(LONG)
    assert result == [[]]


def test_a_wake_before_receive_is_not_lost(broker: Broker) -> None:
    consumer = broker.consume(["work"], 5)
    consumer.wake()
    assert consumer.receive(5, 10 * LONG) == []


def test_wake_is_heard_behind_any_number_of_messages(broker: Broker) -> None:
    """However full the bell's buffer is."""
    consumer = broker.consume(["work"], 1)
    assert consumer.receive(1, 0) == []
    for n in range(1, 1001):
        broker.publish(out(n))
    assert len(consumer.receive(1, LONG)) == 1  # now prefetch is full
    for n in range(1001, 2001):
        broker.publish(out(n))
    consumer.wake()
    assert consumer.receive(1, 10 * LONG) == []


def test_nudge_ends_a_waiting_receive_without_a_message(broker: Broker) -> None:
    consumer = broker.consume(["work"], 5)
    thread, result = in_thread(lambda: consumer.receive(5, LONG))
    broker.nudge("other")
    broker.nudge("work")
    thread.join(LONG)
    assert result == [[]]
    assert broker.depth(["work"]) == {"work": 0}


def test_nudging_nobody_is_harmless(broker: Broker) -> None:
    broker.nudge("work")
    assert broker.consume(["work"], 1).receive(1, 0) == []


def test_a_full_consumer_still_hears_wake(broker: Broker) -> None:
    broker.publish(out(1, 2))
    consumer = broker.consume(["work"], 1)
    assert len(consumer.receive(5, LONG)) == 1
    thread, result = in_thread(lambda: consumer.receive(5, LONG))
    consumer.wake()
    thread.join(LONG)
    assert result == [[]]


def test_closing_the_broker_ends_a_waiting_receive(url: str) -> None:
    broker = open_broker(url)
    consumer = broker.consume(["work"], 5)
    began = threading.Event()

    def receive() -> Any:
        began.set()
        try:
            return consumer.receive(5, LONG)
        except BrokerUnavailable:  # it had not begun to wait
            return []

    thread, result = in_thread(receive)
    began.wait(LONG)
    broker.close()
    thread.join(LONG)
    assert result == [[]]


def test_fileno_becomes_readable(broker: Broker, adapter: BrokerAdapter) -> None:
    consumer = broker.consume(["work"], 5)
    descriptor = consumer.fileno()
    assert (descriptor is not None) == adapter.descriptor
    if descriptor is None:
        return
    broker.publish(out(1))
    assert select.select([descriptor], [], [], LONG)[0]
    assert bodies(consumer.receive(5, LONG)) == uows(1)


def test_publish_wakes_a_consumer_in_another_process(broker: Broker, client: Callable[[], Client]) -> None:
    worker = client()
    worker.ask("consume", ["work"], 1)
    assert worker.ask("waiting", 1, LONG) == "waiting"
    broker.publish(out(1))
    assert worker.answer()[0][0] == uow(1)


def test_nudge_reaches_another_process(broker: Broker, client: Callable[[], Client]) -> None:
    worker = client()
    worker.ask("consume", ["work"], 1)
    assert worker.ask("waiting", 1, LONG) == "waiting"
    broker.nudge("work")
    assert worker.answer() == []
