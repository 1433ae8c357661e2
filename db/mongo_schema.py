"""Collections and indexes in MongoDB, and finding that a database is ours, newer, or somebody else's.

The version comes first, as a fact; what else is absent is made at every `init`, each piece by itself and
only where it is not there, so a crash in between and several processes at once do no harm. A database
that is not ours is refused before anything is written to it.
"""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from db.codec import NotJson, decode_json, encode_json
from db.migrations import judge
from db.mongo_documents import documents_of
from db.mongo_link import Live
from db.schema import SCHEMA_FACT, SCHEMA_VERSION, TABLES, Index, Table
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.records import Fact

TURNS = "turns"  # one document: transactions that read take turns on it
IN_WIRE_VERSION = 17  # from server 6.0 on a partial index may say `in`

# An index is only looked at if a query says something of its first field, and it orders what it finds in
# both directions as a whole: so some begin with what makes them partial, all end with the key, and one runs
# backwards, for "newest first, then by key".
KEYS: dict[str, tuple[str, ...]] = {
    "uows_unfinished": ("state", "process", "kind"),
    "uows_dirty": ("dirty", "id"),
    "jobs_period": ("process", "-start", "id"),
}


def index_keys(table: Table, index: Index) -> list[tuple[str, int]]:
    """The fields of an index, each with its direction."""
    names = KEYS.get(index.name, index.columns)
    bare = [name.removeprefix("-") for name in names]
    ordered = index.name != "uows_unfinished"  # counted and listed, never read in an order
    if ordered and table.key[0] not in bare and len(table.key) == 1:
        names = (*names, *table.key)
    field = documents_of(table.kind).name
    return [(field[n.removeprefix("-")], DESCENDING if n.startswith("-") else ASCENDING) for n in names]


def _partial(table: Table, index: Index, wire_version: int) -> dict[str, Any] | None:
    if any(condition.op == "in" for condition in index.where) and wire_version < IN_WIRE_VERSION:
        return None
    conditions = [Where(name, op, sorted(value) if op == "in" else value) for name, op, value in index.where]
    return documents_of(table.kind).filter(conditions) or None


def indexes(table: Table, wire_version: int) -> list[IndexModel]:
    """The indexes of a collection, beside that of `_id`."""
    found = []
    if len(table.key) > 1:
        found.append(IndexModel([(name, ASCENDING) for name in table.key], name="key", unique=True))
    for index in table.indexes:
        options: dict[str, Any] = {"name": index.name}
        if partial := _partial(table, index, wire_version):
            options["partialFilterExpression"] = partial
        found.append(IndexModel(index_keys(table, index), **options))
    return found


def prepare(live: Live, shown: str, wire_version: int, known: int = SCHEMA_VERSION) -> None:
    """Make what is absent; ConfigError if the database is not ours, or older or newer than `known`."""
    facts = live.collections[Fact]
    if (version := version_in(live, shown)) is not None:
        judge(version, known, shown)
    else:
        value = encode_json({"version": known})
        try:
            facts.update_one({"_id": SCHEMA_FACT}, {"$setOnInsert": {"value": value}}, upsert=True)
        except DuplicateKeyError:
            pass  # another process made it at this moment
    make_absent(live, wire_version)


def make_absent(live: Live, wire_version: int) -> None:
    """Make the collections and indexes that are not there."""
    present = _present(live)
    for table in TABLES.values():
        _make(live, table.name, present)
        if models := indexes(table, wire_version):
            live.database[table.name].create_indexes(models)
    _make(live, TURNS, present)
    try:
        live.database[TURNS].update_one({"_id": 1}, {"$setOnInsert": {"n": 0}}, upsert=True)
    except DuplicateKeyError:
        pass  # as above


def _make(live: Live, name: str, present: set[str]) -> None:
    if name in present:
        return
    try:
        live.database.create_collection(name, check_exists=False)
    except (CollectionInvalid, OperationFailure) as error:
        if getattr(error, "code", None) != 48:  # another process made it at this moment
            raise


def _present(live: Live) -> set[str]:
    return {name for name in live.database.list_collection_names() if not name.startswith("system.")}


def version_in(live: Live, shown: str) -> int | None:
    """The version of a database, None if it is empty; ConfigError if it is not ours."""
    present, facts = _present(live), TABLES[Fact].name
    # looked for after `present` was listed: what another process makes begins with it
    found = live.collections[Fact].find_one({"_id": SCHEMA_FACT})
    if found is None:
        foreign = sorted(present - {facts})
        if foreign:
            raise ConfigError(
                f"store {shown}: the database belongs to another program: it has a collection {foreign[0]!r}"
            )
        if live.collections[Fact].find_one({"_id": {"$ne": SCHEMA_FACT}}) is not None:
            raise _not_ours(shown)
        return None
    try:
        return int(decode_json(found["value"])["version"])
    except (NotJson, KeyError, TypeError, ValueError) as error:
        raise _not_ours(shown) from error


def _not_ours(shown: str) -> ConfigError:
    return ConfigError(
        f"store {shown}: the database belongs to another program: its collection 'facts' is not ours"
    )
