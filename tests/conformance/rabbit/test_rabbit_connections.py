"""RabbitMQ's URLs, who is let in, TLS, forks, and what we make on the server."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mq import open_broker
from mq.rabbit import RabbitBroker
from mq.rabbit_link import Link
from mq.rabbit_url import read_url
from scheduler.core.errors import BrokerUnavailable, ConfigError
from scheduler.core.ports import REPORT_QUEUE, control_queue
from scripts.servers import Rabbit
from tests.certificate import make_certificate
from tests.conformance.rabbit.rabbit_words import (
    KINDS,
    LONG,
    UOW,
    bodies,
    fresh,
    next_of,
    out,
    until,
    vhost_of,
)

pytestmark = pytest.mark.servers


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


def test_closing_while_it_says_hello_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Its server listens and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = link_to(silent)
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(LONG)
            assert peer.recv(8) == b"AMQP\x00\x00\x09\x01"
            link.close()
            assert peer.recv(1) == b"", "the socket is closed, and not left to the garbage collector"
    assert not [record for record in caplog.records if not record.name.startswith("pika")]


def test_closing_while_it_connects_ends_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """Its server has no room for one more connection, and does not even say so."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        link = link_to(full)
        until(lambda: attempts(full) == 1, "it connects")
        link.close()
        assert attempts(full) == 0
    assert not [record for record in caplog.records if not record.name.startswith("pika")]


def link_to(server: socket.socket) -> Link:
    """A link to a server that is no RabbitMQ."""
    host, port = server.getsockname()
    url = f"amqp://guest:guest@{host}:{port}/"
    link = Link(read_url(url, url), "test", lambda connection: None, lambda reason: None)
    link.start()
    return link


def attempts(server: socket.socket) -> int:
    """How many sockets of this machine wait to be connected to it."""
    port = f":{server.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] == "02" for row in rows)  # SYN_SENT


def test_tls(node: Rabbit, opened: Callable[[str], RabbitBroker], tmp_path: Path) -> None:
    """Over a proxy that ends TLS: a certificate that is not trusted is refused."""
    key, certificate = make_certificate(tmp_path)
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
