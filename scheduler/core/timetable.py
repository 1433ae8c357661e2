"""The timetable: who stands on whom, as arithmetic over intervals.

Nothing is built or kept in step: the parent, the children, the inputs and the dependants of a
(process, timeperiod) are computed. Every relation between two processes is a function from an
interval to an interval, and the periods meant are those that *begin* in the interval it returns;
the interval is widened to whole periods first, so that a period that merely overlaps is meant too.

Building a `Timetable` checks everything that concerns several definitions together, and raises
ConfigError naming the culprit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from scheduler.core.errors import ConfigError, InvalidRequest
from scheduler.core.process import After, Context, Process, Tree
from scheduler.core.timeperiod import (
    Qualifier,
    Timeperiod,
    following,
    is_coarser,
    nests,
    timeperiod_at,
    timeperiod_of,
    timeperiods_between,
)

MILLISECOND = timedelta(milliseconds=1)
CYCLES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Edge:
    """`of` stands on `on`: as its parent (child edge), or by a dependency with an offset."""

    of: str
    on: str
    kind: str  # "child" or "dependency"
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """The periods of `process` that begin in [start, end); both are period boundaries."""

    process: str
    start: datetime
    end: datetime


class Timetable:
    """All trees and processes, and the relations between them. Raises ConfigError when made."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.processes = context.processes
        self.trees = context.trees
        self.queues = context.queues
        self._tree_of: dict[str, Tree] = {}
        self._inputs: dict[str, tuple[Edge, ...]] = {}
        self._dependants: dict[str, tuple[Edge, ...]] = {}
        self._parent: dict[str, str] = {}
        for tree in context.trees.values():
            self._enter(tree)
        self._connect()
        self._start = _label(context.start, "synergy_start_timeperiod") if context.start else None
        for process in self.processes.values():
            if process.kind == "managed":
                self.start_of(process.name)
        _refuse_cycles(self)

    # -- building ---------------------------------------------------------------------------------

    def _enter(self, tree: Tree) -> None:
        members = []
        for name in tree.processes:
            process = self.processes.get(name)
            if process is None:
                raise ConfigError(f"tree {tree.name!r} names process {name!r}, which is not registered")
            if process.kind != "managed":
                raise ConfigError(
                    f"tree {tree.name!r} holds {name!r}, a {process.kind} process; trees are made of managed ones"
                )
            if name in self._tree_of:
                raise ConfigError(
                    f"process {name!r} is in two trees: {self._tree_of[name].name!r} and {tree.name!r}"
                )
            self._tree_of[name] = tree
            members.append(process)
        members.sort(key=lambda p: (p.qualifier.rank, p.grouping))
        for finer, coarser in pairwise(members):
            if finer.qualifier == coarser.qualifier:
                raise ConfigError(
                    f"tree {tree.name!r}: {finer.name!r} and {coarser.name!r} are both {finer.qualifier};"
                    " a tree holds one process of a qualifier"
                )
            if not nests(finer.qualifier, finer.grouping, coarser.qualifier, coarser.grouping):
                raise ConfigError(
                    f"tree {tree.name!r}: the {finer.qualifier} periods of {finer.name!r} do not nest"
                    f" in the {coarser.qualifier} ones of {coarser.name!r}"
                )
            self._parent[finer.name] = coarser.name
        for other in tree.depends_on:
            if other not in self.trees:
                raise ConfigError(f"tree {tree.name!r} depends on tree {other!r}, which is not registered")
            if other == tree.name:
                raise ConfigError(f"tree {tree.name!r} depends on itself")

    def _connect(self) -> None:
        inputs: dict[str, list[Edge]] = {name: [] for name in self.processes}
        for child, parent in self._parent.items():
            inputs[parent].append(Edge(parent, child, "child"))
        for name, tree in self._tree_of.items():
            for other in tree.depends_on:
                for counterpart in self.trees[other].processes:
                    if self.processes[counterpart].qualifier == self.processes[name].qualifier:
                        inputs[name].append(Edge(name, counterpart, "dependency"))
        for process in self.processes.values():
            for edge in process.depends_on:
                inputs[process.name].append(self._edge(process, edge))
        dependants: dict[str, list[Edge]] = {name: [] for name in self.processes}
        for edges in inputs.values():
            for edge_ in edges:
                dependants[edge_.on].append(edge_)
        self._inputs = {name: tuple(edges) for name, edges in inputs.items()}
        self._dependants = {name: tuple(edges) for name, edges in dependants.items()}

    def _edge(self, process: Process, edge: After) -> Edge:
        target = self.processes.get(edge.process)
        if target is None:
            raise ConfigError(
                f"process {process.name!r} depends on {edge.process!r}, which is not registered"
            )
        if target.kind != "managed" or process.kind != "managed":
            raise ConfigError(
                f"process {process.name!r} depends on {edge.process!r}; both must be managed processes"
            )
        return Edge(process.name, edge.process, "dependency", edge.offset)

    # -- looking up -------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """The definition, or NotFound-like ConfigError naming it."""
        try:
            return self.processes[name]
        except KeyError:
            raise InvalidRequest(f"there is no process {name!r}") from None

    def tree_of(self, process: str) -> Tree | None:
        """The tree a process stands in."""
        return self._tree_of.get(process)

    def parent(self, process: str) -> str | None:
        """The process of the next coarser qualifier in the same tree."""
        return self._parent.get(process)

    def child(self, process: str) -> str | None:
        """The process of the next finer qualifier in the same tree."""
        for edge in self._inputs.get(process, ()):
            if edge.kind == "child":
                return edge.on
        return None

    def inputs(self, process: str) -> tuple[Edge, ...]:
        """What a process stands on: its child, and its dependencies."""
        return self._inputs.get(process, ())

    def dependants(self, process: str) -> tuple[Edge, ...]:
        """What stands on a process: its parent, and those that depend on it."""
        return self._dependants.get(process, ())

    def start_of(self, name: str) -> datetime:
        """Where the timetable of a managed process begins, aligned to its own periods."""
        process = self.processes[name]
        tree = self._tree_of.get(name)
        if process.start is not None:
            instant = _label(process.start, f"start of process {name!r}")
        elif tree is not None and tree.start is not None:
            instant = _label(tree.start, f"start of tree {tree.name!r}")
        elif self._start is not None:
            instant = self._start
        else:
            raise ConfigError(
                f"process {name!r} has no start: set synergy_start_timeperiod, such as 2026010100, or its tree's start"
            )
        return timeperiod_at(instant, process.qualifier, process.grouping).start

    def timeperiod(self, name: str, label: str) -> Timeperiod:
        """The period of a process with this label. Raises InvalidRequest."""
        process = self.process(name)
        return timeperiod_of(label, process.qualifier, process.grouping)

    def containing(self, name: str, instant: datetime) -> Timeperiod:
        """The period of a process that contains `instant`."""
        process = self.processes[name]
        return timeperiod_at(instant, process.qualifier, process.grouping)

    # -- relations --------------------------------------------------------------------------------

    def input_span(self, edge: Edge, start: datetime, end: datetime) -> Span:
        """The periods of `edge.on` that the period [start, end) of `edge.of` stands on."""
        return self._meet(edge.of, edge.on, edge.offset, start, end)

    def dependant_span(self, edge: Edge, start: datetime, end: datetime) -> Span:
        """The periods of `edge.of` that stand on the period [start, end) of `edge.on`."""
        return self._meet(edge.on, edge.of, -edge.offset, start, end)

    def _meet(self, here: str, there: str, offset: int, start: datetime, end: datetime) -> Span:
        """Periods of `there` that meet [start, end) of `here`, moved by `offset` of the coarser."""
        ours, theirs = self.processes[here], self.processes[there]
        if offset and not is_coarser(theirs.qualifier, theirs.grouping, ours.qualifier, ours.grouping):
            start = following(timeperiod_at(start, ours.qualifier, ours.grouping), offset).start
            last = timeperiod_at(end - MILLISECOND, ours.qualifier, ours.grouping)
            end = following(last, offset).end  # [start, end) may be several of our periods
            offset = 0
        first = timeperiod_at(start, theirs.qualifier, theirs.grouping)
        last = timeperiod_at(end - MILLISECOND, theirs.qualifier, theirs.grouping)
        if offset:
            first, last = following(first, offset), following(last, offset)
        return Span(there, first.start, last.end)

    def periods(self, span: Span) -> Iterator[Timeperiod]:
        """The periods a span means."""
        process = self.processes[span.process]
        if span.start < span.end:
            yield from timeperiods_between(span.start, span.end, process.qualifier, process.grouping)


def _label(text: str, what: str) -> datetime:
    """The beginning of an hour's label."""
    try:
        return timeperiod_of(text, Qualifier.HOURLY).start
    except InvalidRequest as error:
        raise ConfigError(f"{what} is {text!r}: {error}") from None


def _cycles(timetable: Timetable) -> Iterator[list[Edge]]:
    """Every simple cycle of the graph "stands on", as its edges; each once, from its smallest name."""
    found = 0
    reach = {name: _reachable(timetable, name) for name in timetable.processes}
    for first in sorted(timetable.processes):
        stack: list[tuple[str, list[Edge]]] = [(first, [])]
        while stack:
            at, path = stack.pop()
            for edge in timetable.inputs(at):
                if edge.on == first:
                    found += 1
                    if found > CYCLES_MAX:
                        raise ConfigError(f"more than {CYCLES_MAX} cycles of dependencies around {first!r}")
                    yield [*path, edge]
                elif (
                    first in reach[edge.on]
                    and edge.on > first
                    and all(edge.on != step.of for step in path)
                    and edge.on != at
                ):
                    stack.append((edge.on, [*path, edge]))


def _reachable(timetable: Timetable, name: str) -> set[str]:
    """Everything that stands below `name`; with it only what is on a cycle is followed."""
    found: set[str] = set()
    stack = [name]
    while stack:
        for edge in timetable.inputs(stack.pop()):
            if edge.on not in found:
                found.add(edge.on)
                stack.append(edge.on)
    return found


def _refuse_cycles(timetable: Timetable) -> None:
    """A cycle is fine only if going round it once always arrives wholly earlier.

    It is followed on intervals, from every period of one span of its coarsest process: adding up
    offsets is no proof, since going up to a day and down again returns to where one began.
    """
    for cycle in _cycles(timetable):
        names = [edge.of for edge in cycle]
        members = [timetable.processes[name] for name in names]
        coarsest = max(members, key=lambda p: (p.qualifier.rank, p.grouping))
        instant = timeperiod_of("2024022900", Qualifier.DAILY).start
        span = timeperiod_at(instant, coarsest.qualifier, coarsest.grouping)
        for turn in range(len(cycle)):
            around = cycle[turn:] + cycle[:turn]
            process = timetable.processes[around[0].of]
            for period in timeperiods_between(span.start, span.end, process.qualifier, process.grouping):
                start, end = period.start, period.end
                for edge in around:
                    step = timetable.input_span(edge, start, end)
                    start, end = step.start, step.end
                if end > period.start:
                    path = " → ".join([*names, names[0]])
                    raise ConfigError(
                        f"{path}: these processes hold each other up, {process.name!r} {period.label}"
                        " would wait for itself; a cycle must lead wholly back in time (after(…, offset=-1))"
                    )
