"""Writing to MongoDB so that an older execution can never overwrite a newer one's: `mongo_sink`.

The same contract as `worker.sink`, in one transaction of MongoDB (so it needs a replica set; one node is enough)::

    with mongo_sink(task.sink, task) as sink:
        sums, session = sink.database["sums"], sink.session
        sums.delete_many({"job": task.timeperiod, "slice": {"$gte": after}}, session=session)
        sums.insert_one({"job": task.timeperiod, "slice": last, "n": n}, session=session)

Every operation has to name the session, or it is not part of the transaction. The tokens are in a collection beside
the data, `synergy_sink_tokens`, one document a job; two executions that write it at the same time exclude each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from scheduler.core.errors import ConfigError
from worker.api import SinkToken, Task
from worker.sink import refuse_older

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

TOKENS = "synergy_sink_tokens"
CLAIM_S = 60.0  # how long to wait for another execution's transaction
PAUSE_S = 0.05


class MongoSink(NamedTuple):
    """What `mongo_sink` gives: name the `session` in every operation on the `database`."""

    database: Database[dict[str, Any]]
    session: ClientSession


@contextmanager
def mongo_sink(target: Any, task: Task) -> Iterator[MongoSink]:
    """One transaction at `target` for `task`; commits at the end, aborts on an exception.

    `target`: a URL with a database's name, `mongodb://host/name?replicaSet=rs0`, or a pymongo `Database`, whose client
    stays open. Raises LeaseLost if a newer execution of this job has written already; ConfigError for another target,
    or for a server that has no transactions; errors of pymongo as they are.
    """
    client, database = _opened(target, task)
    try:
        with database.client.start_session() as session:
            _refuse_standalone(database, task)
            with _begun(database, session, task):
                yield MongoSink(database, session)
    finally:
        if client is not None:
            client.close()


def _opened(target: Any, task: Task) -> tuple[MongoClient[dict[str, Any]] | None, Database[dict[str, Any]]]:
    """The client to be closed, if it is ours, and the database."""
    who = f"process {task.process!r}: "
    if hasattr(target, "client") and hasattr(target, "list_collection_names"):
        return None, target
    if not isinstance(target, str) or not target.startswith(("mongodb://", "mongodb+srv://")):
        kind = "no sink" if target is None else f"a {type(target).__name__}"
        raise ConfigError(f"{who}expected a sink mongodb://host/database or a pymongo Database, got {kind}")
    try:
        from pymongo import MongoClient
        from pymongo.errors import ConfigurationError
    except ModuleNotFoundError:
        raise ConfigError(f"{who}a mongodb:// sink needs pymongo: pip install pymongo") from None
    client: MongoClient[dict[str, Any]] = MongoClient(target, tz_aware=True)
    try:
        return client, client.get_default_database()
    except ConfigurationError:
        client.close()
        raise ConfigError(f"{who}its sink names no database; expected mongodb://host/database?…") from None


def _refuse_standalone(database: Database[dict[str, Any]], task: Task) -> None:
    hello = database.client.admin.command("hello")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise ConfigError(
            f"process {task.process!r}: its sink is a standalone mongod, which has no transactions; start it with"
            " --replSet rs0 and run rs.initiate() once"
        )


def _begun(
    database: Database[dict[str, Any]], session: ClientSession, task: Task
) -> AbstractContextManager[Any]:
    """A transaction that holds the job's token. MongoDB refuses a second writer at once; so we ask again."""
    from pymongo.errors import PyMongoError

    give_up_at = time.monotonic() + CLAIM_S
    while True:
        transaction = session.start_transaction()
        try:
            _claim(database, session, task)
            return transaction
        except PyMongoError as error:
            session.abort_transaction()
            if not error.has_error_label("TransientTransactionError") or time.monotonic() > give_up_at:
                raise
            time.sleep(PAUSE_S)
        except BaseException:
            session.abort_transaction()
            raise


def _claim(database: Database[dict[str, Any]], session: ClientSession, task: Task) -> None:
    """Write our token where the largest one stands. Raises LeaseLost if that is larger than ours."""
    tokens = database[TOKENS]
    key = {"_id": f"{task.process}@{task.timeperiod}"}
    # The write comes first: from here on nobody else writes for this job until we are done.
    before = tokens.find_one_and_update(key, {"$inc": {"writers": 1}}, upsert=True, session=session)
    if before is not None:
        refuse_older(task, SinkToken(int(before["run"]), int(before["version"])))
    ours = {"run": task.token.run, "version": task.token.version}
    tokens.update_one(key, {"$set": ours}, session=session)
