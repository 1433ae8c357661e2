"""A worker that stands still for longer than its lease, with all it started: as a box whose machine was suspended.

What goes on afterwards thinks nothing happened. The store takes nothing of it, and neither does any sink (28, 72).
"""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient

from scripts.servers import shared
from tests.integration.worker_rig import MakeRig, verbs

pytestmark = [pytest.mark.servers, pytest.mark.timeout(90)]

CONTEXT = 'processes = [managed("write", "jobs:write", "hourly"), managed("quick", "jobs:quick", "hourly")]'

CODE = '''
import time
from pathlib import Path
from synergy import LeaseLost, file_sink, mongo_sink, sql_sink

HERE = Path(__file__).parent

def write(task):
    """Into each kind of sink; says which of them refused it."""
    (HERE / f"began-{task.attempt}").touch()
    while task.attempt == 1 and not (HERE / "go").exists():
        time.sleep(0.01)
    refused = []
    try:
        with sql_sink(HERE / "sink.sqlite", task) as sink:
            sink.execute("CREATE TABLE IF NOT EXISTS rows (attempt INTEGER)")
            sink.execute("INSERT INTO rows VALUES (?)", (task.attempt,))
    except LeaseLost:
        refused.append("sql")
    try:
        with file_sink(HERE / "sink.txt", task) as path:
            path.write_text(str(task.attempt))
    except LeaseLost:
        refused.append("file")
    try:
        with mongo_sink((HERE / "mongo.url").read_text(), task) as sink:
            sink.database["rows"].insert_one({"attempt": task.attempt}, session=sink.session)
    except LeaseLost:
        refused.append("mongo")
    answer = HERE / f"answer-{task.attempt}.part"
    answer.write_text(" ".join(refused))
    answer.rename(HERE / f"answer-{task.attempt}")

def quick(task):
    pass
'''


def test_28_72_what_was_paused_beyond_its_lease_can_finish_nothing_and_no_sink_takes_it(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(CONTEXT, CODE)
    url = shared("mongod").fresh()
    rig.file("mongo.url").write_text(url)
    worker = rig.process("w1", lease_s=3, renew_s=0.5)
    uow_id = rig.request("write")
    rig.until(rig.file("began-1").exists, "the first attempt runs")
    asleep = psutil.Process(worker.pid).children(
        recursive=True
    )  # the guard too: nobody is left to end the work
    asleep.append(psutil.Process(worker.pid))
    for process in asleep:
        process.suspend()

    lease_until = rig.uow(uow_id).lease_until
    assert lease_until is not None
    rig.until(lambda: rig.store.now() > lease_until, "the lease is over")
    rig.leader(uow_id, "fail", losses=1, lease_until=None)
    rig.leader(uow_id, "retry", attempt=2, owner=None, token=None)
    rig.process("w2", lease_s=30)
    rig.send(uow_id)
    second = rig.wait(uow_id)
    assert (second.state, second.attempt, second.owner) == ("processed", 2, "w2")
    assert rig.file("answer-2").read_text() == ""

    rig.file("go").touch()
    for process in asleep[:-1]:
        if "worker.child" in " ".join(process.cmdline()):
            process.resume()  # alone: its worker and its guard would end it
    rig.until(rig.file("answer-1").exists, "the first attempt has tried to write")
    assert rig.file("answer-1").read_text() == "sql file mongo"
    for process in asleep:
        process.resume()

    rig.wait(rig.request("quick", 1))
    again = rig.wait(rig.request("quick", 2))
    assert again.state == "processed"
    rig.until(lambda: "its lease is gone" in rig.file("w1.log").read_text(), "the first worker knows")
    assert rig.uow(uow_id) == second
    assert verbs(rig, uow_id)[-1] == "succeed"
    assert _written(rig.file("sink.sqlite"), rig.file("sink.txt"), url) == ([(2,)], "2", [2])
    os.kill(worker.pid, signal.SIGTERM)


def _written(sql: Path, file: Path, url: str) -> tuple[list[tuple[int]], str, list[int]]:
    with sqlite3.connect(sql) as raw:
        rows = raw.execute("SELECT attempt FROM rows").fetchall()
    with MongoClient[dict[str, int]](url) as client:
        found = [row["attempt"] for row in client.get_default_database()["rows"].find()]
    return rows, file.read_text(), found
