"""One at a time: whatever is asked for, a job and what stands on it wait until its worker has let go (§4)."""

from __future__ import annotations

from tests.scenario.worlds import pyramid


def test_24_reprocess_twice_while_stopping_and_after_a_kill() -> None:
    """24: a new uow runs only after the old worker has let go, however often it is asked for."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("kill", "h@2020050100")
    for _ in range(2):
        assert w.command("reprocess", "h@2020050100").status == 200
    assert (w.job("h@2020050100").state, w.job("h@2020050100").run) == ("embryo", 1)
    w.stopped("h@2020050100#1")
    assert w.job("h@2020050100").run == 2
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
    assert w.job("h@2020050100").run == 2


def test_72_mark_done_of_a_running_job_lets_nothing_start_before_its_worker_let_go() -> None:
    """§4 one at a time: to others it counts as unfinished whatever its state."""
    w = pyramid()
    w.accept("h@2020050100#1")
    assert w.command("mark_done", "h@2020050100").status == 200
    w.work_all("h")
    assert w.job("h@2020050100").state == "processed"
    assert w.open_uows("d") == []
    assert w.explain("d@2020050100").roots[0][1].code == "stopping"
    w.stopped("h@2020050100#1")
    assert [u.id for u in w.open_uows("d")] == ["d@2020050100#1"]


def test_72_skip_of_a_day_whose_hours_still_run() -> None:
    """§4: the canceled hours hold up their own re-run, and nothing is lost after a reprocess of the day."""
    w = pyramid()
    w.accept("h@2020050100#1")
    w.command("skip", "d@2020050100")
    assert w.job("h@2020050100").stopping == "h@2020050100#1"
    w.command("reprocess", "h@2020050100")
    w.command("reprocess", "d@2020050100")
    assert w.open_uows() == []
    w.wait(60)
    assert [u.id for u in w.open_uows()] == ["h@2020050100#2"]
    w.work_all()
    assert w.job("d@2020050100").state == "processed"
