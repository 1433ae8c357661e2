"""What needs a person and what heals by itself: items and the verdict, from made-up facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mx.marks import Marks
from mx.view_attention import Behind, Facts, Failure, items, verdict
from scheduler.core.command import Command
from scheduler.core.job import Job
from scheduler.core.process import context, managed, tree
from scheduler.core.records import BoxProcess, Hold, ProcessRow
from scheduler.core.timetable import Span, Timetable
from scheduler.core.uow import Uow

REAL = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
BUSINESS = datetime(2013, 12, 13, 3, 7, 42, tzinfo=UTC)
HOUR = datetime(2013, 12, 12, 22, tzinfo=UTC)
TIMETABLE = Timetable(
    context(
        [managed("hourly", "x:y", "hourly"), managed("daily", "x:y", "daily", deadline="05:00")],
        [tree("t", ["hourly", "daily"])],
        start="2013010100",
    )
)
ROW = ProcessRow(name="hourly", kind="managed", state="scheduled", usual_ms=1000, usual_p95_ms=20_000)


def facts(**more: Any) -> Facts:
    """A quiet night, but for what is said."""
    quiet = Facts(
        real=REAL,
        business=BUSINESS,
        leading=True,
        leader_seen=REAL,
        processes=TIMETABLE.processes,
        rows={"hourly": ROW},
    )
    return replace(quiet, **more)


def uow(**more: Any) -> Uow:
    """A unit of work of the bad hour."""
    found = Uow(
        id="hourly@2013121222#1",
        process="hourly",
        timeperiod="2013121222",
        run=1,
        start=HOUR,
        end=HOUR + timedelta(hours=1),
        created_at=REAL,
        requested_at=REAL,
    )
    return replace(found, **more)


def job(**more: Any) -> Job:
    """The bad hour."""
    end = HOUR + timedelta(hours=1)
    return replace(
        Job(id="hourly@2013121222", process="hourly", timeperiod="2013121222", start=HOUR, end=end), **more
    )


def behind(name: str, waiting: int = 3, **more: Any) -> Behind:
    """A process that is behind."""
    end = HOUR + timedelta(hours=1)
    late = timedelta(hours=4)
    found = Behind(TIMETABLE.processes[name], HOUR, end, "2013121222", late, waiting, has_deadline=False)
    return replace(found, **more)


def test_a_good_night_needs_nobody() -> None:
    assert items(facts()) == []
    assert verdict(facts(), []) == ("Nothing needs you.", "Nothing runs at this moment.")


def test_a_failure_names_its_error_and_how_many_wait() -> None:
    failed = job(state="skipped", reason="retries_exhausted", open=False, settled_at=REAL)
    waiting = [(Span("daily", HOUR, HOUR + timedelta(days=1)), 1)]
    found = items(facts(failures=[Failure(failed, "ValueError: NA\nmore", waiting)]))
    assert [item.title for item in found] == ["hourly 12 Dec 22:00–23:00 failed, 1 job waits for it"]
    assert found[0].quote == "ValueError: NA" and not found[0].heals
    assert verdict(facts(), found)[0] == "One thing needs you."


def test_many_failures_of_one_cause_are_one_item() -> None:
    failures = [
        Failure(job(id=f"hourly@{n}", timeperiod=str(n), state="skipped", reason="failed"), "E")
        for n in range(9)
    ]
    (found,) = items(facts(failures=failures))
    assert found.title == "hourly failed, 9 periods"
    assert len(found.jobs) == 5 and found.more == "and 3 more"


def test_what_is_retried_heals_by_itself() -> None:
    failed = uow(state="invalid", failures=2, error="E", retry_at=REAL + timedelta(minutes=5))
    (found,) = items(facts(uows=[failed], waiting={failed.id: 6}))
    assert found.heals and found.mark == "retrying"
    assert found.title == "hourly 12 Dec 22:00–23:00 fails, 6 jobs wait for it"
    assert found.badges[0].text == "attempt 2 of 4 failed" and "next try in 5 min" in found.due
    assert [button.verb for button in found.buttons] == ["retry", "", ""]


@pytest.mark.parametrize(
    "more",
    [
        {"state": "in_progress", "lease_until": REAL - timedelta(seconds=1), "owner": "b/w/1"},
        {"state": "in_progress", "lease_until": REAL + timedelta(seconds=1), "losses": 1},
        {"state": "requested", "losses": 1},
    ],
)
def test_a_lost_worker_heals_by_itself(more: dict[str, Any]) -> None:
    (found,) = items(facts(uows=[uow(**more)]))
    assert found.heals and found.mark == "lost" and "lost its worker" in found.title


def test_unusually_long_is_against_the_usual() -> None:
    long = uow(state="in_progress", started_at=REAL - timedelta(seconds=90), lease_until=REAL + timedelta(60))
    (found,) = items(facts(uows=[long]))
    assert (
        found.title.endswith("runs unusually long")
        and "1 min 30 s; 95 of 100 runs end within 20 s" in found.why
    )
    assert items(facts(uows=[long], rows={})) == []


def test_behind_is_no_alarm_while_something_moves() -> None:
    moving = facts(behind=[behind("hourly")], uows=[uow(state="requested")])
    (found,) = items(moving)
    assert found.heals and found.title == "hourly is behind, 3 closed periods wait"
    assert verdict(moving, [found])[0] == "Nothing needs you."
    (stuck,) = items(facts(behind=[behind("hourly")]))
    assert not stuck.heals


def test_a_missed_deadline_is_the_gravest() -> None:
    late = facts(
        behind=[behind("daily", has_deadline=True)],
        boxes=[BoxProcess(id="b/w", box="b", name="w", kind="worker", state="FATAL")],
    )
    found = items(late)
    assert [item.severity for item in found] == ["critical", "error"]
    assert "missed its deadline" in found[0].title and found[1].title == "w on b does not start"


def test_a_silent_supervisor_and_a_command_that_waits_are_said() -> None:
    box = BoxProcess(
        id="b/supervisor", box="b", name="supervisor", kind="supervisor", state="RUNNING",
        seen_at=REAL - timedelta(minutes=2),
    )  # fmt: skip
    command = Command(id="c", verb="late_data", actor="feed", submitted_at=REAL - timedelta(hours=1))
    titles = [item.title for item in items(facts(boxes=[box], commands=[command]))]
    assert titles == ["The supervisor of b is silent", "late data by feed waits"]


def test_late_data_that_waits_for_a_person_is_said_at_once_and_is_critical() -> None:
    command = Command(
        id="c", verb="late_data", actor="feed", submitted_at=REAL - timedelta(seconds=1), status=409,
        target={"jobs": ["hourly@2020050100"]}, message="this would touch 12,000 jobs", reason="3 rows",
    )  # fmt: skip
    (item,) = items(facts(commands=[command]))
    assert (item.severity, item.title) == ("critical", "Late data for hourly@2020050100 waits for you")
    assert "12,000 jobs" in item.why and "launch.py late" in item.why and item.quote == "3 rows"


def test_without_a_scheduler_the_verdict_says_so() -> None:
    down = facts(leading=False, leader_seen=REAL - timedelta(seconds=90))
    found = items(down)
    head, sentence = verdict(down, found)
    assert head == "The scheduler is not running; last seen 02:58:30."
    assert "1 min 30 s" in sentence and found[0].severity == "critical"
    never = verdict(facts(leading=False, leader_seen=None), [])
    assert never[0] == "The scheduler is not running; never seen here."


def test_marks_of_a_job() -> None:
    def marks(open_: bool = True, holds: tuple[str, ...] = (), **more: Any) -> list[str]:
        held = [Hold(scope=scope, actor="a", reason="", since=REAL) for scope in holds]
        uows = [uow(**more)] if more else []
        found = Marks.of_facts(TIMETABLE, {"hourly": ROW}, held, uows, REAL, BUSINESS)
        return found.all_of(job(open=open_))

    assert marks() == ["late"]
    assert marks(open_=False) == []
    assert marks(state="invalid", failures=1) == ["retrying", "late"]
    assert marks(state="in_progress", losses=1) == ["lost", "late"]
    for scope in ("*", "tree:t", "process:hourly", "job:hourly@2013121222"):
        assert marks(holds=(scope,)) == ["held", "late"]
    assert marks(holds=("process:daily",)) == ["late"]


def test_a_hold_that_ran_out_is_none() -> None:
    over = Hold(scope="*", actor="a", reason="", since=REAL, until=REAL - timedelta(seconds=1))
    assert Marks.of_facts(TIMETABLE, {}, [over], [], REAL, BUSINESS).held_by("hourly", "x") == ""
