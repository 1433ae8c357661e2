"""From one version of the schema to the next: an ordered table of steps, as data that every adapter carries out.

A step says only what the schema cannot say of itself: a column is added and filled, an index is dropped, one
column fills another. Tables and indexes that the schema names and the database lacks are made at the end of every
migration, from `db.schema`, so no step names them. A step only adds: no column is dropped or changed, so whatever
an older program knew is still there. `facts` and `leases` never change: by them a program learns, before it knows
anything else, how old a store is and who leads it.

Every move is made only where it was not made yet, and the version is raised last. So a migration that was killed
is repeated by the next one, also where a database commits each change of its schema by itself.

Nothing of a database is imported here, and nothing is decided about who may migrate: see `commands.upgrade`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from db.schema import SCHEMA_FACT, SCHEMA_VERSION, TABLES, Column
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Store
from scheduler.core.records import Fact

FIRST_VERSION = 1
Progress = Callable[[str, int], None]  # what is done, and how many rows it touched


@dataclass(frozen=True, slots=True)
class AddColumn:
    """A new column; rows that are there get `value` (None: they keep null)."""

    table: str
    column: Column
    value: Any = None


@dataclass(frozen=True, slots=True)
class Fill:
    """Where `column` is null it gets what `source`, another column of the row, has."""

    table: str
    column: str
    source: str


@dataclass(frozen=True, slots=True)
class DropIndex:
    """An index that no query needs any more, or one that the schema now defines differently."""

    table: str
    name: str


Move = AddColumn | Fill | DropIndex


@dataclass(frozen=True, slots=True)
class Step:
    """From the version before to version `to`. `says` tells people what for."""

    to: int
    says: str
    moves: tuple[Move, ...]


# Version 1 is the first that was ever released: there is nothing to come from yet.
STEPS: tuple[Step, ...] = ()


class Migratable(Store, Protocol):
    """A store that can be migrated: every one that lasts."""

    version: int  # that this program works with

    def migrate(self, steps: Sequence[Step], progress: Progress) -> None:
        """Carry out the steps that are due and raise the version; in one transaction where the database can.

        Raises ConfigError (not ours, or newer), StoreUnavailable, Conflict.
        """


def latest(steps: Sequence[Step]) -> int:
    """The version that the steps lead to. Each must follow the one before."""
    assert [step.to for step in steps] == list(range(FIRST_VERSION + 1, FIRST_VERSION + 1 + len(steps)))
    return FIRST_VERSION + len(steps)


def due(steps: Sequence[Step], version: int) -> list[Step]:
    """The steps that a store of this version lacks."""
    return [step for step in steps if step.to > version]


def added(steps: Sequence[Step]) -> Mapping[str, frozenset[str]]:
    """Per table the columns that these steps add: a store before them lacks them."""
    found: dict[str, set[str]] = {}
    for step in steps:
        for move in step.moves:
            if isinstance(move, AddColumn):
                found.setdefault(move.table, set()).add(move.column.name)
    return {table: frozenset(names) for table, names in found.items()}


def judge(version: int, known: int, shown: str = "") -> None:
    """Raises ConfigError unless a store of `version` is one for a program that works with `known`."""
    the_store = f"store {shown}: it" if shown else "the store"
    if version > known:
        raise ConfigError(f"{the_store} has schema version {version}, we know {known}: use a newer program")
    if version < known:
        raise ConfigError(
            f"{the_store} has schema version {version}, this program works with {known}: stop every box, then"
            " `./launch.py store migrate`"
        )


def version_of(store: Store) -> int | None:
    """The version of an opened store, None if it has none yet. Raises StoreUnavailable, ConfigError."""
    absent: Callable[[], list[str]] | None = getattr(store, "absent", None)
    if absent is not None and f"table {TABLES[Fact].name}" in absent():
        return None
    fact = store.get(Fact, SCHEMA_FACT)
    if fact is None:
        return None
    try:
        return int(fact.value["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            "the store's database belongs to another program: its 'facts' are not ours"
        ) from error


def require_current(store: Store, shown: str, known: int = SCHEMA_VERSION) -> None:
    """For whoever does not `init`. Raises ConfigError if a store is older or newer than this program."""
    version = version_of(store)
    if version is not None:
        judge(version, known, shown)
