"""Hundreds of jobs, periods or firings at once: taken whole, in a few reads of the store (§5)."""

from __future__ import annotations

import pytest

from scheduler.core.process import freerun, managed, tree
from tests.world import World


def test_a_cascade_over_hundreds_of_roots_is_gathered_at_once() -> None:
    """§5: a few indexed reads for the whole batch; a bulk action of 600 jobs is one command."""
    w = World(
        [managed("a", "m:f", "daily", max_active=1000), managed("b", "m:f", "daily", max_active=1000)],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2018010100",
        now="2020-01-01T00:10:00",
    )
    w.command("suspend", {"process": "a"})
    w.command("suspend", {"process": "b"})
    jobs = [job.id for job in w.jobs("a")][:600]
    reads = w.engine.gatherer.reads
    result = w.command("reprocess", jobs)
    assert result.status == 200
    assert w.engine.gatherer.reads - reads < 1500
    assert w.job("b@2018010100").state == "embryo"


def test_59_a_start_lowered_by_years_is_taken_in_a_few_reads() -> None:
    """§5: at most 1,000 rows a turn, each turn a few indexed reads."""
    processes = [
        managed("a", "m:f", "daily", is_on=False),
        managed("b", "m:f", "daily", is_on=False),
    ]
    trees = [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])]
    w = World(processes, trees, start="2019123100", now="2020-01-01T00:10:00")
    w.redefine(processes, trees, "2016010100")
    w.redefine(processes, trees, "2019123100")
    w.redefine(processes, trees, "2016010100")
    assert len(w.jobs("a")) == 4 * 365 + 1 + 1
    assert w.engine.gatherer.reads < 200


def test_a_process_with_many_dependencies_and_many_waiting_periods() -> None:
    """§5: a few indexed reads for a whole batch, however many dependencies a process has."""
    inputs = [managed(f"i{n}", "m:f", "hourly", max_active=200) for n in range(9)]
    w = World(
        [
            *inputs,
            managed(
                "x",
                "m:f",
                "hourly",
                blocking="dependencies",
                max_active=64,
                depends_on=[p.name for p in inputs],
            ),
        ],
        start="2020050100",
        now="2020-05-04T12:10:00",
    )
    w.command("suspend", {"process": "x"})
    for process in inputs:
        w.command("skip", [job.id for job in w.jobs(process.name)][:-1])
    w.command("reprocess", [job.id for p in inputs for job in w.jobs(p.name)[:-2]][:700])
    w.work_all()
    reads = w.engine.gatherer.reads
    w.command("resume", {"process": "x"})
    w.settle()
    assert w.engine.gatherer.reads - reads < 3000


def test_expire_answers_with_all_that_becomes_ready() -> None:
    """§4: the answer lists the jobs that become ready by it; a job that waits for a place is ready."""
    w = World(
        [managed("a", "m:f", "daily"), managed("b", "m:f", "daily", blocking="dependencies", max_active=2)],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2020010100",
        now="2020-05-01T00:10:00",
    )
    result = w.command("expire", {"process": "a"})
    closed = [job.id for job in w.jobs("b") if job.end <= w.clock.business()]
    assert len(closed) > 100
    assert (result.outcome or {})["ready"] == closed
    assert len(w.open_uows("b")) == 2
    assert len(w.work_all("b")) == len(closed)


def test_73_with_a_small_window_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """73: a turn looks at the next jobs, the next turn goes on, to the end of the list."""
    w = World(
        [managed("a", "m:f", "daily", max_active=400), managed("b", "m:f", "daily", blocking="dependencies")],
        [tree("ta", ["a"]), tree("tb", ["b"], depends_on=["ta"])],
        start="2019010100",
        now="2020-01-01T00:10:00",
    )
    days = [u.id for u in w.open_uows("a")]
    w.command("suspend", {"process": "b"})
    w.work(days[300])
    w.work(days[200])
    w.command("resume", {"process": "b"})
    assert [u.timeperiod for u in w.open_uows("b")] == [days[200].split("@")[1][:10]]
    w.work_all("b")
    assert {j.timeperiod for j in w.jobs("b") if j.state == "processed"} == {
        d.split("@")[1][:10] for d in (days[200], days[300])
    }


def test_38_more_than_a_thousand_missed_firings_are_made_up_for() -> None:
    """38: catchup all."""
    w = World(
        [freerun("f", "m:f", trigger="every 60", catchup="all", overlap="queue")],
        now="2020-05-01T00:00:30",
    )
    w.clock.advance(1500 * 60)
    w.restart()
    w.wait(1)
    assert len(w.jobs("f")) == 1500
