"""Gather the facts a turn needs: a few indexed reads for the whole batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from scheduler.core.command import Command
from scheduler.core.facts import LOOK, OpenRow
from scheduler.core.inputs import dependant_span
from scheduler.core.job import Job, job_id
from scheduler.core.ports import Store, Where
from scheduler.core.slice import Item, Slice
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow, job_of

UNFINISHED = ("requested", "in_progress", "invalid")
HELD = ("in_progress", "canceled")
CHUNK = 256
FEW = 4  # periods that are looked up one by one


class Gatherer:
    """Reads what `Absent` named into a slice."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads = 0

    def ahead(self, s: Slice, items: Iterable[Item]) -> None:
        """Gather what the rules for these items surely need."""
        jobs: list[str] = []
        uows: list[str] = []
        for item in items:
            if item.kind == "job":
                jobs.append(item.what)
            elif item.kind in ("uow", "resend"):
                uows.append(item.what)
                jobs.append(job_of(item.what))
        self._uows(s, uows)
        self._jobs(s, [*jobs, *self._dependants(s, uows)])
        if s.active is None:  # last: what a worker finished meanwhile holds no place
            self._active(s)

    def _dependants(self, s: Slice, uows: Iterable[str]) -> list[str]:
        """What may become possible by units of work that ended: looked at next, so read along with their jobs."""
        found: list[str] = []
        for id_ in uows:
            uow = s.uows.get(id_)
            if uow is None or not uow.is_finished:
                continue
            for edge in s.timetable.dependants(uow.process):
                span = s.clip(dependant_span(s.timetable, edge, uow.start, uow.end))
                periods = islice(s.timetable.periods(span), FEW)
                found += [job_id(edge.of, period.label) for period in periods if period.start <= s.now]
        return found

    def gather(self, s: Slice, wants: Sequence[tuple[Any, ...]]) -> None:
        """Gather what was absent; each want once."""
        unique = dict.fromkeys(wants)
        self._jobs(s, [want[1] for want in unique if want[0] == "job"])
        self._uows(s, [want[1] for want in unique if want[0] == "uow"])
        for want in unique:
            where: tuple[Where, ...]
            match want:
                case ("active",):
                    self._active(s)
                case ("open", span, size):
                    where = (*_within(span), Where("open", "=", True))
                    at_hand = _open_at_hand(s, span)
                    s.looks["open", span] = self._look(where, size) if at_hand is None else (at_hand, True)
                case ("window", process, after, size):
                    where = (
                        Where("process", "=", process),
                        Where("open", "=", True),
                        Where("uow_open", "=", False),
                    )
                    if after is not None:
                        where = (*where, Where("start", ">", after))
                    self.reads += 1
                    found = self.store.find(Job, where, ("start",), size)
                    for job in found:
                        s.jobs.setdefault(job.id, job)
                    s.looks[want] = [OpenRow(job.id, job.start) for job in found], len(found) < size
                case ("busy", span):
                    s.looks[want] = self._busy(span), True
                case ("requested", process):
                    where = (Where("process", "=", process), Where("state", "=", "requested"))
                    s.owned[f"requested:{process}"] = self._ids(where)
                case ("asking", process):
                    where = (
                        Where("process", "=", process),
                        Where("open", "=", True),
                        Where("ready_since", "notnull"),
                    )
                    self.reads += 1
                    found_ids = self.store.select(Job, ("id",), where, ("id",))
                    s.owned[f"asking:{process}"] = [row[0] for row in found_ids]
                case ("owned", owner):
                    where = (Where("owner", "=", owner), Where("state", "in", HELD))
                    s.owned[owner] = self._ids(where)
                case ("invalid", process):
                    where = (Where("process", "=", process), Where("state", "=", "invalid"))
                    s.owned[f"invalid:{process}"] = self._ids(where)
        self._ranges(s, [want[1] for want in unique if want[0] == "range"])
        self._uows_of_jobs(s, unique)
        self._commands(s, unique)

    def _commands(self, s: Slice, wants: Iterable[tuple[Any, ...]]) -> None:
        """Other commands that one is about."""
        for want in wants:
            if want[0] == "command":
                self.reads += 1
                s.asked[want[1]] = self.store.get(Command, want[1])

    def _uows_of_jobs(self, s: Slice, wants: Iterable[tuple[Any, ...]]) -> None:
        """A job with an unfinished unit of work is hardly ever looked at without it."""
        needed = []
        for want in wants:
            if want[0] == "job":
                job = s.jobs.get(want[1])
                if job is not None and job.uow_open and job.uow is not None:
                    needed.append(job.uow)
        self._uows(s, needed)

    def _jobs(self, s: Slice, ids: Iterable[str]) -> None:
        wanted = [id_ for id_ in dict.fromkeys(ids) if id_ not in s.jobs]
        for at in range(0, len(wanted), CHUNK):
            chunk = wanted[at : at + CHUNK]
            self.reads += 1
            for job in self.store.find(Job, (Where("id", "in", chunk),)):
                s.jobs[job.id] = job
        for id_ in wanted:
            s.jobs.setdefault(id_, None)

    def _uows(self, s: Slice, ids: Iterable[str]) -> None:
        wanted = [id_ for id_ in dict.fromkeys(ids) if id_ not in s.uows]
        for at in range(0, len(wanted), CHUNK):
            chunk = wanted[at : at + CHUNK]
            self.reads += 1
            for uow in self.store.find(Uow, (Where("id", "in", chunk),)):
                s.uows[uow.id] = uow
        for id_ in wanted:
            s.uows.setdefault(id_, None)

    def _active(self, s: Slice) -> None:
        self.reads += 1
        where = (Where("state", "in", UNFINISHED), Where("kind", "=", "work"))
        counted = self.store.count(Uow, where, ("process",))
        s.active = {process: number for (process,), number in counted.items()}

    def _look(self, where: tuple[Where, ...], size: int) -> tuple[list[OpenRow], bool]:
        self.reads += 1
        rows = self.store.select(Job, ("id", "start"), where, ("start",), size)
        return [OpenRow(*row) for row in rows], len(rows) < size

    def _ranges(self, s: Slice, spans: list[Span]) -> None:
        """Each span's jobs; spans of a process that touch are read as one."""
        spans.sort(key=lambda span: (span.process, span.start, span.end))
        at = 0
        while at < len(spans):
            first, end, n = spans[at], spans[at].end, at + 1
            while n < len(spans) and spans[n].process == first.process and spans[n].start <= end:
                end, n = max(end, spans[n].end), n + 1
            self._range(s, Span(first.process, first.start, end), spans[at:n])
            at = n

    def _range(self, s: Slice, whole: Span, spans: list[Span]) -> None:
        self.reads += 1
        found = self.store.find(Job, _within(whole), ("start",))
        for job in found:
            s.jobs.setdefault(job.id, job)
        starts = [job.start for job in found]
        for span in spans:
            part = found[bisect_left(starts, span.start) : bisect_left(starts, span.end)]
            s.ranges[span] = [job.id for job in part]

    def _busy(self, span: Span) -> list[OpenRow]:
        """The jobs of a span whose unit of work is unfinished, or still held by a worker."""
        rows: dict[str, OpenRow] = {}
        for more in (Where("uow_open", "=", True), Where("stopping", "notnull")):
            found, _ = self._look((*_within(span), Where("open", "=", True), more), LOOK)
            rows.update((row.id, row) for row in found)
        return sorted(rows.values(), key=lambda row: row.start)

    def _ids(self, where: tuple[Where, ...]) -> list[str]:
        self.reads += 1
        return [row[0] for row in self.store.select(Uow, ("id",), where, ("id",))]


def _open_at_hand(s: Slice, span: Span) -> list[OpenRow] | None:
    """The open jobs of a span of few periods whose rows are all in the slice; None: the store must be asked.

    A process has one row a period (its qualifier and grouping are fixed), and only this leader writes them. In a
    chain the span is the job that was reported just now.
    """
    process = s.timetable.processes.get(span.process)
    if process is None or process.kind != "managed":
        return None
    found = []
    for n, period in enumerate(s.timetable.periods(span)):
        job = s.jobs.get(job_id(span.process, period.label))
        if job is None or n == FEW:
            return None
        if job.open:
            found.append(OpenRow(job.id, job.start))
    return found


def _within(span: Span) -> tuple[Where, ...]:
    return (
        Where("process", "=", span.process),
        Where("start", ">=", span.start),
        Where("start", "<", span.end),
    )
