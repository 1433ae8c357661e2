"""The exploration: breadth first over everything that may happen next, until nothing new comes.

A state is what is stored (folded), what is under way (messages, reports, executions), whether somebody leads, what
time it is and up to when the leader has looked, and what may still go wrong on this path. Breadth first, so the
first broken invariant has a shortest story.

Whether once faults stop everything ends: from every state there must be a way, without faults and operators, to
where all jobs are finished. On a finite graph that is the same as: no set of states that is never left again holds a
state where a job is not finished.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.core.uow import Uow, job_of
from simulation.model import Broken
from verify.fold import LATER, REAL, Records
from verify.shape import Budget, Shape
from verify.turns import Step, Turns

LIVE, FROZEN, LOOKING = "live", "stands still", "looked"
SOME = 2  # copies of a message that are told apart: a third is as the second
NEVER = 10**9


class Execution(NamedTuple):
    """A worker at a unit of work. `same`: it holds the last token (LOOKING: the record is as it saw it)."""

    uow: str
    mode: str
    same: bool


class State(NamedTuple):
    """One state of the exploration."""

    records: int
    at: int  # which instant it is
    leads: bool
    queue: tuple[tuple[str, int], ...]  # messages, the first first: unit of work, how many
    executions: tuple[Execution, ...]
    reports: tuple[tuple[str, bool], ...]  # unit of work, whether the leader has looked at it since
    budget: Budget


class Edge(NamedTuple):
    """What may happen next: words, the state after it, and whether it may be counted on."""

    words: str
    state: State
    fair: bool  # neither a fault nor an operator's act


@dataclass
class Found:
    """What an exploration came to."""

    name: str
    together: int = 0
    states: int = 0
    edges: int = 0
    depth: int = 0
    turns: int = 0
    records: int = 0
    seconds: float = 0.0
    closed: bool = False
    invariant: int | None = None
    text: str = ""
    story: list[tuple[str, Records | None]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Explored to the end, and nothing broken."""
        return self.closed and self.invariant is None


class Explorer:
    """Explores one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.turns = Turns(shape)
        self.came: dict[State, tuple[State, str] | None] = {}
        self._backward: dict[State, list[State]] = {}

    def run(self, most: int = NEVER, progress: Callable[[int, int], None] | None = None) -> Found:
        """Explore up to `most` states; more is a failure, not a pass."""
        found = Found(self.shape.name, self.shape.budget.all)
        began = time.process_time()
        try:
            self._walk(found, most, progress)
            if found.closed:
                self._ends()
        except Broken as broken:
            found.invariant, found.text = broken.invariant, broken.text
            found.story = self._story(self._at, self._doing)
        found.seconds = time.process_time() - began
        found.turns, found.records = self.turns.decided, len(self.turns.known)
        return found

    def _walk(self, found: Found, most: int, progress: Callable[[int, int], None] | None) -> None:
        self._at: State | None = None
        self._doing = "the scheduler starts"
        first = self._first()
        self.came[first] = None
        layer = deque([first])
        while layer:
            found.depth += 1
            following: deque[State] = deque()
            for state in layer:
                self._at, self._doing = state, ""
                self._check(state)
                for words, after, fair in self._edges(state):
                    found.edges += 1
                    if after == state:
                        continue
                    if fair:
                        self._backward.setdefault(after, []).append(state)
                    if after not in self.came:
                        self.came[after] = (state, words)
                        following.append(after)
                found.states += 1
                if found.states > most:
                    return
            if progress is not None:
                progress(found.states, len(following))
            layer = following
        found.depth -= 1
        found.closed = True

    def _first(self) -> State:
        step = self.turns.begin()
        state = State(step.after, 0, True, (), (), (), self.shape.budget)
        return self._after(state, step)

    # -- what must hold in a state -------------------------------------------------------------------

    def _check(self, state: State) -> None:
        live: dict[str, str] = {}
        for uow, mode, same in state.executions:
            if mode != LIVE:
                continue
            job = job_of(uow)
            if job in live:
                raise Broken(1, f"{uow} and {live[job]} run at the same time", job)
            live[job] = uow
            if not same:
                raise Broken(
                    1, f"a worker runs {uow}, which was taken from it while its lease was alive", job
                )
        if state.leads:
            self.turns.check(state.records, state.at)

    def _is_end(self, state: State) -> bool:
        records = self.turns.known[state.records]
        return (
            len(records.jobs) == len(self.shape.periods)
            and all(job.is_finished and not job.open for job in records.jobs)
            and all(uow.is_finished and uow.history_n == uow.copied for uow in records.uows)
        )

    def _ends(self) -> None:
        """Invariant 4: once faults stop, every job ends, from wherever one is."""
        reach = {state for state in self.came if self._is_end(state)}
        layer = list(reach)
        while layer:
            layer = [
                before for state in layer for before in self._backward.get(state, ()) if before not in reach
            ]
            layer = list(dict.fromkeys(layer))
            reach.update(layer)
        for state in self.came:  # in the order of discovery: the first is a nearest
            if state not in reach:
                self._at, self._doing = (
                    state,
                    "from here on nothing leads to an end, though nothing goes wrong",
                )
                records = self.turns.known[state.records]
                waiting = [job.id for job in records.jobs if job.open]
                if len(records.jobs) < len(self.shape.periods):
                    waiting += sorted(self.shape.periods.keys() - {job.id for job in records.jobs})
                raise Broken(4, f"{', '.join(waiting) or 'a line of a history'} never ends", *waiting)

    # -- what may happen next ------------------------------------------------------------------------

    def _edges(self, state: State) -> Iterator[Edge]:
        if state.leads:
            yield from self._leader(state)
        else:
            yield from self._led(state, ("take over",), "a scheduler takes over", True)
        if state.at + 1 < len(self.shape.instants):
            later = state._replace(at=state.at + 1)
            words = f"it becomes {self.shape.instants[later.at]:%H:%M}"
            if state.leads:
                yield from self._led(later, ("clock",), f"{words}; the scheduler looks at the clock", True)
            else:
                yield Edge(words, later, True)
        yield from self._messages(state)
        for execution in dict.fromkeys(state.executions):
            yield from self._worker(state, execution)

    def _refs(self, state: State) -> tuple[str, ...]:
        known = {execution.uow for execution in state.executions} | {uow for uow, _ in state.reports}
        return tuple(sorted(known))

    def _after(self, state: State, step: Step, *, publishes: bool = True) -> State:
        """The state after a step: names, tokens, versions and messages as they are now."""
        names = step.names
        records = self.turns.known[step.after]
        open_ = {uow.id for uow in records.uows if uow.state == "requested"}
        due = {uow.id for uow in records.uows if uow.due_at == REAL}  # is looked at without a report as well
        queue: dict[str, int] = {}
        for uow, number in state.queue:
            if (name := names.get(uow)) in open_ and name is not None:
                queue[name] = number
        for uow in step.published if publishes else ():
            if (name := names.get(uow)) in open_ and name is not None:
                queue[name] = min(SOME, queue.get(name, 0) + 1)
        executions = []
        for uow, mode, same in state.executions:
            token, version = step.kept.get(uow, (True, True))
            executions.append(Execution(names[uow], mode, same and (version if mode == LOOKING else token)))
        return state._replace(
            records=step.after,
            queue=tuple(queue.items()),
            executions=tuple(sorted(executions)),
            reports=tuple(
                sorted((names[uow], seen) for uow, seen in state.reports if seen or names[uow] not in due)
            ),
        )

    # -- the leader ------------------------------------------------------------------------------------

    def _leader(self, state: State) -> Iterator[Edge]:
        records = self.turns.known[state.records]
        reported = {uow for uow, _ in state.reports}
        for uow in records.uows:
            words = self._comes(state, uow)
            if not words and uow.id in reported:
                words = f"a report on {uow.id} comes"
            if words:
                yield from self._look(state, uow, words)
        yield from self._led(state, ("sweep",), "the scheduler sweeps", True)
        if state.budget.faults:
            left = state.budget.less("faults")
            yield Edge("the scheduler dies", state._replace(leads=False, budget=left), False)
        yield from self._operators(state)

    def _look(self, state: State, record: Uow, words: str, fair: bool = True) -> Iterator[Edge]:
        uow = record.id
        reports = tuple(r for r in state.reports if r[0] != uow)
        what = ("look", uow) if words.startswith("a report") else ("due", uow)
        yield from self._led(state, what, words, fair, reports)
        if (
            state.budget.faults
            and record.history_n > record.copied
            and not any(r[0] == uow and r[1] for r in state.reports)
        ):
            left = state._replace(budget=state.budget.less("faults"))
            stale = (*reports, (uow, True))
            yield from self._led(left, what, f"{words}; the report is to come once more", False, stale)

    def _operators(self, state: State) -> Iterator[Edge]:
        records, budget = self.turns.known[state.records], state.budget
        if budget.reprocess:
            left = state._replace(budget=budget.less("reprocess"))
            for job in records.jobs:
                yield from self._led(left, ("reprocess", job.id), f"an operator reprocesses {job.id}", False)
                yield from self._led(left, ("late data", job.id), f"late data comes for {job.id}", False)
        if budget.skip:
            left = state._replace(budget=budget.less("skip"))
            for job in records.jobs:
                if not job.is_finished:
                    yield from self._led(left, ("skip", job.id), f"an operator skips {job.id}", False)

    def _led(
        self,
        state: State,
        what: tuple[str, ...],
        words: str,
        fair: bool,
        reports: tuple[tuple[str, bool], ...] | None = None,
    ) -> Iterator[Edge]:
        """A turn of the leader: as it should be, with its death after the commit, with a worker in between."""
        self._doing = words
        base = state._replace(leads=True, reports=state.reports if reports is None else reports)
        refs = self._refs(base)
        step = self.turns.lead(state.records, refs, state.at, what)
        yield Edge(words, self._after(base, step), fair)
        if step.published and state.budget.faults:
            left = base._replace(leads=False, budget=base.budget.less("faults"))
            after = self._after(left, step, publishes=False)
            yield Edge(f"{words}, saves, and dies before it publishes", after, False)
        for uow in step.touched:
            for act, gone in self._meanwhile(state, uow):
                self._doing = f"{words}; before it commits, a worker {act} {uow}"
                known = refs if uow in refs else tuple(sorted((*refs, uow)))
                mixed = self.turns.lead(state.records, known, state.at, what, (act, uow))
                yield Edge(self._doing, self._mix(base, mixed, act, uow, gone), fair)

    def _meanwhile(self, state: State, uow: str) -> Iterator[tuple[str, Execution | None]]:
        """What a worker may write to a unit of work just now."""
        record = next((u for u in self.turns.known[state.records].uows if u.id == uow), None)
        if record is None:
            return
        held = Execution(uow, LIVE, True)
        if (
            record.state == "requested"
            and state.queue[:1]
            and state.queue[0][0] == uow
            and self._has_room(state)
        ):
            yield "accepts", None
        elif record.state == "in_progress" and held in state.executions:
            yield "succeeds", held
        elif record.state == "canceled" and held in state.executions and record.stopped_at is None:
            yield "stops", held

    def _mix(self, base: State, step: Step, act: str, uow: str, gone: Execution | None) -> State:
        if act == "accepts":
            others = tuple(e._replace(same=e.same and e.uow != uow) for e in base.executions)
            queue = _minus(base.queue, uow)
            started = base._replace(queue=queue, executions=(*others, Execution(uow, LIVE, True)))
            return self._after(started, step)
        assert gone is not None
        reports = base.reports if (uow, False) in base.reports else (*base.reports, (uow, False))
        return self._after(base._replace(executions=_without(base.executions, gone), reports=reports), step)

    # -- time ------------------------------------------------------------------------------------------

    def _comes(self, state: State, uow: Uow) -> str:
        """What may come now for a unit of work, and make the leader look; nothing if it is not to come yet."""
        if uow.due_at == REAL:
            return f"the scheduler looks at {uow.id}"
        if uow.due_at is None:
            return ""
        if uow.state == "requested":
            taken = any(e.uow == uow.id and e.mode == LOOKING for e in state.executions)
            return "" if taken or uow.id in dict(state.queue) else f"nobody has taken {uow.id} for a while"
        if uow.state == "invalid":
            return f"the retry of {uow.id} is due"
        if uow.lease_until is None or Execution(uow.id, LIVE, True) in state.executions:
            return ""
        return f"the lease of {uow.id} ends"

    # -- messages --------------------------------------------------------------------------------------

    def _has_room(self, state: State) -> bool:
        return sum(e.mode == LIVE for e in state.executions) < self.shape.slots

    def _messages(self, state: State) -> Iterator[Edge]:
        budget = state.budget
        left = state._replace(budget=budget.less("faults"))
        refs = self._refs(state)
        for uow, number in state.queue:
            less = _minus(state.queue, uow)
            if uow == state.queue[0][0] and self._has_room(state):
                self._doing = f"a worker accepts {uow}"
                step = self.turns.work(state.records, refs, "accepts", uow)
                assert step is not None
                others = tuple(e._replace(same=e.same and e.uow != uow) for e in state.executions)
                started = (*others, Execution(uow, LIVE, True))
                yield Edge(
                    self._doing, self._after(state._replace(queue=less, executions=started), step), True
                )
                if budget.faults:
                    looked = tuple(sorted((*state.executions, Execution(uow, LOOKING, True))))
                    words = f"a worker looks at {uow} to accept it, and stands still"
                    yield Edge(words, left._replace(queue=less, executions=looked), False)
            if budget.faults:
                yield Edge(f"a message for {uow} is lost", left._replace(queue=less), False)
                if number < SOME:
                    more = tuple((u, n + (u == uow)) for u, n in state.queue)
                    yield Edge(f"a message for {uow} is doubled", left._replace(queue=more), False)
        for uow, seen in state.reports:
            if budget.faults and not seen:
                lost = tuple(r for r in state.reports if r[0] != uow)
                yield Edge(f"the report on {uow} is lost", left._replace(reports=lost), False)

    # -- workers ---------------------------------------------------------------------------------------

    def _worker(self, state: State, execution: Execution) -> Iterator[Edge]:
        uow, mode, same = execution
        record = next(u for u in self.turns.known[state.records].uows if u.id == uow)
        budget, rest = state.budget, _without(state.executions, execution)
        left = state._replace(budget=budget.less("faults"))
        if mode == LOOKING:
            yield from self._resumed(state, execution, rest)
        elif mode == FROZEN:
            yield from self._thawed(state, execution, rest, record.lease_until == LATER)
        elif record.state == "in_progress":
            yield from self._write(state, execution, "succeeds", True)
            if budget.failure:
                failed = state._replace(budget=budget.less("failure"))
                for act in ("fails", "fails for good", "finds nothing", "cancels"):
                    yield from self._write(failed, execution, act, False)
            if budget.faults:
                yield from self._write(left, execution, "gives back", False)
        else:
            yield from self._write(state, execution, "succeeds", True)  # it has not been told yet
            yield from self._write(state, execution, "stops", True)
        if mode == LIVE and budget.faults:
            yield Edge(f"the worker of {uow} dies", left._replace(executions=rest), False)
            frozen = tuple(sorted((*rest, Execution(uow, FROZEN, same))))
            yield Edge(f"the worker of {uow} stands still", left._replace(executions=frozen), False)

    def _write(self, state: State, execution: Execution, act: str, fair: bool) -> Iterator[Edge]:
        """A worker writes how its execution ended; it may miss, and then has written nothing."""
        uow = execution.uow
        self._doing = f"a worker {act} {uow}"
        step = self.turns.work(state.records, self._refs(state), act, uow, token=execution.same)
        if step is None:
            return
        reports = tuple(r for r in state.reports if r[0] != uow)
        rest = _without(state.executions, execution)
        ended = self._after(state._replace(executions=rest, reports=(*reports, (uow, False))), step)
        name = step.names[uow]
        if not state.leads:
            yield Edge(self._doing, ended, fair)
            return
        if state.budget.faults:
            left = ended._replace(budget=ended.budget.less("faults"))
            yield Edge(f"{self._doing}; its report is late", left, False)
        record = next(u for u in self.turns.known[ended.records].uows if u.id == name)
        yield from self._look(ended, record, f"{self._doing}; the scheduler looks at it", fair)

    def _resumed(self, state: State, execution: Execution, rest: tuple[Execution, ...]) -> Iterator[Edge]:
        uow = execution.uow
        self._doing = f"the worker that looked at {uow} goes on and accepts it"
        step = self.turns.work(state.records, self._refs(state), "accepts", uow, fresh=execution.same)
        if step is None:
            words = f"the worker that looked at {uow} goes on, and comes too late"
            yield Edge(words, self._forget(state._replace(executions=rest)), True)
            return
        others = tuple(e._replace(same=e.same and e.uow != uow) for e in rest)
        started = state._replace(executions=(*others, Execution(uow, LIVE, True)))
        yield Edge(self._doing, self._after(started, step), True)

    def _thawed(
        self, state: State, execution: Execution, rest: tuple[Execution, ...], has_lease: bool
    ) -> Iterator[Edge]:
        uow, _, same = execution
        if same and has_lease:
            live = tuple(sorted((*rest, Execution(uow, LIVE, True))))
            yield Edge(f"the worker of {uow} goes on in time", state._replace(executions=live), True)
            return
        yield from self._write(state, execution, "succeeds", True)  # before it notices
        words = f"the worker of {uow} goes on, and finds its lease gone"
        yield Edge(words, self._forget(state._replace(executions=rest)), True)

    def _forget(self, state: State) -> State:
        """Fold again: a unit of work that only this worker knew is known to nobody now."""
        step = self.turns.same(state.records, self._refs(state))
        return self._after(state, step)

    # -- the way to a state ----------------------------------------------------------------------------

    def _story(self, state: State | None, doing: str) -> list[tuple[str, Records | None]]:
        lines: list[tuple[str, Records | None]] = [(doing, None)] if doing else []
        while state is not None:
            came = self.came.get(state)
            words = came[1] if came is not None else "the scheduler starts"
            lines.append((words, self.turns.known[state.records]))
            state = came[0] if came is not None else None
        return lines[::-1]


def _minus(queue: tuple[tuple[str, int], ...], uow: str) -> tuple[tuple[str, int], ...]:
    found = [(other, number - (other == uow)) for other, number in queue]
    return tuple((other, number) for other, number in found if number)


def _without(executions: tuple[Execution, ...], one: Execution) -> tuple[Execution, ...]:
    at = executions.index(one)
    return executions[:at] + executions[at + 1 :]
