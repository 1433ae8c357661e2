"""The three state machines, as tables.

Everything that affects which state follows which stands here, and as much as possible stands in the
tables. Two rules: a verb that has no cell is illegal, raises, and changes nothing; and nothing
outside this file names a state's successor.

The tables are given to the `transitions` library, which checks and draws them, and are then compiled
into a plain dictionary `(state, verb) -> state`: 0.2 µs a look-up, and pure. A table guards nothing
against concurrency; the compare-and-set of the store does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from transitions import Machine

from scheduler.core.errors import InvalidTransition


class JobState(StrEnum):
    """Where a job, one process × one timeperiod, stands."""

    EMBRYO = "embryo"  # the period is known, nothing was requested for it yet
    IN_PROGRESS = "in_progress"  # a unit of work was requested; more may follow
    FINAL_RUN = "final_run"  # the last unit of work, whose outcome decides the job
    PROCESSED = "processed"  # finished, with a result
    SKIPPED = "skipped"  # finished, without one
    NOOP = "noop"  # finished, there was nothing to do


class UowState(StrEnum):
    """Where a unit of work, one dispatch of a job to a worker, stands."""

    REQUESTED = "requested"  # saved, and (to be) published
    IN_PROGRESS = "in_progress"  # accepted by a worker, under a lease
    PROCESSED = "processed"
    NOOP = "noop"
    INVALID = "invalid"  # failed; will be retried or given up
    CANCELED = "canceled"


class ProcessState(StrEnum):
    """Whether a process may start new units of work."""

    NEW = "new"
    SCHEDULED = "scheduled"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    DELETED = "deleted"


JOB_FINISHED = frozenset({JobState.PROCESSED, JobState.SKIPPED, JobState.NOOP})
UOW_FINISHED = frozenset({UowState.PROCESSED, UowState.NOOP, UowState.CANCELED})

_ANY_JOB = tuple(JobState)
_OPEN_JOB = (JobState.EMBRYO, JobState.IN_PROGRESS, JobState.FINAL_RUN)

Table = Mapping[str, Mapping[str, str]]

JOB_TABLE: Table = {
    "dispatch": dict.fromkeys((JobState.EMBRYO, JobState.IN_PROGRESS), JobState.IN_PROGRESS),
    "dispatch_final": dict.fromkeys((JobState.EMBRYO, JobState.IN_PROGRESS), JobState.FINAL_RUN),
    "complete": dict.fromkeys((JobState.IN_PROGRESS, JobState.FINAL_RUN), JobState.PROCESSED),
    "no_data": dict.fromkeys((JobState.IN_PROGRESS, JobState.FINAL_RUN), JobState.NOOP),
    "skip": dict.fromkeys(_OPEN_JOB, JobState.SKIPPED),
    "reprocess": dict.fromkeys(_ANY_JOB, JobState.EMBRYO),
    "mark_done": dict.fromkeys((*_OPEN_JOB, JobState.SKIPPED), JobState.PROCESSED),
}

UOW_TABLE: Table = {
    "accept": {UowState.REQUESTED: UowState.IN_PROGRESS},
    "succeed": {UowState.IN_PROGRESS: UowState.PROCESSED},
    "no_data": {UowState.IN_PROGRESS: UowState.NOOP},
    # requested -> invalid happens by the waiting time-out alone
    "fail": {UowState.IN_PROGRESS: UowState.INVALID, UowState.REQUESTED: UowState.INVALID},
    "retry": {UowState.INVALID: UowState.REQUESTED},
    "release": {UowState.IN_PROGRESS: UowState.REQUESTED},
    "give_up": {UowState.INVALID: UowState.CANCELED},
    "cancel": dict.fromkeys((UowState.REQUESTED, UowState.IN_PROGRESS, UowState.INVALID), UowState.CANCELED),
}

PROCESS_TABLE: Table = {
    "schedule": dict.fromkeys((ProcessState.NEW, ProcessState.SCHEDULED), ProcessState.SCHEDULED),
    "suspend": dict.fromkeys((ProcessState.SCHEDULED, ProcessState.SUSPENDED), ProcessState.SUSPENDED),
    "resume": {ProcessState.SUSPENDED: ProcessState.SCHEDULED},
    "expire": dict.fromkeys(
        (ProcessState.NEW, ProcessState.SCHEDULED, ProcessState.SUSPENDED, ProcessState.EXPIRED),
        ProcessState.EXPIRED,
    ),
    "delete": dict.fromkeys(tuple(ProcessState), ProcessState.DELETED),
}


class Lifecycle:
    """One state machine: a table compiled into a look-up.

    `successor` is the only way to find the next state; `verbs` tells what is legal in a state.
    """

    def __init__(self, name: str, states: type[StrEnum], initial: str, table: Table) -> None:
        self.name, self.initial = name, initial
        self.states = tuple(str(state) for state in states)
        self.machine = Machine(
            model=None,
            states=list(self.states),
            initial=None,
            auto_transitions=False,
            transitions=[[verb, str(a), str(b)] for verb, row in table.items() for a, b in row.items()],
        )
        cells: dict[tuple[str, str], str] = {}
        for verb, event in self.machine.events.items():
            for source, transitions in event.transitions.items():
                cells[source, verb] = str(transitions[0].dest)
        self.cells: Mapping[tuple[str, str], str] = MappingProxyType(cells)
        self.all_verbs = tuple(table)

    def successor(self, entity: str, state: str, verb: str) -> str:
        """The state that `verb` leads to from `state`.

        Raises InvalidTransition, naming `entity`, the verb, the state and what is allowed there.
        """
        found = self.cells.get((state, verb))
        if found is None:
            raise InvalidTransition(entity, state, verb, self.verbs(state))
        return found

    def verbs(self, state: str) -> tuple[str, ...]:
        """The verbs that are legal in `state`, in the table's order."""
        return tuple(verb for verb in self.all_verbs if (state, verb) in self.cells)


JOB = Lifecycle("job", JobState, JobState.EMBRYO, JOB_TABLE)
UOW = Lifecycle("unit of work", UowState, UowState.REQUESTED, UOW_TABLE)
PROCESS = Lifecycle("process", ProcessState, ProcessState.NEW, PROCESS_TABLE)
LIFECYCLES = (JOB, UOW, PROCESS)
