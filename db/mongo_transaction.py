"""A transaction on MongoDB: optimistic inside, as the port promises outside.

MongoDB aborts a transaction that meets a record which another one has written meanwhile, at once. The
port knows no such thing, so what was done is done again in a new transaction: every operation is kept
with its result, and if each gives the same result the second time, nobody can tell the difference. If one
does not, what the caller decided on is out of date: Conflict. A leader's lease is looked at first.

What reads inside a transaction wants what it read to stand until it commits; such transactions take
turns on one document. Nothing of the program does so; the port allows it.

A process that dies or stops inside a transaction would keep its records for a minute (the server's
limit). So whoever waits for long looks for such transactions and ends them (`MongoStore.end_abandoned`).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import InsertOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import ConnectionFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from db.mongo_documents import documents_of
from db.mongo_link import DURABLE, is_duplicate
from db.mongo_schema import TURNS
from scheduler.core.errors import Conflict, LeaseLost, StoreUnavailable
from scheduler.core.ports import Change, Where
from scheduler.core.records import Lease

if TYPE_CHECKING:
    from db.mongo import MongoStore

R = TypeVar("R")

log = logging.getLogger(__name__)

WAIT_S = 10.0  # for other transactions, all in all; as long as SQLite's busy time-out
COMMIT_S = 10.0  # for the answer to a commit
LOOK_AFTER = 4  # tries, before a look for transactions that nobody is going to end
_SNAPSHOT = ReadConcern("snapshot")
_TRANSIENT = "TransientTransactionError"
_UNKNOWN = "UnknownTransactionCommitResult"


class MongoTransaction:
    """The inside of `MongoStore.transaction()`; used by the thread that opened it."""

    def __init__(self, store: MongoStore, session: ClientSession, lease: Lease | None) -> None:
        self._store, self._session, self._lease = store, session, lease
        self._collections = store.link.live().collections
        self._done: list[tuple[Callable[[], Any], Any]] = []
        self._has_turn = False
        self._tries = 0
        self._deadline = 0.0  # none yet
        self.failed: Exception | None = None
        self._begin()

    # --- the port

    def insert(self, records: Sequence[Any], *, ignore: bool = False) -> int:
        """As `Transaction.insert`."""
        groups: dict[type, list[Any]] = {}
        for record in records:
            groups.setdefault(type(record), []).append(record)
        return sum([self._insert(kind, group, ignore) for kind, group in groups.items()])

    def _insert(self, kind: type, records: list[Any], ignore: bool) -> int:
        documents, collection = documents_of(kind), self._collections[kind]
        stored = [documents.document(record) for record in records]
        if not ignore:
            inserts = [InsertOne(document) for document in stored]
            return self._write(lambda: collection.bulk_write(inserts, session=self._session).inserted_count)
        upserts = []
        names = ("_id",) if documents.single else documents.table.key
        for document in stored:
            key = {name: document.pop(name) for name in names}
            upserts.append(UpdateOne(key, {"$setOnInsert": document}, upsert=True))
        return self._write(lambda: collection.bulk_write(upserts, session=self._session).upserted_count, True)

    def update(self, changes: Sequence[Change]) -> int:
        """As `Transaction.update`: one round trip for the changes of a kind, in their order."""
        groups: dict[type, list[UpdateOne]] = {}
        for change in changes:
            found, update = documents_of(change.kind).change(change)
            groups.setdefault(change.kind, []).append(UpdateOne(found, update))
        return sum([self._update(kind, updates) for kind, updates in groups.items()])

    def _update(self, kind: type, updates: list[UpdateOne]) -> int:
        collection = self._collections[kind]
        return self._write(lambda: collection.bulk_write(updates, session=self._session).matched_count)

    def delete(self, kind: type, where: Sequence[Where]) -> int:
        """As `Transaction.delete`."""
        collection, found = self._collections[kind], documents_of(kind).filter(where)
        return self._write(lambda: collection.delete_many(found, session=self._session).deleted_count)

    def find(
        self, kind: type[R], where: Sequence[Where] = (), order: Sequence[str] = (), limit: int | None = None
    ) -> list[R]:
        """As `Transaction.find`."""
        if not self._has_turn:
            turns = self._store.link.live().database[TURNS]
            one_more = {"$inc": {"n": 1}}
            self._do(lambda: turns.update_one({"_id": 1}, one_more, session=self._session).matched_count)
            self._has_turn = True
        query = self._store.query(kind, None, where, order, limit, self._session)
        return self._do(lambda: documents_of(kind).records(query()))

    # --- operations

    def _write(self, run: Callable[[], int], ignores: bool = False) -> int:
        self._store.counts.writes += 1
        return self._do(run, ignores)

    def _do(self, run: Callable[[], R], ignores: bool = False) -> R:
        while True:
            try:
                result = run()
            except PyMongoError as error:
                self._again(error, ignores)
                continue
            self._done.append((run, result))
            return result

    def _begin(self) -> None:
        self._session.start_transaction(read_concern=_SNAPSHOT, write_concern=DURABLE)

    def _again(self, error: PyMongoError, ignores: bool = False) -> None:
        """Begin anew, and do again what was done. Raises what the port says where that cannot be."""
        while True:
            # an insert that leaves what exists, and a key that came into being while it ran
            transient = error.has_error_label(_TRANSIENT) or (ignores and is_duplicate(error))
            if not transient or isinstance(error, ServerSelectionTimeoutError):
                raise self._fail(self._store.link.translate(error)) from error
            self._wait(error)
            try:
                self._begin()
                for run, result in self._done:
                    if run() != result:
                        changed = "what this transaction stands on was changed by another one"
                        raise self._fail(Conflict(changed)) from error
                return
            except PyMongoError as another:
                error = another

    def _wait(self, error: PyMongoError) -> None:
        """End this try and wait for the next one; raises LeaseLost, Conflict, StoreUnavailable."""
        self.abort()
        store, now = self._store, time.monotonic()
        if self._lease is not None:
            try:
                store.check_lease(self._lease)
            except (LeaseLost, StoreUnavailable) as lost:
                raise self._fail(lost) from error
        self._deadline = self._deadline or now + WAIT_S
        if now > self._deadline:
            if isinstance(error, ConnectionFailure):
                raise self._fail(store.link.translate(error)) from error
            held = f"another transaction kept a record that this one needs for {WAIT_S:.0f} s"
            raise self._fail(Conflict(held)) from error
        self._tries += 1
        if self._tries % LOOK_AFTER == 0:
            store.end_abandoned()
        time.sleep(random.uniform(0.0005, min(0.1, 0.001 * 2 ** min(self._tries, 10))))

    def _fail(self, error: Exception) -> Exception:
        self.failed = error
        return error

    # --- the end

    def commit(self) -> None:
        """Commit. StoreUnavailable: the outcome is unknown, whoever gets it reads again."""
        deadline = 0.0
        while True:
            try:
                self._session.commit_transaction()
                return
            except PyMongoError as error:
                if not error.has_error_label(_UNKNOWN):
                    self._again(error)
                    continue
                now = time.monotonic()
                deadline = deadline or now + COMMIT_S
                if now > deadline or isinstance(error, ServerSelectionTimeoutError):
                    text = self._store.link.masked(error)
                    raise StoreUnavailable(
                        f"store {self._store.link.shown}: the outcome of a commit is not known ({text})"
                    ) from error
                time.sleep(0.05)

    def abort(self) -> None:
        """Undo; a server that is away undoes it by itself."""
        if self._session.in_transaction:
            try:
                self._session.abort_transaction()
            except PyMongoError as error:  # its caller has an error of its own to raise
                log.debug("a transaction was not aborted: %s", self._store.link.masked(error))
