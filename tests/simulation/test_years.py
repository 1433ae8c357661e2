"""A short span of the ten years that `simulate --years 10` plays, and what its daily look must notice."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from db.sql import SqlStore
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.uow import Uow
from simulation.years import Years

BEGIN = datetime(2012, 2, 10, tzinfo=UTC)  # the month has 29 days


@pytest.mark.timeout(120)
def test_thirty_days_break_nothing() -> None:
    found = Years(BEGIN, 30).play_all()
    assert found.broken is None, found.broken + "\n" + "\n".join(found.story)
    assert found.looks == 31 and found.jobs > 750
    assert (
        found.rows > 30 * 200
    )  # jobs are looked at as long as there are any, units of work until they are pruned
    for what in ("crashes of workers", "crashes of schedulers", "commands: reprocess"):
        assert found.counts.get(what), (what, found.counts)


@pytest.mark.parametrize("harm", ["an old job", "an old unit of work", "a job is gone"])
def test_a_row_that_nobody_should_touch_is_noticed(harm: str) -> None:
    """No event tells of it, and no commit of the scheduler touches it: the daily look must see it."""
    years = Years(BEGIN, 4)

    def do(store: SqlStore) -> None:
        job = store.find(
            Job, (Where("process", "=", "hourly"), Where("state", "=", "processed")), ("start",)
        )[2]
        with store.transaction() as tx:
            if harm == "an old job":
                tx.update([Change(Job, job.id, {}, {"run": job.run + 1})])
            elif harm == "an old unit of work":
                assert job.uow is not None
                tx.delete(Uow, (Where("id", "=", job.uow),))
            else:
                tx.delete(Job, (Where("id", "=", job.id),))

    years.world.at(2.5 * 86400, lambda: do(years.world.store))  # type: ignore[arg-type]
    found = years.play_all()
    assert found.broken is not None and "invariant 8" in found.broken
    assert found.looks == 3


def test_what_stays_undone_for_no_reason_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look may find that nobody leads just now; that nothing was in the way a day before too is a fault."""
    monkeypatch.setattr("scheduler.core.act.act", lambda *_: [])
    monkeypatch.setattr("scheduler.core.open_jobs.act", lambda *_: [])
    found = Years(BEGIN, 6).play_all()
    assert found.broken is not None and "nothing is in its way" in found.broken
    assert found.looks == 3  # it has been overdue for two days


def test_the_command_plays_a_few_days(capsys: pytest.CaptureFixture[str]) -> None:
    from commands import main

    assert main(["simulate", "--years", "0.006", "--from", "2011-12-30", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["broken"] is None and told["looks"] == 3
    assert main(["simulate", "--years", "1000"]) != 0
