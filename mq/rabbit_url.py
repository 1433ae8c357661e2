"""The URL of a RabbitMQ broker, read once: hosts, account, virtual host, TLS, kind of queues.

`amqp://user:password@h1:5672,h2:5672/vhost?queues=classic&heartbeat=30&timeout=3`; `amqps://` is the same over
TLS, with `ca`, `cert` and `key` as paths of PEM files. User, password and virtual host are percent-decoded; no
virtual host means `/`. Several installations share a server by a virtual host each. Nothing connects here.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from scheduler.core.errors import ConfigError

EXAMPLE = "amqp://user:password@host:5672/vhost"
KINDS = ("classic", "quorum")
OPTIONS = ("queues", "heartbeat", "timeout", "ca", "cert", "key")
PORTS = {"amqp": 5672, "amqps": 5671}
CONNECT_S = 5.0  # to reach one host
OPEN_S = 10.0  # to be let in
BLOCKED_S = 60.0  # the broker took nothing (an alarm of memory or disk) for so long: connect anew


@dataclass(frozen=True, slots=True)
class Server:
    """Where the broker is, and how to talk to it. `heartbeat` and `timeout_s` are seconds."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: ssl.SSLContext | None = None
    kind: str = "classic"
    heartbeat: int = 30
    timeout_s: float = 3.0

    def shown(self, host: int = 0) -> str:
        """One of the hosts as it may be shown to people: without the password."""
        name, port = self.hosts[host % len(self.hosts)]
        where = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        return f"{'amqps' if self.tls else 'amqp'}://{self.user}@{where}/{'' if self.vhost == '/' else self.vhost}"

    def parameters(self, host: int, purpose: str) -> Any:
        """What pika needs to connect to the host of that number (taken round and round)."""
        import pika

        name, port = self.hosts[host % len(self.hosts)]
        return pika.ConnectionParameters(
            host=name,
            port=port,
            virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat,
            blocked_connection_timeout=BLOCKED_S,
            socket_timeout=CONNECT_S,
            stack_timeout=OPEN_S,
            connection_attempts=1,
            ssl_options=None if self.tls is None else pika.SSLOptions(self.tls, name),
            client_properties={"connection_name": f"synergy {purpose}", "product": "Synergy Scheduler"},
        )


def read_url(url: str, masked: str) -> Server:
    """The server that `url` names; `masked` is the URL as errors may show it. Raises ConfigError, one line."""

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"broker {masked!r}: {what}")

    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    place, _, vhost = rest.partition("/")
    account, at, hosts = place.rpartition("@")
    user, colon, password = account.partition(":")
    if "/" in vhost or "#" in rest:
        raise wrong(
            f"expected one virtual host and nothing behind it (a / in its name is %2F), as in {EXAMPLE}"
        )
    if not hosts or (at and not user):
        raise wrong(f"expected {EXAMPLE}")
    options = _options(query, wrong)
    kind = options.get("queues", KINDS[0])
    if kind not in KINDS:
        raise wrong(f"queues={kind}: expected {' or '.join(KINDS)}")
    return Server(
        hosts=tuple(_host(host, PORTS[scheme], wrong) for host in hosts.split(",")),
        user=unquote(user) if at else "guest",
        password=unquote(password) if colon else "guest",
        vhost=unquote(vhost) or "/",
        tls=_tls(options, wrong, scheme == "amqps"),
        kind=kind,
        heartbeat=int(_number(options, "heartbeat", 30, 1, 3600, wrong)),
        timeout_s=_number(options, "timeout", 3.0, 0.05, 600, wrong),
    )


def _options(query: str, wrong: Any) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise wrong("expected ?name=value&… behind the virtual host") from error
    for name in options:
        if name not in OPTIONS:
            raise wrong(f"unknown option {name!r}; expected one of {', '.join(OPTIONS)}")
    return options


def _number(
    options: dict[str, str], name: str, default: float, least: float, most: float, wrong: Any
) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise wrong(f"{name}={text}: expected seconds from {least:g} to {most:g}")
    return value


def _host(text: str, port: int, wrong: Any) -> tuple[str, int]:
    """`host`, `host:port`, `[IPv6]` or `[IPv6]:port`."""
    if text.startswith("["):
        name, bracket, behind = text[1:].partition("]")
        number = behind[1:] if behind.startswith(":") else ""
        sound = bool(bracket) and (not behind or bool(number))
    else:
        name, colon, number = text.partition(":")
        sound = not colon or bool(number)
    if not name or not sound or (number and not (number.isdecimal() and 0 < int(number) < 65536)):
        raise wrong(f"{text!r} is no host; expected host:port[,host:port], as in {EXAMPLE}")
    return name, int(number) if number else port


def _tls(options: dict[str, str], wrong: Any, is_on: bool) -> ssl.SSLContext | None:
    for name in ("ca", "cert", "key"):
        if name in options and not is_on:
            raise wrong(f"{name} is for TLS; expected amqps:// with it")
        if name in options and not Path(options[name]).is_file():
            raise wrong(f"{name}={options[name]}: there is no such file")
    if not is_on:
        return None
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except (ssl.SSLError, OSError) as error:
        raise wrong(f"its certificates cannot be used: {error}") from error
    return context
