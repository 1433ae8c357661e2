"""How a managed process is governed: the three machines, as data, and the one rule book on them.

`assess` answers, for one job and from the slice alone: what would be done with it now, or what is in the way.
Who decides reads the rules to the first blocker, who explains reads them to the end: the same rules in the same
order, so that an operator is never told a second opinion.

| machine | while the period is open | when closed and all it stands on is finished |
|---|---|---|
| discrete | nothing | one unit of work |
| continuous | units of work one after another, each from the cursor of the last | one last, over the rest |
| recomputing | units of work one after another, each over the whole period | one last, over the whole |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.core.event import history_entries
from scheduler.core.inputs import (
    Blocker,
    all_children_skipped,
    all_unfinished,
    hidden_spans,
    input_spans,
    last_settled,
    skipped_dependency,
    still_busy,
)
from scheduler.core.job import Job
from scheduler.core.process import Process
from scheduler.core.retry import reason_to_give_up
from scheduler.core.slice import Slice
from scheduler.core.timetable import Edge, Span
from scheduler.core.uow import Uow

CODES = {
    "stopping": "a canceled unit of work has not been let go of by its worker",
    "uow": "a unit of work is requested, running, or waits for its retry",
    "retired": "the process is not registered any more",
    "suspended": "the process is suspended, expired, deleted, or was never scheduled",
    "held": "an operator holds it",
    "hidden": "the period begins before the start of its process",
    "not_begun": "the period has not begun",
    "not_closed": "the period is not closed yet",
    "trigger": "the trigger has not fired yet",
    "children": "a child is not finished",
    "dependency": "a dependency is not finished",
    "readiness": "the readiness predicate has not said yes",
    "place": "max_active units of work of the process are unfinished",
}
DISPATCHES = frozenset({"dispatch", "dispatch_final"})
SLICED = frozenset({"continuous", "recomputing"})


@dataclass(frozen=True, slots=True)
class Assessment:
    """What would be done with a job now: `act`, or what is in the way.

    `act`: dispatch, dispatch_final, check (readiness), complete, no_data, skip; None: nothing.
    """

    act: str | None = None
    reason: str | None = None
    detail: str | None = None
    replaces: str | None = None  # an invalid slice that is canceled, the final run takes its range
    blockers: tuple[Blocker, ...] = ()


class _Enough(Exception):
    """The first thing in the way is found, and who decides needs no more: stops the rules. Never shown."""


class _Way:
    """What the rules found in the way: the first thing, which stops them, or everything.

    `hurried`: an operator says run now, and triggers are not waited for.
    """

    def __init__(self, everything: bool = False, hurried: bool = False) -> None:
        self.everything = everything
        self.hurried = hurried
        self.blockers: list[Blocker] = []

    def block(self, blockers: Iterable[Blocker]) -> None:
        """Name what is in the way, if there is any."""
        for blocker in blockers:
            self.blockers.append(blocker)
            if not self.everything:
                raise _Enough


def closes_at(process: Process, end: datetime) -> datetime:
    """When a period that ends at `end` counts as closed."""
    return end + timedelta(seconds=process.lag_s)


def is_by_event(process: Process) -> bool:
    """The trigger limits how often (`every`), not when it may: after the close it is no limit."""
    return process.trigger is None or process.trigger.kind == "every"


def slice_due(process: Process, job: Job) -> datetime | None:
    """When the next unit of work of an open period may be requested (business time)."""
    assert process.trigger is not None, f"{process.name} is sliced without a trigger"
    if job.dispatched_at is None:
        return process.trigger.first_at_or_after(job.start)
    return process.trigger.next_after(job.dispatched_at)


def decides(process: Process, job: Job, uow: Uow) -> bool:
    """Whether the outcome of this unit of work decides its job at once."""
    if job.state == "final_run":
        return True
    return process.machine == "discrete" and (process.blocking != "normal" or process.kind != "managed")


def assess(s: Slice, job: Job, *, everything: bool = False, hurried: bool = False) -> Assessment:
    """What would be done with a job now, or the first blocker. With `everything`, all blockers are named.

    `hurried`: as if its trigger had fired.
    """
    way = _Way(everything, hurried)
    try:
        found = _by_rules(s, job, way)
    except _Enough:
        found = Assessment()
    return Assessment(blockers=tuple(way.blockers)) if way.blockers else found


def _by_rules(s: Slice, job: Job, way: _Way) -> Assessment:
    """All rules, in their order. What they return holds if nothing was in the way."""
    if job.stopping is not None:
        way.block([_stopping(s, job)])
    if job.is_finished:
        return Assessment()
    process = s.process(job.process)
    if process is None:
        way.block([Blocker("retired", f"{job.process} is not registered any more")])
        return Assessment()
    if job.uow_open:
        return _with_uow(s, job, process, way)
    if job.state == "in_progress" and process.machine == "discrete" and _is_over(s, job):
        found = _unless_blocked(s, job, process)
        if found.act is not None and found.act not in DISPATCHES:
            return found
    way.block(_own_blockers(s, job, process))
    found = _by_machine(s, job, process, way)
    if found.act in DISPATCHES:
        found = _readiness(s, job, process, found, way)
    if found.act in DISPATCHES:
        way.block(_place(s, job, process))
    return found


def _unless_blocked(s: Slice, job: Job, process: Process) -> Assessment:
    """What the machine would do; nothing, if anything is in its way."""
    try:
        return _by_machine(s, job, process, _Way())
    except _Enough:
        return Assessment()


def _place(s: Slice, job: Job, process: Process) -> list[Blocker]:
    """Units of work of the process under way: as many as may be."""
    limit, under_way = process.max_active, s.active_of(job.process)
    if process.overlap == "allow" or under_way < limit:
        return []
    sentence = f"{limit} of {job.process} at a time, and {under_way} are under way"
    return [Blocker("place", sentence, process=job.process, unblock="one of them ends")]


def _stopping(s: Slice, job: Job) -> Blocker:
    uow = s.uow(job.stopping or "")
    owner = uow.owner if uow is not None else None
    until = uow.lease_until if uow is not None else None
    return Blocker(
        "stopping",
        f"stopping on {owner or 'its worker'}",
        job=job.id,
        uow=job.stopping,
        until=until,
        unblock="the worker lets go, or its lease ends",
    )


def _with_uow(s: Slice, job: Job, process: Process, way: _Way) -> Assessment:
    """A unit of work is unfinished: it is waited for; an invalid slice yields to the final run."""
    uow = s.uow(job.uow or "")
    if uow is None:
        way.block([Blocker("uow", f"{job.uow} is missing from the store", uow=job.uow)])
        return Assessment()
    if (
        uow.state == "invalid"
        and job.state == "in_progress"
        and process.machine in SLICED
        and s.now >= closes_at(process, job.end)
        and not _own_blockers(s, job, process)
    ):
        found = _unless_blocked(s, job, process)
        if found.act in ("dispatch_final", "skip"):
            return replace(found, replaces=uow.id)
    words = {
        "requested": "waits for a worker",
        "in_progress": f"runs on {uow.owner}",
        "invalid": f"failed ({uow.error}) and waits for its retry",
    }
    blocker = Blocker(
        "uow",
        f"run {uow.run}, attempt {uow.attempt} {words.get(uow.state, 'ended, and is being decided')}",
        job=job.id,
        process=job.process,
        uow=uow.id,
        until=uow.retry_at if uow.state == "invalid" else None,
        unblock={"invalid": "its retry, or retry now"}.get(uow.state, "it ends"),
    )
    way.block([blocker])
    return Assessment()


def _is_over(s: Slice, job: Job) -> bool:
    """Its process expired or was deleted: what ran still decides, and nothing new is requested."""
    row = s.known.rows.get(job.process)
    return row is not None and row.state in ("expired", "deleted")


def _own_blockers(s: Slice, job: Job, process: Process) -> list[Blocker]:
    found = []
    row = s.known.rows.get(job.process)
    if row is None or row.state != "scheduled":
        state = row.state if row is not None else "new"
        found.append(
            Blocker(
                "suspended", f"{job.process} is {state}", process=job.process, unblock=f"resume {job.process}"
            )
        )
    hold = s.hold_on(job)
    if hold is not None:
        why = f": {hold.reason}" if hold.reason else ""
        sentence = f"held by {hold.actor}{why}"
        found.append(Blocker("held", sentence, until=hold.until, unblock=f"release {hold.scope}"))
    if row is not None and row.start is not None and job.start < row.start:
        found.append(
            Blocker("hidden", f"it begins before the start of {job.process}", unblock="lower the start")
        )
    if is_ahead(process, job, s.now):
        found.append(Blocker("not_begun", "its period has not begun", until=job.start, unblock="time passes"))
    return found


def is_ahead(process: Process, job: Job, now: datetime) -> bool:
    """Whether its period has not begun: rows are made ahead to be skipped. A freerun's job has no period: of those
    that were submitted in one millisecond the others bear the next ones."""
    return process.kind == "managed" and job.start > now


def _by_machine(s: Slice, job: Job, process: Process, way: _Way) -> Assessment:
    """The machine's and the blocking type's rules, for a job without an unfinished unit of work."""
    spans = input_spans(s, job)
    if process.blocking == "dependencies":
        culprit = skipped_dependency(s, spans)
        if culprit is not None:
            return Assessment("skip", "dependency", f"{culprit.id} was skipped")
    if not job.produced and all_children_skipped(s, spans):
        return Assessment("skip", "children", "all its children were skipped")
    if process.kind != "managed" or s.now >= closes_at(process, job.end):
        return _closed_run(s, job, process, spans, way)
    return _open_run(s, job, process, spans, way)


def _waits(s: Slice, job: Job, spans: list[tuple[Edge, Span]], kinds: tuple[str, ...], way: _Way) -> bool:
    """Whether it waits for inputs of these kinds."""
    before = len(way.blockers)
    for edge, span in spans:
        if edge.kind in kinds:
            way.block(all_unfinished(s, edge, span))
    for edge, span in hidden_spans(s, job):
        if edge.kind in kinds:
            way.block(still_busy(s, edge, span))
    return len(way.blockers) > before


def _open_run(s: Slice, job: Job, process: Process, spans: list[tuple[Edge, Span]], way: _Way) -> Assessment:
    """While the period is open: nothing, or the next slice at the next tick."""
    if process.machine not in SLICED or not is_by_event(process):
        closing = closes_at(process, job.end)
        way.block(
            [Blocker("not_closed", "its period is not closed yet", until=closing, unblock="time passes")]
        )
        way.block(_trigger(s, job, process, way))
        _waits(s, job, spans, ("child", "dependency"), way)
        return Assessment("dispatch")
    kinds = {"normal": (), "children": ("child", "dependency"), "dependencies": ("dependency",)}[
        process.blocking
    ]
    due = slice_due(process, job)
    if not (job.more or way.hurried) and (due is None or due > s.now):
        way.block(
            [Blocker("trigger", "its next tick has not come", until=due, unblock="run it now, or wait")]
        )
    _waits(s, job, spans, kinds, way)
    return Assessment("dispatch")


def _trigger(s: Slice, job: Job, process: Process, way: _Way) -> list[Blocker]:
    """The trigger of a managed process says when it may: not before its first firing at or after the end."""
    if is_by_event(process) or process.kind != "managed":
        return []
    if way.hurried or (job.more and not job.produced):  # what a slice asked for is a slice, by `every`
        return []
    assert process.trigger is not None, "what has none is by event"
    fire = process.trigger.first_at_or_after(job.end)
    if fire is not None and fire <= s.now:
        return []
    sentence = f"{process.trigger.text!r} has not fired since its period ended"
    return [Blocker("trigger", sentence, until=fire, unblock="run it now, or wait")]


def _closed_run(
    s: Slice, job: Job, process: Process, spans: list[tuple[Edge, Span]], way: _Way
) -> Assessment:
    """When the period is closed: one unit of work that decides, once all it stands on is finished."""
    way.block(_trigger(s, job, process, way))
    early = (
        process.machine == "discrete"
        and process.blocking == "normal"
        and job.state == "embryo"
        and not job.generation
    )
    waits = not early and _waits(s, job, spans, ("child", "dependency"), way)
    if process.machine in SLICED:
        return Assessment("dispatch_final")
    if job.state == "embryo":
        return Assessment("dispatch")
    if waits:  # whether it takes its first run's outcome is known when they are finished
        return Assessment()
    return _discrete_again(s, job, process, spans)


def _discrete_again(s: Slice, job: Job, process: Process, spans: list[tuple[Edge, Span]]) -> Assessment:
    """`discrete` + `normal`, after its early run: take its outcome, or run once more over newer inputs."""
    if last_settled(s, spans) >= job.requested_seq:
        return Assessment("dispatch_final")
    uow = s.uow(job.uow or "")
    if uow is None:
        return Assessment("dispatch_final")
    return outcome(job, uow, process)


def outcome(job: Job, uow: Uow, process: Process | None) -> Assessment:
    """How a job ends by the unit of work that decides it."""
    if uow.state == "processed" or (uow.state == "noop" and job.produced):
        return Assessment("complete")
    if uow.state == "noop":
        return Assessment("no_data", detail=uow.error)
    return Assessment("skip", uow_reason(uow, process), uow.error)


def uow_reason(uow: Uow, process: Process | None) -> str:
    """Why a canceled unit of work ended, as a job's reason.

    `retries_exhausted` and `lost` say that all tries were used up; what was given up before (its process expired)
    has failed, and what its own code canceled is canceled, however often it failed before.
    """
    verbs = [line["verb"] for line in history_entries(uow.history)]
    if "cancel" in verbs:  # no retry comes after it
        return "canceled"
    why = reason_to_give_up(process.retry, uow) if process is not None else None
    return why or ("timed_out" if uow.timed_out else "failed")


def _readiness(s: Slice, job: Job, process: Process, found: Assessment, way: _Way) -> Assessment:
    """Ask the predicate before the first unit of work; its last answer is a stored fact."""
    rule = process.readiness
    if rule is None or job.ready == "yes":
        return found
    if job.ready == "asked":
        way.block([Blocker("readiness", f"{rule.predicate} is being asked", unblock="a worker answers")])
        return found
    if job.ready is None:
        return _ask(rule.predicate, found, way)
    since = job.ready_at or s.real
    first = job.ready_since or since
    if rule.wait_timeout_s is not None and s.real >= first + timedelta(seconds=rule.wait_timeout_s):
        return Assessment(
            "skip", "timed_out", f"{rule.predicate} did not say yes in {rule.wait_timeout_s:g} s"
        )
    again = since + timedelta(seconds=rule.every_s)
    if s.real >= again:
        return _ask(rule.predicate, found, way)
    said = f" ({job.ready_detail})" if job.ready_detail else ""
    way.block([Blocker("readiness", f"{rule.predicate} says no{said}", until=again, unblock="it says yes")])
    return found


def _ask(predicate: str, found: Assessment, way: _Way) -> Assessment:
    """It is asked once nothing else is in the way."""
    if not way.blockers:
        return Assessment("check")
    way.block([Blocker("readiness", f"{predicate} was not asked yet", unblock="it says yes")])
    return found
