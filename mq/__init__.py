"""The queues: `open_broker(url)` gives the broker (`scheduler.core.ports.Broker`) a URL names.

An adapter is imported when its scheme is asked for, so that a program pays for no driver it does not use.
Nothing here knows what a message means: it carries the id of a unit of work, and the store decides.
"""

from __future__ import annotations

from scheduler.core.errors import ConfigError
from scheduler.core.ports import Broker

__all__ = ["open_broker"]


def open_broker(url: str) -> Broker:
    """The broker of `url`: `embedded:///absolute/path/of/the/queue/file`, or `amqp://user:password@host/vhost`.

    The rest of an embedded URL is a path as it is, without percent escapes, or `/:memory:`. What else an `amqp://`
    or `amqps://` URL may say stands in `mq.rabbit_url`; it is not connected to before it is used. Raises ConfigError
    if the URL names no broker of ours, BrokerUnavailable if it cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "embedded":
        from mq.embedded import EmbeddedBroker

        path = rest[1:] if rest == "/:memory:" else rest
        if path != ":memory:" and (not path.startswith("/") or path.endswith("/") or "\0" in path):
            raise ConfigError(f"broker {url!r}: expected embedded:///absolute/path/of/a/file")
        return EmbeddedBroker(path)
    if separator and scheme in ("amqp", "amqps"):
        from mq.rabbit import RabbitBroker
        from mq.rabbit_url import read_url

        return RabbitBroker(read_url(url, _without_password(url)))
    known = "amqp://user:password@host:port/vhost or embedded:///absolute/path/of/a/file"
    raise ConfigError(f"broker {_without_password(url)!r}: unknown scheme; expected {known}")


def _without_password(url: str) -> str:
    """`url` as it may be shown: what stands between the user's name and the @ is masked."""
    scheme, separator, rest = url.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{account.partition(':')[0]}:***@{host}" if at and ":" in account else url
