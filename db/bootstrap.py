"""Making the schema, or finding that it is there, newer, or somebody else's.

The version comes first, as a fact; it, the tables and the indexes are made in one transaction, so
there is never half a schema (MariaDB commits each; there everything is made only where it is absent).
What is not ours is refused before anything is written to it.
"""

from __future__ import annotations

from db.codec import NotJson
from db.migrations import judge
from db.schema import SCHEMA_FACT, SCHEMA_VERSION, TABLES
from db.session import Database, Session
from db.statement import Statements
from scheduler.core.errors import ConfigError
from scheduler.core.ports import Where
from scheduler.core.records import Fact

NOT_OURS = "the store's database belongs to another program: its table 'facts' is not ours"


def is_complete(
    database: Database, statements: Statements, session: Session, known: int = SCHEMA_VERSION
) -> bool:
    """Whether nothing is to be created; ConfigError if the database is not ours, or older or newer than `known`."""
    wanted, present = {table.name for table in TABLES.values()}, database.tables(session)
    if TABLES[Fact].name in present and (version := version_in(database, statements, session)):
        judge(version, known)
        return wanted <= present
    foreign = sorted(name for name in present - {TABLES[Fact].name} if not name.startswith("sqlite_"))
    if foreign:
        raise ConfigError(f"the store's database belongs to another program: it has a table {foreign[0]!r}")
    return False


def version_in(database: Database, statements: Statements, session: Session) -> int:
    """The version of a database that has a table of facts, 0 if it has none yet; ConfigError if it is not ours."""
    shape, values = statements.conditions(Fact, [Where("key", "=", SCHEMA_FACT)])
    statement = statements.select(Fact, None, shape, (), False)
    try:
        facts: list[Fact] = statement.read(session.query(statement.sql, values))
        return int(facts[0].value["version"]) if facts else 0
    except database.driver_error as error:
        translated = database.translate(error)
        if translated is not error:
            raise translated from error
        raise ConfigError(NOT_OURS) from error
    except (NotJson, ValueError, KeyError, TypeError) as error:
        raise ConfigError(NOT_OURS) from error


def create_schema(
    database: Database,
    statements: Statements,
    session: Session,
    known: int = SCHEMA_VERSION,
    *,
    anew: bool = False,
) -> None:
    """Create what is absent, inside the transaction that the session has begun; indexes only if `anew`."""
    database.prepare_schema(session)
    if is_complete(database, statements, session, known) and not anew:  # somebody else was faster
        return
    make_absent(database, statements, session, known)


def make_absent(
    database: Database, statements: Statements, session: Session, known: int = SCHEMA_VERSION
) -> None:
    """Make the tables and indexes that are not there; the version too, unless there is one."""
    for kind in sorted(TABLES, key=lambda kind: kind is not Fact):
        for sql in statements.schema(kind):
            session.run(sql, [()])
        if kind is Fact:
            version = statements.codecs[Fact].row(Fact(key=SCHEMA_FACT, value={"version": known}))
            session.run(statements.insert(Fact, True).sql, [version])
    database.tune(session)
