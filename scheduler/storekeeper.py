"""`store check` and `store repair`: the shell around `core.audit`.

It reads a store in chunks, so that memory does not grow with history; it reads what is suspect once more, whole;
and while a scheduler leads it believes only what it has seen twice, because rows that are read one after another
may belong to two moments. Checking writes nothing. Repairing needs the leader's lease (`scheduler.charge`): nobody
else decides meanwhile, and each transaction is fenced. What is repaired is an event with the actor's name; a job's
is its snapshot, so that its events explain its row again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scheduler.charge import Charge, leader_of
from scheduler.core.audit import (
    Finding,
    LightEvent,
    LightJob,
    LightUow,
    examine,
    gap_findings,
    labels_between,
    lease_findings,
    numbering_finding,
    suspects,
)
from scheduler.core.errors import Conflict
from scheduler.core.event import Event
from scheduler.core.evolve import difference
from scheduler.core.job import Job
from scheduler.core.ports import Change, Clock, Store, Where
from scheduler.core.records import Fact, Lease, ProcessRow
from scheduler.core.relink import Evidence
from scheduler.core.slice import SOURCE
from scheduler.core.uow import Uow
from scheduler.retention import SNAPSHOT, Policy, snapshot

CHUNK = 5000  # jobs that are looked at together
PAGE = 20_000  # events
BATCH = 100  # findings that are repaired in one transaction
AGAIN_AFTER_S = 1.0
PRUNED = "pruned"  # fact {"before": instant}: up to there events may have been pruned by hand

Progress = Callable[[str, int], None]  # what is looked at, and how many rows were


def _silent(what: str, rows: int) -> None:
    """No progress is shown."""


@dataclass
class Checked:
    """What a check found, and how much it looked at."""

    findings: list[Finding] = field(default_factory=list)
    rows: int = 0
    leader: str | None = None  # who led meanwhile

    def counts(self) -> dict[str, int]:
        """Findings per code."""
        found: dict[str, int] = {}
        for finding in self.findings:
            found[finding.code] = found.get(finding.code, 0) + 1
        return found


@dataclass
class Repaired:
    """What a repair did: findings that were set right, and those that are left to people."""

    done: list[Finding] = field(default_factory=list)
    missed: list[Finding] = field(default_factory=list)  # changed at that moment: repair again
    left: list[Finding] = field(default_factory=list)  # there is no remedy


def check(
    store: Store,
    clock: Clock,
    *,
    policy: Policy | None = None,
    actor: str = "store repair",
    pause: Callable[[float], None] | None = None,
    progress: Progress = _silent,
) -> Checked:
    """Look at everything; writes nothing. `pause` waits so many seconds. Raises StoreUnavailable."""
    checker = _Checker(store, clock, policy or Policy(), actor, progress)
    absent = absent_of(store)
    if absent:
        found = [Finding("schema", what, "it is not there", "make it") for what in absent]
        if any(what.startswith("table ") for what in absent):
            return Checked(found)
        checker.found.findings += found
    leader = leader_of(store)
    checker.found.leader = leader.holder if leader is not None else None
    suspected = list(checker.suspected())
    findings = checker.examined(suspected)
    if findings and leader is not None and pause is not None:
        pause(AGAIN_AFTER_S)
        again = {(finding.code, finding.about) for finding in checker.examined(suspected)}
        findings = [finding for finding in findings if (finding.code, finding.about) in again]
    checker.found.findings += findings
    checker.found.findings += lease_findings(store.find(Lease), store.now())
    checker.events()
    return checker.found


def absent_of(store: Store) -> list[str]:
    """Tables and indexes that should be there and are not, as far as the adapter can tell."""
    look: Callable[[], list[str]] | None = getattr(store, "absent", None)
    return [] if look is None else look()


class _Checker:
    """One look at a whole store."""

    def __init__(self, store: Store, clock: Clock, policy: Policy, actor: str, progress: Progress) -> None:
        self.store, self.clock, self.policy, self.actor = store, clock, policy, actor
        self.progress = progress
        self.now = store.now()
        self.rows = {row.name: row for row in store.find(ProcessRow)}
        self.found = Checked()

    def _saw(self, what: str, rows: int) -> None:
        self.found.rows += rows
        self.progress(what, rows)

    # -- jobs -------------------------------------------------------------------------------------

    def suspected(self) -> Iterator[str]:
        """Ids of jobs that are worth a second look, process by process."""
        names = {name for kind in (Job, Uow) for (name,) in self.store.count(kind, by=("process",))}
        for name in sorted(names | self.rows.keys()):
            yield from self._of_process(name)

    def _of_process(self, name: str) -> Iterator[str]:
        row = self.rows.get(name)
        here = Where("process", "=", name)
        after: datetime | None = None
        label: str | None = None
        begin = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
        while True:
            where = (here,) if after is None else (here, Where("start", ">", after))
            jobs = [LightJob(*r) for r in self.store.select(Job, LightJob._fields, where, ("start",), CHUNK)]
            is_last = len(jobs) < CHUNK
            periods = [] if label is None else [Where("timeperiod", ">", label)]
            if not is_last:
                periods.append(Where("timeperiod", "<=", jobs[-1].timeperiod))
            uows = [LightUow(*r) for r in self.store.select(Uow, LightUow._fields, (here, *periods))]
            told = (
                Where("source", "=", SOURCE),
                Where("kind", "prefix", "job."),
                Where("timeperiod", "notnull"),
            )
            events = [
                LightEvent(*r) for r in self.store.select(Event, LightEvent._fields, (here, *periods, *told))
            ]
            after = jobs[-1].start if jobs else begin
            until = _FAR if is_last else after + timedelta(milliseconds=1)
            labels = [] if row is None else labels_between(row, begin, until)
            self._saw(name, len(jobs) + len(uows) + len(events))
            if row is None:
                yield from sorted({job.id for job in jobs} | {f"{name}@{uow.timeperiod}" for uow in uows})[:1]
                return
            yield from suspects(row, name, jobs, uows, events, labels, self.now)
            if is_last:
                return
            begin, label = until, jobs[-1].timeperiod

    def examined(self, ids: Sequence[str]) -> list[Finding]:
        """What is wrong with these jobs, read whole."""
        self.now = self.store.now()
        return [finding for id_ in ids for finding in examine(self._evidence(id_))]

    def _evidence(self, id_: str) -> Evidence:
        name, _, label = id_.partition("@")
        here = (Where("process", "=", name), Where("timeperiod", "=", label))
        uows = self.store.find(Uow, here, ("run",))
        events = self.store.find(Event, (*here, Where("source", "=", SOURCE)), ("seq",))
        job = self.store.get(Job, id_)
        return Evidence(id_, self.rows.get(name), job, uows, events, self.now, self.actor)

    # -- events -----------------------------------------------------------------------------------

    def events(self) -> None:
        """Numbers that are missing, where retention has taken none."""
        days = min(self.policy.event_days, self.policy.uow_days)
        before = self.clock.real() - timedelta(days=days)
        pruned = self.store.get(Fact, PRUNED)
        if pruned is not None:
            before = max(before, datetime.fromisoformat(str(pruned.value["before"])))
        for (source,) in sorted(self.store.count(Event, by=("source",))):
            self.found.findings += self._gaps(source, before)
        last = self.store.select(Event, ("seq",), (Where("source", "=", SOURCE),), ("-seq",), 1)
        named = [
            row[0]
            for name in ("settled_seq", "requested_seq")
            for row in self.store.select(Job, (name,), (), (f"-{name}",), 1)
        ]
        self.found.findings += numbering_finding(last[0][0] if last else 0, max(named, default=0))

    def _gaps(self, source: str, before: datetime) -> list[Finding]:
        here = Where("source", "=", source)
        found: list[Finding] = []
        numbers: list[tuple[int, datetime]] = []
        while True:
            where = (
                (here, Where("seq", ">", numbers[-1][0])) if numbers else (here, Where("at", ">=", before))
            )
            page = self.store.select(Event, ("seq", "at"), where, ("seq",), PAGE)
            numbers = [*numbers[-1:], *page]
            found += gap_findings(source, numbers, before)
            self._saw(f"events of {source}", len(page))
            if len(page) < PAGE:
                return found


_FAR = datetime.fromisoformat("9998-01-01T00:00:00+00:00")


# -- repair -------------------------------------------------------------------------------------------------


def repair(
    charge: Charge, clock: Clock, findings: Sequence[Finding], *, actor: str, progress: Progress = _silent
) -> Repaired:
    """Set right what has a remedy, some at a time. Raises LeaseLost, StoreUnavailable."""
    done = Repaired(left=[finding for finding in findings if not finding.remedy])
    store = charge.store
    if any(finding.code == "schema" for finding in findings):
        complete: Callable[[], None] = store.complete  # type: ignore[attr-defined]
        complete()
        done.done += [finding for finding in findings if finding.code == "schema"]
    last = store.select(Event, ("seq",), (Where("source", "=", SOURCE),), ("-seq",), 1)
    writer = _Writer(charge, clock, actor, last[0][0] if last else 0)
    behind = [finding for finding in findings if finding.code == "events.behind"]
    for finding in behind:
        writer.seq = max(writer.seq, int(finding.remedy.rpartition(" ")[2]) - 1)
        writer.write([finding])
        done.done.append(finding)
    mended = [f for f in findings if f.remedy and f.code not in ("schema", "events.behind")]
    for at in range(0, len(mended), BATCH):
        batch = mended[at : at + BATCH]
        try:
            writer.write(batch)
            done.done += batch
        except Conflict:
            _singly(writer, batch, done)
        progress("repaired", len(batch))
    return done


def _singly(writer: _Writer, batch: Iterable[Finding], done: Repaired) -> None:
    for finding in batch:
        try:
            writer.write([finding])
            done.done.append(finding)
        except Conflict:
            done.missed.append(finding)


class _Writer:
    """Writes findings with their events, numbered as the leader's."""

    def __init__(self, charge: Charge, clock: Clock, actor: str, seq: int) -> None:
        self.charge, self.clock, self.actor, self.seq = charge, clock, actor, seq

    def write(self, findings: Sequence[Finding]) -> None:
        """All of them, or none: Conflict."""
        charge = self.charge
        events = [self._event(finding, self.seq + n) for n, finding in enumerate(findings, 1)]
        changes = [change for finding in findings for change in _changes(finding)]
        inserts = [f.job for f in findings if f.job is not None and f.was is None]
        inserts += [record for finding in findings for record in finding.inserts]
        with charge.store.transaction(charge.lease) as tx:
            if inserts:
                tx.insert(inserts)
            if changes and tx.update(changes) != len(changes):
                raise Conflict
            tx.insert(events)
        self.seq += len(events)

    def _event(self, finding: Finding, seq: int) -> Event:
        job = finding.job
        about: dict[str, Any] = {
            "kind": "store.repair",
            "data": {"about": finding.about, "code": finding.code},
        }
        if job is not None:
            about = {
                "kind": SNAPSHOT,
                "process": job.process,
                "timeperiod": job.timeperiod,
                "data": snapshot(job),
            }
        return Event(
            source=SOURCE,
            seq=seq,
            at=self.clock.real(),
            business_at=self.clock.business(),
            actor=self.actor,
            severity="warning",
            message=f"repaired: {finding.line}; {finding.remedy}",
            **about,
        )


def _changes(finding: Finding) -> list[Change]:
    changes = list(finding.changes)
    if finding.job is not None and finding.was is not None:
        was = finding.was
        expect = {"state": was.state, "version": was.version}
        changes.insert(0, Change(Job, was.id, expect, difference(was, finding.job)))
    return changes
