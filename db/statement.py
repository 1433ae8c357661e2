"""SQL text, written by SQLAlchemy Core once per shape of a statement and kept.

Core is the only source of SQL here, for every database; but its machinery for executing a statement
costs more than SQLite needs to run it. So a statement is built and compiled once per *shape*: kind,
fields, conditions without their values. The text is then run on the driver itself.

Shapes must stay few. A list of `in` is padded to the next power of two by repeating its last value.
Only known words (`LITERALS`) of fields that partial indexes speak of (`Table.literals`) stand literally
in the text, because a planner cannot see through a bound value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import sqlalchemy as sa

from db.codec import Codec, Converter, Reader
from db.schema import LITERALS, TABLES, Index, Table
from scheduler.core.ports import Change, Where

IN_MAX = 32_000  # SQLite binds 32,766 values, PostgreSQL 65,535
_PADDED_MAX = 16_384
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

# field, operator, and how many values are bound; of the operators "literal …" the values themselves
Condition = tuple[str, str, Any]


@dataclass(frozen=True, eq=False)
class Grammar:
    """What the databases write differently. One object per kind of database."""

    dialect: sa.Dialect  # with a positional style of parameters
    types: dict[str, sa.types.TypeEngine[Any]]  # per `Column.type`
    converters: dict[str, Converter]  # per `Column.type`
    insert_ignore: Callable[[sa.Table], Any]
    contains: Callable[[Any, Any], Any]  # column, text -> condition; case matters
    nulls_come_first: bool = True
    partial_indexes: bool = True  # False: what the predicate compares becomes the head of the index
    locking: str = ""  # put after a query inside a transaction: what it read stays as it is until the end


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement: values in the order they were asked for, then constants of its own."""

    sql: str
    constants: tuple[Any, ...] = ()
    read: Reader = list


@dataclass(frozen=True, slots=True)
class Update:
    """A compiled compare-and-set, with the encoders for a row of its values."""

    sql: str
    encode: tuple[tuple[int, Callable[[Any], Any]], ...]


class Statements:
    """The statements for one kind of database. Thread-safe: two threads may at worst compile the same one."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.codecs = {kind: Codec(table, grammar.converters) for kind, table in TABLES.items()}
        self._metadata = sa.MetaData()
        self._tables = {kind: self._table(table) for kind, table in TABLES.items()}
        self._kept: dict[Any, Any] = {}

    # --- the schema

    def _table(self, table: Table) -> sa.Table:
        built = sa.Table(
            table.name,
            self._metadata,
            *(
                sa.Column(
                    column.name,
                    self.grammar.types[column.type],
                    nullable=column.nullable,
                    primary_key=column.name in table.key,
                    autoincrement=False,
                )
                for column in table.columns
            ),
            sqlite_with_rowid=not table.clustered,
        )
        for index in table.indexes:
            where = self._predicate(built, table, index)
            columns = index.columns if self.grammar.partial_indexes else index.columns_in_full
            sa.Index(index.name, *(built.c[c] for c in columns), sqlite_where=where, postgresql_where=where)
        return built

    def _predicate(self, built: sa.Table, table: Table, index: Index) -> Any:
        parts = [
            self._condition(built, _literal(name, op, value) or (name, op, 0))
            for name, op, value in index.where
        ]
        return sa.and_(*parts) if parts else None

    def schema(self, kind: type) -> list[str]:
        """The statements that create the table of `kind` and its indexes where they are absent."""
        table = self._tables[kind]
        dialect = self.grammar.dialect
        created: list[Any] = [sa.schema.CreateTable(table, if_not_exists=True)]
        declared = {str(index.name): index for index in table.indexes}
        names = [index.name for index in TABLES[kind].indexes]
        created += [sa.schema.CreateIndex(declared[name], if_not_exists=True) for name in names]
        return [str(ddl.compile(dialect=dialect)).strip() for ddl in created]

    # --- conditions

    def conditions(self, kind: type, where: Sequence[Where]) -> tuple[tuple[Condition, ...], list[Any]]:
        """The shape of the conditions, and the values to bind to it."""
        codec, literals = self.codecs[kind], TABLES[kind].literals
        shape: list[Condition] = []
        values: list[Any] = []
        for name, op, value in where:
            if name in literals and (literal := _literal(name, op, value)):
                shape.append(literal)
            elif op in ("null", "notnull"):
                shape.append((name, op, 0))
            elif op == "in":
                shape.append((name, op, _bind_list(codec, name, value, values)))
            elif value is None:
                shape.append((name, {"=": "null", "!=": "notnull"}.get(op, "never"), 0))
            elif op == "prefix":
                shape += _prefix(name, value, values)
            else:
                shape.append((name, op, 1))
                values.append(codec.value(name, value))
        return tuple(shape), values

    def _where(self, kind: type, shape: Sequence[Condition]) -> list[Any]:
        built, table = self._tables[kind], TABLES[kind]
        hints = [hint for hint in _hints(table, shape) if hint not in shape]
        return [self._condition(built, condition) for condition in (*hints, *shape)]

    def _condition(self, built: sa.Table, condition: Condition) -> Any:
        name, op, size = condition
        column = built.c[name]
        match op:
            case "null":
                return column.is_(None)
            case "notnull":
                return column.is_not(None)
            case "in" if size:
                return column.in_([_bind(column) for _ in range(size)])
            case "in" | "never":
                return sa.literal_column("1") == sa.literal_column("0")
            case "literal in":
                return column.in_([_word(value) for value in size])
            case "literal =" | "literal !=":
                return _COMPARE[op.removeprefix("literal ")](column, _word(size[0]))
            case "contains":
                return self.grammar.contains(column, _bind(column))
        return _COMPARE[op](column, _bind(column))

    # --- statements

    def select(
        self,
        kind: type,
        names: tuple[str, ...] | None,
        shape: tuple[Condition, ...],
        order: tuple[str, ...],
        limited: bool,
    ) -> Statement:
        """A query of the fields `names` (None: all, as records); the limit is its last value."""
        key = ("select", kind, names, shape, order, limited)
        found: Statement | None = self._kept.get(key)
        if found is None:
            built, codec = self._tables[kind], self.codecs[kind]
            query = sa.select(*(built.c[name] for name in names or codec.names))
            query = query.where(*self._where(kind, shape)).order_by(*self._order(kind, order))
            if limited:
                query = query.limit(_bind(_LIMIT))
            read = codec.records() if names is None else codec.tuples(names)
            found = self._kept[key] = self._compile(query, read)
        return found

    def _order(self, kind: type, order: Sequence[str]) -> list[Any]:
        built, table = self._tables[kind], TABLES[kind]
        wanted = [(name.removeprefix("-"), name.startswith("-")) for name in order]
        wanted += [(name, False) for name in table.key if name not in {name for name, _ in wanted}]
        terms = []
        for name, descending in wanted:
            term = built.c[name].desc() if descending else built.c[name].asc()
            if table.column[name].nullable and not self.grammar.nulls_come_first:
                term = term.nulls_last() if descending else term.nulls_first()
            terms.append(term)
            if (name,) == table.key:
                break  # nothing is left to be ordered
        return terms

    def count(self, kind: type, shape: tuple[Condition, ...], by: tuple[str, ...]) -> Statement:
        """How many match, after the fields `by`."""
        key = ("count", kind, shape, by)
        found: Statement | None = self._kept.get(key)
        if found is None:
            built = self._tables[kind]
            groups = [built.c[name] for name in by]
            query = sa.select(*groups, sa.func.count()).select_from(built).where(*self._where(kind, shape))
            found = self._compile(query.group_by(*groups), self.codecs[kind].tuples(by))
            self._kept[key] = found
        return found

    def delete(self, kind: type, shape: tuple[Condition, ...]) -> Statement:
        """Delete what matches."""
        key = ("delete", kind, shape)
        found: Statement | None = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._compile(
                sa.delete(self._tables[kind]).where(*self._where(kind, shape))
            )
        return found

    def insert(self, kind: type, ignore: bool) -> Statement:
        """Insert a row of all columns; with `ignore`, unless its key exists."""
        key = ("insert", kind, ignore)
        found: Statement | None = self._kept.get(key)
        if found is None:
            table = self._tables[kind]
            insert = self.grammar.insert_ignore(table) if ignore else sa.insert(table)
            found = self._kept[key] = self._compile(insert.values({c.name: _bind(c) for c in table.c}))
        return found

    def update(self, change: Change) -> Update:
        """The compare-and-set for changes of this shape; values: set, entry, key, expected ones."""
        expected = tuple([(name, value is None) for name, value in change.expect.items()])
        key = (change.kind, tuple(change.set), expected, change.entry is None)
        found: Update | None = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._update(change)
        return found

    def _update(self, change: Change) -> Update:
        table, built, codec = TABLES[change.kind], self._tables[change.kind], self.codecs[change.kind]
        assert not set(table.key) & set(change.set), f"{table.name}: a key is never changed"
        expected = [name for name, value in change.expect.items() if value is not None]
        sets: list[tuple[Any, Any]] = [(built.c[name], _bind(built.c[name])) for name in change.set]
        order: list[str | None] = list(change.set)
        if change.entry is not None:
            history, lines = built.c.history, built.c.history_n
            sets += [(history, history + _bind(history)), (lines, lines + _bind(lines))]
            order += [None, None]
        shape = [(name, "=", 1) for name in table.key]
        shape += [(name, "null" if value is None else "=", 1) for name, value in change.expect.items()]
        where = [
            column.is_(None) if op == "null" else column == _bind(column)
            for name, op, _ in shape
            for column in (built.c[name],)
        ]
        statement = self._compile(sa.update(built).where(*where).ordered_values(*sets))
        assert not statement.constants
        order += [*table.key, *expected]
        encode = [(i, f) for i, name in enumerate(order) if name and (f := codec.encode[name]) is not None]
        return Update(statement.sql, tuple(encode))

    def _compile(self, statement: Any, read: Reader = list) -> Statement:
        compiled = statement.compile(dialect=self.grammar.dialect)
        names = list(compiled.positiontup or ())
        ours = [name for name in names if name.startswith(_BIND)]
        # our values are numbered as they were made, and they are given in that order: it must be the text's
        assert names[: len(ours)] == sorted(ours), f"values out of order: {compiled}"
        return Statement(str(compiled), tuple(compiled.params[name] for name in names[len(ours) :]), read)


@cache
def statements_for(grammar: Grammar) -> Statements:
    """The statements for `grammar`, shared by all its stores of this process."""
    return Statements(grammar)


_BIND = "value_"
_LIMIT = sa.Column("limit", sa.Integer)
_number = count(10**9)  # of constant length: sorts as text


def _bind(column: Any) -> Any:
    return sa.bindparam(f"{_BIND}{next(_number)}", type_=column.type)


def _word(value: str | bool) -> Any:
    """A known word as it stands in SQL."""
    assert value in LITERALS, value
    if value in (True, False):
        return sa.true() if value else sa.false()
    return sa.literal_column(f"'{value}'")


def _literal(name: str, op: str, value: Any) -> Condition | None:
    """The condition with its values in the text, if all of them are known words."""
    if op in ("=", "!="):
        return (name, f"literal {op}", (value,)) if value in LITERALS else None
    if op != "in" or not (words := set(value)) or not words <= LITERALS:
        return None
    if len(words) == 1:
        return (name, "literal =", tuple(words))
    return (name, "literal in", tuple(sorted(words)))


def _hints(table: Table, shape: Sequence[Condition]) -> list[Condition]:
    """What a partial index says and the conditions imply: said aloud, so that the planner sees it."""
    hints = []
    for index in table.indexes:
        for name, op, value in index.where:
            for field, have, words in shape:
                if (
                    field == name
                    and op == "in"
                    and have in ("literal =", "literal in")
                    and set(words) <= set(value)
                ):
                    hints.append((name, "literal in", tuple(sorted(value))))
    return hints


def _bind_list(codec: Codec, name: str, value: Any, values: list[Any]) -> int:
    """Append the values of an `in` to `values`, padded to a power of two; how many."""
    given = [codec.value(name, one) for one in value]
    assert None not in given, f"{codec.table.name}.{name} in …: null is never in a list"
    assert len(given) <= IN_MAX, f"{codec.table.name}.{name} in …: {len(given)} values, at most {IN_MAX}"
    size = len(given)
    if given and size <= _PADDED_MAX:
        size = 1 << (size - 1).bit_length()
        given += [given[-1]] * (size - len(given))
    values += given
    return size


def _prefix(name: str, prefix: str, values: list[Any]) -> list[Condition]:
    """A prefix as a range, which any index can serve: from itself to the next text that lacks it."""
    head = prefix.rstrip("\U0010ffff")
    if not head:
        values.append(prefix)
        return [(name, ">=", 1)]
    after = ord(head[-1]) + 1
    values += [prefix, head[:-1] + chr(0xE000 if after == 0xD800 else after)]
    return [(name, ">=", 1), (name, "<", 1)]
