"""The worker runtime with real processes, on SQLite and the embedded broker: what runs, and what it answers.

The numbers are those of the acceptance scenarios.
"""

from __future__ import annotations

import pytest

from scheduler.core.command import Command
from scheduler.core.ports import Outgoing
from scheduler.core.uow import Uow
from tests.integration.worker_rig import MakeRig

pytestmark = pytest.mark.timeout(60)


def test_29_a_double_while_it_runs_starts_nothing(make_rig: MakeRig) -> None:
    code = """
import pathlib, time
HERE = pathlib.Path(__file__).parent
def once(task):
    (HERE / f"run-{time.monotonic_ns()}").touch()
    while not (HERE / "go").exists(): time.sleep(0.01)
"""
    rig = make_rig("processes = [managed('once', 'jobs:once', 'hourly')]", code)
    rig.worker("w1")
    rig.worker("w2")
    uow_id = rig.request("once")
    rig.wait(uow_id, "in_progress")
    rig.broker.publish([Outgoing("default", uow_id)] * 5)
    rig.until(lambda: rig.broker.depth(["default"])["default"] == 0, "the doubles are dropped")
    rig.file("go").touch()
    rig.wait(uow_id, "processed")
    assert len(list(rig.folder.glob("run-*"))) == 1


def test_32_a_thousand_units_of_work_in_one_worker(make_rig: MakeRig) -> None:
    rig = make_rig("processes = [managed('quick', 'worker.ready_made:identity', 'hourly')]")
    ids = [rig.request("quick", n, send=False) for n in range(1000)]
    rig.broker.publish([Outgoing("default", uow_id) for uow_id in ids])
    rig.worker("w1")
    rig.until(lambda: rig.store.count(Uow, by=["state"]) == {("processed",): 1000}, "all are processed")
    uows = rig.store.find(Uow)
    assert all(uow.result is not None and uow.result["timeperiod"] == uow.timeperiod for uow in uows)
    assert {uow.version for uow in uows} == {2}


def test_32_high_priority_goes_first(make_rig: MakeRig) -> None:
    code = """
import pathlib
def note(task):
    with open(pathlib.Path(__file__).parent / "order", "a") as file: file.write(task.timeperiod[-2:] + " ")
"""
    rig = make_rig("processes = [managed('note', 'jobs:note', 'hourly')]", code)
    for n, priority in enumerate((1, 5, 10, 5, 10)):
        rig.request("note", n, priority=priority)
    rig.worker("w1", slots=1)
    rig.until(
        lambda: len(rig.file("order").read_text().split()) == 5 if rig.file("order").exists() else False, "5"
    )
    assert rig.file("order").read_text().split() == ["02", "04", "01", "03", "00"]


def test_33_a_command_line_ends_by_its_exit_code(make_rig: MakeRig) -> None:
    rig = make_rig(
        """
def run(code):
    words = ("sh", "-c", 'echo "$@" >&2; exit $0', str(code), "{timeperiod}", "{start}", "{color}")
    return script(*words, noop_code=7, cancel_code=8)
processes = [managed(f"exit{n}", run(n), "hourly", arguments={"color": "red; rm $HOME"}) for n in (0, 3, 7, 8)]
processes.append(managed("none", script("./no-such-program"), "hourly"))
"""
    )
    rig.worker("w1")
    ends = {code: rig.wait(rig.request(f"exit{code}")) for code in (0, 3, 7, 8)}
    assert {code: uow.state for code, uow in ends.items()} == {
        0: "processed",
        3: "invalid",
        7: "noop",
        8: "canceled",
    }
    assert ends[3].error == "sh ended with exit code 3" and ends[3].failures == 1
    assert rig.log(ends[3].id) == "2020050100 2020-05-01T00:00:00Z red; rm $HOME\n"
    missing = rig.wait(rig.request("none"))
    assert (missing.state, missing.permanent) == ("invalid", True)
    assert missing.error == "cannot start './no-such-program': No such file or directory"


def test_65_class_function_and_command_line_and_wrong_paths(make_rig: MakeRig) -> None:
    code = """
from synergy import Worker
class Made(Worker):
    def __init__(self, process):
        super().__init__(process)
        self.calls = 0
    def run(self, task):
        self.calls += 1
        return {"process": self.process.name, "calls": self.calls, "arguments": dict(task.arguments)}
def function(task): return {"period": [task.start.isoformat(), task.end.isoformat()]}
"""
    rig = make_rig(
        "processes = [managed('a', 'jobs:Made', 'hourly'), managed('b', 'jobs.Made', 'hourly', arguments={'x': 1}),"
        " managed('c', 'jobs:function', 'hourly'), managed('d', script('true'), 'hourly'),"
        " managed('e', 'jobs:functoin', 'hourly'), managed('f', 'nowhere.jobs:function', 'hourly')]",
        code,
    )
    rig.worker("w1", slots=1)
    ends = {name: rig.wait(rig.request(name)) for name in "abcdef"}
    assert ends["a"].result == {"process": "a", "calls": 1, "arguments": {}}
    assert rig.wait(rig.request("a", 1)).result == {"process": "a", "calls": 2, "arguments": {}}
    assert ends["b"].result == {"process": "b", "calls": 1, "arguments": {"x": 1}}
    assert ends["c"].result == {"period": ["2020-05-01T00:00:00+00:00", "2020-05-01T01:00:00+00:00"]}
    assert ends["d"].state == "processed"
    assert (
        ends["e"].error == "worker 'jobs:functoin': module 'jobs' has no 'functoin'; did you mean 'function'?"
    )
    assert ends["f"].error == "worker 'nowhere.jobs:function': there is no module 'nowhere'"


def test_answers_exceptions_and_deaths(make_rig: MakeRig) -> None:
    code = """
import ctypes, os, signal, sys
from synergy import Cancel, Noop, Permanent, Processed
def noop(task): return Noop("no rows")
def raised_noop(task): raise Noop("no rows")
def cancel(task): return Cancel("not wanted")
def permanent(task): raise Permanent("never")
def error(task): {}["key"]
def number(task): return 5
def not_json(task): return {"x": object()}
def large(task): return {"x": "x" * 1_000_001}
def surrogate(task): return {"x": chr(0xD800)}
def leave(task): os._exit(3)
def crash(task): os.kill(os.getpid(), signal.SIGSEGV)
def exits(task): sys.exit(2)
def more(task):
    print("from", task.cursor)
    at = int(task.cursor or 0) + 1
    return Processed({"at": at}, cursor=str(at), more=at < 4)
def forever(task): return Processed(more=True)
"""
    names = [line[4 : line.index("(")] for line in code.splitlines() if line.startswith("def ")]
    rig = make_rig(f"processes = [managed(n, f'jobs:{{n}}', 'hourly') for n in {names!r}]", code)
    rig.worker("w1")
    ids = {name: rig.request(name) for name in names}
    ends = {name: rig.wait(uow_id) for name, uow_id in ids.items()}
    assert (ends["noop"].state, ends["noop"].error) == ("noop", "no rows")
    assert (ends["raised_noop"].state, ends["raised_noop"].error) == ("noop", "no rows")
    assert (ends["cancel"].state, ends["cancel"].error) == ("canceled", "not wanted")
    assert (ends["permanent"].state, ends["permanent"].permanent) == ("invalid", True)
    assert (ends["error"].error, ends["error"].permanent) == ("KeyError: 'key'", False)
    assert ends["error"].traceback is not None and "jobs.py" in ends["error"].traceback
    assert "worker/child.py" not in ends["error"].traceback  # only the user's own lines
    assert ends["number"].error is not None and "it returned int; return None" in ends["number"].error
    assert ends["not_json"].error is not None and "is not JSON" in ends["not_json"].error
    assert (
        ends["large"].error
        == "ValueError: its result has 1,000,010 bytes of JSON; at most 1,000,000 are kept:"
        " write what is larger to a file or to the sink"
    )
    assert ends["surrogate"].error is not None and "is not JSON" in ends["surrogate"].error
    assert ends["leave"].error == "worker code ended its process (exit code 3)"
    assert ends["crash"].error == "worker code ended its process (signal SIGSEGV)"
    assert "Fatal Python error: Segmentation fault" in rig.log(ids["crash"])
    assert ends["exits"].error == "worker code called sys.exit(2)"
    assert (ends["more"].result, ends["more"].cursor_end, ends["more"].more) == ({"at": 4}, "4", False)
    assert rig.log(ids["more"]) == "from None\nfrom 1\nfrom 2\nfrom 3\n"
    assert ends["forever"].error is not None and "without moving its cursor" in ends["forever"].error
    assert {ends[name].failures for name in ("permanent", "error", "leave", "exits")} == {1}


def test_more_of_a_slice_is_left_to_the_leader_and_late_data_becomes_a_command(make_rig: MakeRig) -> None:
    code = """
from synergy import Processed
def late(task):
    task.reprocess("hourly", "2020050107", "3 rows")
    return Processed({"n": 1}, cursor="9", more=True)
"""
    rig = make_rig("processes = [managed('late', 'jobs:late', 'hourly', state_machine='continuous')]", code)
    rig.worker("w1")
    uow = rig.wait(rig.request("late", final=False))
    assert (uow.state, uow.cursor_end, uow.more) == ("processed", "9", True)
    (command,) = rig.store.find(Command)
    assert (command.verb, command.actor, command.reason) == ("late_data", "late", "3 rows")
    assert command.target == {"jobs": ["hourly@2020050107"]} and command.state == "pending"


def test_54_hooks_in_their_order_and_a_raising_one_changes_nothing(make_rig: MakeRig) -> None:
    code = """
from synergy import Worker
class Hooked(Worker):
    def run(self, task):
        if task.attempt == 1: raise ValueError("first")
        return {"ok": True}
    def on_start(self, task): print("start")
    def on_retry(self, task, error): print("retry", error)
    def on_success(self, task, result): print("success", result); raise RuntimeError("hook")
    def on_failure(self, task, error): print("failure", error)
class Hopeless(Hooked):
    def run(self, task): raise ValueError("always")
"""
    rig = make_rig(
        "processes = [managed('a', 'jobs:Hooked', 'hourly'), managed('b', 'jobs:Hopeless', 'hourly', retry=Retry(0))]",
        code,
    )
    rig.worker("w1")
    uow_id = rig.request("a")
    assert rig.wait(uow_id).state == "invalid"
    rig.leader(uow_id, "retry", attempt=2)
    rig.broker.publish([Outgoing("default", uow_id)])
    assert rig.wait(uow_id, "processed").result == {"ok": True}
    lines = rig.log(uow_id).splitlines()
    assert lines[:5] == [
        "start",
        "retry first",
        "start",
        "success {'ok': True}",
        "the hook on_success raised:",
    ]
    other = rig.request("b")
    rig.wait(other)
    assert rig.log(other).splitlines() == ["start", "failure always"]


def test_readiness_is_evaluated_by_a_worker(make_rig: MakeRig) -> None:
    code = """
import pathlib
def there(task):
    found = (pathlib.Path(__file__).parent / "marker").exists()
    return found, "no marker yet"
def broken(task): raise OSError("no such share")
"""
    rig = make_rig(
        "processes = [managed('a', 'worker.ready_made:nothing', 'hourly', readiness='jobs:there'),"
        " managed('b', 'worker.ready_made:nothing', 'hourly', readiness='jobs:broken')]",
        code,
    )
    rig.worker("w1")
    first = rig.wait(rig.request("a", kind="check"))
    assert (first.state, first.error) == ("noop", "no marker yet")
    rig.file("marker").touch()
    assert rig.wait(rig.request("a", 1, kind="check")).state == "processed"
    broken = rig.wait(rig.request("b", kind="check"))
    assert (broken.state, broken.error, broken.failures) == ("noop", "OSError: no such share", 0)


def test_the_log_has_everything_that_was_printed_in_order(make_rig: MakeRig) -> None:
    code = r"""
import logging, os, subprocess, sys
def talk(task):
    print("print ä\0")
    logging.warning("logging")
    sys.stderr.write("stderr\n")
    subprocess.run(["echo", "subprocess"])
    os.write(1, b"descriptor\xff\n")
    print("no newline", end="")
def flood(task):
    for n in range(200_000): print(f"line {n:06d}")
def silent(task): pass
"""
    rig = make_rig(
        "processes = [managed(n, f'jobs:{n}', 'hourly') for n in ('talk', 'flood', 'silent')]", code
    )
    rig.worker("w1")
    uow_id = rig.request("talk")
    rig.wait(uow_id)
    expected = "print ä\ufffd\nWARNING:root:logging\nstderr\nsubprocess\ndescriptor\ufffd\nno newline"
    assert rig.log(uow_id) == expected
    uow_id = rig.request("flood")
    rig.wait(uow_id)
    text = rig.log(uow_id)
    assert text.startswith("line 000000\n") and text.endswith("line 199999\n")
    assert "bytes left out" in text and len(text) < 1_200_000
    uow_id = rig.request("silent")
    rig.wait(uow_id)
    assert rig.log(uow_id) == ""
