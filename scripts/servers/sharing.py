"""One server of each kind for everybody in this process: started when the first asks, ended with the process.

Where the environment names one that runs, it is that one.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

from scripts.servers import maria, mongo, postgresql, rabbit, redis_server
from scripts.servers.given import Given, Source
from scripts.servers.need import Need
from scripts.servers.server import Server

KINDS: dict[str, tuple[Need, Callable[[], Server], Callable[[str], Given]]] = {
    "mongod": (mongo.NEED, mongo.MongoServer, mongo.given),
    "rabbitmq": (rabbit.NEED, rabbit.Rabbit, rabbit.given),
    "postgres": (postgresql.NEED, postgresql.Postgres, postgresql.given),
    "mariadb": (maria.NEED, maria.MariaDb, maria.given),
    "redis": (redis_server.NEED, redis_server.Redis, redis_server.given),
}
NEEDS = tuple(need for need, _make, _given in KINDS.values())

_lock = threading.Lock()
_running: dict[str, Source] = {}


def shared(name: str) -> Source:
    """The shared server of that name: mongod, rabbitmq, postgres, mariadb or redis. Raises ServerError.

    Ask it for `fresh()` databases; who wants to stop a server starts one of their own.
    """
    with _lock:
        if name not in _running:
            need, make, given = KINDS[name]
            if need.url:
                _running[name] = given(need.url)
            else:
                server = make()
                atexit.register(_close, server, os.getpid())
                _running[name] = server.start()
        return _running[name]


def _close(server: Server, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        server.close()
