"""What a store's events say of a run that is over: the invariants, judged afterwards, on real processes too.

The checker of the simulation follows every commit as it is made; here only what was written down is left: the events
in their order, and the rows as they are now. So what needs the moment of a commit (a cascade is all or nothing, how
much was in flight) is not judged; everything that the order of events tells is: every move is legal and numbered
without a gap, each end came after its inputs', nobody finished what another held, and replaying gives the rows.

Reads only. The context must be the one that the run had, and nothing may have been pruned.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from scheduler.core.event import Event
from scheduler.core.plan import CASCADE_MAX
from scheduler.core.ports import Clock, Store, Where
from scheduler.core.process import Context
from scheduler.core.records import ProcessRow
from scheduler.core.uow import Uow
from simulation.checker import Checker
from simulation.model import Broken
from simulation.rest import check_newest, check_periods, check_reason, check_records, check_units

PAGE = 5_000


class Aftermath(Checker):
    """Follows the events of a store from the first to the last."""

    def __init__(self, store: Store, context: Context, clock: Clock) -> None:
        super().__init__(
            cast("Any", SimpleNamespace(store=store, context=context, clock=clock, cascade_max=CASCADE_MAX))
        )
        self.frontiers = dict(store.select(ProcessRow, ("name", "frontier")))

    def follow(self, said: Callable[[int], object] = lambda seq: None) -> int:
        """Follow them all; returns how many. Raises Broken; `said` is told how far it is."""
        self.rows = {uow.id: uow for uow in self.store.find(Uow)}
        self.submitted = True  # whether a command fired an entry is known at the commit only
        while events := self._page():
            for event in events:
                if event.seq != self.model.seq + 1:
                    raise Broken(8, f"event {event.seq} follows event {self.model.seq}")
                self.model.seq = event.seq
                self._event(event)
            said(self.model.seq)
        return self.model.seq

    def _page(self) -> list[Event]:
        after = (Where("source", "=", "scheduler"), Where("seq", ">", self.model.seq))
        return self.store.find(Event, after, ("seq",), PAGE)


def judge(
    store: Store, context: Context, clock: Clock, said: Callable[[int], object] = lambda seq: None
) -> int:
    """Follow all events, then look at the rest: nothing is missing, nothing waits. Returns how many events.

    For a run that came to rest. Raises Broken for the first invariant that does not hold.
    """
    aftermath = Aftermath(store, context, clock)
    count = aftermath.follow(said)
    check_records(aftermath)
    check_units(aftermath)
    check_periods(aftermath)
    for job in aftermath.model.jobs.values():
        check_reason(aftermath, job)
        check_newest(aftermath, job)
    return count
