"""A scheduler and a worker of two successive message versions work together; what is later still is kept.

The next version is made up here: today's is the first. What of it we must read is what a scheduler sends that is
one version newer than this worker; a worker that is newer reads today's as it reads every older one.
"""

from __future__ import annotations

import logging

import pytest

from mq import envelope, open_broker
from scheduler.core.ports import Broker, Outgoing

ID = "hourly@2013070400#1"
NEXT = f"v{envelope.NEWEST} {ID} priority=5 é"
LATER = f"v{envelope.NEWEST + 1} {ID}"


@pytest.mark.parametrize("body", [ID, f"v{envelope.NEWEST} {ID}", NEXT, NEXT.encode()])
def test_this_version_and_the_next_are_read(body: object) -> None:
    assert envelope.unseal(body) == ID


def test_what_we_send_is_what_the_version_before_reads() -> None:
    """Version 1 reads the bare id; so as long as we write it, every worker there ever was understands."""
    assert envelope.VERSION == 1
    assert envelope.seal(Outgoing("work", ID)).body == ID


@pytest.mark.parametrize(
    "body",
    [
        LATER,
        f"v1 {ID}",
        f"v0 {ID}",
        f"v02 {ID}",
        f"v2  {ID}",
        f"v2 {ID}\n",
        "v2",
        "v2 x",
        f"V2 {ID}",
        f"v{'9' * 50} {ID}",
        f"v2 {ID} " + "x" * 5000,
        f"v2 {'x' * 300}@1#1",
    ],
)
def test_what_is_not_known_is_refused(body: str) -> None:
    assert envelope.unseal(body) is None
    line = envelope.refusal("work", body)
    assert "\n" not in line and len(line) < 400


def test_the_reason_names_the_version() -> None:
    line = envelope.refusal("work", LATER.encode())
    assert f"message version {envelope.NEWEST + 1}, this program reads up to {envelope.NEWEST}" in line
    assert ID in line


def sent_raw(broker: Broker, monkeypatch: pytest.MonkeyPatch, *bodies: str) -> None:
    """As a scheduler of another version sends."""
    with monkeypatch.context() as other:
        other.setattr(envelope, "seal", lambda message: message)
        broker.publish([Outgoing("work", body) for body in bodies])


def test_over_a_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker of the version before works for a newer scheduler; what it cannot read stops nothing."""
    with caplog.at_level(logging.ERROR, "synergy.mq"):
        consumer = broker.consume(["work"], 5)
        sent_raw(broker, monkeypatch, LATER, NEXT, ID)
        found: list[str] = []
        while len(found) < 2:
            messages = consumer.receive(5, 10)
            assert messages
            found += [message.body for message in messages]
            consumer.ack([message.tag for message in messages])
    assert found == [ID, ID]
    assert [line for line in caplog.messages if "message version" in line]
    consumer.close()


def test_the_embedded_broker_keeps_what_it_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    broker = open_broker(f"embedded://{tmp_path}/queue")
    sent_raw(broker, monkeypatch, LATER)
    consumer = broker.consume(["work"], 5)
    assert consumer.receive(5, 0) == []
    assert broker.depth(["work", envelope.DEAD]) == {"work": 0, envelope.DEAD: 1}
    consumer.close()
    broker.close()
