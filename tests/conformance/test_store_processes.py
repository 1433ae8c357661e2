"""The `Store` port with several processes on one store: no claim doubled, writers fair, kill -9 harmless."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from db import open_store
from scheduler.core.event import Event
from scheduler.core.ports import Store, Where
from scheduler.core.records import Fact

CHILD = Path(__file__).with_name("store_child.py")


class Children:
    """Child processes running programs of `store_child.py`; killed at the end of the test."""

    def __init__(self, url: str, env: dict[str, str]) -> None:
        self._url, self._env = url, env
        self.all: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one; its pipes are text."""
        command = [sys.executable, str(CHILD), program, self._url, *arguments]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, env=self._env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.all.append(child)
        return child

    def start_together(self, starts: list[tuple[str, ...]]) -> list[str]:
        """Start several, let them go at the same moment, and return what they printed after `ready`."""
        children = [self.start(*start) for start in starts]
        for child in children:
            assert child.stdout and child.stdout.readline() == "ready\n", child.communicate()
        for child in children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        printed = []
        for child in children:
            out, err = child.communicate(timeout=60)
            assert child.returncode == 0, err
            printed.append(out.strip())
        return printed

    def kill(self) -> None:
        """End those that are left."""
        for child in self.all:
            if child.poll() is None:
                child.kill()
            child.communicate()


@pytest.fixture
def children(shared_url: str, child_env: dict[str, str]) -> Any:
    """Starts child processes on the shared store."""
    started = Children(shared_url, child_env)
    yield started
    started.kill()


@pytest.fixture
def shared(shared_url: str, clock: Any) -> Any:
    """Our own store object on the shared store."""
    opened = open_store(shared_url, clock=clock)
    yield opened
    opened.close()


def test_processes_claim_without_doubles(shared: Store, children: Children) -> None:
    with shared.transaction() as transaction:
        transaction.insert([Fact(key=f"job.{n:04}", value={"owner": None}) for n in range(400)])
    claimers = [children.start("claim", f"worker {i}") for i in range(3)]
    claimed = [int(child.communicate(timeout=60)[0]) for child in claimers]
    assert sum(claimed) == 400
    owners = [fact.value["owner"] for fact in shared.find(Fact, [Where("key", "prefix", "job.")])]
    assert [owners.count(f"worker {i}") for i in range(3)] == claimed


def test_five_hot_writers_are_served_fairly(shared: Store, shared_url: str, children: Children) -> None:
    total = 5000 if shared_url.startswith("sqlite") else 1500  # a server's journal is slower
    names = [f"hot.{i}" for i in range(5)]
    with shared.transaction() as transaction:
        transaction.insert([Fact(key=name, value={"n": 0}) for name in [*names, "total"]])
    children.start_together([("hot", name, str(total)) for name in names])
    counts = [shared.get(Fact, name).value["n"] for name in names]  # type: ignore[union-attr]
    assert sum(counts) == total
    assert min(counts) >= total / 25, counts


def test_processes_may_initialise_at_once(new_url: str, child_env: dict[str, str], clock: Any) -> None:
    children = Children(new_url, child_env)
    try:
        assert children.start_together([("init",)] * 4) == ["1"] * 4
    finally:
        children.kill()
    opened = open_store(new_url, clock=clock)
    assert opened.count(Fact) == {(): 1}
    opened.close()


def test_a_writer_killed_at_any_moment_leaves_all_or_nothing(shared: Store, children: Children) -> None:
    seed = random.randrange(10**9)
    choice = random.Random(seed)
    written = 0
    for _ in range(8):
        child = children.start("write", "box:a", "1000000")
        assert child.stdout and child.stdout.readline() == "ready\n", child.communicate()
        enough = written + 2 * choice.randrange(1, 200)
        while written < enough:
            written = shared.count(Event)[()]
        child.send_signal(signal.SIGKILL)
        child.wait()
        numbers = [seq for (seq,) in shared.select(Event, ["seq"], order=["seq"])]
        written = len(numbers)
        assert written % 2 == 0, f"half a transaction is there; seed {seed}"
        assert numbers == list(range(1, written + 1)), f"something acknowledged is missing; seed {seed}"
    with shared.transaction() as transaction:  # the lock of the dead does not stay
        transaction.insert([Fact(key="alive", value={})])


def test_readers_do_not_wait_for_a_writer(shared: Store, shared_url: str, clock: Any) -> None:
    reader = open_store(shared_url, clock=clock)
    with shared.transaction() as transaction:
        transaction.insert([Fact(key="new", value={})])
        assert reader.get(Fact, "new") is None
        assert shared.get(Fact, "new") is None, "reads of the store object are outside of the transaction too"
        assert reader.count(Fact) == {(): 1}
    assert reader.get(Fact, "new") is not None
    reader.close()


def test_a_forked_child_uses_connections_of_its_own(shared: Store, tmp_path: Path) -> None:
    shared.count(Fact)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with shared.transaction() as transaction:
                transaction.insert([Fact(key="child", value={})])
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with shared.transaction() as transaction:
        transaction.insert([Fact(key="parent", value={})])
    assert shared.count(Fact) == {(): 3}
