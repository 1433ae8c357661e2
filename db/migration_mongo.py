"""Steps of a migration on MongoDB: each move by itself, only where it was not made; the version is raised last.

A document has no columns: one is added by giving its value to the documents that lack it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.errors import OperationFailure

from db.codec import encode_json
from db.migrations import AddColumn, DropIndex, Fill, Move, Progress, Step, due, judge, latest
from db.mongo_link import Live
from db.mongo_schema import make_absent, version_in
from db.schema import SCHEMA_FACT
from scheduler.core.records import Fact

INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND = 27, 26


def migrate(live: Live, shown: str, wire_version: int, steps: Sequence[Step], progress: Progress) -> None:
    """As `Migratable.migrate`. Raises PyMongoError."""
    version, goal = version_in(live, shown) or 0, latest(steps)
    if version > goal:
        judge(version, goal, shown)
    if version >= goal:
        return
    for step in due(steps, version):
        progress(step.says, 0)
        for move in step.moves:
            progress(step.says, _do(live, move))
    progress("tables and indexes", 0)
    make_absent(live, wire_version)
    old = {"_id": SCHEMA_FACT, "value": encode_json({"version": version})}
    live.collections[Fact].update_one(old, {"$set": {"value": encode_json({"version": goal})}})


def _do(live: Live, move: Move) -> int:
    collection = live.database[move.table]
    match move:
        case AddColumn():
            if move.value is None:
                return 0
            name = move.column.name
            value: Any = encode_json(move.value) if move.column.type == "json" else move.value
            return collection.update_many({name: {"$exists": False}}, {"$set": {name: value}}).modified_count
        case Fill():
            lacking = {move.column: {"$exists": False}, move.source: {"$exists": True}}
            return collection.update_many(
                lacking, [{"$set": {move.column: f"${move.source}"}}]
            ).modified_count
        case DropIndex():
            try:
                collection.drop_index(move.name)
            except OperationFailure as error:
                if error.code not in (INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND):
                    raise
            return 0
