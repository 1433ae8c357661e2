"""What only the embedded broker promises: its file, its sockets, foreign programs, forks, power cuts."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mq import open_broker, rows, wakeup
from mq.embedded import EmbeddedBroker
from scheduler.core.errors import BrokerUnavailable
from scheduler.core.ports import Outgoing

UOW = "hourly@2013070400#{}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def broker(file: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(str(file))
    yield broker
    broker.close()


def put_raw(file: Path, body: object, rank: object = -5) -> None:
    """As a foreign program would."""
    with sqlite3.connect(file) as db:
        db.execute("INSERT INTO messages (queue, rank, id, body) VALUES ('work', ?, 1, ?)", (rank, body))
    db.close()


def in_child(act: Callable[[], str]) -> str:
    """What `act` returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, act().encode())
        except BaseException as error:  # noqa: BLE001 (the parent asserts on it)
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@pytest.mark.parametrize("body", ["hello\nworld", b"\xff\xfe", b"", "x" * 300, "a@1#1; DROP TABLE messages"])
def test_a_foreign_message_is_dropped_with_a_line_for_people(
    broker: EmbeddedBroker, file: Path, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    put_raw(file, body)
    broker.publish([Outgoing("work", UOW.format(1))])
    with caplog.at_level(logging.ERROR, "synergy.mq"):
        received = broker.consume(["work"], 5).receive(5, 0)
    assert [message.body for message in received] == [UOW.format(1)]
    (line,) = caplog.messages
    assert line.startswith("queue work: dropped") and "\n" not in line and len(line) < 300
    assert broker.depth(["work"]) == {"work": 0}
    with sqlite3.connect(file) as db:
        kept = db.execute("SELECT CAST(body AS BLOB) FROM messages WHERE queue = 'synergy.dead'").fetchall()
    db.close()
    assert kept == [(body if isinstance(body, bytes) else str(body).encode(),)], "it lies with the dead"


def test_the_dead_are_not_kept_for_ever(
    broker: EmbeddedBroker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "DEAD_MOST", 3)
    with sqlite3.connect(file) as db:
        db.executemany(
            "INSERT INTO messages (queue, rank, id, body) VALUES ('work', ?, ?, 'x')",
            [(-n % 2, n) for n in range(8)],
        )
    db.close()
    assert broker.consume(["work"], 5).receive(5, 0) == []
    assert broker.depth(["work", "synergy.dead"]) == {"work": 3, "synergy.dead": 3}


def test_text_that_is_not_utf_8(broker: EmbeddedBroker, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(file) as db:
        db.execute(
            "INSERT INTO messages (queue, rank, id, body) VALUES ('work', 0, 1, CAST(x'fffe' AS TEXT))"
        )
    db.close()
    assert broker.consume(["work"], 5).receive(5, 0) == []
    assert "dropped" in caplog.text


def test_a_row_that_would_break_the_order_is_refused(broker: EmbeddedBroker, file: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        put_raw(file, UOW.format(1), rank="first")


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.parent.joinpath("queue").write_text("no database" * 99)]
)
def test_a_path_that_cannot_be_a_queue_file(file: Path, make: Callable[[Path], object]) -> None:
    make(file)
    with pytest.raises(BrokerUnavailable) as caught:
        open_broker(f"embedded://{file}")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(BrokerUnavailable, match="cannot be used"):
        open_broker(f"embedded://{tmp_path}/plain/queue")


def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o500)

    def as_somebody() -> str:
        if os.getuid() == 0:
            os.setuid(65534)
        open_broker(f"embedded://{tmp_path}/closed/queue")
        return "opened"

    answer = in_child(as_somebody)
    assert answer.startswith("BrokerUnavailable: the queue file") and "ermission denied" in answer
    assert "\n" not in answer


def test_another_sqlite_file_is_left_alone(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE jobs (id)")
    db.close()
    before = file.read_bytes()
    with pytest.raises(BrokerUnavailable, match="not a queue file"):
        open_broker(f"embedded://{file}")
    assert file.read_bytes() == before


def test_a_file_of_another_version(file: Path) -> None:
    EmbeddedBroker(str(file)).close()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(BrokerUnavailable, match="of version 99"):
        open_broker(f"embedded://{file}")


def test_a_link_to_the_file_leads_to_the_same_locks(broker: EmbeddedBroker, file: Path) -> None:
    (file.parent / "elsewhere").mkdir()
    link = file.parent / "elsewhere" / "link"
    link.symlink_to(file)
    other = EmbeddedBroker(str(link))
    other.publish([Outgoing("work", UOW.format(1))])
    assert len(broker.consume(["work"], 5).receive(5, 0)) == 1
    other.close()
    assert [path.name for path in link.parent.iterdir()] == ["link"]


def test_waiting_messages_grow_older_again_and_again(broker: EmbeddedBroker) -> None:
    """Each start of the machine shifts them; ids of before and after lie as close as can be."""
    for start in range(3):
        with broker.file as db:
            rows.make_older(db)
            rows.put(db, [Outgoing("work", UOW.format(start * 2 + n)) for n in (1, 2)], lambda: 0)
    received = broker.consume(["work"], 9).receive(9, 0)
    assert [message.body for message in received] == [UOW.format(n) for n in range(1, 7)]


def restarted_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq.queue_file._boot", lambda: "another start of this machine")


@pytest.mark.parametrize("claimed", [False, True])
def test_messages_survive_a_restart_of_the_machine_in_order(
    file: Path, monkeypatch: pytest.MonkeyPatch, claimed: bool
) -> None:
    broker = EmbeddedBroker(str(file))
    broker.publish([Outgoing("work", UOW.format(n)) for n in (1, 2)])
    if claimed:  # and the power went before anything was given back
        broker.consume(["work"], 1).receive(1, 0)
        with broker.file as db:
            messages = db.execute("SELECT messages FROM claims").fetchone()[0]
    broker.close()
    if claimed:
        with sqlite3.connect(file) as db:
            db.execute("DELETE FROM messages WHERE redelivered = 1")
            db.execute("INSERT INTO claims (consumer, messages) VALUES (77, ?)", (messages.decode(),))
        db.close()
    restarted_machine(monkeypatch)
    monkeypatch.setattr("mq.rows.clock_stamp", iter((5, 6)).__next__)  # the clock begins at 0
    broker = EmbeddedBroker(str(file))
    broker.publish([Outgoing("work", UOW.format(3))])
    received = broker.consume(["work"], 5).receive(5, 0)
    assert [message.body for message in received] == [UOW.format(n) for n in (1, 2, 3)]
    broker.close()


def test_a_file_that_a_power_cut_damaged_is_made_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = EmbeddedBroker(str(file))
    broker.publish([Outgoing("work", UOW.format(n)) for n in range(1, 2000)])
    broker.close()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xee" * 3 * 4096)
    restarted_machine(monkeypatch)
    broker = EmbeddedBroker(str(file))
    assert broker.depth(["work"]) == {"work": 0}
    broker.publish([Outgoing("work", UOW.format(1))])
    assert len(broker.consume(["work"], 5).receive(5, 0)) == 1
    broker.close()
    assert file.with_name("queue.damaged").exists()


def test_the_files_stay_small(broker: EmbeddedBroker, file: Path) -> None:
    """However many messages go through them."""
    consumer = broker.consume(["work"], 64)
    for _ in range(300):
        broker.publish([Outgoing("work", UOW.format(n)) for n in range(1, 65)])
        consumer.ack(message.tag for message in consumer.receive(64, 0))
    sizes = {path.name: path.stat().st_size for path in file.parent.iterdir()}
    assert sizes["queue"] < 1_000_000 and sizes["queue-wal"] < 10_000_000, sizes


def test_sockets_are_private_short_and_taken_away(broker: EmbeddedBroker, file: Path) -> None:
    folder = wakeup.runtime_folder(str(file))
    assert (
        folder is not None
        and folder.stat().st_mode & 0o077 == 0
        and folder.parent.stat().st_mode & 0o077 == 0
    )
    consumer = broker.consume(["work"], 1)
    (address,) = folder.iterdir()
    assert len(os.fsencode(address)) <= wakeup.MAX_PATH
    consumer.close()
    assert not folder.exists()


def test_the_socket_of_a_killed_consumer_is_taken_away(broker: EmbeddedBroker, file: Path) -> None:
    script = "import os, sys, mq; mq.open_broker(sys.argv[1]).consume(['work'], 1); os.kill(os.getpid(), 9)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, f"embedded://{file}"], cwd=root, check=False)
    folder = wakeup.runtime_folder(str(file))
    assert folder is not None and len(list(folder.iterdir())) == 1
    broker.publish([Outgoing("work", UOW.format(1))])  # nobody answers the bell
    assert not folder.exists()


def test_without_a_safe_folder_the_bell_has_no_file(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mq.wakeup.runtime_folder", lambda _: None)
    consumer = broker.consume(["work"], 1)
    consumer.receive(1, 0)
    broker.nudge("work")
    assert consumer.receive(1, 60) == []
    broker.publish([Outgoing("work", UOW.format(1))])
    assert len(consumer.receive(1, 60)) == 1


def test_a_folder_that_others_can_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"synergy-{os.getuid()}").mkdir()
    (tmp_path / f"synergy-{os.getuid()}").chmod(0o777)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = wakeup.runtime_folder("/x/queue")
    assert folder is not None and tmp_path not in folder.parents


def test_only_sockets_of_ours_are_ever_removed(tmp_path: Path) -> None:
    """The list of consumers is in a file that other programs can write."""
    precious = tmp_path / "precious"
    precious.write_text("")
    wakeup.unlink_socket(str(precious))
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind(str(tmp_path / "other"))
    wakeup.unlink_socket(str(tmp_path / "other"))
    other.close()
    assert precious.exists() and (tmp_path / "other").exists()


def test_a_forked_child_may_publish_and_harms_nothing(broker: EmbeddedBroker, file: Path) -> None:
    consumer = broker.consume(["work"], 5)
    broker.publish([Outgoing("work", UOW.format(1))])
    (held,) = consumer.receive(1, 0)

    def child() -> str:
        broker.publish([Outgoing("work", UOW.format(2))])
        broker.close()
        return "published"

    assert in_child(child) == "published"
    other = EmbeddedBroker(str(file))
    assert [message.body for message in other.consume(["work"], 5).receive(5, 0)] == [UOW.format(2)]
    other.close()
    consumer.ack([held.tag])
    assert consumer.receive(5, 0)[0].redelivered


def test_brokers_in_memory_are_separate_and_repeat_exactly() -> None:
    def run() -> list[str]:
        broker = open_broker("embedded:///:memory:")
        for n in range(1, 10):
            broker.publish([Outgoing("ab"[n % 2], UOW.format(n), n % 3)])
        messages = broker.consume(["a", "b"], 10).receive(10, 0)
        broker.close()
        return [message.body for message in messages]

    assert run() == run() == [UOW.format(n) for n in (2, 5, 8, 1, 4, 7, 3, 6, 9)]
