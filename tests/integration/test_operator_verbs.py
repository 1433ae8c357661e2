"""The operator's verbs, typed as they are typed, against a real store and a real scheduler in a thread."""

from __future__ import annotations

import json
import os
import pwd
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands.dispatch import main
from commands.site import Site
from scheduler.clock import Mapping
from scheduler.control import submit
from scheduler.core.command import Command
from scheduler.core.job import Job
from scheduler.core.records import Hold, LogChunk, ProcessRow
from scheduler.core.uow import Uow
from scheduler.daemon import Daemon
from scheduler.engine import Engine
from worker.changes import accept, finish
from worker.executor import Outcome, Verb

CONTEXT = """
from synergy import Retry, freerun, managed, tree
process_context = [
    managed("h", "wrk:run", "hourly", max_active=3, retry=Retry(max_retries=3, delay_s=9999.0)),
    managed("d", "wrk:run", "daily", blocking="children"),
    managed("x", "wrk:run", "daily", blocking="dependencies"),
    freerun("f", "wrk:run", trigger="every 3600"),
]
timetable_context = [tree("t", ["h", "d"]), tree("u", ["x"], depends_on=["t"])]
synergy_start_timeperiod = "2020050100"
"""
NOW = datetime(2020, 5, 2, 0, 10, tzinfo=UTC)
WHO = pwd.getpwuid(os.getuid()).pw_name


class Box:
    """A box with a store, and a scheduler if one is led."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "context").mkdir(parents=True)
        (folder / "context" / "process_context.py").write_text(CONTEXT)
        self.options = ["--context", str(folder / "context"), "--state-folder", str(folder / "state")]
        self.site = Site({"context": str(folder / "context"), "state_folder": str(folder / "state")})
        self.store, self.broker, self.clock = self.site.connect()
        with self.store.transaction() as tx:
            tx.insert([Mapping(self.clock.real(), NOW, 0).to_fact()])
        self.clock.refresh()
        engine = Engine(self.store, self.broker, self.clock, self.site.timetable, holder="here/scheduler")
        engine.trust_leases()
        self.daemon = Daemon(engine, tick_s=0.1)
        self.thread = threading.Thread(target=self.daemon.run)
        self._capsys = capsys

    def lead(self) -> None:
        self.thread.start()
        assert self.daemon.leading.wait(30)
        self.until(lambda: len(self.store.find(Uow)) >= 3, "the first three hours are requested")

    def close(self) -> None:
        self.daemon.stop()
        if self.thread.is_alive():
            self.thread.join(30)
        self.site.close()

    def type(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command line."""
        self._capsys.readouterr()
        code = main([words[0], *self.options, *words[1:]])
        out, err = self._capsys.readouterr()
        return code, out, err

    def ask(self, *words: str) -> Any:
        """The JSON of a command line that goes well."""
        code, out, err = self.type(*words, "--json", *(["--wait", "30"] if words[0] not in READING else []))
        assert code == 0, err
        return json.loads(out)

    def refuse(self, code: int, *words: str) -> str:
        """The one line of a command line that is refused."""
        found, out, err = self.type(*words, *(["--wait", "30"] if words[0] not in READING else []))
        assert (found, out, err.count("\n")) == (code, "", 1), (found, out, err)
        return err

    def job(self, id_: str) -> Job:
        found = self.store.get(Job, id_)
        assert found is not None
        return found

    def uow(self, id_: str) -> Uow:
        found = self.store.get(Uow, id_)
        assert found is not None
        return found

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """The scheduler is at work on it."""
        ends = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < ends, what
            time.sleep(0.02)


READING = ("jobs", "job", "explain", "events", "log")


@pytest.fixture
def idle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Box]:
    """A box without a scheduler."""
    for name in os.environ:
        if name.startswith("SYNERGY_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = Box(tmp_path, capsys)
    yield found
    found.close()


@pytest.fixture
def box(idle: Box) -> Box:
    """A box with a scheduler."""
    idle.lead()
    return idle


def test_reprocess_shows_its_plan_first(box: Box) -> None:
    box.ask("mark-done", "h", "2020-05-01T05", "--reason", "by hand")
    assert box.job("h@2020050105").state == "processed"
    plan = box.ask("reprocess", "h", "2020050105", "--plan")
    assert {(row["job"], row["effect"]) for row in plan} >= {
        ("h@2020050105", "reset"),
        ("d@2020050100", "none"),
    }
    assert box.job("h@2020050105").state == "processed", "a plan changes nothing"
    done = box.ask("reprocess", "h", "2020050105", "--reason", "fixed upstream")
    assert (done["status"], done["actor"], done["reason"]) == (200, WHO, "fixed upstream")
    assert done["outcome"]["jobs"] == plan
    assert box.job("h@2020050105").generation == 1


def test_skip_a_span_of_periods(box: Box) -> None:
    code, out, _ = box.type("skip", "h", "2020-05-01T10..2020-05-01T12", "--wait", "30")
    assert code == 0
    assert "3 jobs changed" in out
    assert [box.job(f"h@20200501{hour}").state for hour in (10, 11, 12)] == ["skipped"] * 3
    assert "allowed: reprocess" in box.refuse(5, "skip", "h", "2020050110")
    assert "there is no job" in box.refuse(4, "skip", "h", "2021050110")
    assert "end is before" in box.refuse(2, "skip", "h", "2020-05-01T12..2020-05-01T10")
    assert "more than 10,000" in box.refuse(2, "skip", "h", "2020-05-01..2022-05-01")


def test_jobs_by_their_ids_and_options_among_the_words(box: Box) -> None:
    plan = box.ask("skip", "h@2020050110", "h@2020050111..2020050112", "d@2020-05-01", "--plan")
    assert [row["job"] for row in plan[:3]] == [f"h@20200501{hour}" for hour in (10, 11, 12)]
    assert box.ask("job", "h@2020-05-01T10")["job"] == "h@2020050110"
    assert box.ask("explain", "h@2020050110")["job"] == "h@2020050110"
    code, out, _ = box.type("skip", "h", "--wait", "30", "2020050110", "--reason", "no", "2020050111")
    assert code == 0 and "2 jobs changed" in out
    events = box.ask("events", "h@2020050110")
    assert events and {(event["process"], event["timeperiod"]) for event in events} == {("h", "2020050110")}
    assert "job h@2020050105 cannot run now: 3 of h" in box.refuse(5, "run-now", "h@2020050105")
    assert "which period? Such as h 2020-" in box.refuse(2, "skip", "h")
    assert "which period? Such as h 2020-" in box.refuse(2, "job", "h")
    assert "expected a job's id such as" in box.refuse(2, "skip", "h@2020050110", "2020050111")
    assert "expected a job's id such as" in box.refuse(2, "job", "h@")
    assert "is a run of h@2020050100: name the job" in box.refuse(2, "log", "h@2020050100#1")
    several = "h@2020050110..2020050112"
    assert f"{several}: one period is meant, these are 3" in box.refuse(2, "job", several)
    assert "did you mean h?" in box.refuse(4, "kill", "hh@2020050110")
    assert "no PERIOD" in box.refuse(2, "run-now", "h@2020050110", "--argument", "a=1")


def test_kill_and_retry(box: Box) -> None:
    assert "only an invalid unit of work is retried" in box.refuse(5, "retry", "h", "2020050100")
    fail(box, "h@2020050100#1")
    done = box.ask("retry", "h", "2020050100")
    assert done["state"] == "done"
    uow = box.store.get(Uow, "h@2020050100#1")
    assert uow is not None
    assert (uow.state, uow.attempt) == ("requested", 2)
    box.ask("kill", "h", "2020050100", "--reason", "no use")
    assert (box.job("h@2020050100").state, box.job("h@2020050100").reason) == ("skipped", "killed")
    assert "nothing to kill" in box.refuse(5, "kill", "h", "2020050123")


def take(box: Box, id_: str) -> Uow:
    """Accept it, as a worker would."""
    uow = box.uow(id_)
    now = box.store.now()
    with box.store.transaction() as tx:
        assert tx.update([accept(uow, owner="w", box="here", token="1", now=now, lease_s=600)]) == 1
    return box.uow(id_)


def end(box: Box, uow: Uow, verb: Verb, **how: Any) -> None:
    """End it, as a worker would."""
    with box.store.transaction() as tx:
        outcome = Outcome(uow_id=uow.id, token="1", verb=verb, duration_s=1.0, **how)
        assert tx.update([finish(uow, outcome, now=box.store.now())]) == 1


def fail(box: Box, id_: str) -> None:
    uow = take(box, id_)
    with box.store.transaction() as tx:
        text = "opening the file\nno such file\n"
        tx.insert([LogChunk(uow=id_, attempt=1, n=1, at=box.store.now(), text=text)])
    end(box, uow, "fail", error="no such file")


def test_run_now_and_submit(box: Box) -> None:
    assert box.ask("run-now", "f", "--argument", "days=7")["outcome"]["jobs"][0]["effect"] == "made"
    made = box.ask("submit", "f", "--argument", "name=x", "--argument", "n=2")
    assert box.job(made["message"]).arguments == {"name": "x", "n": 2}
    entry = box.ask("submit", "f_twice", "--base", "f", "--trigger", "every 7200")
    assert entry["outcome"]["state"] == "scheduled"
    assert box.ask("run-now", "f_twice")["state"] == "done"
    box.ask("delete", "f_twice")
    assert "already" in box.refuse(5, "submit", "f", "--base", "f")
    assert "name=value" in box.refuse(2, "submit", "f", "--argument", "seven")
    assert "--base" in box.refuse(2, "submit", "f", "--trigger", "every 60")
    assert "freerun" in box.refuse(5, "submit", "h")
    assert "only a freerun" in box.refuse(2, "run-now", "h", "--argument", "a=1")
    assert "is not finished" in box.refuse(5, "run-now", "d", "2020-05-01")


def test_holds(box: Box) -> None:
    until = "2h"
    box.ask("hold", "h", "--until", until, "--reason", "disk full")
    hold = box.store.get(Hold, "process:h")
    assert hold is not None
    assert (hold.actor, hold.reason, hold.until is not None) == (WHO, "disk full", True)
    assert "held by" in box.type("explain", "h", "2020050112")[1]
    box.ask("release", "h")
    for typed, scope in (("all", "*"), ("t", "tree:t"), ("h@2020050112", "job:h@2020050112")):
        assert box.ask("hold", typed)["target"] == {"scope": scope}
        box.ask("release", typed)
    assert not box.store.find(Hold)
    assert "is not held" in box.refuse(5, "release", "t")
    assert "did you mean" in box.refuse(4, "hold", "hh")
    assert "nothing to hold" in box.refuse(4, "hold", "tree:zzz")
    assert "that is over" in box.refuse(2, "hold", "h", "--until", "2001-01-01")
    assert "expected an instant" in box.refuse(2, "hold", "h", "--until", "soon")


def test_processes_and_overrides(box: Box) -> None:
    def row() -> ProcessRow:
        found = box.store.get(ProcessRow, "x")
        assert found is not None
        return found

    for verb, state in (("suspend", "suspended"), ("resume", "scheduled"), ("schedule", "scheduled")):
        box.ask(verb, "x")
        assert row().state == state
    box.ask("set", "x", "max_active", "7")
    box.ask("set", "x", "priority", "9")
    box.ask("set", "x", "trigger", "at 06:00")
    box.ask("set", "x", "tags", "critical, night")
    assert {key: value["value"] for key, value in row().overrides.items() if key != "is_on"} == {
        "max_active": 7,
        "priority": 9,
        "tags": ["critical", "night"],
        "trigger": "at 06:00",
    }
    box.ask("reset", "x")
    assert row().overrides == {}
    box.ask("expire", "x")
    assert "expired" in box.refuse(5, "resume", "x")
    box.ask("delete", "x")
    assert row().state == "deleted"
    assert "whole number" in box.refuse(2, "set", "h", "priority", "high")
    assert "between 1 and 10" in box.refuse(2, "set", "h", "priority", "11")
    assert "trigger" in box.refuse(2, "set", "h", "trigger", "whenever")
    assert "one word" in box.refuse(2, "set", "h", "tags", "good,two words")
    with pytest.raises(SystemExit) as caught:
        box.type("set", "h", "lag_s", "5")
    assert caught.value.code == 2


def test_clock(box: Box) -> None:
    assert box.ask("clock")["rate"] == 0
    assert "2020-05-02 00:10:00 UTC, 0 seconds" in box.type("clock")[1]
    box.ask("clock", "--shift", "2h")
    assert box.ask("clock")["business"].startswith("2020-05-02T02:10:00")
    box.ask("clock", "--to", "2020-05-02T05:00", "--rate", "0")
    assert box.ask("clock")["business"].startswith("2020-05-02T05:00:00")
    assert "both" in box.refuse(2, "clock", "--shift", "1h", "--to", "2020-06-01")
    assert "--rate fast" in box.refuse(2, "clock", "--rate", "fast")
    assert "length of time" in box.refuse(2, "clock", "--shift", "a while")


def test_reading(box: Box) -> None:
    fail(box, "h@2020050100#1")
    box.ask("retry", "h", "2020050100")
    counts = box.ask("jobs")
    assert counts["h"]["in_progress"] == 3
    jobs = box.ask("jobs", "h", "--state", "in_progress")
    assert [job["timeperiod"] for job in jobs] == ["2020050100", "2020050101", "2020050102"]
    assert "in_progress" in box.type("jobs", "h")[1]
    assert "processed" in box.type("jobs")[1]
    job = box.ask("job", "h", "2020-05-01T00")
    assert (job["state"], job["uows"][0]["attempt"], job["uows"][0]["error"]) == (
        "in_progress",
        2,
        "no such file",
    )
    assert "h@2020050100 is in_progress" in box.type("job", "h", "2020050100")[1]
    why = box.ask("explain", "d", "2020-05-01")
    assert (why["own"][0]["code"], why["own"][0]["job"]) == ("children", "h@2020050100")
    assert "h@2020050100" in box.type("explain", "d", "2020-05-01")[1]
    events = box.ask("events", "h", "2020050100", "--severity", "debug")
    assert {event["kind"] for event in events} >= {"job.dispatch", "uow.fail", "uow.retry"}
    assert [e["kind"] for e in box.ask("events", "--kind", "command.", "--limit", "1")] == ["command.done"]
    assert "uow.fail" in box.type("events", "h")[1]
    assert box.type("log", "h", "2020050100")[1] == "opening the file\nno such file\n"
    assert box.ask("log", "h", "2020050100", "--attempt", "2") == []
    assert "it has 1" in box.refuse(4, "log", "h", "2020050100", "--run", "2")
    assert "not run yet" in box.refuse(4, "log", "h", "2020050123")
    assert "did you mean h?" in box.refuse(4, "jobs", "hh")
    assert "--state done" in box.refuse(2, "jobs", "h", "--state", "done")
    assert "--reason bored" in box.refuse(2, "jobs", "--reason", "bored")
    assert "there is no job" in box.refuse(4, "explain", "h", "2021050100")
    assert "one period is meant" in box.refuse(2, "job", "h", "2020-05-01T00..2020-05-01T02")
    assert "month must be in 1..12" in box.refuse(2, "explain", "d", "2020-13")


def test_what_was_lost_too_often_is_listed_and_driven_again(box: Box) -> None:
    first, second = "h@2020050100#1", "h@2020050100#2"
    for attempt in range(1, 7):  # five may be lost, then it is given up
        take(box, first)
        submit(
            box.store, box.broker, "worker_died", {"owner": "w"}, actor="box:here"
        )  # as its supervisor does
        box.until(lambda n=attempt: box.uow(first).losses == n, f"attempt {attempt} is called lost")  # type: ignore[misc]
    assert box.uow(first).state == "canceled"
    lost = box.ask("jobs", "--reason", "lost", "--reason", "failed")
    assert [(job["job"], job["state"], job["reason"]) for job in lost] == [
        ("h@2020050100", "skipped", "lost")
    ]
    assert "2020050100" in box.type("jobs", "--reason", "lost")[1]
    assert "lost with its worker too often" in box.type("events", "h", "2020050100", "--severity", "debug")[1]
    box.ask("reprocess", "h", "2020050100")
    end(box, take(box, "h@2020050101#1"), "succeed")  # three may be active: it makes a place
    box.until(lambda: box.store.get(Uow, second) is not None, "it is requested again")
    end(box, take(box, second), "succeed")
    box.until(lambda: box.job("h@2020050100").state == "processed", "it is processed")
    assert box.ask("jobs", "--reason", "lost") == []


def test_without_a_scheduler_a_command_waits(idle: Box) -> None:
    code, out, err = idle.type("suspend", "h", "--wait", "0")
    assert (code, out) == (3, "")
    assert "no scheduler has taken it within 0 s" in err
    assert [command.state for command in idle.store.find(Command)] == ["pending"]
    idle.lead()
    code, out, err = idle.type("resume", "h", "--wait", "30")
    assert (code, err) == (0, "")
    assert [command.state for command in idle.store.find(Command)] == ["done", "done"]


def test_without_a_store_it_is_one_line(tmp_path: Path, idle: Box) -> None:
    idle.options[-1] = str(tmp_path / "nowhere")
    assert "never started" in idle.refuse(3, "skip", "h", "2020050100")
    assert not (tmp_path / "nowhere").exists()


def test_late_data_is_listed_narrowed_and_dropped(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler import control
    from scheduler.core import plan

    assert box.ask("late") == []
    box.ask("mark-done", "h", "2020050100", "2020050101")
    monkeypatch.setattr(plan, "CASCADE_MAX", 1)
    for n in (1, 2, 3):
        target = {"jobs": ["h@2020050100", "h@2020050101"]}
        key = f"late-{n}"
        control.submit(
            box.store, box.broker, "late_data", target, actor="feed", reason=key, key=key, expiry_s=None
        )
    until = time.monotonic() + 30
    while len(box.ask("late")) < 3:
        assert time.monotonic() < until, "the late data was not looked at"
    listed = box.ask("late")
    assert [row["id"] for row in listed] == ["late-1", "late-2", "late-3"]
    assert "at most 1 at once" in listed[0]["message"]
    code, out, _ = box.type("late")
    assert code == 0 and "h@2020050100 and 1 more" in out
    assert "was dropped" in box.ask("late", "drop", "late-1", "--reason", "a test")["message"]
    assert "3 that wait" not in box.refuse(4, "late", "drop", "late-")
    assert "at most 1 at once" in box.refuse(5, "late", "narrow", "late-2", "--only", "h")
    assert "is refused; only what waits" in box.refuse(5, "late", "drop", "late-1")
    monkeypatch.setattr(plan, "CASCADE_MAX", 10)
    done = box.ask("late", "narrow", "late-2", "--from", "2020-05-01", "--to", "2020-05-01T01:00")
    effects = {row["job"]: row["effect"] for row in done["outcome"]["jobs"]}
    assert effects == {
        "h@2020050100": "left",
        "h@2020050101": "left",
    }  # a person ended the one, the other is outside
    assert [row["id"] for row in box.ask("late")] == ["late-3"]
    assert "needs --from, --to or --only" in box.refuse(2, "late", "narrow", "late-3")
    assert "needs the ID" in box.refuse(2, "late", "drop")
    assert "belong to" in box.refuse(2, "late", "--only", "h")
    assert "no late data that waits" in box.refuse(4, "late", "drop", "nobody")
