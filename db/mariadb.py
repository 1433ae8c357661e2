"""MariaDB (10.6 or newer) and MySQL (8.0.17 or newer) as the store, through PyMySQL.

Isolation is READ COMMITTED: every write of ours is a compare-and-set, which the server evaluates again on the
newest row after it waited for it, and what a transaction reads it locks (`locking`). The default, REPEATABLE
READ, would lock gaps between rows as well. Deadlocks are Conflicts. Hits are counted as rows that match
(FOUND_ROWS), not as rows that change.

A leader that is stopped in the middle of a transaction would hold its rows for ever. So the server ends what
lies idle in a transaction for `idle_s` (one lease); and it waits for a lock no longer than `LOCK_TIMEOUT_S`.
MySQL knows no such limit for transactions: there the connection's own is lowered while one is open.

Text is compared by code point, and blanks at its end count: a binary collation without padding, set on our
tables. What a batch writes goes out as one statement of many rows, or many statements in one packet.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT
from pymysql.converters import escape_string
from sqlalchemy.dialects.mysql import LONGTEXT, base
from sqlalchemy.dialects.mysql import insert as insert_into

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
from scheduler.core.errors import ConfigError, Conflict, InvalidRequest, StoreUnavailable
from scheduler.core.ports import Clock, Store

EXAMPLE = "mariadb://user:password@host:port/database"
PORT = 3306
KEY_LENGTH = 255  # characters: three of them fit into an index of 3,072 bytes
PACKET = 1_000_000  # characters of SQL that are sent at once, if it is more than one row
READ_TIMEOUT_S = 120
WAIT_TIMEOUT_S = 28800
PARAMETERS = frozenset({"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify"})


def encode_key(text: str) -> str:
    """Text of bounded length: INSERT IGNORE would cut it off in silence."""
    if len(text) > KEY_LENGTH:
        raise InvalidRequest(f"{text[:40]!r}…: a name has at most {KEY_LENGTH} characters, got {len(text)}")
    return text


_PLAIN = Converter(None, None)
GRAMMAR = Grammar(
    dialect=base.MySQLDialect(paramstyle="format"),
    types={
        "key": sa.String(KEY_LENGTH),
        "text": LONGTEXT(),
        "json": LONGTEXT(),
        "int": sa.BigInteger(),
        "time": sa.BigInteger(),  # milliseconds since 1970, UTC
        "float": sa.Double(),
        "bool": sa.Boolean(),
    },
    converters={
        "key": Converter(encode_key, None),
        "text": _PLAIN,
        "int": _PLAIN,
        "float": _PLAIN,
        "bool": Converter(None, bool),
        "time": Converter(encode_time, decode_time),
        "json": Converter(encode_json, decode_json),
    },
    insert_ignore=lambda table: insert_into(table).prefix_with("IGNORE"),
    contains=lambda column, text: sa.func.locate(text, column) > sa.literal_column("0"),
    partial_indexes=False,
    locking=" FOR UPDATE",
)

DUPLICATE, LOCK_WAIT, DEADLOCK, CHANGED, NO_TABLE, TOO_LARGE, KEY_EXISTS = (
    1062,
    1205,
    1213,
    1020,
    1146,
    1153,
    1061,
)
_CONFLICTS = frozenset({DUPLICATE, DEADLOCK, CHANGED})
# what an error number means to people
_REASONS = {
    0: "the connection was lost",
    1021: "the disk is full",
    1030: "the server's disk failed, or is full",
    1040: "the server has too many connections",
    1041: "the server is out of memory",
    1044: "user or password is wrong, or may not use this database",
    1045: "user or password is wrong",
    1049: "there is no such database",
    1053: "the server is stopping",
    1114: "the disk is full",
    1142: "the user may not do that",
    NO_TABLE: "it was not initialised",
    1158: "the connection was lost",
    1159: "the connection was lost",
    1160: "the connection was lost",
    1161: "the connection was lost",
    1184: "the connection was lost",
    1194: "the server found something damaged",
    LOCK_WAIT: "another transaction holds a lock for too long",
    1203: "the server has too many connections of this user",
    1226: "the user has used up a limit of the server",
    1227: "the user may not do that",
    1290: "it is read-only",
    1317: "the server was interrupted",
    1698: "user or password is wrong",
    1792: "it is read-only",
    1836: "it is read-only",
    1927: "the server ended the connection",
    1969: "the server was interrupted",
    2002: "it cannot be reached",
    2003: "it cannot be reached",
    2005: "it cannot be reached",
    2006: "the connection was lost",
    2012: "it cannot be reached",
    2013: "the connection was lost",
    2055: "the connection was lost",
    3024: "the server was interrupted",
    3159: "it wants TLS: add ?ssl_ca=…",
    4031: "the server ended the connection",
}


def literal(value: Any) -> str:
    """A value as it stands in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"'{escape_string(value)}'"
    if isinstance(value, bool):
        return "1" if value else "0"
    assert isinstance(value, int | float), value
    return repr(value)


def statements(sql: str, rows: Iterable[Values]) -> Iterator[str]:
    """`sql` for all rows, in as few packets as may be: inserts as one statement, others one after another."""
    head, values, one = sql.partition(" VALUES ")
    is_insert = bool(values) and head.startswith("INSERT")
    head, one, joint = (head + values, one, ", ") if is_insert else ("", sql, "; ")
    batch: list[str] = []
    size = 0
    for row in rows:
        text = one % tuple([literal(value) for value in row])
        if batch and size + len(text) > PACKET:
            yield head + joint.join(batch)
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield head + joint.join(batch)


class MariadbSession(ServerSession):
    """One connection; a new one takes its place if it was cut while it was idle."""

    lost_error = pymysql.MySQLError
    close_errors = (pymysql.MySQLError, OSError)
    raw: pymysql.Connection[Any]

    def __init__(self, database: MariadbDatabase) -> None:
        self._database = database
        super().__init__()

    def _connect(self) -> None:
        self.raw = self._database.connect()
        self._cursor = self.raw.cursor()
        self._brackets = self._database.brackets(self.raw)

    def query(self, sql: str, values: Values) -> list[Any]:
        """As `Session.query`."""
        text = sql % tuple([literal(value) for value in values])
        self._on_a_living_one(lambda: self._cursor.execute(text))
        return list(self._cursor.fetchall())

    def run(self, sql: str, rows: Sequence[Values]) -> int:
        """As `Session.run`."""
        if sql.startswith("CREATE "):
            return self._create(sql)
        return sum([self._execute(text) for text in statements(sql, rows)])

    def _execute(self, text: str) -> int:
        """All statements of one packet; how many rows they hit."""
        cursor = self._cursor
        cursor.execute(text)
        hits = cursor.rowcount
        while cursor.nextset():
            hits += cursor.rowcount
        return int(hits)

    def _create(self, sql: str) -> int:
        if sql.startswith("CREATE TABLE"):
            return self._execute(f"{sql} CHARACTER SET utf8mb4 COLLATE {self._database.collation(self.raw)}")
        if self._database.is_mariadb(self.raw):
            return self._execute(sql)
        try:  # MySQL
            return self._execute(sql.replace(" IF NOT EXISTS", "", 1))
        except pymysql.MySQLError as error:
            if error.args[0] != KEY_EXISTS:
                raise
            return 0

    def _is_cut(self) -> bool:
        return not self.raw.open

    def _begin(self) -> None:
        self._execute(self._brackets[0])

    def _commit(self) -> None:
        self._execute(self._brackets[1])

    def _rollback(self) -> None:
        self._execute(self._brackets[2])


class MariadbDatabase(ServerDatabase):
    """A database of a MariaDB or MySQL server."""

    grammar = GRAMMAR
    driver_error = pymysql.MySQLError
    explain = "EXPLAIN FORMAT=JSON "
    ask_now = "SELECT FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000)"

    def __init__(self, address: Address, clock: Clock) -> None:
        super().__init__(address, clock)
        self._parameters = _connection(address)

    def connect(self) -> pymysql.Connection[Any]:
        """A new connection that commits every statement by itself."""
        raw = pymysql.connect(**self._parameters)
        try:
            raw._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            settings = {
                "sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE'",
                "innodb_lock_wait_timeout": LOCK_TIMEOUT_S,
                "lock_wait_timeout": LOCK_TIMEOUT_S,
                "wait_timeout": WAIT_TIMEOUT_S,
            }
            if self.is_mariadb(raw):
                settings["idle_transaction_timeout"] = self.address.idle_s
            assigned = ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
            cursor = raw.cursor()
            cursor.execute(f"SET {assigned}")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        except BaseException:  # raised again: half a connection is nobody's
            raw.close()
            raise
        return raw

    def is_mariadb(self, raw: pymysql.Connection[Any]) -> bool:
        """Or else it is MySQL."""
        return "mariadb" in raw.get_server_info().lower()

    def collation(self, raw: pymysql.Connection[Any]) -> str:
        """By code point, without padding."""
        return "utf8mb4_nopad_bin" if self.is_mariadb(raw) else "utf8mb4_0900_bin"

    def brackets(self, raw: pymysql.Connection[Any]) -> tuple[str, str, str]:
        """How a transaction begins, is committed and rolled back."""
        begin, commit, rollback = "START TRANSACTION", "COMMIT", "ROLLBACK"
        if self.is_mariadb(raw):
            return begin, commit, rollback
        low, high = (
            f"SET SESSION wait_timeout = {seconds}" for seconds in (self.address.idle_s, WAIT_TIMEOUT_S)
        )
        return f"{low}; {begin}", f"{commit}; {high}", f"{rollback}; {high}"

    def _session(self) -> Session:
        return MariadbSession(self)

    def tables(self, session: Session) -> set[str]:
        """As `Database.tables`."""
        found = session.query(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()", ()
        )
        return {name for (name,) in found}

    def indexes(self, session: Session) -> set[str]:
        """As `Database.indexes`."""
        found = session.query(
            "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE()",
            (),
        )
        return {name for (name,) in found}

    def columns(self, session: Session, table: str) -> set[str]:
        """As `Database.columns`."""
        found = session.query(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s",
            (table,),
        )
        return {name for (name,) in found}

    def translate(self, error: Exception) -> Exception:
        """As `Database.translate`."""
        code = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if code in _CONFLICTS:
            return Conflict(
                f"a record with this key exists already, or two waited for each other ({one_line(error)})"
            )
        if code == TOO_LARGE:
            return InvalidRequest(f"store {self.address.text}: a value is larger than its max_allowed_packet")
        if code in _REASONS:
            return StoreUnavailable(f"store {self.address.text}: {_REASONS[code]} ({one_line(error)})")
        return error


def _connection(address: Address) -> dict[str, Any]:
    """What PyMySQL is given. Raises ConfigError."""
    unknown = sorted(set(address.parameters) - PARAMETERS)
    if unknown:
        known = ", ".join(sorted({*PARAMETERS, "idle_s"}))
        raise ConfigError(f"store {address.text}: there is no parameter {unknown[0]!r}; there are: {known}")
    given = address.parameters
    parameters: dict[str, Any] = {
        "host": address.host or "localhost",
        "port": address.port or PORT,
        "user": address.user or None,
        "password": address.password,
        "database": address.database,
        "charset": "utf8mb4",
        "autocommit": True,
        "client_flag": CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "write_timeout": READ_TIMEOUT_S,
    }
    if "unix_socket" in given:
        parameters["unix_socket"] = given["unix_socket"]
    if any(name.startswith("ssl_") for name in given):
        parameters["ssl"] = _tls(address)
    return parameters


def _tls(address: Address) -> ssl.SSLContext:
    given = address.parameters
    try:
        context = ssl.create_default_context(cafile=given.get("ssl_ca"))
        if given.get("ssl_verify", "1") in ("0", "false", "no"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if "ssl_cert" in given:
            context.load_cert_chain(given["ssl_cert"], given.get("ssl_key"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"store {address.text}: its certificates cannot be read ({one_line(error)})"
        ) from error
    return context


def open_adapter(url: str, *, clock: Clock, synchronous: str, maintain: bool) -> Store:
    """The store of a URL `mariadb://user:password@host:port/database`, or `mysql://…`.

    Durability is the server's own (`innodb_flush_log_at_trx_commit`): both other arguments do nothing.
    """
    return SqlStore(MariadbDatabase(address_of(own_url(url), EXAMPLE), clock))
