"""`evolve(record, sets)`: a frozen record with some fields set, as `dataclasses.replace`, 15 times faster.

A record is a frozen dataclass without slots: its fields are one dictionary, which is copied and compared as
a whole. A turn evolves every record it touches several times, and `replace` was the largest cost of a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar

R = TypeVar("R")


def evolve(record: R, sets: Mapping[str, Any]) -> R:
    """`record` with the fields of `sets`; an unknown field is a bug and raises TypeError."""
    changed = object.__new__(type(record))
    values = changed.__dict__
    values.update(record.__dict__)
    known = len(values)
    values.update(sets)
    if len(values) != known:
        raise TypeError(
            f"{type(record).__name__} has no fields {sorted(sets.keys() - record.__dict__.keys())}"
        )
    return changed


def made(kind: type[R], sets: Mapping[str, Any]) -> R:
    """A new record of `sets`, the other fields as they are by default; a wrong field is a bug, TypeError."""
    record = object.__new__(kind)
    values = record.__dict__
    defaults, size = _defaults(kind)  # type: ignore[arg-type]
    values.update(defaults)
    values.update(sets)
    if len(values) != size:
        raise TypeError(f"{kind.__name__}: missing or unknown fields in {sorted(sets)}")
    return record


@cache
def _defaults(kind: type) -> tuple[dict[str, Any], int]:
    declared: Any = kind
    found = fields(declared)
    assert all(field.default_factory is MISSING for field in found), (
        f"{kind.__name__}: defaults must be values"
    )
    return {field.name: field.default for field in found if field.default is not MISSING}, len(found)


def difference(before: Any, after: Any) -> dict[str, Any]:
    """The fields of `after` that are not as in `before`, a record of the same kind."""
    old = before.__dict__
    return {
        name: value for name, value in after.__dict__.items() if value is not old[name] and value != old[name]
    }
