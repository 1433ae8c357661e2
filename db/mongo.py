"""MongoDB as the store: the production default.

It needs a replica set, for its transactions; one node is enough. A transaction reads one snapshot, and is
on the disks of the majority before it counts; reads outside of one, from the primary, see what the majority
has, so that nothing is ever decided on what a failover takes back. The lease row is written last in each
transaction of a leader. Its transactions all run in one session of the server, which the lease row names:
a successor ends that session first, so a leader that is paused between its last write and its commit
blocks nobody.

`now()` is the server's clock, asked once a second (`db.server.ServerClock`); with `clock=given` in the URL,
in tests and simulations, it is the injected one, and every store tells the same.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from bson.binary import Binary
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from db.counts import Counts
from db.migration_mongo import migrate
from db.migrations import Progress, Step
from db.mongo_documents import documents_of
from db.mongo_link import Link
from db.mongo_schema import prepare
from db.mongo_transaction import MongoTransaction
from db.schema import SCHEMA_VERSION, TABLES
from scheduler.core.errors import ConfigError, Conflict, LeaseLost, StoreUnavailable
from scheduler.core.ports import Change, Clock, Store, Where
from scheduler.core.records import Lease

R = TypeVar("R")

IDLE_S = 3.0  # a transaction of ours takes milliseconds: one that idles for so long is a stopped process's
LOOK_EVERY_S = 0.2
BATCH = 10_000  # documents in one answer
SESSION = "session"  # in `Lease.data`


class _Block:
    """The context manager of a transaction."""

    __slots__ = ("_lease", "_session", "_store", "_transaction")

    def __init__(self, store: MongoStore, lease: Lease | None) -> None:
        self._store, self._lease = store, lease

    def __enter__(self) -> MongoTransaction:
        self._session = self._store.begin(self._lease)
        self._transaction = MongoTransaction(self._store, self._session, self._lease)
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        store, transaction = self._store, self._transaction
        try:
            if error is None:
                if transaction.failed is not None:
                    raise Conflict(
                        f"the transaction failed before: {transaction.failed}"
                    ) from transaction.failed
                if self._lease is not None:
                    store.renew(transaction, self._lease)
                transaction.commit()
        finally:
            transaction.abort()  # unless it was committed
            store.end(self._session)


class MongoStore:
    """The `Store` port on MongoDB. Safe for threads; a forked child makes a client of its own."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.counts = Counts()
        self.version = SCHEMA_VERSION
        self._writers: set[tuple[int, int]] = set()  # processes and threads inside a transaction
        self._looked_at = 0.0

    # --- the port

    def init(self) -> None:
        """As `Store.init`. Several processes may do it at once. ConfigError for a standalone as well."""
        try:
            self.link.require_replica_set()
            live = self.link.live()
            prepare(live, self.link.shown, self._wire_version(), self.version)
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, PyMongoError) and self.link.is_refusal(cause):
                raise ConfigError(str(error)) from cause
            raise
        except PyMongoError as error:
            translated = self.link.translate(error)
            if self.link.is_refusal(error):
                translated = ConfigError(str(translated))
            raise translated from error

    def close(self) -> None:
        """As `Store.close`."""
        self.link.close()

    def now(self) -> datetime:
        """As `Store.now`."""
        return self.link.now()

    def transaction(self, lease: Lease | None = None) -> _Block:
        """As `Store.transaction`; never inside another one of the same thread."""
        return _Block(self, lease)

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """As `Store.find`."""
        query = self.query(kind, None, where, order, limit)
        return documents_of(kind).records(self._read(query))

    def select(
        self,
        kind: type,
        fields: Sequence[str],
        where: Sequence[Where] = (),
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `Store.select`."""
        query = self.query(kind, fields, where, order, limit)
        return documents_of(kind).tuples(fields, self._read(query))

    def count(
        self, kind: type, where: Sequence[Where] = (), by: Sequence[str] = ()
    ) -> dict[tuple[Any, ...], int]:
        """As `Store.count`."""
        documents = documents_of(kind)
        group: dict[str, Any] = {"_id": [f"${documents.name[name]}" for name in by], "n": {"$sum": 1}}
        pipeline = [{"$match": documents.filter(where)}, {"$group": group}]
        collection = self.link.live().collections[kind]
        found = self._read(lambda: collection.aggregate(pipeline).to_list())
        if not by:
            return {(): found[0]["n"] if found else 0}
        named = [dict(zip((documents.name[name] for name in by), row["_id"], strict=True)) for row in found]
        return dict(zip(documents.tuples(by, named), (row["n"] for row in found), strict=True))

    def get(self, kind: type[R], *key: Any) -> R | None:
        """As `Store.get`."""
        names = TABLES[kind].key
        assert len(key) == len(names), f"the key of {kind.__name__} is {names}"
        found = self.find(kind, [Where(name, "=", value) for name, value in zip(names, key, strict=True)])
        return found[0] if found else None

    def session(self) -> dict[str, Any]:
        """As `Store.session`: the server's name for the session of our transactions with a lease."""
        try:
            name: UUID = self._leader_session().session_id["id"].as_uuid()
        except PyMongoError as error:
            raise self.link.translate(error) from error
        return {SESSION: name.hex}

    def end_session(self, lease: Lease) -> None:
        """As `Store.end_session`."""
        name = (lease.data or {}).get(SESSION)
        if not isinstance(name, str):
            return
        try:
            self._kill([{"id": Binary.from_uuid(UUID(name))}])
        except PyMongoError as error:
            raise self.link.translate(error) from error

    # --- for tests, `store check` and `migrate`

    def migrate(self, steps: Sequence[Step], progress: Progress) -> None:
        """As `Migratable.migrate`: each move by itself, so one that was killed is repeated."""
        try:
            migrate(self.link.live(), self.link.shown, self._wire_version(), steps, progress)
        except PyMongoError as error:
            raise self.link.translate(error) from error

    def _wire_version(self) -> int:
        return int(self.link.hello().get("maxWireVersion", 0))

    def explain(
        self, kind: type, where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[str]:
        """The database's plan for a query: its stages, from the outermost in, with the indexes used."""
        plan = self._cursor(kind, None, where, order, limit, None).explain()["queryPlanner"]["winningPlan"]
        stages: list[str] = []
        while plan:
            plan = plan.get("queryPlan", plan)
            stages.append(" ".join(filter(None, (plan["stage"], plan.get("indexName")))))
            plan = plan.get("inputStage") or next(iter(plan.get("inputStages", [])), None)
        return stages

    # --- inside

    def query(
        self,
        kind: type,
        fields: Sequence[str] | None,
        where: Sequence[Where],
        order: Sequence[str],
        limit: int | None,
        session: ClientSession | None = None,
    ) -> Callable[[], list[dict[str, Any]]]:
        """What asks for the documents."""
        self.counts.queries += 1
        if limit == 0:  # which means "all" to the server
            return list
        return lambda: self._cursor(kind, fields, where, order, limit, session).to_list()

    def _cursor(
        self,
        kind: type,
        fields: Sequence[str] | None,
        where: Sequence[Where],
        order: Sequence[str],
        limit: int | None,
        session: ClientSession | None,
    ) -> Any:
        documents = documents_of(kind)
        return (
            self.link.live()
            .collections[kind]
            .find(
                documents.filter(where),
                documents.projection(fields),
                sort=documents.order(order, where) or None,
                limit=limit or 0,
                batch_size=BATCH,
                session=session,
            )
        )

    def _read(self, query: Callable[[], R]) -> R:
        try:
            return query()
        except PyMongoError as error:
            raise self.link.translate(error) from error

    def begin(self, lease: Lease | None) -> ClientSession:
        """A session for a transaction; with a lease, that which the lease row names."""
        me = (os.getpid(), threading.get_ident())
        assert me not in self._writers, "a transaction inside a transaction"
        client = self.link.live().client
        self.counts.transactions += 1
        session = self._leader_session() if lease is not None else None
        if session is None or session.in_transaction:
            session = client.start_session(causal_consistency=False)
        self._writers.add(me)
        return session

    def end(self, session: ClientSession) -> None:
        """The transaction is over."""
        self._writers.discard((os.getpid(), threading.get_ident()))
        if session is not self.link.leader_session:
            session.end_session()

    def _leader_session(self) -> ClientSession:
        live = self.link.live()
        if live.leader is None:
            live.leader = live.client.start_session(causal_consistency=False)
        return live.leader

    def renew(self, transaction: MongoTransaction, lease: Lease) -> None:
        """The last write of a leader's transaction: the fence."""
        expires_at = self.now() + (lease.expires_at - lease.taken_at)
        fence = {"token": lease.token, "holder": lease.holder}
        if not transaction.update([Change(Lease, lease.name, fence, {"expires_at": expires_at})]):
            raise _lost(lease)

    def check_lease(self, lease: Lease) -> None:
        """Raises LeaseLost if somebody else has it by now, StoreUnavailable."""
        held = self.get(Lease, lease.name)
        if held is None or (held.token, held.holder) != (lease.token, lease.holder):
            raise _lost(lease)

    def end_abandoned(self) -> None:
        """End the transactions of our kind whose process is gone, or has stopped in the middle.

        The server would keep them, and the records they wrote, for a minute. One whose connection is closed
        belongs to nobody; one that idles for seconds to a process that is stopped.
        """
        now = time.monotonic()
        if now < self._looked_at + LOOK_EVERY_S:
            return
        self._looked_at = now
        live = self.link.live()
        shown = {"idleSessions": True, "idleConnections": True, "localOps": True}
        try:
            admin = live.client.get_database("admin", read_preference=live.database.read_preference)
            found = admin.aggregate([{"$currentOp": shown}]).to_list()
            connected = {op.get("client") for op in found if op.get("type") == "op"}
            abandoned = [
                {"id": op["lsid"]["id"]}
                for op in found
                if op.get("type") == "idleSession" and op.get("appName") == self.link.appname
                if "transaction" in op and "lsid" in op
                if op.get("client") not in connected
                or op["transaction"].get("timeInactiveMicros", 0) > IDLE_S * 1e6
            ]
            if abandoned:
                self._kill(abandoned)
        except PyMongoError as error:
            raise self.link.translate(error) from error

    def _kill(self, sessions: list[dict[str, Any]]) -> None:
        self.link.live().client.get_database("admin").command("killSessions", sessions)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"the lease {lease.name!r} was lost: token {lease.token} of {lease.holder} is out of date"
    )


def open_adapter(url: str, *, clock: Clock, synchronous: str, maintain: bool) -> Store:
    """The store of a URL `mongodb://user:password@host:port,…/database?replicaSet=name&tls=true&…`.

    Durability is the majority's, journaled, whatever `synchronous` says; the server maintains itself.
    """
    return MongoStore(Link(url, clock))
