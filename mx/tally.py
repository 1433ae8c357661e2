"""How many jobs are in each state, at the cost of what is active and of what happened since the last look.

Unfinished jobs are counted by their own index. Finished ones are history: they are counted once as of an event
number, and then moved on by the events after it. An event that does not tell what a job was before (a reprocess, a
job that is marked done), too many events, or half a minute: then they are counted again, all of them. So the
numbers are right as of the newest event; what retention takes of freerun jobs is seen half a minute later.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from scheduler.core.event import Event
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB_FINISHED
from scheduler.core.ports import Clock, Store, Where
from scheduler.core.slice import SOURCE

AGAIN_S = 30.0
EVENTS_MAX = 5000
ENDS = {"job.complete": "processed", "job.no_data": "noop", "job.skip": "skipped"}
UNCLEAR = frozenset({"job.reprocess", "job.mark_done", "job.snapshot"})


@dataclass(frozen=True, slots=True)
class _Counted:
    seq: int  # as of this event
    at: float  # monotonic time of the last full count
    states: dict[str, int]


class Tally:
    """Counts jobs by state. Used by the threads of one server."""

    def __init__(self) -> None:
        self._counted: _Counted | None = None
        self._lock = threading.Lock()

    def states(self, store: Store, clock: Clock) -> dict[str, int]:
        """State → how many jobs are in it, of those in which any is. Raises StoreUnavailable."""
        with self._lock:
            counted = self._moved_on(store, clock) or self._anew(store, clock)
            self._counted = counted
        unfinished = store.count(Job, (Where("open", "=", True),), ("state",))
        found = {str(key[0]): n for key, n in unfinished.items() if key[0] not in JOB_FINISHED}
        return {state: n for state, n in (counted.states | found).items() if n}

    def _moved_on(self, store: Store, clock: Clock) -> _Counted | None:
        """The last count and what happened since; None where that does not tell."""
        last = self._counted
        if last is None or clock.monotonic() >= last.at + AGAIN_S:
            return None
        where = (Where("source", "=", SOURCE), Where("seq", ">", last.seq))
        events = store.select(Event, ("seq", "kind"), where, ("seq",), EVENTS_MAX)
        if len(events) == EVENTS_MAX or any(kind in UNCLEAR for _, kind in events):
            return None
        states = dict(last.states)
        for _, kind in events:
            if kind in ENDS:
                states[ENDS[kind]] = states.get(ENDS[kind], 0) + 1
        return _Counted(events[-1][0] if events else last.seq, last.at, states)

    def _anew(self, store: Store, clock: Clock) -> _Counted:
        """All of them, as of the newest event: what ended after it is told by those to come."""
        newest = store.select(Event, ("seq",), (Where("source", "=", SOURCE),), ("-seq",), 1)
        seq = newest[0][0] if newest else 0
        where = (Where("state", "in", tuple(sorted(JOB_FINISHED))), Where("settled_seq", "<=", seq))
        states = {str(key[0]): n for key, n in store.count(Job, where, ("state",)).items()}
        return _Counted(seq, clock.monotonic(), states)
