"""Every sentence of the `Broker` and `Consumer` ports, against every adapter of `broker_adapters`."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mq import open_broker
from scheduler.core.errors import BrokerUnavailable, ConfigError, InvalidRequest
from scheduler.core.ports import Broker, Message, Outgoing
from tests.conformance.broker_adapters import ADAPTERS, BrokerAdapter

LONG = 20.0  # seconds: as long as something that must come may take; never waited for when all is well
ROOT = Path(__file__).parents[2]


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
    with adapter.serve(tmp_path) as url:
        yield url


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    broker = open_broker(url)
    yield broker
    broker.close()


class Client:
    """A `broker_client` process."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.broker_client", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def tell(self, *request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *request: Any) -> Any:
        self.tell(*request)
        return self.answer()

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def client(url: str) -> Iterator[Callable[[], Client]]:
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


def uow(n: int, process: str = "hourly") -> str:
    return f"{process}@2013070400#{n}"


def out(*numbers: int, queue: str = "work", priority: int = 5) -> list[Outgoing]:
    return [Outgoing(queue, uow(n), priority) for n in numbers]


def bodies(messages: list[Message]) -> list[str]:
    return [message.body for message in messages]


def uows(*numbers: int) -> list[str]:
    return [uow(n) for n in numbers]


# publish and receive


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


# ack, nack, close


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


# waking


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


# depth and purge


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


# several threads and processes


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
    empty_s = 0 if adapter.prompt else 0.5
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


def test_killing_workers_at_any_moment_loses_nothing(broker: Broker, client: Callable[[], Client]) -> None:
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
    while messages := consumer.receive(2000, 0):
        received += bodies(messages)
        consumer.ack(message.tag for message in messages)
    assert Counter(received) == Counter(everything)


def test_what_a_killed_publisher_had_confirmed_is_there(broker: Broker, client: Callable[[], Client]) -> None:
    publisher = client()
    for n in range(200):
        publisher.tell("publish", [["work", uow(n * 10 + i)] for i in range(1, 11)])
    for _ in range(20):
        assert publisher.answer() is None
    publisher.kill()
    received: list[str] = []
    consumer = broker.consume(["work"], 5000)
    while messages := consumer.receive(5000, 0):
        received += bodies(messages)
    assert received[:200] == uows(*range(1, 201))
    broker.publish(out(1, queue="b"))
    assert bodies(broker.consume(["b"], 1).receive(1, LONG)) == uows(1), "and all goes on"


# opening


@pytest.mark.parametrize(
    "url",
    [
        "",
        "queue",
        "kafka://host",
        "embedded://",
        "embedded:queue",
        "embedded://relative/path",
        "embedded:///tmp/",
        "embedded:////",
    ],
)
def test_a_url_that_names_no_broker(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_an_unknown_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker("nats://me:secret@host/x")
    assert "secret" not in str(caught.value)
