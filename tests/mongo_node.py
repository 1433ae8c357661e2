"""Private mongod processes for tests: on a free port, in a folder of their own, gone at the end.

The program is `SYNERGY_MONGOD`, the one on PATH, or that of the wheel of the test extras. None there is an
error: a test that needs a server fails without it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

UP_S = 20.0
SPARE = (
    "--bind_ip=127.0.0.1",
    "--nounixsocket",
    "--wiredTigerCacheSizeGB=0.25",
    "--oplogSize=64",
    "--setParameter=shutdownTimeoutMillisForSignaledShutdown=0",
    "--setParameter=diagnosticDataCollectionEnabled=false",
)


def program() -> str:
    """The path of mongod."""
    wheel = Path(sysconfig.get_path("purelib")) / "fiftyone" / "db" / "bin" / "mongod"
    found = os.environ.get("SYNERGY_MONGOD") or shutil.which("mongod") or (wheel.is_file() and str(wheel))
    assert found, "no mongod: put it on PATH, or name it in SYNERGY_MONGOD"
    return found


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class MongoNode:
    """One mongod. `options` are those of its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def host(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [program(), f"--dbpath={self.folder}", f"--port={self.port}", *SPARE, *self.options]
        log = (self.folder / "out").open("ab")
        with log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.ask("ping", patience_s=UP_S)

    def ask(self, command: str | dict[str, Any], patience_s: float = 0.0) -> dict[str, Any]:
        """Run a command on this very node."""
        deadline = time.monotonic() + patience_s
        while True:
            client: MongoClient[dict[str, Any]] = MongoClient(
                f"mongodb://{self.host}/?directConnection=true", serverSelectionTimeoutMS=500
            )
            try:
                return client.get_database("admin").command(command)
            except PyMongoError:
                if time.monotonic() > deadline:
                    raise
            finally:
                client.close()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and delete its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def initiate(nodes: Sequence[MongoNode], name: str = "r") -> None:
    """Make a replica set of them, and wait for its primary."""
    settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200}
    members = [{"_id": n, "host": node.host} for n, node in enumerate(nodes)]
    nodes[0].ask({"replSetInitiate": {"_id": name, "members": members, "settings": settings}})
    client: MongoClient[dict[str, Any]] = MongoClient(
        f"mongodb://{','.join(node.host for node in nodes)}/?replicaSet={name}",
        serverSelectionTimeoutMS=int(UP_S * 1000),
    )
    try:
        client.get_database("admin").command("ping")
    finally:
        client.close()
