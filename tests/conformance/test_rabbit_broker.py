"""What only RabbitMQ has to show: restarts, cut connections, closed channels, ended subscriptions, TLS, forks."""

from __future__ import annotations

import logging
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mq import open_broker
from mq.rabbit import RabbitBroker
from mq.rabbit_consumer import RabbitConsumer
from scheduler.core.errors import BrokerUnavailable, ConfigError
from scheduler.core.ports import REPORT_QUEUE, Message, Outgoing, control_queue
from scheduler.core.process import managed
from scripts.servers import Rabbit, free_port, rabbitmq
from tests.cut_proxy import CutProxy
from tests.world import World

pytestmark = pytest.mark.servers
LONG = 30.0
KINDS = ["classic", "quorum"]
UOW = "hourly@2013070400#{}"


def vhost_of(url: str) -> str:
    return urlsplit(url).path[1:]


@pytest.fixture(scope="module")
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


def fresh(node: Rabbit, options: str = "") -> str:
    """The URL of a new virtual host."""
    return node.fresh() + options


def through(proxy: CutProxy, url: str) -> str:
    """The same by way of the proxy."""
    return re.sub(r"@[^/]+/", f"@127.0.0.1:{proxy.port}/", url)


@contextmanager
def late_consumers_closed(node: Rabbit, after_ms: int) -> Iterator[None]:
    """Channels opened meanwhile are closed after so long without an ack."""
    try:
        node.control("eval", f"application:set_env(rabbit, consumer_timeout, {after_ms}).")
        yield
    finally:
        node.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")


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


def out(*numbers: int, queue: str = "work", priority: int = 5) -> list[Outgoing]:
    return [Outgoing(queue, UOW.format(n), priority) for n in numbers]


def bodies(messages: list[Message]) -> list[str]:
    return [message.body for message in messages]


def until(condition: Callable[[], Any], what: str) -> None:
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


# the server goes and comes


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
    world.engine.broker = broker
    consumer = broker.consume(["default"], 1)
    broker.publish(out(*range(1, 51), queue="default"))
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


# connections that are cut


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


def published(broker: RabbitBroker, n: int) -> bool:
    try:
        broker.publish(out(n))
    except BrokerUnavailable:
        return False
    return True


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


# channels and subscriptions that end


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


# what a consumer holds


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


# what lies on the server


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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_on_the_server(node: Rabbit, opened: Callable[[str], RabbitBroker], kind: str) -> None:
    """Durable queues whose name carries their kind; a worker's own goes by itself; nothing that RabbitMQ 4 refuses."""
    url = fresh(node, f"?queues={kind}")
    broker = opened(url)
    consumer = broker.consume(["work", control_queue("box/w1@1")], 1)
    broker.publish(out(1, queue=REPORT_QUEUE))
    found = node.ask("GET", f"/api/queues/{vhost_of(url)}?disable_stats=true&enable_queue_totals=true")
    assert isinstance(found, list)
    lasting = {queue["name"]: queue for queue in found if not queue["exclusive"]}
    control = "synergy.control.box/w1@1"
    assert set(lasting) == {f"synergy.{kind}.work", f"synergy.{kind}.report", control, "synergy.dead"}
    assert all(queue["durable"] and not queue["auto_delete"] for queue in lasting.values())
    assert lasting[f"synergy.{kind}.work"]["arguments"]["x-queue-type"] == kind
    assert lasting[control]["arguments"]["x-expires"] == 1800_000
    assert len(found) == len(lasting) + 1, "and the consumer's bell"
    consumer.close()


def test_the_longest_name_of_a_queue(node: Rabbit, opened: Callable[[str], RabbitBroker]) -> None:
    names = ["ü" * 127, "ü" * 126 + "a"]
    broker = opened(fresh(node))
    for n, name in enumerate(names, 1):
        broker.publish(out(n, queue=name))
    for n, name in enumerate(names, 1):
        assert bodies(broker.consume([name], 1).receive(1, LONG)) == [UOW.format(n)]


# opening


@pytest.mark.parametrize(
    ("account", "vhost", "what"),
    [
        ("guest:secret", "", "user 'guest' was refused"),
        ("nobody:secret", "", "user 'nobody' was refused"),
        ("guest:guest", "nowhere", "virtual host 'nowhere'"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    node: Rabbit, opened: Callable[[str], RabbitBroker], account: str, vhost: str, what: str
) -> None:
    broker = opened(f"amqp://{account}@127.0.0.1:{node.port}/{vhost}")
    for act in (lambda: broker.publish(out(1)), lambda: broker.consume(["work"], 1)):
        with pytest.raises(BrokerUnavailable) as caught:
            act()
        text = str(caught.value)
        assert what in text and "\n" not in text and "secret" not in text


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("amqp://", "expected amqp://user"),
        ("amqp://u:secret@h/v?tls=1", "unknown option 'tls'"),
        ("amqp://u:secret@h/v?queues=mirrored", "expected classic or quorum"),
        ("amqp://u:secret@h/v?heartbeat=0", "from 1 to 3600"),
        ("amqp://u:secret@h/a/b", "one virtual host"),
        ("amqp://u:secret@h:port/", "'h:port' is no host"),
        ("amqp://u:secret@h,/", "'' is no host"),
        ("amqp://u:secret@h/?ca=/tmp/x", "expected amqps://"),
        ("amqps://u:secret@h/?ca=/nowhere/ca.pem", "no such file"),
    ],
)
def test_a_url_that_is_wrong(url: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    text = str(caught.value)
    assert what in text and "\n" not in text and "secret" not in text


def test_what_a_url_may_say() -> None:
    broker = open_broker("amqp://a%40b:p%2Fw@h1,[::1]:7/x%2Fy?queues=quorum&heartbeat=9&timeout=0.5")
    assert isinstance(broker, RabbitBroker)
    server = broker.server
    assert (server.user, server.password, server.vhost) == ("a@b", "p/w", "x/y")
    assert server.hosts == (("h1", 5672), ("::1", 7))
    assert (server.kind, server.heartbeat, server.timeout_s) == ("quorum", 9, 0.5)
    assert "p/w" not in repr(server)
    broker.close()


def test_tls(node: Rabbit, opened: Callable[[str], RabbitBroker], tmp_path: Path) -> None:
    """Over a proxy that ends TLS: a certificate that is not trusted is refused."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "openssl makes the certificate of this test"
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([openssl, *words.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def pipe(source: Any, sink: Any) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def serve() -> None:
        while True:
            try:
                client = context.wrap_socket(listener.accept()[0], server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", node.port))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pipe, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    vhost = vhost_of(fresh(node))
    try:
        broker = opened(f"amqps://guest:guest@localhost:{port}/{vhost}?ca={certificate}")
        broker.publish(out(1))
        assert bodies(broker.consume(["work"], 1).receive(1, LONG)) == [UOW.format(1)]
        stranger = opened(f"amqps://guest:guest@localhost:{port}/{vhost}")
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
            stranger.publish(out(2))
        broker.close()
    finally:
        listener.close()


def test_a_forked_child_has_connections_of_its_own(
    node: Rabbit, opened: Callable[[str], RabbitBroker]
) -> None:
    broker = opened(fresh(node))
    consumer = broker.consume(["work"], 5)
    broker.publish(out(1))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "?"
        try:
            try:
                consumer.receive(1, 0)
            except BrokerUnavailable:
                broker.publish(out(2))
                answer = "published"
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "published"
    assert {next_of(consumer).body, next_of(consumer).body} == {UOW.format(1), UOW.format(2)}
    broker.publish(out(3))
    assert next_of(consumer).body == UOW.format(3)
