"""What is in a job's way: `explain` and a refused run-now name all of it (§8.10)."""

from __future__ import annotations

from tests.scenario.worlds import hourly, pyramid


def test_run_now_names_everything_in_its_way() -> None:
    """§8.10: a refused run-now shows the blockers."""
    w = pyramid()
    w.command("hold", {"scope": "job:d@2020050100"}, reason="wait")
    result = w.command("run_now", "d@2020050100")
    assert result.status == 409
    assert "held by anna: wait" in result.message
    assert "h 2020-05-01 00" in result.message or "is not finished" in result.message


def test_explain_of_a_held_job_names_the_place_it_will_lack() -> None:
    """§8.10: all present blockers; when those are removed the next turn dispatches the job."""
    w = hourly()
    w.command("hold", {"scope": "job:h@2020050101"})
    assert {b.code for b in w.explain("h@2020050101").own} == {"held", "place"}
    w.command("release", {"scope": "job:h@2020050101"})
    assert [b.code for b in w.explain("h@2020050101").own] == ["place"]
    w.work("h@2020050100")
    assert w.job("h@2020050101").uow_open


def test_explain_names_every_open_child() -> None:
    """§8.10: all blockers at the root, not only those below the first child."""
    w = pyramid()
    for hour in ("07", "09"):
        w.command("hold", {"scope": f"job:h@20200501{hour}"})
        w.work(f"h@20200501{hour}", "fail", permanent=True)
    w.command("reprocess", ["h@2020050107", "h@2020050109"])
    w.work_all("h")
    roots = {(job, b.code) for job, b in w.explain("d@2020050100").roots}
    assert roots == {("h@2020050107", "held"), ("h@2020050109", "held")}


def test_explain_names_older_ready_jobs_that_come_first() -> None:
    """§8.10: including older ready jobs that come first."""
    w = hourly()
    (blocker,) = w.explain("h@2020050102").own
    assert blocker.code == "place"
    assert "h@2020050101" in blocker.sentence
