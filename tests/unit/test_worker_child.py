"""What the child makes of a request, in this process: answers, checks, hooks, and what it says meanwhile."""

from __future__ import annotations

import json
import math
import os
import select
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from scheduler.core.errors import Permanent
from scheduler.core.process import managed, script
from scheduler.core.uow import Uow
from worker.api import Cancel, Link, Noop, Processed, Task, Worker
from worker.capture import Capture
from worker.child import Child, ChildLink
from worker.wire import Inflow, Recipe, Reply, Request, pack, pack_recipe, pack_request, send, unpack_request

START = datetime(2020, 5, 1, tzinfo=UTC)
Pipe = tuple[int, int]
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


def request(
    worker: Any = "child_jobs:give",
    predicate: str | None = None,
    defined: dict[str, Any] | None = None,
    **values: Any,
) -> Request:
    recipe = Recipe("p", worker, predicate, defined or {}, None, None)
    usual = Request(
        recipe=recipe,
        uow="p@2020050100#1",
        kind="work",
        process="p",
        timeperiod="2020050100",
        start=START,
        end=START + timedelta(hours=1),
        run=1,
        attempt=1,
        version=1,
        final=True,
        repeat=True,
        retries=True,
        cursor=None,
        arguments={},
        business_at=START,
        business_rate=60.0,
    )
    return usual._replace(**values)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    module = ModuleType("child_jobs")
    vars(module).update(give=give, Counting=Counting, Bare=Bare)
    monkeypatch.setitem(sys.modules, "child_jobs", module)
    read, write = os.pipe()
    yield Child(read, write, None)
    os.close(read)
    os.close(write)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Its reading end, which does not block, and its writing end, which the test closes."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)


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


def sent(arguments: dict[str, Any] | None, pipe: Pipe, **defined: Any) -> Request:
    """A request of a process with these arguments, as the child reads it off the pipe."""
    process = managed("p", worker="child_jobs:Counting", time_qualifier="hourly", arguments=defined)
    uow = Uow(
        id="p@2020050100#1",
        process="p",
        timeperiod="2020050100",
        run=1,
        start=START,
        end=START + timedelta(hours=1),
        arguments=arguments,
        created_at=START,
        requested_at=START,
    )
    read, write = pipe
    send(write, pack_request(pack_recipe(process), uow, process, START, 1.0))
    [message], is_open = Inflow(read).ready()
    assert is_open
    return unpack_request(message)


def test_a_worker_class_is_made_once_per_definition(child: Child, pipe: Pipe) -> None:
    asked = [sent({"b": 2}, pipe, a=1), sent({"b": 3}, pipe, a=1), sent(None, pipe, a=2)]
    one, two, other = (json.loads(child.execute(each, Link()).result or "") for each in asked)
    assert one == {"arguments": {"a": 1}, "same": two["same"], "task": {"b": 2}}
    assert two["task"] == {"b": 3}
    assert other["arguments"] == other["task"] == {"a": 2} and other["same"] != one["same"]
    assert execute(child, worker="child_jobs:Bare").result == '{"token": [1, 1], "at": true}'
    os.close(pipe[1])


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


def test_progress_is_thinned_out_and_its_last_word_is_not_lost(pipe: Pipe) -> None:
    read, write = pipe
    link = ChildLink(write)
    task = Task(process="p", timeperiod="x", start=START, end=START, link=link)
    for n in range(1000):
        task.progress(n, 1000)
    task.reprocess("q", "2020050100", "late")
    link.close(Reply("succeed"))
    os.close(write)
    inflow, found, is_open = Inflow(read), [], True
    while is_open:
        messages, is_open = inflow.ready()
        found += messages
    kinds = [message[0] for message in found]
    assert kinds[-2:] == ["late_data", "reply"] and kinds.count("progress") <= 4
    assert found[-3] == ("progress", 999, 1000, "")
    with pytest.raises(ValueError, match="finite"):
        task.progress(math.inf)


def test_the_wire_takes_pieces_and_large_messages(pipe: Pipe) -> None:
    read, write = pipe
    inflow = Inflow(read)
    data = pack("first") + pack("second")
    send(write, data[:7])
    assert inflow.ready() == ([], True)
    send(write, data[7:])
    assert inflow.ready() == (["first", "second"], True)
    writer = threading.Thread(target=send, args=(write, pack("x" * 1_000_000)))  # more than a pipe holds
    writer.start()
    got: list[Any] = []
    while not got:
        select.select([read], [], [])
        got += inflow.ready()[0]
    writer.join()
    assert got == ["x" * 1_000_000]
    os.close(write)
    assert inflow.ready() == ([], False)
    with pytest.raises(EOFError):
        inflow.wait()


def test_nobody_reads_any_more() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        send(write, pack("anything"))
    os.close(write)


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
