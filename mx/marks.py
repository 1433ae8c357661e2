"""The marks of a job: late, retrying, lost, held. Pure.

A job has one state and any number of marks; a cell has room for one, the gravest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mx.lateness import lateness
from scheduler.core.records import Hold, ProcessRow
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow, job_of


class Period(Protocol):
    """What marks need to know of a job."""

    @property
    def id(self) -> str: ...
    @property
    def process(self) -> str: ...
    @property
    def end(self) -> datetime: ...
    @property
    def open(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Marks:
    """Answers which marks a job has, from facts gathered once a page."""

    timetable: Timetable
    rows: Mapping[str, ProcessRow]
    scopes: frozenset[str]
    uows: Mapping[str, Uow]  # job id -> its unfinished unit of work
    real: datetime
    business: datetime

    @classmethod
    def of_facts(
        cls,
        timetable: Timetable,
        rows: Mapping[str, ProcessRow],
        holds: Iterable[Hold],
        uows: Iterable[Uow],
        real: datetime,
        business: datetime,
    ) -> Marks:
        """From what a page gathered."""
        scopes = frozenset(hold.scope for hold in holds if hold.until is None or hold.until > real)
        return cls(timetable, rows, scopes, {job_of(uow.id): uow for uow in uows}, real, business)

    def all_of(self, job: Period) -> list[str]:
        """All marks of a job, the gravest first."""
        uow = self.uows.get(job.id)
        found = []
        if uow is not None and self.is_lost(uow):
            found.append("lost")
        if uow is not None and (uow.state == "invalid" or uow.failures):
            found.append("retrying")
        if job.open and self.held_by(job.process, job.id):
            found.append("held")
        process = self.timetable.processes.get(job.process)
        if job.open and process and lateness(process, self.rows.get(job.process), job.end, self.business):
            found.append("late")
        return found

    def of(self, job: Period) -> str:
        """The mark that a cell shows, or ""."""
        found = self.all_of(job)
        return found[0] if found else ""

    def is_lost(self, uow: Uow) -> bool:
        """Whether its lease ran out, or an attempt of it was lost."""
        expired = uow.state == "in_progress" and uow.lease_until is not None and uow.lease_until < self.real
        return expired or (uow.losses > 0 and uow.state in ("in_progress", "requested"))

    def held_by(self, process: str, job: str) -> str:
        """The scope of the hold a job stands under, the narrowest, or ""."""
        tree = self.timetable.tree_of(process)
        for scope in (f"job:{job}", f"process:{process}", f"tree:{tree.name}" if tree else "", "*"):
            if scope in self.scopes:
                return scope
        return ""
