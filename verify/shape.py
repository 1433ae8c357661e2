"""The shape: what is explored. A small timetable, the instants that matter, and what may go wrong on a path.

All periods end at one instant, the end of a year that is also the end of a week, and the timetable begins a few of
its finest periods before it. So a tree of any height has few periods: two hours under one day, month and year.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from scheduler.core.errors import InvalidRequest
from scheduler.core.process import (
    BLOCKINGS,
    MACHINES,
    Context,
    Process,
    Retry,
    context,
    managed,
    tree,
)
from scheduler.core.timetable import Timetable
from scheduler.core.trigger import parse_trigger
from simulation.almanac import Almanac, Period

END = datetime(2029, 1, 1, tzinfo=UTC)  # a Monday: hours, days, weeks, months and years end here
MOMENT = timedelta(milliseconds=1)
NEAR = timedelta(minutes=10)  # instants closer than this are one: an opening, and the close of the one before
DELAY_S = 1e9  # of retries and leases: they end when the exploration lets them, not by the clock
PAIRS = {
    ("discrete", "children"),
    ("discrete", "dependencies"),
    ("continuous", "children"),
    ("recomputing", "children"),
}
CONFIGURATIONS = tuple((machine, blocking) for machine in MACHINES for blocking in BLOCKINGS)


class Budget(NamedTuple):
    """What may happen on one path: acts of operators, failures, and what goes wrong; and how much of it in all."""

    reprocess: int = 1  # or late data
    skip: int = 1
    failure: int = 1  # an attempt that fails, fails for good, finds nothing, or cancels
    faults: int = 2  # a crash, a message lost or doubled, a worker that stands still or leaves
    all: int = 5

    def at_most(self, number: int) -> Budget:
        """No more than `number` of it all on one path."""
        return self._replace(all=min(number, self.all))._used()

    def less(self, what: str) -> Budget:
        """What is left after one of `what`; of what can never be spent nothing is kept, so that paths meet."""
        return self._replace(**{what: getattr(self, what) - 1, "all": self.all - 1})._used()

    def _used(self) -> Budget:
        kinds = [max(0, min(number, self.all)) for number in self[:4]]
        return Budget(kinds[0], kinds[1], kinds[2], kinds[3], min(max(0, self.all), sum(kinds)))


BUDGET = Budget()


def together(machine: str, blocking: str) -> int:
    """How many of a budget may meet on one path, so that the exploration ends within about a minute."""
    return 2 if (machine, blocking) in PAIRS else 1


@dataclass(frozen=True)
class Shape:
    """A timetable of a few periods, with everything about it that can be known beforehand."""

    name: str
    context: Context
    timetable: Timetable
    instants: tuple[datetime, ...]  # business time moves from one to the next
    periods: dict[str, Period]  # job -> period
    processes: dict[str, str]  # job -> process
    needs: dict[str, tuple[tuple[str, str], ...]]  # job -> (kind, job it stands on)
    served: dict[str, tuple[tuple[str, str], ...]]  # job -> (kind, job that stands on it)
    budget: Budget
    slots: int = 1  # of the worker that goes on while another one stands still

    def process(self, job: str) -> Process:
        """The definition of a job's process."""
        return self.context.processes[self.processes[job]]

    def above(self, root: str) -> list[str]:
        """Everything that stands on a job, transitively."""
        return _closure(root, self.served)


def _closure(root: str, edges: dict[str, tuple[tuple[str, str], ...]]) -> list[str]:
    found: dict[str, None] = {}
    layer = [root]
    while layer:
        layer = [other for job in layer for _, other in edges[job] if other not in found]
        found.update(dict.fromkeys(layer))
    return list(found)


def built_in(machine: str, blocking: str, budget: Budget = BUDGET) -> Shape:
    """Two hours under a day, and a day that depends on that day; all governed alike."""

    def process(name: str, qualifier: str) -> Process:
        return managed(
            name, "verify.worker", qualifier, trigger="every 7200", state_machine=machine, blocking=blocking
        )

    # the tick comes with the first hour, and with the end of all: one slice and a final run, or a final run alone
    members = (process("hour", "hourly"), process("day", "daily"), process("next", "daily"))
    trees = (tree("a", ("hour", "day")), tree("b", ("next",), depends_on=("a",)))
    return cut(context(members, trees), 2, budget, name=f"{machine} × {blocking}")


def cut(found: Context, count: int, budget: Budget = BUDGET, *, name: str = "context") -> Shape:
    """A context cut down to the last `count` of its finest periods before `END`. Raises InvalidRequest.

    Left out: freeruns and daemons, time-outs, readiness predicates. A trigger `every …` ticks once, at the
    beginning; one retry, one loss, and no start of its own for anybody.
    """
    chosen = {n: p for n, p in found.processes.items() if p.kind == "managed"}
    if not chosen:
        raise InvalidRequest("the context has no managed process: there is no timetable to explore")
    if count < 1:
        raise InvalidRequest(f"--periods {count}: expected at least 1")
    almanac = Almanac(replace(found, start="2020010100", processes=chosen))
    shortest = min(_last(almanac, n).end - _last(almanac, n).start for n in chosen)
    begin = END - count * shortest
    tick = parse_trigger(f"every {count * int(shortest.total_seconds())}")
    processes = {n: _plain(p, tick) for n, p in chosen.items()}
    start = begin.replace(minute=0, second=0).strftime("%Y%m%d%H")
    trees = {n: replace(t, start=None) for n, t in found.trees.items()}
    small = Context(processes, trees, found.queues, start)
    return _shape(name, small, begin, budget)


def _last(almanac: Almanac, process: str) -> Period:
    return almanac.at(process, END - MOMENT)


def _plain(process: Process, tick: object) -> Process:
    by_event = process.trigger is None or process.trigger.kind == "every"
    return replace(
        process,
        trigger=tick if by_event else process.trigger,  # type: ignore[arg-type]
        retry=Retry(max_retries=1, delay_s=DELAY_S, max_delay_s=DELAY_S, jitter=0.0, max_lost=1),
        start=None,
        timeout_s=None,
        wait_timeout_s=None,
        readiness=None,
        is_on=True,
    )


def _shape(name: str, small: Context, begin: datetime, budget: Budget) -> Shape:
    almanac = Almanac(small)
    periods: dict[str, Period] = {}
    processes: dict[str, str] = {}
    for process in almanac.managed:
        for period in almanac.between(process, almanac.start[process], END):
            periods[f"{process}@{period.label}"] = period
            processes[f"{process}@{period.label}"] = process
    needs: dict[str, list[tuple[str, str]]] = {job: [] for job in periods}
    served: dict[str, list[tuple[str, str]]] = {job: [] for job in periods}
    for job, period in periods.items():
        for need in almanac.needs[processes[job]]:
            for other in almanac.inputs(need, period):
                on = f"{need.on}@{other.label}"
                if on in periods:
                    needs[job].append((need.kind, on))
                    served[on].append((need.kind, job))
    return Shape(
        name=name,
        context=small,
        timetable=Timetable(small),
        instants=_instants(small, begin, periods, processes),
        periods=periods,
        processes=processes,
        needs={job: tuple(found) for job, found in needs.items()},
        served={job: tuple(found) for job, found in served.items()},
        budget=budget,
    )


def _instants(
    small: Context, begin: datetime, periods: dict[str, Period], processes: dict[str, str]
) -> tuple[datetime, ...]:
    """When a period opens, closes, or may run by its trigger; the near ones as one."""
    found = {begin}
    for job, period in periods.items():
        process = small.processes[processes[job]]
        found |= {max(begin, period.start), period.end + timedelta(seconds=process.lag_s)}
        trigger = process.trigger
        if trigger is not None and trigger.kind != "every":
            fire = trigger.first_at_or_after(period.end)
            found |= {fire} if fire is not None else set()
    ordered = sorted(found)
    return tuple(
        t
        for t, after in zip(ordered, [*ordered[1:], ordered[-1] + 2 * NEAR], strict=True)
        if after - t > NEAR
    )
