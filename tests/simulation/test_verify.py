"""verify: small timetables are explored to the end, and a broken core is found, with the shortest story."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import scheduler.core.attempt as attempt
import scheduler.core.inputs as inputs
import scheduler.core.late as late
import scheduler.core.plan as plan
import scheduler.core.strategy as strategy
from commands.dispatch import main
from scheduler.core.process import context, managed, tree
from scheduler.core.slice import Slice
from scheduler.engine import Engine
from verify.equivalent import EQUIVALENT
from verify.explore import Explorer, Found
from verify.hunt import hunt_one
from verify.mutants import enumerated
from verify.pins import PINS
from verify.shape import BUDGET, CONFIGURATIONS, built_in, cut
from verify.story import story
from worker import changes


def explored(machine: str, blocking: str, together: int = 1) -> Found:
    return Explorer(built_in(machine, blocking, BUDGET.at_most(together))).run()


QUICK = [key for key in PINS if key[2] == 0 or (key[2] == 1 and key[0] == "discrete" and key[1] != "normal")]


@pytest.mark.parametrize(("machine", "blocking", "together"), QUICK)
def test_it_explores_everything_and_finds_nothing_broken(machine: str, blocking: str, together: int) -> None:
    found = explored(machine, blocking, together)
    assert found.ok, "\n".join(story(found))
    assert (found.states, found.edges, found.depth) == PINS[machine, blocking, together]


def test_every_kind_is_pinned() -> None:
    assert {(m, b) for m, b, _ in PINS} == set(CONFIGURATIONS)


def test_reaching_a_bound_is_not_a_pass() -> None:
    found = Explorer(built_in("discrete", "children")).run(most=50)
    assert found.invariant is None
    assert not found.closed
    assert not found.ok


def test_a_context_of_ones_own_is_cut_down_to_a_few_periods() -> None:
    members = [
        managed("minute", "a.b", "minutely", time_grouping=30, trigger="every 60"),
        managed("month", "a.b", "monthly", state_machine="recomputing", blocking="children"),
        managed("late", "a.b", "daily", depends_on=["month"], blocking="dependencies", start="2020010100"),
    ]
    shape = cut(context(members, [tree("a", ["minute", "month"])], start="2019010100"), 2, BUDGET.at_most(0))
    assert sorted(shape.processes.values()) == ["late", "minute", "minute", "month"]
    found = Explorer(shape).run()
    assert found.ok, "\n".join(story(found))


class BrokenCore(NamedTuple):
    """In `function`, `old` is replaced by `new`; `invariant` must break."""

    invariant: int
    function: Any
    old: str
    new: str
    machine: str = "discrete"
    blocking: str = "children"
    together: int = 1


BROKEN = {
    "a worker that was superseded finishes": BrokenCore(
        1,
        changes._fenced,
        'expect={"state": IN_PROGRESS, "token": uow.token}',
        'expect={"state": IN_PROGRESS}',
    ),
    "a worker that stops is not waited for": BrokenCore(
        2, strategy._by_rules, "if job.stopping is not None:", "if False:"
    ),
    "parents do not wait": BrokenCore(
        3, inputs.all_unfinished, "for row in islice", "return\n    for row in islice"
    ),
    "a lost message is never sent again": BrokenCore(
        4, attempt._waiting, "if uow.due_at is None or uow.due_at <= s.real:", "if False:"
    ),
    "reprocess leaves what is in flight": BrokenCore(
        5, plan._reset, 'if job.state == "embryo"', 'if job.state in ("embryo", "in_progress", "final_run")'
    ),
    "late data reopens what a person ended": BrokenCore(
        6, late._closed_by_person, "if not (job.is_finished", "if True or not (job.is_finished", together=2
    ),
    "a canceled unit of work is finished": BrokenCore(
        7, changes._fenced, 'expect={"state": IN_PROGRESS, "token": uow.token}', 'expect={"token": uow.token}'
    ),
    "the history is copied and not marked": BrokenCore(
        8, Slice.copy_history, '{"copied": uow.history_n, "dirty": False}', '{"dirty": False}'
    ),
    "publish before save": BrokenCore(
        9,
        Engine._turn,
        "report.writes = self._apply(decision)",
        "self.outbox.send(decision.messages); report.writes = self._apply(decision)",
    ),
    "explain names nothing that is in the way": BrokenCore(
        10, strategy.assess, "if way.blockers else found", "if not everything else found"
    ),
    "the plan does not show what it cancels": BrokenCore(
        11, plan._skip, '"skip and cancel" if job.uow_open else "skip"', '"skip"'
    ),
    "the leader's lease is not written": BrokenCore(
        12, Engine._apply, "self.store.transaction(self.lease)", "self.store.transaction()"
    ),
}


@contextmanager
def broken(core: BrokenCore) -> Iterator[None]:
    """The function runs the broken code inside the block."""
    source = textwrap.dedent(inspect.getsource(core.function))
    assert core.old in source, (
        f"{core.function.__qualname__} has no {core.old!r} any more: the rule has moved"
    )
    space: dict[str, Any] = dict(core.function.__globals__)
    exec(compile(source.replace(core.old, core.new), "<broken>", "exec"), space)
    before = core.function.__code__
    core.function.__code__ = space[core.function.__name__].__code__
    try:
        yield
    finally:
        core.function.__code__ = before


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_core_is_found_and_told(name: str) -> None:
    core = BROKEN[name]
    with broken(core):
        found = explored(core.machine, core.blocking, core.together)
    assert found.invariant == core.invariant, (found.invariant, found.text)
    told = story(found)
    assert found.text in told[0]
    assert len(told) > len(found.story)


def test_every_invariant_that_a_state_can_show_has_a_broken_core() -> None:
    assert {core.invariant for core in BROKEN.values()} == set(range(1, 13))


def test_guards_are_enumerated_from_the_source() -> None:
    mutants = enumerated()
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names)
    assert len(names) > 300
    for part in (
        "act.py:evaluate",
        "attempt.py:_failed",
        "open_jobs.py:fill",
        "new_periods.py:advance",
        "firing.py:fire",
        "retry.py:",
        "plan.py:",
        "strategy.py:_by_rules",
        "UOW_TABLE: cell: accept_of",
    ):
        assert any(part in name for name in names), part
    for field in (
        "slice.py:_drain_uow: compared: expect['lease_until']",
        "changes.py:_fenced: compared: 'token'",
    ):
        assert any(name.endswith(field) for name in names), field
    assert EQUIVALENT.keys() <= set(names)
    assert len(EQUIVALENT) <= 0.02 * len(names)


@pytest.mark.parametrize(
    "guard",
    [
        "strategy.py:_discrete_again: if: last_settled(s, spans) >= job.requested_seq",
        "lifecycle.py:UOW_TABLE: cell: accept_of_requested",
    ],
)
def test_a_guard_that_is_removed_is_noticed(guard: str) -> None:
    mutant = next(m for m in enumerated() if m.name.endswith(guard))
    fate = hunt_one(mutant)
    assert fate.killer == "verify", fate


def test_a_hunt_without_the_test_tools_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("commands.verify.find_spec", lambda name: None)
    assert main(["verify", "--mutants"]) == 2
    assert "SYNERGY_EXTRAS=test" in capsys.readouterr().err
