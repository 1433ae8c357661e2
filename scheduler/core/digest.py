"""The digest: every outcome of a window counted once, in six words.

`critical, minor, warning, test, dev, success`, after Maestro's monitoring. The first rule that
matches decides: a success is a success; then the tags `test` and `dev`; then a job that ended as a
consequence (of a skipped input, of catch-up, by a person) is a warning; then the tag `critical`;
any other failure is minor. So the six numbers add up to the number of outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core.event import Event

COUNTERS = ("critical", "minor", "warning", "test", "dev", "success")
OUTCOMES = ("job.complete", "job.no_data", "job.skip", "job.mark_done")
CONSEQUENCES = frozenset({"dependency", "children", "catchup", "manual", "canceled"})


def classify(event: Event) -> str | None:
    """The counter an event belongs to; None if it is no outcome."""
    if event.kind not in OUTCOMES:
        return None
    if event.kind != "job.skip":
        return "success"
    tags = event.tags.split()
    for tag in ("test", "dev"):
        if tag in tags:
            return tag
    if (event.data or {}).get("reason") in CONSEQUENCES:
        return "warning"
    return "critical" if "critical" in tags else "minor"


def digest(events: Iterable[Event]) -> dict[str, int]:
    """How many outcomes there were, per counter."""
    counted = dict.fromkeys(COUNTERS, 0)
    for event in events:
        counter = classify(event)
        if counter is not None:
            counted[counter] += 1
    return counted
