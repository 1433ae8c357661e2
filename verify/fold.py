"""Folding: states that differ in nothing that matters are one.

What is folded, and why nothing is lost by it:

* Times. Real time stands; a time of a record is "now" (it is due) or `LATER`. When it comes is the exploration's
  choice, so every order of retries, lease ends and repeated messages is among those explored.
* Versions and attempts. They rise by one with every change (checked there) and are compared by whoever held a record
  before; the exploration keeps for those whether the record has changed since.
* Numbers of events. Only "did this input finish after that was requested" is asked; the order of both is kept, as
  ranks, for the jobs that may still ask.
* Runs. The last unit of work of a job, those a worker or a message still knows, and those that stop are kept and
  numbered anew; a finished one that nobody asks for is dropped.
* Texts (errors, details, warnings), and marks that only delay (how often a message was published).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from scheduler.core.event import history_entries
from scheduler.core.evolve import evolve
from scheduler.core.job import Job
from scheduler.core.strategy import SLICED
from scheduler.core.uow import Uow, job_of, uow_id
from simulation.model import PEOPLE
from verify.shape import Shape

REAL = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
LATER = datetime.fromisoformat("2090-01-01T00:00:00+00:00")
SEQ = 1000  # ranks stay below: the number of the last event before a turn
OWNER = "worker"
TOKEN = "the last accept's"  # noqa: S105 - of a made-up accept


class Records(NamedTuple):
    """What the store holds, folded, and what the leader keeps in its memory."""

    jobs: tuple[Job, ...]
    uows: tuple[Uow, ...]
    frontiers: tuple[datetime | None, ...]
    crowded: tuple[str, ...]


class Folder:
    """Folds records of one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def fold(
        self,
        jobs: Mapping[str, Job],
        uows: Mapping[str, Uow],
        frontiers: tuple[datetime | None, ...],
        crowded: Iterable[str],
        refs: Iterable[str],
    ) -> tuple[Records, dict[str, str]]:
        """The records folded, and what the units of work that are kept are called now."""
        refs = frozenset(refs)
        kept: dict[str, list[Uow]] = {}
        for uow in uows.values():
            job = jobs[job_of(uow.id)]
            if uow.id in refs or self._is_asked_for(job, uow):
                kept.setdefault(job.id, []).append(uow)
        renamed: dict[str, str] = {}
        folded: list[Uow] = []
        for id_, found in kept.items():
            found.sort(key=lambda uow: uow.run)
            for run, uow in enumerate(found, 1):
                name = renamed[uow.id] = uow_id(id_, run)
                folded.append(self._uow(uow, jobs[id_], name, run))
        ranks = self._ranks(jobs)
        marked = [self._job(job, renamed, len(kept.get(job.id, ())), ranks) for job in jobs.values()]
        marked.sort(key=lambda job: job.id)
        folded.sort(key=lambda uow: uow.id)
        return Records(tuple(marked), tuple(folded), frontiers, tuple(sorted(crowded))), renamed

    def _is_asked_for(self, job: Job, uow: Uow) -> bool:
        if not uow.is_finished or uow.due_at is not None or uow.copied != uow.history_n:
            return True
        if uow.id == job.stopping:
            return True
        return uow.id == job.uow and (job.uow_open or job.state in ("in_progress", "final_run"))

    def _job(self, job: Job, renamed: dict[str, str], run: int, ranks: dict[int, int]) -> Job:
        process = self.shape.process(job.id)
        over = job.is_finished
        early = process.machine == "discrete" and process.blocking == "normal" and job.state == "embryo"
        ticks = process.machine in SLICED and not over
        sets: dict[str, Any] = {
            "version": 0,
            "detail": None,
            "warning": None,
            "created_at": REAL,
            "settled_at": None,
            "uow": renamed.get(job.uow or ""),
            "stopping": renamed[job.stopping] if job.stopping is not None else None,
            "run": run,
            "generation": min(job.generation, 1) if early else 0,
            "produced": job.produced and not over,
            "cursor": "known" if job.cursor is not None and not over else None,
            "dispatched_at": job.dispatched_at if ticks else None,
            "more": job.more and not over,
            "again": "late" if job.again is not None else None,
            "settled_seq": ranks.get(job.settled_seq, 0) if self._asked_settled(job) else 0,
            "requested_seq": ranks.get(job.requested_seq, 0) if self._asks(job) else 0,
            "reason": None if job.reason is None else "manual" if job.reason in PEOPLE else "other",
        }
        return evolve(job, sets)

    def _asked_settled(self, job: Job) -> bool:
        return job.is_finished and bool(self.shape.served[job.id])

    def _asks(self, job: Job) -> bool:
        return job.state in ("in_progress", "final_run") and bool(self.shape.needs[job.id])

    def _ranks(self, jobs: Mapping[str, Job]) -> dict[int, int]:
        marks = {job.settled_seq: "settled" for job in jobs.values() if self._asked_settled(job)}
        marks.update({job.requested_seq: "requested" for job in jobs.values() if self._asks(job)})
        marks.pop(0, None)
        ranks: dict[int, int] = {}
        rank, before = 0, ""
        for number, kind in sorted(marks.items()):
            rank += kind != before
            before = kind
            ranks[number] = rank
        return ranks

    def _uow(self, uow: Uow, job: Job, name: str, run: int) -> Uow:
        stops = job.stopping == uow.id
        held = uow.state == "in_progress" or stops
        decides = not uow.is_finished or (
            uow.id == job.uow and (job.uow_open or job.state in ("in_progress", "final_run"))
        )
        sets: dict[str, Any] = {
            "id": name,
            "run": run,
            "attempt": 1,
            "version": 0,
            "created_at": REAL,
            "requested_at": REAL,
            "published_at": None,
            "publishes": 0,
            "retry_at": _time(uow.retry_at),
            "due_at": _time(uow.due_at),
            "owner": OWNER if held and uow.owner is not None else None,
            "box": None,
            "token": TOKEN if uow.state == "in_progress" or uow.token == TOKEN else None,
            "started_at": None,
            "lease_until": _time(uow.lease_until) if held else None,
            "finished_at": None,
            "stopped_at": uow.stopped_at if stops or decides else None,
            "failures": uow.failures if decides else 0,
            "losses": uow.losses if decides else 0,
            "permanent": uow.permanent and decides,
            "timed_out": uow.timed_out and decides,
            "cursor": "known" if uow.cursor is not None else None,
            "cursor_end": "new" if uow.cursor_end is not None and decides else None,
            "more": uow.more and decides,
            "error": "failed" if uow.error is not None and decides else None,
            "traceback": None,
            "result": None,
            "progress": None,
            **_history(uow, decides),
        }
        return evolve(uow, sets)


def _history(uow: Uow, decides: bool) -> dict[str, Any]:
    """The lines that are no events yet; and, while it may decide its job, that its own code canceled it."""
    lines = uow.history.splitlines(keepends=True)
    told, new = lines[: uow.copied], lines[uow.copied :]
    kept = [line for line in told if decides and history_entries(line)[0]["verb"] == "cancel"][:1]
    return {"history": "".join([*kept, *new]), "history_n": len(kept) + len(new), "copied": len(kept)}


def _time(at: datetime | None) -> datetime | None:
    return None if at is None else REAL if at <= REAL else LATER


def key_of(records: Records) -> tuple[Any, ...]:
    """What makes two records the same."""
    jobs = tuple(tuple(job.__dict__.values()) for job in records.jobs)
    uows = tuple(tuple(uow.__dict__.values()) for uow in records.uows)
    return jobs, uows, records.frontiers, records.crowded
