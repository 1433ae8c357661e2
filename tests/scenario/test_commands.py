"""Acceptance scenarios 21-26, 37, 62, 63, 67, 68, 71-73: what operators and late data do."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from scheduler.core.process import Retry, after, context, managed, tree
from scheduler.core.timetable import Timetable
from tests.world import World

NOW = "2020-05-02T00:10:00"


def pyramid(**more: Any) -> World:
    """Hours under a day under a month; x depends on the days, and n (normal) too."""
    return World(
        [
            managed("h", "m:f", "hourly", max_active=30, **more),
            managed("d", "m:f", "daily", blocking="children"),
            managed("m", "m:f", "monthly", blocking="children"),
            managed("x", "m:f", "daily", blocking="dependencies"),
        ],
        [tree("t", ["h", "d", "m"]), tree("u", ["x"], depends_on=["t"])],
        start="2020050100",
        now=NOW,
    )


def finished() -> World:
    """The first of May, all of it processed."""
    w = pyramid()
    w.work_all()
    assert (w.job("d@2020050100").state, w.job("x@2020050100").state) == ("processed", "processed")
    return w


def test_21_skip_a_day_takes_its_unfinished_hours_and_strict_dependants() -> None:
    w = pyramid()
    w.work("h@2020050100")
    running = w.accept("h@2020050101#1")
    result = w.command("skip", "d@2020050100", reason="no data")
    assert result.status == 200
    assert w.job("h@2020050100").state == "processed"
    assert w.states("h")[1:24] == ["skipped"] * 23
    assert w.uow(running.id).state == "canceled"
    assert w.uow("h@2020050105#1").state == "canceled"
    assert w.job("x@2020050100").state == "skipped"
    assert w.job("m@2020050000").state == "embryo"
    assert w.job("h@2020050123").reason == "manual"


def test_21_hours_not_yet_due_are_made_and_skipped() -> None:
    w = pyramid()
    w.command("skip", "d@2020050200")
    day_two = [job for job in w.jobs("h") if job.timeperiod.startswith("20200502")]
    assert (len(day_two), {job.state for job in day_two}) == (24, {"skipped"})
    w.go("2020-05-02T05:10:00")
    assert {job.state for job in w.jobs("h") if job.timeperiod.startswith("20200502")} == {"skipped"}
    w.go("2020-05-03T00:10:00")
    assert w.job("h@2020050300").state == "embryo"


def test_22_reprocess_takes_ancestors_and_dependants_and_no_siblings() -> None:
    w = finished()
    result = w.command("reprocess", "h@2020050105", reason="fixed upstream")
    named = {row["job"]: row["effect"] for row in (result.outcome or {})["jobs"]}
    assert named == {
        "h@2020050105": "reset",
        "d@2020050100": "reset",
        "m@2020050000": "none",
        "x@2020050100": "reset",
    }
    assert w.job("h@2020050104").state == "processed"
    assert w.job("h@2020050105").state == "in_progress"


def test_23_in_order_and_no_result_is_older_than_its_inputs() -> None:
    w = finished()
    w.command("reprocess", "h@2020050105")
    assert [u.id for u in w.open_uows()] == ["h@2020050105#2"]
    w.work("h@2020050105")
    assert [u.id for u in w.open_uows()] == ["d@2020050100#2"]
    w.work("d@2020050100")
    assert [u.id for u in w.open_uows()] == ["x@2020050100#2"]
    w.work("x@2020050100")
    h, d, x = (w.job(j) for j in ("h@2020050105", "d@2020050100", "x@2020050100"))
    assert h.settled_seq < d.requested_seq < d.settled_seq < x.requested_seq


def test_24_reprocess_of_a_running_job_waits_for_its_worker() -> None:
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("reprocess", "h@2020050100")
    job = w.job("h@2020050100")
    assert (job.state, job.stopping) == ("embryo", "h@2020050100#1")
    assert w.explain(job.id).own[0].code == "stopping"
    assert w.messages("control.w1") == ["h@2020050100#1"]
    w.wait(5)
    assert w.job("h@2020050100").uow == "h@2020050100#1"
    w.stopped("h@2020050100#1")
    assert w.job("h@2020050100").uow == "h@2020050100#2"
    w.work("h@2020050100")
    assert w.job("h@2020050100").state == "processed"


def test_24_or_until_its_lease_ran_out() -> None:
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("reprocess", "h@2020050100")
    w.wait(59)
    assert w.job("h@2020050100").run == 1
    w.wait(1)
    assert w.job("h@2020050100").run == 2


def test_24_reprocess_of_an_embryo_changes_nothing() -> None:
    w = pyramid()
    before = w.job("m@2020050000")
    result = w.command("reprocess", "m@2020050000")
    assert (result.status, (result.outcome or {})["changed"]) == (200, False)
    assert w.job("m@2020050000") == before


def test_25_a_success_after_a_skip_or_kill_changes_nothing() -> None:
    w = pyramid()
    uow = w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100", reason="runaway")
    with pytest.raises(Exception, match="canceled"):
        w.finish(uow.id)
    job = w.job("h@2020050100")
    assert (job.state, job.reason, w.uow(uow.id).state) == ("skipped", "killed", "canceled")
    assert w.messages("control.w1") == [uow.id]


def test_26_a_cascade_is_all_or_nothing_over_a_store_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    w = finished()
    from scheduler.core.errors import StoreUnavailable

    insert = type(w.store).transaction
    broken = {"left": 1}

    def transaction(self: Any, lease: Any = None) -> Any:
        if lease is not None and broken["left"]:
            broken["left"] -= 1
            raise StoreUnavailable("gone")
        return insert(self, lease)

    from scheduler import control

    monkeypatch.setattr(type(w.store), "transaction", transaction)
    id_ = control.submit(w.store, w.broker, "reprocess", {"jobs": ["h@2020050105"]}, actor="anna")
    with pytest.raises(StoreUnavailable):
        w.settle()
    assert w.job("d@2020050100").state == "processed"
    w.settle()
    assert control.wait(w.store, id_, 0).status == 200
    assert w.job("d@2020050100").state == "embryo"


def test_62_a_skipped_job_reprocessed_runs_again_with_a_new_run() -> None:
    w = pyramid(retry=Retry(max_retries=0))
    w.work("h@2020050100", "fail")
    assert w.job("h@2020050100").state == "skipped"
    w.command("reprocess", "h@2020050100")
    uow = w.uow(str(w.job("h@2020050100").uow))
    assert (uow.run, uow.attempt) == (2, 1)
    w.work(uow.id)
    assert w.job("h@2020050100").state == "processed"


def test_63_suspended_an_invalid_uow_waits_and_is_retried_after_resume() -> None:
    w = pyramid(retry=Retry(delay_s=10, jitter=0))
    w.work("h@2020050100", "fail")
    w.command("suspend", {"process": "h"})
    w.wait(3600)
    w.work("h@2020050101#1", "fail", permanent=True)
    assert w.uow("h@2020050101#1").state == "invalid"
    assert w.uow("h@2020050100#1").state == "invalid"
    w.command("resume", {"process": "h"})
    w.wait(10)
    assert (w.uow("h@2020050100#1").state, w.uow("h@2020050100#1").attempt) == ("requested", 2)


def test_67_hold_a_day_its_hours_run_release_it_starts_at_once() -> None:
    w = pyramid()
    w.command("hold", {"scope": "job:d@2020050100"}, reason="wait for finance")
    w.work_all("h")
    assert w.open_uows("d") == []
    assert [b.code for b in w.explain("d@2020050100").own] == ["held"]
    w.command("release", {"scope": "job:d@2020050100"})
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_67_mark_done_of_a_skipped_hour_drives_what_stands_on_it() -> None:
    w = pyramid()
    w.work("h@2020050100", "cancel")
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    w.command("mark_done", "h@2020050100", reason="loaded by hand")
    assert (w.job("h@2020050100").state, w.job("h@2020050100").reason) == ("processed", "manual")
    assert [u.id for u in w.open_uows()] == ["d@2020050100#2"]
    w.work_all()
    assert w.job("x@2020050100").state == "processed"


def test_68_a_late_row_drives_hour_day_and_dependants_again_in_order() -> None:
    w = finished()
    w.command("late_data", "h@2020050105", actor="feed", reason="3 rows")
    ids = []
    while w.open_uows():
        uow = w.open_uows()[0]
        ids.append(uow.id)
        w.work(uow.id)
    assert ids == ["h@2020050105#2", "d@2020050100#2", "x@2020050100#2"]
    assert {w.job(j).state for j in ("h@2020050105", "d@2020050100", "x@2020050100")} == {"processed"}


def test_68_late_data_waits_for_running_work_and_reprocesses_after_it() -> None:
    w = pyramid()
    w.accept("h@2020050105#1")
    w.command("late_data", "h@2020050105", actor="feed", reason="3 rows")
    assert w.job("h@2020050105").again == "3 rows"
    assert w.uow("h@2020050105#1").state == "in_progress"
    w.work("h@2020050105#1")
    job = w.job("h@2020050105")
    assert (job.run, job.uow_open, job.again) == (2, True, None)


def test_late_data_does_not_reopen_what_a_person_ended() -> None:
    w = pyramid()
    w.command("skip", "h@2020050105")
    w.command("late_data", "h@2020050105", actor="feed", reason="3 rows")
    assert w.job("h@2020050105").state == "skipped"
    assert [e.severity for e in w.events("job.left")] == ["warning"]


def test_71_processes_that_hold_each_other_up_are_refused() -> None:
    def load(*processes: Any, trees: Any = ()) -> None:
        Timetable(context(list(processes), list(trees), (), "2020010100"))

    hour_on_its_day = [managed("h", "m:f", "hourly", depends_on=["d"]), managed("d", "m:f", "daily")]
    with pytest.raises(ConfigError, match="hold each other up"):
        load(*hour_on_its_day, trees=[tree("t", ["h", "d"])])
    round_trip = [
        managed("h", "m:f", "hourly", depends_on=[after("d", -1)]),
        managed("d", "m:f", "daily", depends_on=[after("h", 0)]),
    ]
    load(*round_trip)
    down_again = [
        managed("h", "m:f", "hourly", depends_on=["d"]),
        managed("d", "m:f", "daily", depends_on=[after("h", -1)]),
    ]
    with pytest.raises(ConfigError, match="hold each other up"):
        load(
            managed("h", "m:f", "hourly", depends_on=[after("d", 0)]),
            managed("d", "m:f", "daily", depends_on=["h"]),
        )
    load(*down_again)
    load(managed("d", "m:f", "daily", depends_on=[after("d", -1)]))
    with pytest.raises(ConfigError, match="hold each other up"):
        load(managed("d", "m:f", "daily", depends_on=["d"]))


def test_72_the_parent_does_not_start_before_a_killed_worker_let_go() -> None:
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100")
    w.work_all("h")
    assert w.open_uows("d") == []
    w.stopped("h@2020050100#1")
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_72_late_data_while_the_scheduler_is_down_for_an_hour_is_not_lost() -> None:
    w = finished()
    from scheduler import control

    control.submit(
        w.store, w.broker, "late_data", {"jobs": ["h@2020050105"]}, actor="feed", reason="rows", expiry_s=None
    )
    w.clock.advance(3600)
    w.restart()
    assert w.job("h@2020050105").run == 2


def test_73_a_ready_job_behind_many_waiting_ones_is_found() -> None:
    w = World(
        [managed("a", "m:f", "daily", max_active=400), managed("b", "m:f", "daily", blocking="dependencies")],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2019010100",
        now="2020-01-01T00:10:00",
    )
    days = [u.id for u in w.open_uows("a")]
    w.work(days[300])
    assert [u.timeperiod for u in w.open_uows("b")] == [days[300].split("@")[1][:10]]


def test_73_a_held_job_with_a_failed_uow_does_not_stop_its_process() -> None:
    w = World(
        [managed("h", "m:f", "hourly", max_active=2, retry=Retry(delay_s=10**6, max_delay_s=10**6))],
        start="2020050100",
        now="2020-05-01T06:10:00",
    )
    w.work("h@2020050100", "fail")
    w.command("hold", {"scope": "job:h@2020050100"})
    assert len(w.work_all()) >= 5


def test_an_illegal_verb_is_refused_and_changes_nothing() -> None:
    w = finished()
    before = w.job("h@2020050100")
    result = w.command("skip", "h@2020050100")
    assert result.status == 409
    assert "skip is not allowed" in result.message
    assert w.job("h@2020050100") == before
    result = w.command("reprocess", "h@2030050100")
    assert (result.status, result.message) == (404, "there is no job 'h@2030050100'")


def test_another_state_than_was_seen_is_refused() -> None:
    w = finished()
    result = w.command("reprocess", "h@2020050100", seen={"h@2020050100": "skipped"})
    assert result.status == 409
    assert w.job("h@2020050100").state == "processed"
