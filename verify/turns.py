"""Turns: the shipped engine, and the shipped changes of a worker, applied to folded records.

One step is one transaction of a scheduler, or one of a worker. What it did is checked at once (`rules`), and kept:
many states of the exploration share their records, and a step depends on nothing else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from scheduler.core.command import Command
from scheduler.core.due import due_items
from scheduler.core.errors import InvalidTransition, SchedulerError
from scheduler.core.evolve import evolve
from scheduler.core.facts import Absent
from scheduler.core.job import Job
from scheduler.core.known import Known
from scheduler.core.plan import Effect, plan_reprocess, plan_skip
from scheduler.core.ports import Change
from scheduler.core.records import LEADER, Lease, ProcessRow
from scheduler.core.slice import Item
from scheduler.core.uow import Uow
from scheduler.engine import Engine
from scheduler.outbox import Outbox
from simulation.model import Broken
from verify.fold import OWNER, REAL, SEQ, TOKEN, Folder, Records, key_of
from verify.memory import Memory, Post, Still
from verify.rules import Commit, check_explained, check_standing
from verify.shape import DELAY_S, MOMENT, Shape
from worker import changes
from worker.executor import Outcome, Verb

LEASE = Lease(name=LEADER, holder="leader", token=1, expires_at=REAL + timedelta(days=1), taken_at=REAL)
ROUNDS_MAX = 100
OUTCOMES: dict[str, tuple[Verb, bool]] = {  # name -> (verb, permanent)
    "succeeds": ("succeed", False),
    "fails": ("fail", False),
    "fails for good": ("fail", True),
    "finds nothing": ("no_data", False),
    "cancels": ("cancel", False),
}


class Step(NamedTuple):
    """What one transaction led to. `names`: what units of work that are still known are called now."""

    after: int
    published: tuple[str, ...]
    names: dict[str, str]
    kept: dict[str, tuple[bool, bool]]  # known unit of work -> its token is as it was, its version is
    touched: frozenset[str]  # units of work that the transaction wrote


class Turns:
    """All steps of one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.memory, self.clock = Memory(), Still(REAL)
        self.post = Post(self.memory)
        self.engine = Engine(
            self.memory,
            self.post,
            self.clock,
            shape.timetable,
            holder="leader",
            worker_lease_s=DELAY_S,
            sweep_s=DELAY_S,
        )
        self.known: list[Records] = []
        self._ids: dict[Any, int] = {}
        self._steps: dict[Any, Step] = {}
        self._explained: set[tuple[int, int]] = set()
        self.end = max(period.end for period in shape.periods.values()) - MOMENT
        self._rows: dict[str, ProcessRow] = {}
        self.folder = Folder(shape)
        self.decided = 0

    # -- records ----------------------------------------------------------------------------------

    def begin(self) -> Step:
        """The first take-over of an empty store."""
        self._rows = self._registered()
        self._load(Records((), (), tuple(row.frontier for row in self._rows.values()), ()), 0)
        return self._led((), 0, ("take over",), None, {}, {})

    def _registered(self) -> dict[str, ProcessRow]:
        self.memory.load(REAL, SEQ, {})
        engine = self.engine
        engine.lease, engine._stale = LEASE, True
        self.clock.set_business(self.shape.instants[0])
        engine.begin()
        return dict(sorted(self.memory.tables[ProcessRow].items()))

    def _load(self, records: Records, at: int) -> None:
        rows = {
            name: evolve(row, {"frontier": frontier, "passed": frontier})
            for (name, row), frontier in zip(self._rows.items(), records.frontiers, strict=True)
        }
        tables: dict[type, dict[Any, Any]] = {
            Job: {job.id: job for job in records.jobs},
            Uow: {uow.id: uow for uow in records.uows},
            ProcessRow: rows,
        }
        self.memory.load(REAL, SEQ, tables)
        self.post.published = []
        engine = self.engine
        engine.known = Known(self.shape.timetable, dict(rows), {}, SEQ, set(records.crowded))
        engine.lease, engine._stale = LEASE, False
        engine._lost_from = engine._renewed = REAL
        engine._next_sweep = None
        engine.outbox, engine._durations = Outbox(engine.broker, engine.clock, engine._real), {}
        engine._later, engine._put_off = [], []
        engine._since = self.shape.instants[at]

    def _intern(self, records: Records) -> int:
        key = key_of(records)
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self.known)
            self.known.append(records)
        return found

    # -- a scheduler's turn -----------------------------------------------------------------------

    def lead(
        self,
        records: int,
        refs: tuple[str, ...],
        at: int,
        what: tuple[str, ...],
        meanwhile: tuple[str, str] | None = None,
    ) -> Step:
        """A turn of the leader at instant `at`.

        `what`: ("due", uow), ("look", uow) (a report comes), ("clock",), ("sweep",), ("take over",),
        ("reprocess", job), ("skip", job), ("late data", job). `meanwhile`: what a worker does between the
        look and the commit, and to which unit of work.
        """
        key = (records, refs, at, what, meanwhile)
        found = self._steps.get(key)
        if found is None:
            self._load(self.known[records], at)
            if what[0] == "due":
                self._comes_due(what[1])
            before = self.memory.tables
            found = self._steps[key] = self._led(refs, at, what, meanwhile, before[Job], before[Uow])
        return found

    def _comes_due(self, id_: str) -> None:
        """What is to come for a unit of work comes now: its retry, the end of its lease, a message again."""
        rows = self.memory.tables[Uow]
        due = {f: REAL for f in ("due_at", "retry_at", "lease_until") if getattr(rows[id_], f) is not None}
        rows[id_] = evolve(rows[id_], due)

    def _led(
        self,
        refs: tuple[str, ...],
        at: int,
        what: tuple[str, ...],
        meanwhile: tuple[str, str] | None,
        jobs: dict[str, Job],
        uows: dict[str, Uow],
    ) -> Step:
        self.decided += 1
        jobs, uows = dict(jobs), dict(uows)
        now = self.shape.instants[at]
        self.clock.set_business(min(now, self.end) if what[0] == "take over" else now)
        planned = self._planned(what) if what[0] in ("reprocess", "skip") else None
        if meanwhile is not None:
            self.memory.before_commit = lambda: self._meanwhile(*meanwhile)
        items = self._items(what, at)
        for_rows = [item for item in items if item.kind == "advance"]
        if for_rows:  # the timetable ends: rows are made as of its last moment
            self.clock.set_business(min(now, self.end))
            self._turn([item for item in for_rows if self._opens(item)])
            self.clock.set_business(now)
        self._turn([item for item in items if item.kind != "advance"])
        commit = Commit(self.shape, jobs, uows, self.memory, now)
        commit.check(what)
        if planned is not None and meanwhile is None:
            commit.as_planned(what[0], planned)
        return self._step(refs, jobs, uows)

    def _opens(self, item: Item) -> bool:
        frontier = self.engine.known.rows[item.what].frontier
        return frontier is not None and frontier <= self.end

    def _planned(self, what: tuple[str, ...]) -> list[Effect]:
        """What an operator would be shown before."""
        s, plan = self.engine._slice(), plan_skip if what[0] == "skip" else plan_reprocess
        while True:
            try:
                job = s.job(what[1])
                assert job is not None
                return plan(s, [job])
            except Absent as lack:
                self.engine.gatherer.gather(s, lack.wants)

    def _turn(self, items: list[Item]) -> None:
        for _ in range(ROUNDS_MAX):
            if not items:
                return
            self._decide(items)
            items = [item for item in self.engine.left() if item.kind != "advance" or self._opens(item)]
        raise Broken(4, "a turn leaves work for the next one without end")

    def _decide(self, items: list[Item]) -> None:
        try:
            self.engine.turn(items)
        except InvalidTransition as error:
            raise Broken(6 if error.entity.startswith("job") else 7, str(error)) from error
        except (SchedulerError, AssertionError, LookupError, TypeError, AttributeError) as error:
            raise Broken(4, f"the scheduler fails: {type(error).__name__}: {error}") from error

    def _items(self, what: tuple[str, ...], at: int) -> list[Item]:
        engine, instants = self.engine, self.shape.instants
        match what:
            case ("look" | "due", uow):
                return [Item("uow", uow)]
            case ("clock",):
                return due_items(engine.known, instants[at - 1], instants[at])
            case ("sweep",):
                return engine.sweep_items()
            case ("take over",):
                engine._stale = True
                return engine.begin()
            case (verb, job):
                command = Command(
                    id="command",
                    verb=verb.replace(" ", "_"),
                    target={"jobs": [job]},
                    actor="operator",
                    submitted_at=REAL,
                )
                self.memory.tables[Command] = {command.id: command}
                return [Item("command", command)]
        raise AssertionError(what)

    def _meanwhile(self, act: str, uow: str) -> None:
        if not self.memory.apply(self._change(act, self.memory.tables[Uow][uow])):
            raise AssertionError(f"{act} {uow} misses on what is there")

    def _step(self, refs: tuple[str, ...], jobs: dict[str, Job], uows: dict[str, Uow]) -> Step:
        memory = self.memory
        now_jobs, now_uows = memory.tables[Job], memory.tables[Uow]
        published = tuple(self.post.published)
        kept: dict[str, tuple[bool, bool]] = {}
        for id_ in refs:
            before, after = uows.get(id_), now_uows[id_]
            same = before is not None and (before.version, before.state) == (after.version, after.state)
            kept[id_] = (after.token == TOKEN, same)
        crowded = self.engine.known.crowded
        frontiers = tuple(memory.tables[ProcessRow][name].frontier for name in self._rows)
        records, names = self.folder.fold(now_jobs, now_uows, frontiers, crowded, refs)
        return Step(self._intern(records), published, names, kept, frozenset(memory.touched))

    # -- a worker's write -------------------------------------------------------------------------

    def work(
        self,
        records: int,
        refs: tuple[str, ...],
        act: str,
        uow: str,
        *,
        token: bool = True,
        fresh: bool = True,
    ) -> Step | None:
        """A worker's compare-and-set on a unit of work; None if it misses.

        `token`: the worker holds the token that the last accept wrote; `fresh`: the record has not changed since
        the worker looked at it.
        """
        key = (records, refs, act, uow, token, fresh)
        if key in self._steps:
            return self._steps[key]
        found = self._work(records, refs, act, uow, token, fresh)
        self._steps[key] = found  # type: ignore[assignment]
        return found

    def _work(
        self, records: int, refs: tuple[str, ...], act: str, uow: str, token: bool, fresh: bool
    ) -> Step | None:
        self._load(self.known[records], 0)
        jobs, uows = dict(self.memory.tables[Job]), dict(self.memory.tables[Uow])
        copy = uows[uow]
        if not token:
            copy = evolve(copy, {"token": "an older token"})
        if not fresh:
            copy = evolve(copy, {"state": "requested", "version": copy.version - 1})
        try:
            change = self._change(act, copy)
        except InvalidTransition as error:
            raise Broken(7, str(error), uow) from error
        if not self.memory.apply(change):
            return None
        if not (token and fresh):
            raise Broken(1, f"a worker that was superseded {act} {uow} all the same", uow)
        commit = Commit(self.shape, jobs, uows, self.memory, self.shape.instants[0])
        commit.check_work(uow, act)
        self.engine.known.crowded = set(self.known[records].crowded)
        return self._step(refs if uow in refs else (*refs, uow), jobs, uows)

    def _change(self, act: str, uow: Uow) -> Change:
        if act == "accepts":
            return changes.accept(uow, owner=OWNER, box="box", token=TOKEN, now=REAL, lease_s=DELAY_S)
        if act == "stops":
            return changes.stopped(uow, now=REAL)
        if act == "gives back":
            return changes.release(uow, now=REAL, reason="it leaves")
        verb, permanent = OUTCOMES[act]
        process = self.shape.context.processes[uow.process]
        outcome = Outcome(
            uow_id=uow.id,
            token=uow.token or "",
            verb=verb,
            permanent=permanent,
            error=None if verb == "succeed" else "it did not work",
            cursor="new" if verb == "succeed" and process.machine == "continuous" else None,
        )
        return changes.finish(uow, outcome, now=REAL)

    def same(self, records: int, refs: tuple[str, ...]) -> Step:
        """Nothing happens, but somebody forgets a unit of work."""
        key = (records, refs, "same")
        found = self._steps.get(key)
        if found is None:
            self._load(self.known[records], 0)
            uows = self.memory.tables[Uow]
            found = self._steps[key] = self._step(refs, self.memory.tables[Job], dict(uows))
        return found

    # -- a state by itself ------------------------------------------------------------------------------

    def check(self, records: int, at: int) -> None:
        """What must hold of records, whoever looks at them."""
        if (records, at) in self._explained:
            return
        self._explained.add((records, at))
        self._load(self.known[records], at)
        self.clock.set_business(self.shape.instants[at])
        check_standing(self.shape, self.memory)
        check_explained(self.shape, self.engine, self.memory)
