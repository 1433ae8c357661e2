"""The `Store` port on SQL databases.

`SqlStore` and `SqlTransaction` are the same for every database; what is not stands in a `Database`
(`db.session`). The text of statements comes from `db.statement`.

Each operation borrows a session (a connection) and gives it back, so there are as many connections
as operations at once; a read outside a transaction is a transaction of its own, of one statement. A
session that saw an error is never used again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from db.bootstrap import create_schema, is_complete
from db.counts import Counts
from db.migration_sql import migrate
from db.migrations import Progress, Step
from db.schema import SCHEMA_VERSION, TABLES
from db.session import Database, Session, Values
from db.statement import Statement, statements_for
from scheduler.core.errors import Conflict, LeaseLost, StoreUnavailable
from scheduler.core.ports import Change, Where
from scheduler.core.records import Lease

R = TypeVar("R")


class SqlTransaction:
    """The inside of `SqlStore.transaction()`; used by the thread that opened it.

    It begins with its first statement, after the rows of that statement were made: nobody waits for them.
    """

    def __init__(self, store: SqlStore, session: Session) -> None:
        self._store, self._session = store, session
        self._statements = store.statements
        self.is_begun = False
        self.failed: Exception | None = None

    def insert(self, records: Sequence[Any], *, ignore: bool = False) -> int:
        """As `Transaction.insert`."""
        groups: dict[type, list[Values]] = {}
        codecs = self._statements.codecs
        for record in records:
            kind = type(record)
            groups.setdefault(kind, []).append(codecs[kind].row(record))
        return sum(
            self._run(self._statements.insert(kind, ignore).sql, rows) for kind, rows in groups.items()
        )

    def update(self, changes: Sequence[Change]) -> int:
        """As `Transaction.update`: changes of one shape run together, those of one record in their order."""
        hits = 0
        groups: dict[str, list[Values]] = {}
        group_of: dict[tuple[type, Any], str] = {}
        for change in changes:
            sql, row = self._update_row(change)
            record = (change.kind, change.key)
            if group_of.setdefault(record, sql) != sql:
                hits += self._run_groups(groups)
                groups, group_of = {}, {record: sql}
            groups.setdefault(sql, []).append(row)
        return hits + self._run_groups(groups)

    def _update_row(self, change: Change) -> tuple[str, list[Any]]:
        update = self._statements.update(change)
        row = [*change.set.values()]
        if change.entry is not None:
            row += (change.entry, change.entries)
        if isinstance(change.key, tuple):
            row += change.key
        else:
            row.append(change.key)
        row += [value for value in change.expect.values() if value is not None]
        for at, encode in update.encode:
            if row[at] is not None:
                row[at] = encode(row[at])
        return update.sql, row

    def _run_groups(self, groups: dict[str, list[Values]]) -> int:
        return sum([self._run(sql, rows) for sql, rows in groups.items()])

    def delete(self, kind: type, where: Sequence[Where]) -> int:
        """As `Transaction.delete`."""
        shape, values = self._statements.conditions(kind, where)
        return self._run(self._statements.delete(kind, shape).sql, [values])

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """As `Transaction.find`."""
        statement, values = self._store.query(kind, None, where, order, limit)
        self._store.counts.queries += 1
        try:
            self._begin()
            return statement.read(
                self._session.query(statement.sql + self._statements.grammar.locking, values)
            )
        except self._store.database.driver_error as error:
            self.failed = self._store.database.translate(error)
            raise self.failed from error

    def _run(self, sql: str, rows: Sequence[Values]) -> int:
        self._store.counts.writes += 1
        try:
            self._begin()
            return self._session.run(sql, rows)
        except self._store.database.driver_error as error:
            self.failed = self._store.database.translate(error)
            raise self.failed from error

    def _begin(self) -> None:
        if not self.is_begun:
            self._session.begin()
            self.is_begun = True


class _Block:
    """The context manager of a transaction; a class, because a generator costs twice as much."""

    __slots__ = ("_lease", "_session", "_store", "_transaction")

    def __init__(self, store: SqlStore, lease: Lease | None) -> None:
        self._store, self._lease = store, lease

    def __enter__(self) -> SqlTransaction:
        self._session = self._store.enter()
        self._transaction = SqlTransaction(self._store, self._session)
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        store, transaction = self._store, self._transaction
        if error is not None:
            store.roll_back(self._session, transaction.failed)
            return
        try:
            if transaction.failed is not None:
                raise Conflict(f"the transaction failed before: {transaction.failed}") from transaction.failed
            if self._lease is not None:
                store.renew(transaction, self._lease)
        except BaseException:
            store.roll_back(self._session, transaction.failed)
            raise
        if transaction.is_begun:
            store.commit(self._session)
        else:
            store.roll_back(self._session, None)


class SqlStore:
    """The `Store` port on a `Database`. Safe for threads; a forked child makes connections of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.statements = statements_for(database.grammar)
        self._pool = database.pool()
        self._writers: set[int] = set()  # threads inside a transaction
        self.counts = Counts()
        self.version = SCHEMA_VERSION

    # --- the port

    def init(self) -> None:
        """As `Store.init`. Several processes may do it at once."""
        self.database.prepare()
        with self._session() as session:
            if is_complete(self.database, self.statements, session, self.version):
                self.database.start()
                return
            self.database.settle(session)
            session.begin()
            try:
                create_schema(self.database, self.statements, session, self.version)
            except BaseException:
                session.rollback()
                raise
            session.commit()
        self.database.start()

    def close(self) -> None:
        """As `Store.close`."""
        self.database.stop()
        self._pool.close()

    def now(self) -> datetime:
        """As `Store.now`."""
        return self.database.now()

    def transaction(self, lease: Lease | None = None) -> _Block:
        """As `Store.transaction`; never inside another one of the same thread."""
        return _Block(self, lease)

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """As `Store.find`."""
        statement, values = self.query(kind, None, where, order, limit)
        return statement.read(self._read(statement.sql, values))

    def select(
        self,
        kind: type,
        fields: Sequence[str],
        where: Sequence[Where] = (),
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `Store.select`."""
        statement, values = self.query(kind, tuple(fields), where, order, limit)
        return statement.read(self._read(statement.sql, values))

    def count(
        self, kind: type, where: Sequence[Where] = (), by: Sequence[str] = ()
    ) -> dict[tuple[Any, ...], int]:
        """As `Store.count`."""
        shape, values = self.statements.conditions(kind, where)
        statement = self.statements.count(kind, shape, tuple(by))
        rows = self._read(statement.sql, values)
        return dict(zip(statement.read([row[:-1] for row in rows]), (row[-1] for row in rows), strict=True))

    def get(self, kind: type[R], *key: Any) -> R | None:
        """As `Store.get`."""
        names = TABLES[kind].key
        assert len(key) == len(names), f"the key of {kind.__name__} is {names}"
        found = self.find(kind, [Where(name, "=", value) for name, value in zip(names, key, strict=True)])
        return found[0] if found else None

    def session(self) -> None:
        """As `Store.session`: the database ends a transaction that is left open by itself."""

    def end_session(self, lease: Lease) -> None:
        """As `Store.end_session`: nothing is to be done."""

    # --- for tests, `store check`, `repair` and `migrate`

    def migrate(self, steps: Sequence[Step], progress: Progress) -> None:
        """As `Migratable.migrate`."""
        with self._session() as session:
            migrate(self.database, self.statements, session, steps, progress)

    def absent(self) -> list[str]:
        """Tables and indexes that should be there and are not: "table jobs", "index jobs_open"."""
        with self._session() as session:
            tables, indexes = self.database.tables(session), self.database.indexes(session)
        lost = [f"table {table.name}" for table in TABLES.values() if table.name not in tables]
        every = [index for table in TABLES.values() for index in table.indexes]
        return lost + [f"index {index.name}" for index in every if index.name not in indexes]

    def complete(self) -> None:
        """Make what is absent; of a database that is ours. Raises ConfigError, StoreUnavailable."""
        with self._session() as session:
            session.begin()
            try:
                create_schema(self.database, self.statements, session, self.version, anew=True)
            except BaseException:
                session.rollback()
                raise
            session.commit()

    def explain(
        self, kind: type, where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[str]:
        """The database's plan for a query, in its own words."""
        statement, values = self.query(kind, None, where, order, limit)
        return [str(row[-1]) for row in self._read(self.database.explain + statement.sql, values)]

    # --- inside

    def query(
        self,
        kind: type,
        fields: tuple[str, ...] | None,
        where: Sequence[Where],
        order: Sequence[str],
        limit: int | None,
    ) -> tuple[Statement, list[Any]]:
        """The statement for a query and its values."""
        shape, values = self.statements.conditions(kind, where)
        statement = self.statements.select(kind, fields, shape, tuple(order), limit is not None)
        if limit is not None:
            values.append(limit)
        values += statement.constants
        return statement, values

    def _read(self, sql: str, values: Values) -> list[Any]:
        self.counts.queries += 1
        session = self._borrow()
        try:
            rows = session.query(sql, values)
        except BaseException as error:
            self._pool.discard(session)
            if isinstance(error, self.database.driver_error):
                raise self.database.translate(error) from error
            raise
        self._pool.give(session)
        return rows

    def _borrow(self) -> Session:
        try:
            return self._pool.borrow()
        except self.database.driver_error as error:
            raise self.database.translate(error) from error

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session for something rare."""
        session = self._borrow()
        try:
            yield session
        except BaseException as error:
            self._pool.discard(session)
            if isinstance(error, self.database.driver_error):
                raise self.database.translate(error) from error
            raise
        self._pool.give(session)

    def enter(self) -> Session:
        """A session for a transaction of this thread."""
        me = threading.get_ident()
        assert me not in self._writers, "a transaction inside a transaction"
        self.counts.transactions += 1
        session = self._borrow()
        self._writers.add(me)
        return session

    def renew(self, transaction: SqlTransaction, lease: Lease) -> None:
        """The last write of a leader's transaction: the fence."""
        expires_at = self.now() + (lease.expires_at - lease.taken_at)
        fence = {"token": lease.token, "holder": lease.holder}
        if not transaction.update([Change(Lease, lease.name, fence, {"expires_at": expires_at})]):
            raise LeaseLost(
                f"the lease {lease.name!r} was lost: token {lease.token} of {lease.holder} is out of date"
            )

    def commit(self, session: Session) -> None:
        """Commit. An error leaves the outcome unknown: whoever gets it reads again."""
        self._writers.discard(threading.get_ident())
        try:
            session.commit()
        except BaseException as error:
            self._undo(session)
            self._pool.discard(session)
            if isinstance(error, self.database.driver_error):
                raise self.database.translate(error) from error
            raise
        self._pool.give(session)

    def roll_back(self, session: Session, failed: Exception | None) -> None:
        """Roll back; the caller has an error to raise already."""
        self._writers.discard(threading.get_ident())
        undone = self._undo(session)
        if undone and not isinstance(failed, StoreUnavailable):
            self._pool.give(session)
        else:
            self._pool.discard(session)

    def _undo(self, session: Session) -> bool:
        try:
            session.rollback()
        except self.database.driver_error:  # the connection is of no use; closing it rolls back too
            return False
        return True
