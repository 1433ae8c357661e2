"""The self-check, purely: rows in, findings out; and what a job must be by its events and units of work."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler.core.audit import (
    LightJob,
    LightUow,
    examine,
    gap_findings,
    labels_between,
    lease_findings,
    numbering_finding,
    suspects,
)
from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.records import Lease, ProcessRow
from scheduler.core.relink import Evidence, linked
from scheduler.core.uow import Uow

T = datetime(2020, 5, 1, 3, tzinfo=UTC)
H = timedelta(hours=1)
NOW = T + 24 * H
ID, LABEL = "p@2020050103", "2020050103"
ROW = ProcessRow(
    name="p", kind="managed", state="scheduled", qualifier="hourly", start=T, frontier=T + 3 * H, horizon=None
)


def job(**changed: Any) -> Job:
    """The job of the hour 03, processed by its first run."""
    done = Job(
        id=ID,
        process="p",
        timeperiod=LABEL,
        start=T,
        end=T + H,
        state="processed",
        version=2,
        open=False,
        run=1,
        uow=f"{ID}#1",
        produced=True,
    )
    return replace(done, **changed)


def uow(run: int = 1, **changed: Any) -> Uow:
    """A unit of work of that job, processed, with everything copied."""
    done = Uow(
        id=f"{ID}#{run}",
        process="p",
        timeperiod=LABEL,
        run=run,
        state="processed",
        final=True,
        start=T,
        end=T + H,
        created_at=T + H,
        requested_at=T + H,
        finished_at=T + 2 * H,
        history="{}\n",
        history_n=1,
        copied=1,
    )
    return replace(done, **changed)


def event(seq: int, kind: str, **changed: Any) -> Event:
    """An event of that job."""
    given: dict[str, Any] = {
        "source": "scheduler",
        "seq": seq,
        "at": T + H,
        "business_at": T + H,
        "process": "p",
    }
    return Event(**given | {"kind": kind, "timeperiod": LABEL} | changed)


LIFE = (
    event(1, "uow.request", uow=f"{ID}#1", data={"state": "requested"}),
    event(2, "job.dispatch", data={"state": "in_progress", "run": 1}),
    event(3, "uow.succeed", uow=f"{ID}#1", data={"state": "processed"}),
    event(4, "job.complete", data={"state": "processed", "run": 1}),
)


def evidence(**changed: Any) -> Evidence:
    """All three agree."""
    return replace(Evidence(ID, ROW, job(), [uow()], LIFE, NOW), **changed)


def codes(found: list[Any]) -> list[str]:
    """What was found."""
    return [finding.code for finding in found]


def test_what_agrees_is_no_finding() -> None:
    assert examine(evidence()) == []
    assert examine(evidence(uows=[])) == [], "its units of work were pruned"
    assert examine(evidence(events=[])) == []


def test_a_lost_row_comes_back_as_its_events_tell_it() -> None:
    """Scenario 64: as it was, so nothing runs twice."""
    (found,) = examine(evidence(job=None))
    assert found.code == "job.lost"
    assert found.job is not None
    assert (found.job.state, found.job.run, found.job.version, found.job.open) == ("processed", 1, 2, False)
    assert (found.job.settled_seq, found.job.requested_seq, found.job.produced) == (4, 1, True)
    assert found.remedy == "link it to run 1 as processed"


def test_a_lost_row_without_units_of_work_comes_back_by_its_events_alone() -> None:
    (found,) = examine(evidence(job=None, uows=[]))
    assert found.job is not None
    assert (found.code, found.job.state) == ("job.lost", "processed")


def test_a_snapshot_tells_all() -> None:
    data = {"state": "skipped", "reason": "manual", "version": 7, "run": 3, "settled_at": T.isoformat()}
    told = [event(9, "job.snapshot", data=data)]
    (found,) = examine(evidence(job=None, uows=[], events=told))
    assert found.job is not None
    assert (found.job.state, found.job.reason, found.job.version, found.job.run) == (
        "skipped",
        "manual",
        7,
        3,
    )
    assert found.job.settled_at == T


@pytest.mark.parametrize("state", ["processed", "noop", "canceled"])
def test_a_lost_row_whose_events_are_lost_too_is_decided_by_the_leader_again(state: str) -> None:
    (found,) = examine(evidence(job=None, events=[], uows=[uow(state=state)]))
    assert found.job is not None
    assert (found.job.state, found.job.uow_open, found.job.run) == ("final_run", True, 1)
    assert [change.set["dirty"] for change in found.changes] == [True], "it looks at its last unit of work"


def test_a_lost_row_of_a_unit_of_work_that_runs_is_linked_to_it() -> None:
    running = uow(2, state="in_progress", owner="b/w.1", lease_until=NOW + H, due_at=NOW + H)
    (found,) = examine(evidence(job=None, events=[], uows=[uow(), running]))
    assert found.job is not None
    assert (found.job.state, found.job.uow, found.job.uow_open) == ("final_run", running.id, True)
    assert found.changes == ()


def test_a_row_that_is_older_than_its_events() -> None:
    old = job(state="embryo", version=0, open=True, run=0, uow=None, produced=False)
    (found,) = examine(evidence(job=old))
    assert found.code == "job.behind"
    assert "state embryo instead of processed" in found.says
    assert found.job is not None
    assert (found.job.state, found.job.version, found.was) == ("processed", 2, old)


def test_a_period_of_which_nothing_is_known_is_an_embryo_again() -> None:
    (found,) = examine(evidence(job=None, uows=[], events=[]))
    assert found.code == "job.missing"
    assert found.job is not None
    assert (found.job.state, found.job.open, found.job.run) == ("embryo", True, 0)


def test_a_stray_unit_of_work_is_canceled() -> None:
    """Units of work restored from an older backup: its job is done, it must not run again."""
    stray = uow(state="requested", due_at=NOW, finished_at=None)
    (found,) = examine(evidence(uows=[stray]))
    assert (found.code, found.about) == ("uow.stray", stray.id)
    (change,) = found.changes
    assert change.set["state"] == "canceled"
    assert change.entry is not None
    assert "cancel" in change.entry


def test_of_two_unfinished_ones_that_with_a_worker_stays() -> None:
    working = job(state="in_progress", open=True, uow=f"{ID}#2", uow_open=True, run=2)
    held = uow(1, state="in_progress", owner="b/w.1", lease_until=NOW + H, due_at=NOW + H)
    waits = uow(2, state="requested", due_at=NOW)
    found = examine(evidence(job=working, uows=[held, waits], events=[]))
    assert codes(found) == ["job.behind", "uow.two"]
    assert found[0].job is not None
    assert (found[0].job.uow, found[0].job.run) == (held.id, 2)
    assert found[1].about == waits.id


def test_a_unit_of_work_that_is_lost_makes_its_job_an_embryo() -> None:
    """Its next run has a higher number; what the lost one's worker writes finds no row."""
    working = job(state="final_run", open=True, uow_open=True, version=1)
    (found,) = examine(evidence(job=working, uows=[], events=LIFE[:2]))
    assert found.job is not None
    assert (found.job.state, found.job.uow, found.job.run) == ("embryo", None, 1)


def test_one_that_ended_and_decided_nothing() -> None:
    working = job(state="in_progress", open=True, uow_open=True, version=1)
    (found,) = examine(evidence(job=working, events=LIFE[:3]))
    assert found.code == "job.undecided"
    waits = uow(dirty=True)
    assert examine(evidence(job=working, uows=[waits], events=LIFE[:2])) == [], "the leader is about to look"


def test_units_of_work_nobody_will_look_at() -> None:
    working = job(state="in_progress", open=True, uow_open=True, version=1)
    told = LIFE[:2]
    asleep = uow(state="requested", finished_at=None)
    assert codes(examine(evidence(job=working, uows=[asleep], events=told))) == ["uow.asleep"]
    suspended = replace(ROW, state="suspended")
    invalid = uow(state="invalid")
    assert examine(evidence(row=suspended, job=working, uows=[invalid], events=told)) == []
    uncopied = uow(history_n=3)
    assert "uow.uncopied" in codes(examine(evidence(uows=[uncopied])))
    far = uow(state="in_progress", owner="w", lease_until=NOW + 100 * H, due_at=NOW + 100 * H)
    assert codes(examine(evidence(job=working, uows=[far], events=told))) == ["uow.lease"]


def test_an_unknown_process_is_named_and_left_alone() -> None:
    (found,) = examine(evidence(row=None))
    assert (found.code, found.remedy) == ("process.unknown", "")


def test_repair_ends_at_agreement() -> None:
    """What `linked` says of a job that was linked is the same again."""
    for broken in (
        evidence(job=None),
        evidence(job=None, events=[], uows=[uow(), uow(2, state="canceled")]),
        evidence(job=job(state="embryo", version=0, open=True, run=0, uow=None)),
    ):
        first = linked(broken).job
        again = linked(replace(broken, job=first)).job
        assert again == first


def test_suspects_are_found_among_many() -> None:
    good = LightJob(*(getattr(job(), name) for name in LightJob._fields))
    unit = LightUow(*(getattr(uow(), name) for name in LightUow._fields))
    assert suspects(ROW, "p", [good], [unit], [], [LABEL], NOW) == []
    assert suspects(ROW, "p", [], [unit], [], [], NOW) == [ID]
    assert suspects(ROW, "p", [], [], [], [LABEL], NOW) == [ID]
    assert suspects(ROW, "p", [good], [unit._replace(run=2)], [], [], NOW) == [ID]
    assert suspects(ROW, "p", [good], [unit._replace(state="requested")], [], [], NOW) == [ID]
    assert suspects(ROW, "p", [good._replace(open=True)], [unit], [], [], NOW) == [ID]
    archived = replace(ROW, horizon=T + 2 * H)
    assert suspects(archived, "p", [], [unit], [], [], NOW) == [], (
        "behind the horizon rows are gone on purpose"
    )


def test_periods_that_must_have_a_row() -> None:
    assert labels_between(ROW, T - H, T + 30 * H) == ["2020050103", "2020050104", "2020050105"]
    assert labels_between(replace(ROW, horizon=T + 2 * H), T, T + 30 * H) == ["2020050105"]
    assert labels_between(replace(ROW, kind="freerun"), T, T + 30 * H) == []


def test_gaps_are_named_where_nothing_was_pruned() -> None:
    numbers = [(1, T), (2, T), (4, T), (9, T + H)]
    found = gap_findings("scheduler", numbers, T)
    assert [finding.says for finding in found] == ["number 3 is missing", "number 5 to 8 is missing"]
    assert gap_findings("scheduler", numbers, T + H) == []


def test_numbers_go_on_above_all_that_are_named() -> None:
    assert numbering_finding(9, 9) == []
    (found,) = numbering_finding(3, 9)
    assert found.remedy == "go on numbering at 10"


def test_a_lease_in_the_far_future() -> None:
    lease = Lease(name="leader", holder="a", token=1, taken_at=NOW, expires_at=NOW + H)
    assert lease_findings([lease], NOW) == []
    assert codes(lease_findings([replace(lease, expires_at=NOW + 100 * H)], NOW)) == ["lease.future"]
