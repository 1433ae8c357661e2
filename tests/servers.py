"""Real servers for tests: shared ones, started when the first test of a process asks, and private ones to be killed.

A test that takes one of these bears the mark `servers`. What is not there is a failure of the test, never a skip:
`launch.py test` says before the first test what is missing, or leaves the marked ones out with --no-servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from scripts.servers import MongoServer, MongoSet, Rabbit, mongo_set, mongod, rabbitmq, shared


class Fresh(Protocol):
    """Gives the URL of an empty database or virtual host, and deletes it after the test."""

    def __call__(self, server: str, options: str = "") -> str:
        """Of the shared `server`: mongod, rabbitmq, postgres, mariadb, redis. `options` as in `a=b&c=d`."""


@pytest.fixture
def fresh() -> Iterator[Fresh]:
    """Empty databases of the shared servers; as many as the test asks for."""
    with ExitStack() as ends:

        def give(server: str, options: str = "") -> str:
            source = shared(server)
            url = source.fresh()
            ends.callback(source.delete, url)
            return f"{url}{'&' if '?' in url else '?'}{options}" if options else url

        yield give


@pytest.fixture
def own_mongod() -> Iterator[MongoServer]:
    """A replica set of one that this test may kill, stop and freeze."""
    with mongod() as server:
        yield server


@pytest.fixture
def own_mongo_set() -> Iterator[MongoSet]:
    """A replica set of three, of which this test may kill any member."""
    with mongo_set() as server:
        yield server


@pytest.fixture
def own_rabbitmq() -> Iterator[Rabbit]:
    """A node that this test may kill, stop and freeze."""
    with rabbitmq() as server:
        yield server


__all__ = ["Fresh", "fresh", "own_mongo_set", "own_mongod", "own_rabbitmq"]
