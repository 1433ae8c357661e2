"""Slots and guard with real child processes, without store or broker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pickle import PicklingError
from typing import Any

import pytest

from scheduler.core.process import Process, managed
from scheduler.core.uow import Uow
from tests.integration.worker_rig import alive
from worker import guard
from worker.executor import LogText, Outcome, ProgressNote
from worker.slots import ProcessExecutor

pytestmark = pytest.mark.timeout(60)
START = datetime(2020, 5, 1, tzinfo=UTC)
Make = Callable[..., ProcessExecutor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[ProcessExecutor] = []

    def executor(code: str, slots: int = 1, **options: Any) -> ProcessExecutor:
        (tmp_path / "jobs.py").write_text(code)
        made.append(ProcessExecutor(slots, tmp_path, **options))
        return made[-1]

    yield executor
    for one in made:
        one.close()
        assert not any(alive(pid) for pid in one.pids)


def process(worker: str = "jobs:work") -> Process:
    return managed("work", worker, "hourly")


def unit(token: str) -> Uow:
    return Uow(
        id=f"work@2020050100#{token}",
        process="work",
        timeperiod="2020050100",
        run=1,
        start=START,
        end=START + timedelta(hours=1),
        created_at=START,
        requested_at=START,
        token=token,
        version=1,
        final=True,
    )


def outcome(executor: ProcessExecutor) -> Outcome:
    """The next one that ends."""
    ends = time.monotonic() + 20
    while not (found := executor.poll(1.0)):
        assert time.monotonic() < ends, "nothing ended"
    assert len(found) == 1
    return found[0]


def test_a_child_is_reused_and_replaced_only_after_its_end(make: Make) -> None:
    executor = make("import os\ndef work(task):\n    if task.run == 1 and task.uow[-1] == 'x': os._exit(1)\n")
    first, definition = executor.pids, process()
    for token in "abc":
        executor.start(unit(token), definition)
        assert outcome(executor).verb == "succeed"
    assert executor.pids == first
    executor.start(unit("x"), definition)
    assert outcome(executor).error == "worker code ended its process (exit code 1)"
    assert executor.pids != first
    executor.start(unit("d"), definition)
    assert outcome(executor).verb == "succeed"


def test_an_idle_child_that_dies_is_replaced(make: Make) -> None:
    executor = make("def work(task): pass\n")
    (first,) = executor.pids
    os.kill(first, signal.SIGKILL)
    while executor.pids == [first]:
        assert executor.poll(1.0) == []
    executor.start(unit("a"), process())
    assert outcome(executor).verb == "succeed"


def test_a_reload_brings_the_new_code(make: Make, tmp_path: Path) -> None:
    executor = make("def work(task): return {'edition': 1}\n")
    definition = process()
    for token in "ab":
        executor.start(unit(token), definition)
        assert outcome(executor).result == {"edition": 1}
    (tmp_path / "jobs.py").write_text("def work(task): return {'edition': 'second'}\n")
    executor.start(unit("c"), definition)
    assert outcome(executor).result == {"edition": 1}  # the same context
    executor.start(unit("d"), process())
    assert outcome(executor).result == {"edition": "second"}


def test_notes_come_before_the_outcome_they_belong_to(make: Make) -> None:
    executor = make("def work(task):\n    print('hello')\n    task.progress(1, 2)\n")
    executor.start(unit("a"), process())
    notes: list[Any] = []
    while not executor.poll(1.0):
        notes += executor.notes()
    notes += executor.notes()
    assert {note for note in notes if isinstance(note, ProgressNote)} == {ProgressNote("a", 1, 2, "")}
    assert "".join(note.text for note in notes if isinstance(note, LogText)) == "hello\n"


def test_a_stopped_execution_is_stopped_whatever_it_answers(make: Make, tmp_path: Path) -> None:
    executor = make(
        "import time, pathlib\n"
        "def work(task):\n"
        "    (pathlib.Path(__file__).parent / 'begun').touch()\n"
        "    while not task.is_canceled(): time.sleep(0.01)\n"
        "    return {'n': 1}\n"
    )
    executor.start(unit("a"), process())
    while not (tmp_path / "begun").exists():
        executor.poll(0.01)
    executor.stop("a")
    assert outcome(executor).verb == "stopped"
    executor.stop("a")  # unknown by now: ignored


@pytest.mark.parametrize("hard", [False, True])
def test_code_that_does_not_listen_is_killed(make: Make, hard: bool) -> None:
    executor = make("import time\ndef work(task): time.sleep(600)\n")
    before = executor.pids
    executor.start(unit("a"), process())
    executor.stop("a", hard=hard)
    assert outcome(executor).verb == "stopped"
    assert executor.pids != before and not alive(before[0])


def test_the_guard_ends_what_has_no_lease_any_more(make: Make) -> None:
    executor = make("import time\ndef work(task): time.sleep(600)\n", lease_s=2.0)
    executor.start(unit("a"), process())
    executor.lease("a", 600)
    executor.lease("a", 0.1)
    found = outcome(executor)
    assert (found.verb, found.error) == ("fail", "worker code ended its process (signal SIGKILL)")


def test_a_guard_that_dies_is_replaced(make: Make) -> None:
    executor = make("import time\ndef work(task): time.sleep(600)\n", lease_s=2.0)
    first = executor._guard.pid
    os.kill(first, signal.SIGKILL)
    while executor._guard.pid == first:
        executor.poll(1.0)
    executor.start(unit("a"), process())
    executor.lease("a", 0.1)
    assert outcome(executor).verb == "fail"


def test_a_request_that_cannot_be_sent_leaves_the_slot_free(make: Make) -> None:
    executor = make("def work(task): pass\n")
    bad = managed("work", "jobs:work", "hourly", arguments={"x": lambda: None})
    with pytest.raises((PicklingError, AttributeError), match="pickle"):
        executor.start(unit("a"), bad)
    executor.start(unit("b"), process())
    assert outcome(executor).verb == "succeed"


def test_closing_twice_and_waking_after_it_is_harmless(make: Make) -> None:
    executor = make("def work(task): pass\n")
    executor.close()
    executor.close()
    executor.wake()


def test_a_child_whose_lease_ended_gets_no_more_work_for_the_guard_may_be_ending_it(make: Make) -> None:
    executor = make("def work(task): pass\n", lease_s=0.3)
    first, definition = executor.pids, process()
    os.kill(executor._guard.pid, signal.SIGSTOP)  # between its look at the table and its blow
    try:
        executor.start(unit("a"), definition)
        executor.lease("a", 0.0)
        while time.monotonic() < guard.row(executor._table.fileno(), 0)[1]:
            pass  # milliseconds: nobody looks before it is over
        assert outcome(executor).verb == "succeed"
        executor.start(unit("b"), definition)
        second = executor.pids
        assert second != first and not alive(first[0])
        assert outcome(executor).verb == "succeed"
        executor.start(unit("c"), definition)
        executor.lease("c", 60.0)
        assert outcome(executor).verb == "succeed"
        executor.start(unit("d"), definition)
        assert executor.pids == second  # nothing had ended
        assert outcome(executor).verb == "succeed"
    finally:
        os.kill(executor._guard.pid, signal.SIGCONT)


def test_who_ends_a_child_spares_its_successor(make: Make) -> None:
    executor = make("import os\ndef work(task): os._exit(1)\n")
    (first,), slot = executor.pids, executor._slots[0]
    session, _, number = guard.row(executor._table.fileno(), 0)
    assert (session, number) == (first, 1)
    mark = slot.mark
    executor.start(unit("a"), process())
    assert outcome(executor).verb == "fail"
    (second,) = executor.pids
    assert guard.row(executor._table.fileno(), 0) == (second, 0.0, 2)
    assert guard.end_all([first], mark + "\0")  # a blow that comes late
    assert alive(second) and second != first
    assert guard.end_all([], slot.mark + "\0") and not alive(second)


def test_a_child_that_died_idle_costs_no_attempt(make: Make) -> None:
    executor = make("def work(task): pass\n")
    (first,) = executor.pids
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # dead, and nobody has looked
    executor.start(unit("a"), process())
    assert outcome(executor).verb == "succeed"
    assert executor.pids != [first]
