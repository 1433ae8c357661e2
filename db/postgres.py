"""PostgreSQL as the store, 13 or newer, through psycopg 3.

Isolation is READ COMMITTED: every write of ours is a compare-and-set, which the server evaluates again on the
newest row after it waited for it, and what a transaction reads it locks (`locking`). A stricter level would
only add errors to repeat. Deadlocks are Conflicts.

A leader that is stopped in the middle of a transaction would hold its rows for ever. So the server ends what
lies idle in a transaction for `idle_s` (one lease); and it waits for a lock no longer than `LOCK_TIMEOUT_S`.

Text is compared by code point: COLLATE "C". PostgreSQL keeps no NUL in text; it is written as \\x01\\x01, and
\\x01 as \\x01\\x02, which leaves the order as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import conninfo, errors
from sqlalchemy.dialects.postgresql import base, insert

from db.codec import Converter, decode_json, decode_time, encode_json, encode_time
from db.server import (
    CONNECT_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    Address,
    address_of,
    one_line,
)
from db.server_database import ServerDatabase, ServerSession, own_url
from db.session import Session, Values
from db.sql import SqlStore
from db.statement import Grammar
from scheduler.core.errors import ConfigError, Conflict, StoreUnavailable
from scheduler.core.ports import Clock, Store

EXAMPLE = "postgresql://user:password@host:port/database"
SCHEMA_LOCK = 0x53594E45  # of pg_advisory_xact_lock: who creates the schema

_NUL, _ONE = "\x00", "\x01"


def encode_text(text: str) -> str:
    """Text without NUL."""
    if _NUL in text or _ONE in text:
        return text.replace(_ONE, "\x01\x02").replace(_NUL, "\x01\x01")
    return text


def decode_text(text: str) -> str:
    """The text that was encoded."""
    if _ONE in text:
        return text.replace("\x01\x01", _NUL).replace("\x01\x02", _ONE)
    return text


# a batch that is refused in a pipeline is logged by psycopg as well: a Conflict is everyday, and told by its error
logging.getLogger("psycopg").setLevel(logging.ERROR)

_PLAIN = Converter(None, None)
_TEXT = Converter(encode_text, decode_text)
GRAMMAR = Grammar(
    dialect=base.PGDialect(paramstyle="format"),  # type: ignore[no-untyped-call]
    types={
        "key": sa.Text(collation="C"),
        "text": sa.Text(collation="C"),
        "json": sa.Text(collation="C"),
        "int": sa.BigInteger(),
        "time": sa.BigInteger(),  # milliseconds since 1970, UTC
        "float": sa.Double(),
        "bool": sa.Boolean(),
    },
    converters={
        "key": _TEXT,
        "text": _TEXT,
        "int": _PLAIN,
        "float": _PLAIN,
        "bool": _PLAIN,
        "time": Converter(encode_time, decode_time),
        "json": Converter(encode_json, decode_json),
    },
    insert_ignore=lambda table: insert(table).on_conflict_do_nothing(),
    contains=lambda column, text: sa.func.strpos(column, text) > sa.literal_column("0"),
    nulls_come_first=False,
    locking=" FOR UPDATE",
)

# what a state or a class of states means to people; the longest that fits is taken
_REASONS = {
    "08": "the connection was lost",
    "25006": "it is read-only (a standby?)",
    "25P02": "the transaction failed before",
    "25P03": "a transaction lay idle for longer than a lease, and the server ended it",
    "28": "user or password is wrong",
    "3D000": "there is no such database",
    "3F000": "there is no such schema",
    "42501": "the user may not do that",
    "42P01": "it was not initialised",
    "53100": "the disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections",
    "53": "the server lacks resources",
    "55P03": "another transaction holds a lock for too long",
    "55": "the server cannot do that now",
    "57": "the server was interrupted, or is starting or stopping",
    "58": "the server's disk failed",
    "XX": "the server found something damaged",
}
_CONFLICTS = (errors.UniqueViolation, errors.SerializationFailure, errors.DeadlockDetected)


class PostgresSession(ServerSession):
    """One connection; a new one takes its place if it was cut while it was idle."""

    lost_error = psycopg.OperationalError
    close_errors = (psycopg.Error,)
    raw: psycopg.Connection[Any]

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        super().__init__()

    def _connect(self) -> None:
        self.raw = self._database.connect()
        self._cursor = self.raw.cursor()

    def query(self, sql: str, values: Values) -> list[Any]:
        """As `Session.query`."""
        return self._on_a_living_one(lambda: self._cursor.execute(sql, values).fetchall())

    def run(self, sql: str, rows: Sequence[Values]) -> int:
        """As `Session.run`."""
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0] or None)
        else:
            self._cursor.executemany(sql, rows)
        return self._cursor.rowcount

    def _is_cut(self) -> bool:
        return bool(self.raw.closed)

    def _begin(self) -> None:
        self._cursor.execute("BEGIN")

    def _commit(self) -> None:
        self._cursor.execute("COMMIT")
        if self._cursor.statusmessage == "ROLLBACK":  # it was in an error: nothing was kept
            raise errors.InFailedSqlTransaction("the server rolled it back")

    def _rollback(self) -> None:
        self._cursor.execute("ROLLBACK")


class PostgresDatabase(ServerDatabase):
    """One schema (the first of the search path) of a PostgreSQL database."""

    grammar = GRAMMAR
    driver_error = psycopg.Error
    explain = "EXPLAIN "
    ask_now = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

    def __init__(self, address: Address, clock: Clock) -> None:
        super().__init__(address, clock)
        self._settings = "; ".join(
            f"SET {name} = '{value}'"
            for name, value in {
                "default_transaction_isolation": "read committed",
                "idle_in_transaction_session_timeout": f"{address.idle_s}s",
                "lock_timeout": f"{LOCK_TIMEOUT_S}s",
                "client_min_messages": "warning",
            }.items()
        )

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection that commits every statement by itself."""
        parameters: dict[str, Any] = {
            "application_name": "synergy",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        given = self.address.parameters
        own = {name: value for name, value in parameters.items() if name not in given}
        raw = psycopg.connect(self.address.url, autocommit=True, client_encoding="utf8", **own)
        raw.prepared_max = 500
        try:
            raw.execute(self._settings)
        except psycopg.Error:
            raw.close()
            raise
        return raw

    def _session(self) -> Session:
        return PostgresSession(self)

    def tables(self, session: Session) -> set[str]:
        """As `Database.tables`."""
        ((schema,),) = session.query("SELECT current_schema()", ())
        if schema is None:
            raise ConfigError(f"store {self.address.text}: no schema of its search_path is there: create one")
        found = session.query(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f')",
            (schema,),
        )
        return {name for (name,) in found}

    def indexes(self, session: Session) -> set[str]:
        """As `Database.indexes`."""
        found = session.query("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()", ())
        return {name for (name,) in found}

    def columns(self, session: Session, table: str) -> set[str]:
        """As `Database.columns`."""
        found = session.query(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = %s",
            (table,),
        )
        return {name for (name,) in found}

    def prepare_schema(self, session: Session) -> None:
        """As `Database.prepare_schema`: two that create the same table at once would get errors."""
        session.query("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))

    def translate(self, error: Exception) -> Exception:
        """As `Database.translate`."""
        if isinstance(error, _CONFLICTS):
            return Conflict(
                f"a record with this key exists already, or two waited for each other ({one_line(error)})"
            )
        state = getattr(error, "sqlstate", None)
        if state is None:  # libpq's own: it tells whom it could not reach, and why
            is_ours = isinstance(error, psycopg.OperationalError)
            return self._unavailable("it cannot be reached", error) if is_ours else error
        reason = next((_REASONS[part] for part in (state, state[:2]) if part in _REASONS), None)
        return self._unavailable(reason, error) if reason else error

    def _unavailable(self, reason: str, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.address.text}: {reason} ({one_line(error)})")


def open_adapter(url: str, *, clock: Clock, synchronous: str, maintain: bool) -> Store:
    """The store of a URL `postgresql://user:password@host:port/database`; its parameters are libpq's.

    Durability is the server's own (`synchronous_commit`), and so is maintenance: both arguments do nothing.
    """
    address = address_of(own_url(url), EXAMPLE)
    address = address._replace(url=f"postgresql:{address.url.partition(':')[2]}")
    try:
        conninfo.conninfo_to_dict(address.url)
    except psycopg.Error:
        names = ", ".join(sorted(address.parameters))
        raise ConfigError(f"store {address.text}: one of its parameters is not libpq's: {names}") from None
    return SqlStore(PostgresDatabase(address, clock))
