"""The story: the shortest way to a broken invariant, step by step, as somebody would tell it."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core.job import Job
from scheduler.core.uow import Uow
from verify.explore import Found
from verify.fold import LATER, Records


def story(found: Found) -> list[str]:
    """The lines of a counter-example: what happened, and below it what changed by it."""
    if found.invariant is None:
        return []
    lines = [f"{found.name}: invariant {found.invariant} is broken: {found.text}"]
    before: dict[str, str] = {}
    for number, (words, records) in enumerate(found.story, 1):
        lines.append(f"  {number:>2}. {words}")
        if records is None:
            continue
        now = dict(_told(records))
        lines += [f"        {name} is {text}" for name, text in now.items() if before.get(name) != text]
        before = now
    lines.append(f"      and then: {found.text}")
    return lines


def _told(records: Records) -> Iterator[tuple[str, str]]:
    for job in records.jobs:
        yield job.id, _job(job)
    for uow in records.uows:
        yield uow.id, _uow(uow)


def _job(job: Job) -> str:
    text = job.state
    if job.reason is not None:
        text += f" ({'by a person' if job.reason == 'manual' else 'by its rules'})"
    if job.stopping is not None:
        text += f", and {job.stopping} still stops"
    if job.again is not None:
        text += ", to be reopened"
    return text


def _uow(uow: Uow) -> str:
    text = uow.state
    if uow.lease_until is not None and uow.lease_until != LATER:
        text += ", its lease is over"
    if uow.history_n > uow.copied:
        text += ", not yet noticed"
    return text
