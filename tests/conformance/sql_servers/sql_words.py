"""Words of the suite of the SQL servers: an empty database, SQL past the store, one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from db.sql import SqlStore
from scheduler.core.records import Fact
from tests.conformance.store_adapters import opened_as

T = datetime(2013, 7, 4, tzinfo=UTC)
KINDS = ("postgres", "mariadb")


@dataclass
class Place:
    """An empty database of a server, and SQL past the store."""

    kind: str
    url: str
    sql: Callable[..., list[Any]]

    def with_query(self, query: str) -> str:
        """The URL with parameters."""
        return f"{self.url}?{query}"

    def changed(self, **parts: str) -> str:
        """The URL with other words in it: old=new."""
        url = self.url
        for old, new in parts.items():
            url = url.replace(old, new, 1)
        return url


def run_sql(url: str, text: str) -> list[Any]:
    """Rows of a statement, run past the store."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as raw:
            cursor = raw.execute(text.encode())
            return cursor.fetchall() if cursor.description else []
    import pymysql

    from db.mariadb import EXAMPLE, _connection
    from db.server import address_of

    with pymysql.connect(**_connection(address_of(url, EXAMPLE))) as raw, raw.cursor() as cursor:
        cursor.execute(text)
        return list(cursor.fetchall())


def opened(url: str, clock: Any) -> SqlStore:
    """A store object."""
    return opened_as(SqlStore, url, clock)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which must be one line and keep the secret."""
    text = str(error.value)
    assert "\n" not in text
    assert "synergy:synergy" not in text
    assert "hunter2" not in text
    return text


def write(store: SqlStore, key: str) -> None:
    """A small transaction."""
    with store.transaction() as transaction:
        transaction.insert([Fact(key=key, value={})])
