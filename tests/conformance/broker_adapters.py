"""The brokers that the conformance suite of the `Broker` port runs against: add an adapter here, nowhere
else.

An adapter gives a URL that `mq.open_broker` takes, fresh for every test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BrokerAdapter:
    """One broker under test."""

    name: str
    serve: Callable[[Path], AbstractContextManager[str]]  # scratch folder → URL, while the block runs
    processes: bool = True  # can be reached from several processes
    descriptor: bool = True  # its consumers have a `fileno`
    strict: bool = True  # gives back to the old place, so order is exact also after a nack
    priorities: bool = True  # the highest first
    prompt: bool = (
        True  # whatever was published is there at once, so `receive` may be asked with a time-out of 0
    )
    servers: bool = False  # needs a private server


@contextmanager
def _file(folder: Path) -> Iterator[str]:
    yield f"embedded://{folder}/queue"


@contextmanager
def _awkward_file(folder: Path) -> Iterator[str]:
    """A path far beyond the 107 bytes of a Unix socket, with spaces and an umlaut."""
    deep = folder.joinpath(*["a folder with spaces, längere Namen & a 100% sign #1?"] * 4)
    deep.mkdir(parents=True)
    yield f"embedded://{deep}/the queue.db"


@contextmanager
def _memory(_folder: Path) -> Iterator[str]:
    yield "embedded:///:memory:"


def _rabbit(options: str) -> Callable[[Path], AbstractContextManager[str]]:
    @contextmanager
    def serve(_folder: Path) -> Iterator[str]:
        from scripts.servers import shared

        server = shared("rabbitmq")
        url = server.fresh()
        yield url + options
        server.delete(url)

    return serve


ADAPTERS = [
    BrokerAdapter("embedded", _file),
    BrokerAdapter("embedded-awkward-path", _awkward_file),
    BrokerAdapter("embedded-memory", _memory, processes=False, descriptor=False),
    BrokerAdapter("rabbit-classic", _rabbit(""), prompt=False, servers=True),
    BrokerAdapter(
        "rabbit-quorum",
        _rabbit("?queues=quorum"),
        strict=False,
        priorities=False,  # before RabbitMQ 4
        prompt=False,
        servers=True,
    ),
]
