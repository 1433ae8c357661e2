"""When a failed unit of work is tried again, and when it is given up."""

from __future__ import annotations

from datetime import timedelta
from zlib import crc32

from scheduler.core.process import Retry
from scheduler.core.uow import Uow

REPUBLISH_S = 60.0
REPUBLISH_DOUBLINGS_MAX = 10


def retry_delay(policy: Retry, uow: Uow) -> timedelta:
    """The delay before the next attempt: exponential, capped, with jitter.

    The jitter spreads attempts that failed together; it is drawn from the unit of work's id and
    attempt, so that whoever decides twice decides the same.
    """
    doublings = max(0, uow.failures - 1)
    seconds = min(policy.delay_s * policy.backoff ** min(doublings, 64), policy.max_delay_s)
    draw = crc32(f"{uow.id}/{uow.attempt}".encode()) / 0xFFFFFFFF * 2 - 1
    return timedelta(seconds=max(0.0, seconds * (1 + policy.jitter * draw)))


def reason_to_give_up(policy: Retry, uow: Uow) -> str | None:
    """Why an invalid unit of work is not tried again: the job's `reason`, or None to retry."""
    if uow.permanent:
        return "failed"
    if uow.failures > policy.max_retries:
        return "timed_out" if uow.timed_out else ("retries_exhausted" if policy.max_retries else "failed")
    if uow.losses > policy.max_lost:
        return "lost"
    return None


def republish_delay(uow: Uow) -> timedelta:
    """How long a published message may go unanswered: 60 s × 2^(times published)."""
    return timedelta(seconds=REPUBLISH_S * 2 ** min(uow.publishes, REPUBLISH_DOUBLINGS_MAX))
