"""Private instances of the servers that tests, `demo --servers`, `chaos --servers` and benches play on.

    with mongod() as server:            # or rabbitmq(), postgres(), mariadb(), redis(), mongo_set()
        store = open_store(server.fresh(), clock=clock)   # an empty database
        server.kill()                   # kill -9
        server.start()                  # the same port and data
        server.pause(); server.resume() # SIGSTOP, SIGCONT

Each listens on the loopback only, on a port of its own, in a temporary folder that is deleted in the end. None
outlives the process that started it, however that one ends (`guard`). The machine's own servers are never touched.
`needs` says which programs are there, and how to get the others.
"""

from __future__ import annotations

from scripts.servers.mariadb import MariaDb, mariadb
from scripts.servers.mongo import MongoServer, MongoSet, mongo_set, mongod
from scripts.servers.parts import NotHere, ServerError, free_port
from scripts.servers.postgres import Postgres, postgres
from scripts.servers.rabbit import Rabbit, rabbitmq
from scripts.servers.redis import Redis, redis
from scripts.servers.server import Server

__all__ = [
    "MariaDb",
    "MongoServer",
    "MongoSet",
    "NotHere",
    "Postgres",
    "Rabbit",
    "Redis",
    "Server",
    "ServerError",
    "free_port",
    "mariadb",
    "mongo_set",
    "mongod",
    "postgres",
    "rabbitmq",
    "redis",
]
