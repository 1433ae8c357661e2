"""Every rule of the design, removed alone, is caught by an invariant: a checker that misses one proves nothing.

A mutant is a piece of the shipped code, replaced in place (the function's code object, so that whoever imported
it runs the mutant too), played on seeds until an invariant is broken. A mutant whose text is not found any more
fails, too: the rule has moved, and with it goes the proof.
"""

from __future__ import annotations

import inspect
import multiprocessing
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import db.sql
import scheduler.core.act as act
import scheduler.core.attempt as attempt
import scheduler.core.commands as commands
import scheduler.core.firing as firing
import scheduler.core.inputs as inputs
import scheduler.core.job_commands as job_commands
import scheduler.core.late as late
import scheduler.core.new_periods as new_periods
import scheduler.core.plan as plan
import scheduler.core.retry as retry
import scheduler.core.strategy as strategy
from scheduler.core.slice import Slice
from scheduler.engine import Engine
from simulation.run import run_seed
from worker import changes

SEEDS = 16  # a mutant must be caught within so many


class Mutant(NamedTuple):
    """In `function`, `old` is replaced by `new`."""

    function: Any
    old: str
    new: str


MUTANTS = {
    "publish before save": Mutant(
        Engine._turn,
        "report.writes = self._apply(decision)",
        "self.outbox.send(decision.messages); report.writes = self._apply(decision)",
    ),
    "accept without compare-and-set": Mutant(
        changes.accept, 'expect={"state": uow.state, "version": uow.version}', "expect={}"
    ),
    "a finish is not fenced by the token": Mutant(
        changes._fenced, 'expect={"state": IN_PROGRESS, "token": uow.token}', "expect={}"
    ),
    "the leader's lease is no fence": Mutant(
        db.sql.SqlStore.renew, "if not transaction.update(", "if not ([1] or "
    ),
    "parents do not wait": Mutant(
        inputs.all_unfinished, "for row in islice", "return\n    for row in islice"
    ),
    "the frontier is not looked at": Mutant(
        Slice.is_made, "row = self.known", "return True; row = self.known"
    ),
    "no sweep, and no look at what was lost": Mutant(
        Engine.sweep_items, "items = [Item", "return []; items = [Item"
    ),
    "reports that are lost are never looked for": Mutant(
        changes.finish, '"due_at": now,\n        "dirty": True,', '"due_at": None,\n        "dirty": False,'
    ),
    "messages that are lost are never sent again": Mutant(
        attempt._waiting, "if uow.due_at is None or uow.due_at <= s.real:", "if False:"
    ),
    "reprocess does not reach ancestors": Mutant(
        plan.plan_reprocess, "(*roots, *gather_above(s, roots, clip, most=CASCADE_MAX))", "roots"
    ),
    "reprocess leaves what is in flight": Mutant(
        plan._reset, 'if job.state == "embryo"', 'if job.state in ("embryo", "in_progress", "final_run")'
    ),
    "reprocess does not cancel": Mutant(
        job_commands.apply_reprocess,
        'job = cancel_uow(s, job, actor=actor, message=reason or "reprocess")',
        "pass",
    ),
    "skip does not reach descendants": Mutant(plan.plan_skip, "while layer:", "while False:"),
    "mark_done of a skipped job leaves what stands on it": Mutant(
        job_commands.mark_done, 'was_skipped = job.state == "skipped"', "was_skipped = False"
    ),
    "a report of an old run is taken": Mutant(
        attempt._ended, "if job.uow != uow.id or not job.uow_open:", "if not job.uow_open:"
    ),
    "a worker that still stops is not waited for": Mutant(
        strategy._by_rules, "if job.stopping is not None:", "if False:"
    ),
    "retries without end": Mutant(retry.reason_to_give_up, "uow.failures > policy.max_retries", "False"),
    "lost without end": Mutant(retry.reason_to_give_up, "uow.losses > policy.max_lost", "False"),
    "a permanent failure is retried": Mutant(retry.reason_to_give_up, "if uow.permanent:", "if False:"),
    "late data for work under way is forgotten": Mutant(
        attempt._ended, "if job.again is not None:", "if False:"
    ),
    "late data does not reach ancestors": Mutant(
        late._spread, "(root, *_late_above(s, root, command, clip))", "(root,)"
    ),
    "late data reopens what a person ended": Mutant(
        late._closed_by_person, "if not (job.is_finished", "if True or not (job.is_finished"
    ),
    "a slice decides its job": Mutant(strategy.decides, 'if job.state == "final_run":', "if True:"),
    "the cursor is not cleared": Mutant(act.reopen, "cursor=None,", ""),
    "a reopened job does not wait for its inputs": Mutant(
        act.reopen, "generation=job.generation + 1", "generation=job.generation"
    ),
    "an early run decides over newer inputs": Mutant(
        strategy._discrete_again, "if last_settled(s, spans) >= job.requested_seq:", "if False:"
    ),
    "max_active is not looked at": Mutant(strategy._place, "under_way < limit", "True"),
    "holds are not looked at": Mutant(Slice.holds_on, "if not holds:", "if True:"),
    "suspension is not looked at": Mutant(
        strategy._own_blockers, 'row is None or row.state != "scheduled"', "row is None"
    ),
    "a skipped dependency is not looked at": Mutant(
        strategy._by_machine, 'if process.blocking == "dependencies":', "if False:"
    ),
    "a day of skipped hours runs": Mutant(
        strategy._by_machine, "if not job.produced and all_children_skipped(s, spans):", "if False:"
    ),
    "the lag is not waited for": Mutant(strategy.closes_at, "end + timedelta(seconds=process.lag_s)", "end"),
    "a trigger of the clock is not waited for": Mutant(
        strategy._trigger, "fire = process.trigger", "return []; fire = process.trigger"
    ),
    "run now is for ever": Mutant(act.dispatch, "more=False,", "more=job.more,"),
    "slices run without a tick": Mutant(
        strategy.slice_due, "if job.dispatched_at is None:", "return job.start\n    if False:"
    ),
    "readiness is not asked": Mutant(
        strategy._readiness, 'if rule is None or job.ready == "yes":', "if True:"
    ),
    "a firing overlaps": Mutant(firing._is_busy, "return s.first_open(far) is not None", "return False"),
    "rows are made twice": Mutant(new_periods.advance, "if id_ not in there:", "if True:"),
    "the history is copied and not marked": Mutant(
        Slice.copy_history, '{"copied": uow.history_n, "dirty": False}', '{"dirty": False}'
    ),
    "what expired is waited for": Mutant(
        inputs.input_spans, 'row is None or row.state in ("expired", "deleted")', "row is None"
    ),
    "what failed before its process expired is retried": Mutant(
        attempt._failed, 'process is None or state in ("expired", "deleted")', "process is None"
    ),
    "periods open for what expired": Mutant(
        new_periods.advance, 'or row.state in ("expired", "deleted")', "or False"
    ),
    "late data beyond the limit is refused": Mutant(
        commands.decide_command, 'command.verb == "late_data" and isinstance(error, Refused)', "False"
    ),
    "narrowed late data begins outside": Mutant(
        late.narrow_late, "[job for job in named if within.covers(job)]", "list(named)"
    ),
    "narrowed late data reaches nothing": Mutant(
        late.narrow_late, "_spread(s, late, roots, ", "_spread(s, late, [], "
    ),
}


# seeds that are known to catch a mutant, tried first; the others by any of the first seeds
HINTS = {
    "a finish is not fenced by the token": 3,
    "accept without compare-and-set": 4,
    "parents do not wait": 1,
    "the frontier is not looked at": 1,
    "a report of an old run is taken": 12,
    "retries without end": 1,
    "late data for work under way is forgotten": 7,
    "late data does not reach ancestors": 4,
    "the cursor is not cleared": 1,
    "messages that are lost are never sent again": 10,
    "a skipped dependency is not looked at": 5,
    "a day of skipped hours runs": 5,
    "readiness is not asked": 3,
    "a trigger of the clock is not waited for": 3,
    "a firing overlaps": 4,
    "no sweep, and no look at what was lost": 29,
    "an early run decides over newer inputs": 4,
    "a reopened job does not wait for its inputs": 3,
    "mark_done of a skipped job leaves what stands on it": 3,
    "a worker that still stops is not waited for": 1,
    "late data reopens what a person ended": 2,
    "run now is for ever": 1,
    "rows are made twice": 2,
    "what expired is waited for": 29,
    "periods open for what expired": 6,
    "late data beyond the limit is refused": 5,
    "narrowed late data begins outside": 5,
    "narrowed late data reaches nothing": 5,
}


# rules that concern one combination: played where every process is governed so
EARLY: dict[str, Any] = {"machine": "discrete", "blocking": "normal"}
THEMES = {
    "an early run decides over newer inputs": EARLY,
    "a reopened job does not wait for its inputs": EARLY,
}


# rules about the end of a process, and about late data that waits
ENDINGS = {
    "what expired is waited for",
    "what failed before its process expired is retried",
    "periods open for what expired",
    "late data beyond the limit is refused",
    "narrowed late data begins outside",
    "narrowed late data reaches nothing",
}


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The function runs the mutant's code inside the block."""
    function = mutant.function
    source = textwrap.dedent(inspect.getsource(function))
    assert mutant.old in source, f"{function.__qualname__} has no {mutant.old!r} any more: the rule has moved"
    space: dict[str, Any] = dict(function.__globals__)
    exec(
        compile(source.replace(mutant.old, mutant.new), f"<mutant of {function.__qualname__}>", "exec"), space
    )
    before = function.__code__
    function.__code__ = space[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


def hunt(name: str) -> tuple[str, str]:
    """Play a mutant until it is caught; returns its name and how, or "" ."""
    mutant = MUTANTS[name]
    try:
        with mutated(mutant):
            for seed in dict.fromkeys((HINTS.get(name, 0), *range(SEEDS))):
                result = run_seed(seed, endings=True if name in ENDINGS else None, **THEMES.get(name, {}))
                if not result.ok:
                    return name, f"seed {seed}, invariant {result.invariant}: {result.text}"
    except AssertionError as error:
        return name, f"!{error}"
    return name, ""


@pytest.mark.timeout(600)
def test_every_mutant_is_caught() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        caught = dict(pool.imap_unordered(hunt, MUTANTS))
    moved = {name: text[1:] for name, text in caught.items() if text.startswith("!")}
    assert not moved
    missed = sorted(name for name, text in caught.items() if not text)
    assert not missed, f"{len(missed)} of {len(MUTANTS)} mutants were not caught: {missed}"
