"""What the child makes of a request, in this process: answers, checks, hooks, and what it says meanwhile."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from scheduler.core.errors import Permanent
from scheduler.core.process import script
from worker.api import Cancel, Link, Noop, Processed, Task, Worker
from worker.capture import Capture
from worker.child import Child, ChildLink
from worker.wire import Inflow, Reply, Request, pack

START = datetime(2020, 5, 1, tzinfo=UTC)
Pair = tuple[socket.socket, socket.socket]
answers: dict[str, Any] = {}


def give(task: Task) -> Any:
    """Returns or raises what the test put into `answers`."""
    answer = answers["next"]
    if isinstance(answer, list):
        answer = answer.pop(0)
    if isinstance(answer, BaseException) and answers.get("raise", True):
        raise answer
    return answer


class Counting(Worker):
    """Made with its process."""

    def run(self, task: Task) -> dict[str, Any]:
        return {"arguments": dict(self.process.arguments), "same": id(self), "task": dict(task.arguments)}


class Bare:
    """A class that is no `Worker`, and is made with nothing."""

    def run(self, task: Task) -> dict[str, Any]:
        return {"token": list(task.token), "at": task.now() >= START}


def request(worker: Any = "child_jobs:give", **values: Any) -> Request:
    fields: dict[str, Any] = dict.fromkeys(Request._fields)
    fields |= {
        "uow": "p@2020050100#1",
        "kind": "work",
        "process": "p",
        "definition": "p",
        "worker": worker,
        "timeperiod": "2020050100",
        "start": START,
        "end": START + timedelta(hours=1),
        "run": 1,
        "attempt": 1,
        "version": 1,
        "final": True,
        "repeat": True,
        "retries": True,
        "arguments": {},
        "defined": {},
        "business_at": START,
        "business_rate": 60.0,
    }
    return Request(**{**fields, **values})


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    module = ModuleType("child_jobs")
    vars(module).update(give=give, Counting=Counting, Bare=Bare)
    monkeypatch.setitem(sys.modules, "child_jobs", module)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Child(ours, None)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def execute(child: Child, answer: Any = None, *, raises: bool = True, **values: Any) -> Reply:
    answers.update({"next": answer, "raise": raises})
    return child.execute(request(**values), Link())


@pytest.mark.parametrize(
    ("answer", "verb", "error"),
    [
        (None, "succeed", None),
        ({"n": 1}, "succeed", None),
        (Processed({"n": 1}, "5"), "succeed", None),
        (Noop("none"), "no_data", "none"),
        (Cancel("enough"), "cancel", "enough"),
        (Permanent("never"), "fail", "never"),
        (ValueError("bad"), "fail", "ValueError: bad"),
        (KeyboardInterrupt(), "fail", "KeyboardInterrupt"),
        (SystemExit(3), "fail", "worker code called sys.exit(3)"),
        (3, "fail", "TypeError: it returned int; return None, a dictionary, Processed, Noop or Cancel"),
        (
            {"x": math.nan},
            "fail",
            "TypeError: its result is not JSON: Out of range float values are not JSON compliant",
        ),
        (Processed(cursor=5), "fail", "TypeError: its cursor must be text or None, it is int 5"),  # type: ignore[arg-type]
    ],
)
def test_answers(child: Child, answer: Any, verb: str, error: str | None) -> None:
    reply = execute(child, answer)
    assert (reply.verb, reply.error) == (verb, error)
    assert reply.permanent == isinstance(answer, Permanent)


@pytest.mark.parametrize("answer", [Noop("none"), Cancel("enough")])
def test_noop_and_cancel_may_be_returned(child: Child, answer: Any) -> None:
    assert execute(child, answer, raises=False).error == answer.reason


def test_more_calls_again_from_the_new_cursor_where_the_outcome_decides(child: Child) -> None:
    steps = [Processed({"n": n}, str(n), more=n < 3) for n in (1, 2, 3)]
    reply = execute(child, list(steps))
    assert (reply.result, reply.cursor, reply.more) == ('{"n": 3}', "3", False)
    reply = execute(child, list(steps), repeat=False)
    assert (reply.result, reply.cursor, reply.more) == ('{"n": 1}', "1", True)
    stuck = execute(child, Processed(cursor="7", more=True), cursor="7")
    assert stuck.verb == "fail" and stuck.permanent and "without moving its cursor" in str(stuck.error)


@pytest.mark.parametrize(
    ("answer", "verb", "error"),
    [
        (True, "succeed", None),
        ("a path", "succeed", None),
        (False, "no_data", "not ready yet"),
        (None, "no_data", "not ready yet"),
        ((False, "no file"), "no_data", "no file"),
        ((True, ""), "succeed", None),
        (OSError("gone"), "fail", "OSError: gone"),
    ],
)
def test_readiness(child: Child, answer: Any, verb: str, error: str | None) -> None:
    reply = execute(child, answer, kind="check", predicate="child_jobs:give")
    assert (reply.verb, reply.error) == (verb, error)


def test_a_worker_class_is_made_once_per_definition(child: Child) -> None:
    one = execute(child, worker="child_jobs:Counting", defined={"a": 1}, arguments={"b": 2})
    two = execute(child, worker="child_jobs:Counting", defined={"a": 1}, arguments={"b": 3})
    other = execute(child, worker="child_jobs:Counting", defined={"a": 2})
    assert one.result and two.result and other.result
    assert '"arguments": {"a": 1}' in one.result and '"task": {"b": 2}' in one.result
    assert one.result.split('"same": ')[1].split(",")[0] == two.result.split('"same": ')[1].split(",")[0]
    assert '"arguments": {"a": 2}' in other.result
    assert execute(child, worker="child_jobs:Bare").result == '{"token": [1, 1], "at": true}'


def test_command_lines_substitute_and_read_codes(child: Child) -> None:
    def run(*words: str, **values: Any) -> Reply:
        return execute(child, worker=script(*words, noop_code=4, cancel_code=5), **values)

    assert run("sh", "-c", "exit 4").verb == "no_data"
    assert run("sh", "-c", "exit 5").verb == "cancel"
    assert run("sh", "-c", "kill -9 $$").error == "sh ended with signal SIGKILL"
    assert run("test", "{timeperiod}", "=", "2020050100").verb == "succeed"
    assert run("test", "{cursor}{{x}}", "=", "{x}").verb == "fail"  # {x} names nothing
    assert run("test", "{cursor}{{x}}", "=", "17{{x}}", cursor="17").verb == "succeed"
    wrong = run("echo", "{timeperoid}")
    assert wrong.error is not None and wrong.error.startswith(
        "script 'echo': {timeperoid} names nothing; there are"
    )


def test_progress_is_thinned_out_and_its_last_word_is_not_lost(pair: Pair) -> None:
    ours, theirs = pair
    link = ChildLink(ours)
    task = Task(process="p", timeperiod="x", start=START, end=START, link=link)
    for n in range(1000):
        task.progress(n, 1000)
    task.reprocess("q", "2020050100", "late")
    link.close(Reply("succeed"))
    ours.close()
    inflow, found, is_open = Inflow(theirs), [], True
    while is_open:
        messages, is_open = inflow.ready()
        found += messages
    kinds = [message[0] for message in found]
    assert kinds[-2:] == ["late_data", "reply"] and kinds.count("progress") <= 4
    assert found[-3] == ("progress", 999, 1000, "")
    with pytest.raises(ValueError, match="finite"):
        task.progress(math.inf)


def test_the_wire_takes_pieces_and_large_messages(pair: Pair) -> None:
    ours, theirs = pair
    inflow = Inflow(theirs)
    data = pack("first") + pack("second")
    ours.sendall(data[:7])
    assert inflow.ready() == ([], True)
    ours.sendall(data[7:])
    assert inflow.ready() == (["first", "second"], True)
    ours.setblocking(False)
    large = pack("x" * 1_000_000)
    got: list[Any] = []
    while large:
        try:
            large = large[ours.send(large) :]
        except BlockingIOError:
            got += inflow.ready()[0]
    got += inflow.ready()[0]
    assert got == ["x" * 1_000_000]
    ours.close()
    assert inflow.ready() == ([], False)


def test_capture_keeps_the_beginning_and_the_end() -> None:
    capture = Capture(head=10, tail=8)
    capture.feed("ä".encode()[:1])
    assert not capture.has_text
    capture.feed("ä".encode()[1:] + b"12345678")
    assert capture.take() == "ä12345678"
    for n in range(100):
        capture.feed(b"%03d," % n)
    assert capture.take() == ""
    assert capture.close() == "\n[… 392 bytes left out: the log of an attempt is bounded …]\n098,099,"


def test_capture_of_little_is_all_of_it() -> None:
    capture = Capture(head=10, tail=8)
    capture.feed(b"0123456789abc")
    assert capture.take() + capture.close() == "0123456789abc"
