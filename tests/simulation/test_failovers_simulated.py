"""Two hundred forced fail-overs in a row: each in time, and nothing is missed or doubled by them."""

from __future__ import annotations

import json

import pytest

from db.sql import SqlStore, SqlTransaction
from scheduler.core.ports import Change
from scheduler.core.records import Lease
from simulation.failovers import LEASE_S, LOOK_S, fail_over


@pytest.mark.timeout(120)
def test_two_hundred_fail_overs_in_a_row() -> None:
    found = fail_over(200)
    assert found.broken is None, found.broken + "\n" + "\n".join(found.story)
    assert (found.done, found.missed, found.doubled) == (200, [], [])
    assert found.deaths > 50 and found.freezes > 50  # both ways to lose the lease
    assert found.slowest_s <= LEASE_S + LOOK_S + 0.01
    assert found.executions > 300 and found.ticks > 250
    assert found.ok


def test_without_the_fence_a_fail_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that stood still commits after its successor: the proof must see it."""

    def renew(store: SqlStore, transaction: SqlTransaction, lease: Lease) -> None:
        expires_at = store.now() + (lease.expires_at - lease.taken_at)
        transaction.update([Change(Lease, lease.name, {}, {"expires_at": expires_at})])

    monkeypatch.setattr(SqlStore, "renew", renew)
    found = fail_over(60)
    assert not found.ok and found.broken is not None


def test_the_command_forces_fail_overs(capsys: pytest.CaptureFixture[str]) -> None:
    from commands import main

    assert main(["simulate", "--failovers", "5", "--seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and told["done"] == 5
    assert main(["simulate", "--failovers", "3"]) == 0
    assert "3 fail-overs" in capsys.readouterr().out
