"""The tables, keys and indexes of the store, as data that every adapter reads.

Columns are not written down here: they are the fields of the record dataclasses, with the types of
their annotations, so table and record cannot drift apart. What a dataclass cannot say stands here:
the name of its table, its key, and an index for every query that the loop makes (`LOOP_QUERIES`; a
test asks the database for its plan of each). An index that no query needs costs every write.

A partial index holds only the rows that match its `where`: what is active, not what is history.
Databases without partial indexes get a plain one. No adapter, and nothing of a database, is
imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from scheduler.core.command import DONE, DRAFT, EXPIRED, PENDING, REFUSED, RUNNING, Command
from scheduler.core.event import SEVERITIES, Event
from scheduler.core.job import Job
from scheduler.core.lifecycle import UOW_FINISHED, JobState, UowState
from scheduler.core.ports import Where
from scheduler.core.records import BoxProcess, Fact, Hold, Lease, LogChunk, ProcessRow, User
from scheduler.core.uow import Uow

SCHEMA_VERSION = 1
SCHEMA_FACT = "schema"  # the key of the fact {"version": SCHEMA_VERSION}

UOW_UNFINISHED = tuple(sorted(str(state) for state in UowState if state not in UOW_FINISHED))
UOW_HELD = tuple(sorted((UowState.CANCELED, UowState.IN_PROGRESS)))  # a worker may be at work on it
COMMAND_WAITING = tuple(sorted((PENDING, RUNNING, DRAFT)))
EVENT_ALARMING = ("critical", "error", "warning")

# Words that may stand literally in SQL, where an index speaks of their field: few, and none of a user's.
_WORDS: list[str] = [
    *map(str, JobState),
    *map(str, UowState),
    *SEVERITIES,
    *COMMAND_WAITING,
    DONE,
    REFUSED,
    EXPIRED,
]
LITERALS: frozenset[str | bool] = frozenset((*_WORDS, True, False))


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a record. `type`: key (a short text in a key or index) text int float bool time json."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class Index:
    """An index; `where` makes it partial. Fields of `where` take few values (a state, a bool, null)."""

    name: str
    columns: tuple[str, ...]
    where: tuple[Where, ...] = ()

    @property
    def columns_in_full(self) -> tuple[str, ...]:
        """The columns where there are no partial indexes: first those that `where` gives words for."""
        head = [condition.field for condition in self.where if condition.op in ("=", "in")]
        return tuple(dict.fromkeys((*head, *self.columns)))


@dataclass(frozen=True)
class Table:
    """Where the records of one kind are kept."""

    name: str
    kind: type
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    clustered: bool = False  # the key is the order on disk: for rows that are appended and read in it

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """A column for each field of the dataclass, in its order."""
        hints = get_type_hints(self.kind)
        indexed = {*self.key, *(name for index in self.indexes for name in index.columns_in_full)}
        return tuple(_column(field.name, hints[field.name], indexed) for field in fields(self.kind))

    @cached_property
    def column(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def literals(self) -> frozenset[str]:
        """The fields that partial indexes compare: their values stand literally in SQL, so that a
        planner, which sees no bound value, can tell that such an index will do."""
        return frozenset(
            condition.field
            for index in self.indexes
            for condition in index.where
            if condition.op in ("=", "in")
        )


_TYPES = {str: "text", int: "int", float: "float", bool: "bool", datetime: "time", dict: "json", list: "json"}


def _column(name: str, hint: Any, indexed: set[str]) -> Column:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (plain,) = (option for option in options if option is not NoneType)
    kind = _TYPES[get_origin(plain) or plain]
    return Column(name, "key" if kind == "text" and name in indexed else kind, NoneType in options)


_TABLES = (
    Table("processes", ProcessRow, ("name",)),
    Table(
        "jobs",
        Job,
        ("id",),
        (
            Index("jobs_period", ("process", "start")),
            Index("jobs_open", ("process", "start"), (Where("open", "=", True),)),
        ),
    ),
    Table(
        "units_of_work",
        Uow,
        ("id",),
        (
            Index("uows_due", ("due_at",), (Where("due_at", "notnull"),)),
            # kind and state: counting what is active per process then reads the index alone
            Index("uows_unfinished", ("process", "kind", "state"), (Where("state", "in", UOW_UNFINISHED),)),
            Index("uows_dirty", ("id",), (Where("dirty", "=", True),)),
            Index("uows_owner", ("owner",), (Where("state", "in", UOW_HELD),)),
            Index("uows_period", ("process", "timeperiod")),
        ),
    ),
    Table(
        "events",
        Event,
        ("source", "seq"),
        (
            Index("events_period", ("process", "timeperiod"), (Where("process", "notnull"),)),
            Index("events_kind", ("kind", "severity")),
            Index("events_alarming", ("source", "seq"), (Where("severity", "in", EVENT_ALARMING),)),
        ),
        clustered=True,
    ),
    Table(
        "commands",
        Command,
        ("id",),
        (Index("commands_waiting", ("submitted_at", "id"), (Where("state", "in", COMMAND_WAITING),)),),
    ),
    Table("boxes", BoxProcess, ("id",), (Index("boxes_box", ("box",)),)),
    Table("leases", Lease, ("name",)),
    Table("logs", LogChunk, ("uow", "attempt", "n"), clustered=True),
    Table("users", User, ("name",)),
    Table("holds", Hold, ("scope",)),
    Table("facts", Fact, ("key",)),
)

TABLES: Mapping[type, Table] = {table.kind: table for table in _TABLES}


@dataclass(frozen=True, slots=True)
class LoopQuery:
    """A query that the loop, a worker or a page makes again and again, and the index it must use.

    `index` "key" is the primary key. The values only stand for a kind of value.
    """

    name: str
    kind: type
    where: tuple[Where, ...]
    index: str
    order: tuple[str, ...] = ()
    limit: int | None = None


_T = datetime.fromisoformat("2026-11-21T00:00:00+00:00")
_AT = Where("process", "=", "p")

LOOP_QUERIES = (
    LoopQuery("jobs by id", Job, (Where("id", "in", ["p@1", "p@2", "p@3"]),), "key"),
    LoopQuery("oldest unfinished jobs", Job, (_AT, Where("open", "=", True)), "jobs_open", ("start",), 64),
    LoopQuery(
        "unfinished jobs in an interval",
        Job,
        (_AT, Where("start", ">=", _T), Where("start", "<", _T), Where("open", "=", True)),
        "jobs_open",
        ("start",),
    ),
    LoopQuery(
        "next unfinished jobs",
        Job,
        (_AT, Where("start", ">", _T), Where("open", "=", True)),
        "jobs_open",
        ("start",),
        64,
    ),
    LoopQuery(
        "jobs in an interval",
        Job,
        (_AT, Where("start", ">=", _T), Where("start", "<", _T)),
        "jobs_period",
        ("start",),
    ),
    LoopQuery("newest jobs", Job, (_AT,), "jobs_period", ("-start",), 20),
    LoopQuery("uows by id", Uow, (Where("id", "in", ["p@1#1", "p@2#1"]),), "key"),
    LoopQuery("uows of a job", Uow, (_AT, Where("timeperiod", "=", "1")), "uows_period", ("run",)),
    LoopQuery("uows of a job, by id", Uow, (Where("id", "prefix", "p@1#"),), "key"),
    LoopQuery("due uows", Uow, (Where("due_at", "<=", _T),), "uows_due", ("due_at",), 64),
    LoopQuery("next due uow", Uow, (Where("due_at", "notnull"),), "uows_due", ("due_at",), 1),
    LoopQuery("unfinished uows", Uow, (_AT, Where("state", "in", UOW_UNFINISHED)), "uows_unfinished"),
    LoopQuery("invalid uows", Uow, (_AT, Where("state", "=", "invalid")), "uows_unfinished"),
    LoopQuery("dirty uows", Uow, (Where("dirty", "=", True),), "uows_dirty", (), 64),
    LoopQuery(
        "what a worker holds", Uow, (Where("owner", "=", "w"), Where("state", "in", UOW_HELD)), "uows_owner"
    ),
    LoopQuery(
        "never published",
        Uow,
        (Where("state", "=", "requested"), Where("published_at", "null")),
        "uows_unfinished",
        limit=5000,
    ),
    LoopQuery(
        "events after a mark", Event, (Where("source", "=", "s"), Where("seq", ">", 7)), "key", ("seq",), 500
    ),
    LoopQuery("last event", Event, (Where("source", "=", "s"),), "key", ("-seq",), 1),
    LoopQuery("events of a job", Event, (_AT, Where("timeperiod", "=", "1")), "events_period", ("seq",)),
    LoopQuery(
        "events of a uow",  # its id tells process and timeperiod: an index of its own would cost every event
        Event,
        (_AT, Where("timeperiod", "=", "1"), Where("uow", "=", "p@1#1")),
        "events_period",
        ("seq",),
    ),
    LoopQuery(
        "events of a job, newest first",  # and those of a process itself, with timeperiod null
        Event,
        (_AT, Where("timeperiod", "=", "1"), Where("source", "=", "s"), Where("seq", "<", 7)),
        "events_period",
        ("-seq",),
        500,
    ),
    LoopQuery("events of a kind", Event, (Where("kind", "=", "hold.set"),), "events_kind", ("seq",)),
    LoopQuery(
        "alarming events",
        Event,
        (Where("source", "=", "s"), Where("severity", "in", ("error", "critical"))),
        "events_alarming",
        ("-seq",),
        50,
    ),
    LoopQuery(
        "pending commands",
        Command,
        (Where("state", "=", PENDING), Where("status", "null")),
        "commands_waiting",
        ("submitted_at",),
        64,
    ),
    LoopQuery("logs of uows", LogChunk, (Where("uow", "in", ["p@1#1", "p@2#1"]),), "key", (), 500),
    LoopQuery("log of a uow", LogChunk, (Where("uow", "=", "p@1#1"),), "key"),
    LoopQuery("processes of a box", BoxProcess, (Where("box", "=", "b"),), "boxes_box"),
    LoopQuery("a lease", Lease, (Where("name", "=", "scheduler"),), "key"),
)
