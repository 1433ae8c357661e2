"""The connection to MongoDB: its URL, its client, its clock, and what its errors mean.

A client belongs to one process: a forked child makes its own. Whatever the URL says stands (replica
set, TLS, authentication, several hosts, time-outs); what it leaves out is set here, short enough
that a server that is away is noticed while a leader's lease still runs.

No password ever leaves this module: what is shown, and every error, has it masked.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit

from bson.codec_options import CodecOptions
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidName,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteError,
)
from pymongo.read_concern import ReadConcern

from db.codec import encode_time
from db.schema import TABLES
from db.server import ServerClock, given_now
from scheduler.core.errors import ConfigError, Conflict, Refused, StoreUnavailable
from scheduler.core.ports import Clock

Document = dict[str, Any]

EXAMPLE = "mongodb://user:password@host:port/database?replicaSet=name"
DEFAULTS: dict[str, Any] = {  # where the URL says nothing
    "serverSelectionTimeoutMS": 3_000,
    "connectTimeoutMS": 3_000,
    "socketTimeoutMS": 20_000,
    "retryWrites": True,
    "retryReads": True,
}
DURABLE = WriteConcern("majority", j=True)
STANDALONE = (
    "it is a standalone, which has no transactions; make it a replica set of one: start it with "
    "`mongod … --replSet rs0`, then once `mongosh --eval 'rs.initiate()'`"
)
NOT_INITIATED = "its replica set was not initiated; once: `mongosh --eval 'rs.initiate()'`"

_DUPLICATE_KEY = 11000
_NOT_ALLOWED = {13: "the user may not do this", 18: "user or password is wrong", 11: "there is no such user"}
_CONFLICTS = {24, 112, 225, 246, 251}  # lock, write conflict, transaction too old, snapshot, aborted
_AWAY = {50, 14031, 11600, 11602, 91, 189, 262, 10107, 13435, 13436, 202}
_TOO_LARGE = {10334, 17280, 17419, 17420, 17260}


@dataclass(slots=True)
class Live:
    """The client of this process, and what was made from it."""

    client: MongoClient[Document]
    database: Database[Document]
    collections: dict[type, Collection[Document]]
    leader: ClientSession | None = None  # the session of transactions with a lease: the lease row names it
    lock: threading.Lock = field(default_factory=threading.Lock)


class Link:
    """The client of a URL. Safe for threads, and for forks."""

    _orphans: ClassVar[list[Any]] = []  # a child must not close its parent's connections, nor collect them

    def __init__(self, url: str, clock: Clock) -> None:
        parts = urlsplit(url)
        user, at, self.hosts = parts.netloc.rpartition("@")
        name, colon, password = user.partition(":")
        self._secrets = sorted({password, unquote_plus(password)} - {""}, key=len, reverse=True)
        self.database = unquote_plus(parts.path.removeprefix("/"))
        self.shown = f"{parts.scheme}://{name}{colon and ':***'}{at}{self.hosts}/{self.database}"
        query = parse_qsl(parts.query, keep_blank_values=True)
        self._given = given = {option.lower(): value for option, value in query}
        self._url = urlunsplit(parts._replace(query=urlencode([p for p in query if p[0] != "clock"])))
        self.options = {name: value for name, value in DEFAULTS.items() if name.lower() not in given}
        self.appname = given.get("appname", f"synergy {self.database}"[:128])
        told = given.get("clock", "server")
        if not self.database or set(self.database) & set('/. "$') or told not in ("server", "given"):
            raise ConfigError(f"store {self.shown}: expected {EXAMPLE}")
        self._live: Live | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        asked = ServerClock(self._ask_time)
        self.now: Callable[[], datetime] = asked.now if told == "server" else lambda: given_now(clock)
        with warnings.catch_warnings():  # a URL that makes no sense is told at once
            warnings.simplefilter("error", UserWarning)
            self._make().client.close()

    def live(self) -> Live:
        """The client of this process. Raises StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store was closed")
        if self._pid != os.getpid():
            self._orphans.append(self._live)
            self._live, self._pid, self._lock = None, os.getpid(), threading.Lock()
        live = self._live
        if live is None:
            with self._lock:
                live = self._live = self._live or self._make()
        return live

    def _make(self) -> Live:
        try:
            client: MongoClient[Document] = MongoClient(
                self._url, connect=False, **{**self.options, "appname": self.appname}
            )
            database: Database[Document] = client.get_database(
                self.database,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=DURABLE,
            )
            collections = {kind: database.get_collection(table.name) for kind, table in TABLES.items()}
        except (ConfigurationError, InvalidName, ValueError, TypeError, UserWarning) as error:
            raise ConfigError(f"store {self.shown}: {self.masked(error)}") from error
        return Live(client, database, collections)

    def close(self) -> None:
        """Let go of every connection; may be called twice."""
        self._closed = True
        live, self._live = self._live, None
        if live is not None and self._pid == os.getpid():
            if live.leader is not None:
                live.leader.end_session()
            live.client.close()

    def _ask_time(self) -> int:
        told: datetime = self.hello()["localTime"]
        return encode_time(told.replace(tzinfo=UTC))

    @property
    def leader_session(self) -> ClientSession | None:
        """The session of transactions with a lease, if there was one in this process."""
        return self._live.leader if self._live is not None else None

    def hello(self) -> Document:
        """What the primary says of itself. Raises StoreUnavailable."""
        try:
            return self.live().client.get_database("admin").command("hello")
        except PyMongoError as error:
            raise self.translate(error) from error

    def require_replica_set(self) -> None:
        """Raises ConfigError for a standalone, StoreUnavailable where there is no primary."""
        try:
            hello = self.hello()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, ServerSelectionTimeoutError) and (reason := self._probe()):
                raise ConfigError(f"store {self.shown}: {reason}") from error
            raise
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ConfigError(
                f"store {self.shown}: {NOT_INITIATED if hello.get('isreplicaset') else STANDALONE}"
            )

    def _probe(self) -> str | None:
        """Why a server that answers is no primary of ours; None: no server answers, or an election is on."""
        options = {**self.options, "serverSelectionTimeoutMS": 1_000, "appname": self.appname}
        for host in self.hosts.split(","):
            client: MongoClient[Document] | None = None
            try:
                client = MongoClient(self._direct(host), **options)
                hello = client.get_database("admin").command("hello")
            except (PyMongoError, ValueError):
                continue
            finally:
                if client is not None:
                    client.close()
            if hello.get("isreplicaset"):
                return NOT_INITIATED
            if "setName" not in hello:
                return STANDALONE
            wanted = self._given.get("replicaset", hello["setName"])
            if wanted != hello["setName"]:
                return f"its replica set is called {hello['setName']!r}, not {wanted!r}"
        return None

    def _direct(self, host: str) -> str:
        """The URL of one host alone, whatever set it is in."""
        parts = urlsplit(self._url)
        about_the_set = ("replicaset", "directconnection", "loadbalanced", "srvmaxhosts", "srvservicename")
        query = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() not in about_the_set]
        netloc = parts.netloc.replace(self.hosts, host)
        return urlunsplit(
            parts._replace(netloc=netloc, query=urlencode([*query, ("directConnection", "true")]))
        )

    # --- errors

    def masked(self, error: BaseException) -> str:
        """The error in one line, without what the driver adds for its own developers, and without secrets."""
        text = " ".join(str(error).split()) or type(error).__name__
        for tail in (", Timeout: ", " (configured timeouts:", ", full error:", ", Topology Description:"):
            text = text.partition(tail)[0]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:500]

    def is_refusal(self, error: PyMongoError) -> bool:
        """The server is there, and will not have us."""
        return code_of(error) in _NOT_ALLOWED

    def translate(self, error: Exception) -> Exception:
        """The port's error for a driver's; a bug comes back as it is."""
        if not isinstance(error, PyMongoError):
            return error
        code, text = code_of(error), self.masked(error)
        if isinstance(error, DuplicateKeyError) or code == _DUPLICATE_KEY:
            return Conflict(f"a record with this key exists already ({text})")
        if isinstance(error, DocumentTooLarge) or code in _TOO_LARGE:
            return Refused(
                f"store {self.shown}: a record is larger than the 16 MB of a MongoDB document ({text})"
            )
        if code in _NOT_ALLOWED:
            return StoreUnavailable(f"store {self.shown}: {_NOT_ALLOWED[code]} ({text})")
        transient = code in _CONFLICTS or error.has_error_label("TransientTransactionError")
        if transient and not isinstance(error, ConnectionFailure):
            return Conflict(f"another transaction was faster ({text})")
        if code == 20 and "replica set" in text:
            return StoreUnavailable(f"store {self.shown}: {STANDALONE}")
        if isinstance(error, ServerSelectionTimeoutError):
            return StoreUnavailable(f"store {self.shown}: no primary can be reached ({text})")
        if isinstance(error, (ConnectionFailure, ExecutionTimeout)) or code in _AWAY or code is None:
            return StoreUnavailable(f"store {self.shown}: {text}")
        return error


def code_of(error: PyMongoError) -> int | None:
    """The server's number for an error; that of its first line for a bulk write."""
    if isinstance(error, BulkWriteError):
        errors = (error.details or {}).get("writeErrors") or [{}]
        found = errors[0].get("code")
        return found if isinstance(found, int) else None
    return error.code if isinstance(error, (OperationFailure, WriteError)) else None


def is_duplicate(error: PyMongoError) -> bool:
    """A key exists already."""
    return code_of(error) == _DUPLICATE_KEY
