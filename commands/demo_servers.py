"""The servers that `demo` plays on: none (one file each), those of given URLs, or private MongoDB and RabbitMQ servers.

Private ones live as long as the demo and not a moment longer, however it ends; their data goes with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from scheduler.core.errors import ConfigError, SchedulerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where state and messages are."""
    parser.add_argument("--servers", action="store_true", help="play on private MongoDB and RabbitMQ servers")
    parser.add_argument("--store", metavar="URL", help="an empty database that is there; default: a file")
    parser.add_argument("--broker", metavar="URL", help="a broker that is there; default: a file")


@contextmanager
def urls_of(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """The settings `store_url` and `broker_url`, where they are not the default. Raises SchedulerError."""
    given = {"store_url": args.store, "broker_url": args.broker}
    if not args.servers:
        yield {name: url for name, url in given.items() if url}
        return
    if args.store or args.broker or args.keep:
        raise ConfigError(
            "--servers: expected alone, without --store, --broker and --keep: its servers are new and empty"
        )
    from scripts.servers import NotHere, ServerError, mongod, rabbitmq

    with ExitStack() as stack:
        say("starting private MongoDB and RabbitMQ servers …")
        servers = [mongod(), rabbitmq()]
        for server in servers:
            stack.callback(server.close)
        try:
            with ThreadPoolExecutor(len(servers)) as pool:
                list(pool.map(lambda server: server.start(), servers))
        except NotHere as error:
            raise ConfigError(f"--servers: {error}") from error
        except ServerError as error:
            raise SchedulerError(f"--servers: {error}") from error
        for server in servers:
            say(f"{server.need.title} at {server.host}, in {server.folder} while this runs")
        yield {server.setting: server.url for server in servers}
