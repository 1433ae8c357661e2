"""`mongo_sink` on a real MongoDB: the newest execution of a job wins (72)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from pymongo import MongoClient

from scheduler.core.errors import ConfigError, LeaseLost
from scripts.servers import shared
from worker.api import SinkToken, Task
from worker.sink_mongo import mongo_sink

pytestmark = pytest.mark.servers
START = datetime(2020, 5, 1, tzinfo=UTC)


@pytest.fixture
def mongo_url() -> str:
    """An empty database."""
    return shared("mongod").fresh()


def task(run: int, version: int = 1, timeperiod: str = "2020050100") -> Task:
    token = SinkToken(run, version)
    return Task(process="p", timeperiod=timeperiod, start=START, end=START, run=run, token=token)


def write(target: object, at: Task, value: int) -> None:
    with mongo_sink(target, at) as sink:
        sink.database["results"].delete_many({}, session=sink.session)
        sink.database["results"].insert_one({"value": value}, session=sink.session)


def values(url: str) -> list[int]:
    with MongoClient[dict[str, int]](url) as client:
        return [row["value"] for row in client.get_default_database()["results"].find()]


def test_72_a_smaller_token_is_refused_and_changes_nothing(mongo_url: str) -> None:
    write(mongo_url, task(1), 1)
    write(mongo_url, task(1), 2)  # the same execution may write again
    write(mongo_url, task(1, 3), 3)
    with MongoClient[dict[str, int]](mongo_url) as client:
        write(client.get_default_database(), task(2, 1), 4)
    for old in (task(1, 1), task(1, 3)):
        with pytest.raises(LeaseLost, match=r"p@2020050100: a newer execution \(run 2, version 1\)"):
            write(mongo_url, old, 5)
    assert values(mongo_url) == [4]
    write(mongo_url, task(1, 1, "2020050101"), 6)  # another job
    assert values(mongo_url) == [6]


def test_an_exception_aborts_everything_the_token_too(mongo_url: str) -> None:
    write(mongo_url, task(1), 1)

    def failing() -> None:
        with mongo_sink(mongo_url, task(2)) as sink:
            sink.database["results"].delete_many({}, session=sink.session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    write(mongo_url, task(1), 2)
    assert values(mongo_url) == [2]


def test_72_a_newer_execution_waits_for_the_transaction_of_an_older_one(mongo_url: str) -> None:
    write(mongo_url, task(1), 1)
    inside, newer_began = threading.Event(), threading.Event()

    def older() -> None:
        with mongo_sink(mongo_url, task(1)) as sink:
            inside.set()
            assert newer_began.wait(30)
            sink.database["results"].update_many({}, {"$set": {"value": 7}}, session=sink.session)

    thread = threading.Thread(target=older)
    thread.start()
    assert inside.wait(30)
    newer_began.set()
    write(mongo_url, task(2), 8)
    thread.join(30)
    assert values(mongo_url) == [8]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (None, "got no sink"),
        (3, "got a int"),
        ("mongodb://127.0.0.1:1/", "its sink names no database"),
    ],
)
def test_another_target_is_refused(target: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        write(target, task(1), 1)
