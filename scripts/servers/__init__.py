"""Private instances of the servers that tests, `demo --servers`, `chaos --servers` and benches play on.

    with mongod() as server:            # or rabbitmq(), postgres(), mariadb(), redis(), mongo_set()
        store = open_store(server.fresh(), clock=clock)   # an empty database
        server.kill()                   # kill -9
        server.start()                  # the same port and data
        server.pause(); server.resume() # SIGSTOP, SIGCONT

Each listens on the loopback only, on a port of its own, in a temporary folder that is deleted in the end. None
outlives the process that started it, however that one ends (`guard`). The machine's own servers are never touched.
`NEEDS` says which programs are here and how one gets the others; `shared` is one that a whole test run shares, or the
one that a URL in the environment names.
"""

from __future__ import annotations

from scripts.servers.given import Given, Source
from scripts.servers.maria import MariaDb, mariadb
from scripts.servers.mongo import MongoServer, MongoSet, mongo_set, mongod
from scripts.servers.need import Need
from scripts.servers.parts import NotHere, ServerError, free_port
from scripts.servers.postgresql import Postgres, postgres
from scripts.servers.rabbit import Rabbit, rabbitmq
from scripts.servers.redis_server import Redis, redis
from scripts.servers.server import Server
from scripts.servers.sharing import NEEDS, shared

__all__ = [
    "NEEDS",
    "Given",
    "MariaDb",
    "MongoServer",
    "MongoSet",
    "Need",
    "NotHere",
    "Postgres",
    "Rabbit",
    "Redis",
    "Server",
    "ServerError",
    "Source",
    "free_port",
    "mariadb",
    "mongo_set",
    "mongod",
    "postgres",
    "rabbitmq",
    "redis",
    "shared",
]
