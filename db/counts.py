"""What a store object was asked so far: what a job costs is counted, not guessed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Of one store object, since it was made."""

    transactions: int = 0
    queries: int = 0
    writes: int = 0  # statements, whatever the number of their rows
