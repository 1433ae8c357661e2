"""Records to documents and back, and conditions to filters.

* A key of one field is `_id`; one of several has a unique index, and an `_id` of no meaning.
* A null is a field that is not there. So `{field: null}` finds it, a partial index "where not null" is
  `$exists`, and documents stay small.
* JSON columns are JSON text, as in SQL: equal means the same text, numbers keep their size, and no key
  in somebody's arguments can clash with an operator of the database.
* `history` is a list of the pieces that were appended: `$push` is the cheapest way to append.
* Text is compared by its bytes in UTF-8, which is the order of code points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from db.codec import decode_json, encode_json
from db.schema import TABLES, Table
from scheduler.core.ports import Change, Where

Document = Mapping[str, Any]
Convert = Callable[[Any], Any]

HISTORY = "history"
_COMPARE = {"=": "$eq", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_NEVER: dict[str, Any] = {"$in": []}


def _time(at: datetime) -> datetime:
    assert at.tzinfo is not None, f"naive datetime {at}: times are aware UTC"
    return at


def _pieces(text: str) -> list[str] | None:
    return [text] if text else None


def _joined(pieces: list[str]) -> str:
    return "".join(pieces)


class Documents:
    """The documents of one kind of record."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.single = len(table.key) == 1
        self.name = {column.name: column.name for column in table.columns}  # of the field in a document
        if self.single:
            self.name[table.key[0]] = "_id"
        encode: dict[str, Convert] = {}
        decode: dict[str, Convert] = {}
        for column in table.columns:
            if column.type == "json":
                encode[column.name], decode[column.name] = encode_json, decode_json
            elif column.type == "time":
                encode[column.name] = _time
            elif column.name == HISTORY:
                encode[column.name], decode[column.name] = _pieces, _joined
        self.encode, self._decode = encode, decode
        self._fields = [
            (column.name, self.name[column.name], encode.get(column.name)) for column in table.columns
        ]
        self._empty: dict[str, Any] = {column.name: None for column in table.columns}
        self._hints = _hints(table)
        assert not hasattr(table.kind, "__post_init__"), "records are read without __init__"

    def document(self, record: Any) -> dict[str, Any]:
        """A record as it is stored."""
        values = record.__dict__
        document = {}
        for name, field, encode in self._fields:
            value = values[name]
            if value is not None:
                if encode is not None and (value := encode(value)) is None:
                    continue
                document[field] = value
        return document

    def records(self, documents: Iterable[Document]) -> list[Any]:
        """Records out of whole documents, past the __init__ of the frozen dataclass: many times faster."""
        kind: Any = self.table.kind
        key = self.table.key[0] if self.single else None
        empty, decoders, new = self._empty, list(self._decode.items()), object.__new__
        has_history = HISTORY in empty
        found = []
        for document in documents:
            record = new(kind)
            values = record.__dict__
            values.update(empty)
            values.update(document)
            if key is not None:
                values[key] = values.pop("_id")
            for name, decode in decoders:
                value = values[name]
                if value is not None:
                    values[name] = decode(value)
            if has_history and values[HISTORY] is None:
                values[HISTORY] = ""
            found.append(record)
        return found

    def tuples(self, names: Sequence[str], documents: Iterable[Document]) -> list[tuple[Any, ...]]:
        """The fields `names` of documents that hold at least these."""
        fields = [self.name[name] for name in names]
        decoders = [(at, self._decode[name]) for at, name in enumerate(names) if name in self._decode]
        if not decoders:
            return [tuple(map(document.get, fields)) for document in documents]
        found = []
        for document in documents:
            row = [*map(document.get, fields)]
            for at, decode in decoders:
                if row[at] is not None:
                    row[at] = decode(row[at])
                elif names[at] == HISTORY:
                    row[at] = ""
            found.append(tuple(row))
        return found

    def projection(self, names: Sequence[str] | None) -> dict[str, int] | None:
        """What a query asks of the documents it finds; None: all of it."""
        if names is None:
            return None if self.single else {"_id": 0}
        wanted = {self.name[name]: 1 for name in names}
        return wanted if "_id" in wanted else {"_id": 0, **wanted}

    def value(self, name: str, value: Any) -> Any:
        """One value as it is stored."""
        assert name != HISTORY, "the history of a unit of work is only appended to"
        encode = self.encode.get(name)
        return value if encode is None or value is None else encode(value)

    def key(self, key: Any) -> dict[str, Any]:
        """The filter for the record with this key."""
        if self.single:
            return {"_id": key[0] if isinstance(key, tuple) else key}
        return dict(zip(self.table.key, key, strict=True))

    # --- conditions

    def filter(self, where: Sequence[Where]) -> dict[str, Any]:
        """The filter for conditions that all hold."""
        parts = [self._condition(*condition) for condition in where]
        parts += [hint for condition in where for hint in self._hinted(condition)]
        if not parts:
            return {}
        return parts[0] if len(parts) == 1 else {"$and": parts}

    def _condition(self, name: str, op: str, value: Any) -> dict[str, Any]:
        field = self.name[name]
        match op:
            case "null":
                return {field: None}
            case "notnull":
                return {field: {"$exists": True}}
            case "in":
                given = [self.value(name, one) for one in value]
                assert None not in given, f"{self.table.name}.{name} in …: null is never in a list"
                return {field: {"$in": given}}
        if value is None:
            return {field: {"=": None, "!=": {"$exists": True}}.get(op, _NEVER)}
        match op:
            case "!=":
                return {field: {"$nin": [self.value(name, value), None]}}
            case "prefix":
                return {field: _prefix(value)}
            case "contains":  # a regular expression could hold no NUL
                return {"$expr": {"$gte": [{"$indexOfBytes": [f"${field}", {"$literal": value}]}, 0]}}
        return {field: {_COMPARE[op]: self.value(name, value)}}

    def _hinted(self, condition: Where) -> list[dict[str, Any]]:
        """What a partial index says and the condition implies: said aloud, so that the planner sees it."""
        name, op, value = condition
        if op != "in" or name not in self._hints:
            return []
        words = set(value)
        return [{name: {"$in": [*all_of]}} for all_of in self._hints[name] if words < set(all_of)]

    def order(self, order: Sequence[str], where: Sequence[Where]) -> list[tuple[str, int]]:
        """The total order: by `order`, then by key. What is the same in all that is found orders nothing."""
        same = {name for name, op, value in where if op == "=" and value is not None}
        sort: list[tuple[str, int]] = []
        for term in (*order, *self.table.key):
            name = term.removeprefix("-")
            if name in same:
                continue
            same.add(name)
            sort.append((self.name[name], -1 if term.startswith("-") else 1))
            if (name,) == self.table.key:
                break  # nothing is left to be ordered
        return sort

    # --- writes

    def change(self, change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
        """The filter and the update of a compare-and-set."""
        assert not set(self.table.key) & set(change.set), f"{self.table.name}: a key is never changed"
        key = self.key(change.key)
        expected = {self.name[name]: self.value(name, value) for name, value in change.expect.items()}
        clash = key.keys() & expected.keys()
        return ({"$and": [key, expected]} if clash else {**key, **expected}), self._sets(change)

    def _sets(self, change: Change) -> dict[str, Any]:
        sets: dict[str, Any] = {}
        unsets: dict[str, Any] = {}
        for name, value in change.set.items():
            if value is None:
                unsets[name] = ""
            else:
                sets[name] = self.value(name, value)
        update: dict[str, Any] = {}
        if sets:
            update["$set"] = sets
        if unsets:
            update["$unset"] = unsets
        if change.entry is not None:
            update["$push"] = {HISTORY: change.entry}
            update["$inc"] = {"history_n": change.entries}
        return update


_documents: dict[Any, Documents] = {}


def documents_of(kind: type) -> Documents:
    """The documents of records of `kind`, shared by all stores of this process."""
    found = _documents.get(kind)
    if found is None:
        found = _documents[kind] = Documents(TABLES[kind])
    return found


def _prefix(prefix: str) -> dict[str, Any]:
    """A prefix as a range, which an index can serve: from itself to the next text that lacks it."""
    head = prefix.rstrip("\U0010ffff")
    if not head:
        return {"$gte": prefix}
    after = ord(head[-1]) + 1
    return {"$gte": prefix, "$lt": head[:-1] + chr(0xE000 if after == 0xD800 else after)}


def _hints(table: Table) -> dict[str, list[tuple[str, ...]]]:
    """Per field, the lists of words that partial indexes are made for."""
    hints: dict[str, list[tuple[str, ...]]] = {}
    for index in table.indexes:
        for name, op, value in index.where:
            if op == "in":
                hints.setdefault(name, []).append(tuple(value))
    return hints
