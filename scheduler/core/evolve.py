"""`evolve(record, sets)`: a frozen record with some fields set, as `dataclasses.replace`, 8 times faster.

The function for a class is compiled once from its fields. It exists because a turn evolves every
record it touches several times, and `replace` was the largest single cost of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

R = TypeVar("R")

_COMPILED: dict[type, Callable[[Any, Mapping[str, Any]], Any]] = {}


def evolve(record: R, sets: Mapping[str, Any]) -> R:
    """`record` with the fields of `sets`; an unknown field is a bug and raises TypeError."""
    kind = type(record)
    build = _COMPILED.get(kind)
    if build is None:
        build = _COMPILED[kind] = _compile(kind)
    made: R = build(record, sets)
    return made


def _compile(kind: type) -> Callable[[Any, Mapping[str, Any]], Any]:
    names = [field.name for field in fields(kind)]
    old = {name: f"record.{name}" for name in names}
    known = frozenset(names)
    copies = ", ".join(f"{name}={value}" for name, value in old.items())
    takes = ", ".join(
        f"{name}=sets[{name!r}] if {name!r} in sets else {value}" for name, value in old.items()
    )
    source = (
        "def build(record, sets):\n"
        "    if not sets.keys() <= known:\n"
        "        raise TypeError(f'{kind.__name__} has no fields {sorted(sets.keys() - known)}')\n"
        f"    if not sets:\n        return kind({copies})\n"
        f"    return kind({takes})\n"
    )
    scope: dict[str, Any] = {"kind": kind, "known": known}
    exec(source, scope)  # noqa: S102 - from our own field names
    build: Callable[[Any, Mapping[str, Any]], Any] = scope["build"]
    return build
