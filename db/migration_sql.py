"""Steps of a migration on SQL databases: one transaction, in which the version is raised last.

PostgreSQL and SQLite take back everything if it does not end. MariaDB commits each change of its schema by itself;
there every move looks first whether it was made. Two at once wait for each other where the database has such a
lock, and the second finds nothing left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from db.bootstrap import make_absent, version_in
from db.migrations import AddColumn, DropIndex, Fill, Move, Progress, Step, due, judge, latest
from db.schema import SCHEMA_FACT
from db.session import Database, Session
from db.statement import Statements
from scheduler.core.ports import Change
from scheduler.core.records import Fact


def migrate(
    database: Database,
    statements: Statements,
    session: Session,
    steps: Sequence[Step],
    progress: Progress,
) -> None:
    """As `Migratable.migrate`."""
    session.begin()
    try:
        database.prepare_schema(session)
        version, goal = version_in(database, statements, session), latest(steps)
        if version > goal:
            judge(version, goal)
        mover = _Mover(database, statements, session)
        for step in due(steps, version):
            progress(step.says, 0)
            for move in step.moves:
                progress(step.says, mover.do(move))
        if version < goal:
            progress("tables and indexes", 0)
            make_absent(database, statements, session)
            write_version(statements, session, goal)
    except BaseException:
        session.rollback()
        raise
    session.commit()


def write_version(statements: Statements, session: Session, version: int) -> None:
    """Raise (or, in a backup, lower) the version."""
    change = Change(Fact, SCHEMA_FACT, {}, {"value": {"version": version}})
    update = statements.update(change)
    row: list[Any] = [change.set["value"], change.key]
    for at, encode in update.encode:
        row[at] = encode(row[at])
    session.run(update.sql, [row])


class _Mover:
    """Makes moves, each only where it was not made."""

    def __init__(self, database: Database, statements: Statements, session: Session) -> None:
        self._database, self._session = database, session
        self._grammar = statements.grammar

    def do(self, move: Move) -> int:
        """How many rows it touched."""
        match move:
            case AddColumn():
                return self._add(move)
            case Fill():
                table = sa.table(move.table, sa.column(move.column), sa.column(move.source))
                column, source = table.c[move.column], table.c[move.source]
                where = sa.and_(column.is_(None), source.is_not(None))
                return self._run(sa.update(table).where(where).values({move.column: source}))
            case DropIndex():
                if move.name in self._database.indexes(self._session):
                    built = sa.Table(move.table, sa.MetaData(), sa.Column("id", sa.Integer()))
                    self._run(sa.schema.DropIndex(sa.Index(move.name, built.c.id)))
                return 0

    def _add(self, move: AddColumn) -> int:
        column, dialect = move.column, self._grammar.dialect
        if column.name not in self._database.columns(self._session, move.table):
            # nullable in the database, whatever the record says: a column that is not filled yet must exist
            built = sa.Column(column.name, self._grammar.types[column.type])
            sa.Table(move.table, sa.MetaData(), built)
            text = sa.schema.CreateColumn(built).compile(dialect=dialect)
            name = dialect.identifier_preparer.quote(move.table)
            self._session.run(f"ALTER TABLE {name} ADD COLUMN {text}", [()])
        if move.value is None:
            return 0
        encode = self._grammar.converters[column.type].encode
        value = move.value if encode is None else encode(move.value)
        table = sa.table(move.table, sa.column(column.name, self._grammar.types[column.type]))
        there = table.c[column.name]
        bound = sa.bindparam("value", type_=there.type)
        return self._run(sa.update(table).where(there.is_(None)).values({column.name: bound}), value)

    def _run(self, statement: Any, *values: Any) -> int:
        return self._session.run(str(statement.compile(dialect=self._grammar.dialect)), [values])
