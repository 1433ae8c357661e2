"""Making the schema, or finding that it is there, newer, or somebody else's.

The version comes first, as a fact; it, the tables and the indexes are made in one transaction, so
there is never half a schema (MariaDB commits each; there everything is made only where it is absent).
What is not ours is refused before anything is written to it.
"""

from __future__ import annotations

from db.codec import NotJson
from db.schema import SCHEMA_FACT, SCHEMA_VERSION, TABLES
from db.session import Database, Session
from db.statement import Statements
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.records import Fact

NOT_OURS = "the store's database belongs to another program: its table 'facts' is not ours"


def is_complete(database: Database, statements: Statements, session: Session) -> bool:
    """Whether nothing is to be created; ConfigError if the database is not ours, or newer than we are."""
    wanted, present = {table.name for table in TABLES.values()}, database.tables(session)
    if TABLES[Fact].name in present and (version := _version(database, statements, session)):
        return version == SCHEMA_VERSION and wanted <= present
    foreign = sorted(name for name in present - {TABLES[Fact].name} if not name.startswith("sqlite_"))
    if foreign:
        raise ConfigError(f"the store's database belongs to another program: it has a table {foreign[0]!r}")
    return False


def _version(database: Database, statements: Statements, session: Session) -> int:
    shape, values = statements.conditions(Fact, [Where("key", "=", SCHEMA_FACT)])
    statement = statements.select(Fact, None, shape, (), False)
    try:
        facts: list[Fact] = statement.read(session.query(statement.sql, values))
        version = int(facts[0].value["version"]) if facts else 0
    except database.driver_error as error:
        translated = database.translate(error)
        if translated is not error:
            raise translated from error
        raise ConfigError(NOT_OURS) from error
    except (NotJson, ValueError, KeyError, TypeError) as error:
        raise ConfigError(NOT_OURS) from error
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"the store has schema version {version}, we know {SCHEMA_VERSION}: use a newer program"
        )
    return version


def create_schema(
    database: Database, statements: Statements, session: Session, *, anew: bool = False
) -> None:
    """Create what is absent, inside the transaction that the session has begun; indexes only if `anew`."""
    database.prepare_schema(session)
    if is_complete(database, statements, session) and not anew:  # somebody else was faster
        return
    for kind in sorted(TABLES, key=lambda kind: kind is not Fact):
        for sql in statements.schema(kind):
            session.run(sql, [()])
        if kind is Fact:
            version = statements.codecs[Fact].row(Fact(key=SCHEMA_FACT, value={"version": SCHEMA_VERSION}))
            session.run(statements.insert(Fact, True).sql, [version])
    database.tune(session)
