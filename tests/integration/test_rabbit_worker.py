"""Real workers over a real RabbitMQ whose patience is short."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.servers import Rabbit, rabbitmq
from tests.integration.worker_rig import Rig, verbs

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
CODE = '''
import os, time
from pathlib import Path

HERE = Path(__file__).parent

def slow(task):
    """Longer than heartbeats and consumer time-outs; it keeps the interpreter busy now and then."""
    with open(HERE / "begun", "ab") as file:
        file.write(b"x")
    ends = time.monotonic() + 5.0
    while time.monotonic() < ends:
        sum(range(200_000))
        time.sleep(0.01)

def wait_for_file(task):
    with open(HERE / "begun", "ab") as file:
        file.write(b"x")
    while not (HERE / "go on").exists():
        time.sleep(0.02)
'''
CONTEXT = """
processes = [
    managed("slow", "jobs:slow", "hourly"),
    managed("wait", "jobs:wait_for_file", "hourly"),
    managed("quick", "worker.ready_made:identity", "hourly"),
]
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Rabbit]:
    """It closes a channel two and a half seconds after a message that was not acked."""
    with rabbitmq(conf="consumer_timeout = 2500\n") as node:
        yield node


@pytest.fixture(params=["classic", "quorum"])
def rig(node: Rabbit, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    if not node.is_running:
        node.start()
    url = f"{node.fresh()}?heartbeat=1&timeout=2&queues={request.param}"
    (tmp_path / "broker.url").write_text(url)
    rig = Rig(tmp_path, CONTEXT, CODE)
    yield rig
    rig.close()


def test_28_work_longer_than_every_time_out_is_executed_once(rig: Rig) -> None:
    """Scenario 28, against a broker that cuts off whoever keeps a message or is silent."""
    log = rig.file("w1.log")
    rig.process(slots=1)
    ids = [rig.request("slow"), rig.request("quick", 1)]
    assert rig.wait(ids[0]).state == "processed"
    assert rig.wait(ids[1]).state == "processed"
    assert rig.file("begun").read_bytes() == b"x"
    assert verbs(rig, ids[0]) == ["accept", "succeed"]
    said = log.read_text()
    assert "was lost" not in said and "consuming anew" not in said, said


def test_a_broker_that_is_away_while_work_runs(rig: Rig, node: Rabbit) -> None:
    """The work goes on, its outcome is written, and the next message is taken when the broker is back."""
    rig.process(slots=1)
    uow_id = rig.request("wait")
    rig.wait(uow_id, "in_progress")
    node.write_down()
    node.kill()
    rig.file("go on").touch()
    rig.wait(uow_id)
    node.start()
    rig.until(lambda: _requested(rig), "published again")
    assert rig.wait("quick@2020050101#1").state == "processed"
    assert verbs(rig, uow_id) == ["accept", "succeed"] and rig.file("begun").read_bytes() == b"x"
    lines = rig.file("w1.log").read_text().splitlines()
    assert len(lines) < 20, "\n".join(lines)


def _requested(rig: Rig) -> bool:
    from scheduler.core.errors import BrokerUnavailable
    from scheduler.core.ports import Outgoing

    try:
        if rig.store.count(type(rig.uow("wait@2020050100#1"))).get((), 0) < 2:
            rig.request("quick", 1, send=False)
        rig.broker.publish([Outgoing("default", "quick@2020050101#1")])
    except BrokerUnavailable:
        return False
    return True


def test_a_killed_worker_keeps_nothing_from_others(rig: Rig) -> None:
    """What its connection had been sent goes to another at once."""
    victim = rig.process("w1", slots=1, lease_s=1.0)
    held = rig.request("wait")
    rig.wait(held, "in_progress")
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    rig.process("w2", slots=1)
    assert rig.wait(rig.request("quick", 1)).state == "processed"
    rig.file("go on").touch()
