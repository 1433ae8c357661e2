"""A private RabbitMQ node: with its own Erlang name service and cookie, so that the machine's own is not touched.

Virtual hosts, queues and accounts are made over its HTTP interface (a few ms; the command line takes a second).
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlsplit

from scripts.servers.given import Given
from scripts.servers.need import Need
from scripts.servers.parts import HOST, database_of, free_port, is_open, new_name, with_database
from scripts.servers.server import Server

CONF = """listeners.tcp.default = 127.0.0.1:{port}
management.tcp.port = {http}
management.tcp.ip = 127.0.0.1
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
log.file.level = error
"""
ADVANCED = "[{rabbit, [{channel_tick_interval, 500}]}].\n"  # how often a channel looks for late acks; usually a minute
API_VARIABLE = "SYNERGY_TEST_RABBIT_API"


NEED = Need(
    name="rabbitmq",
    title="RabbitMQ",
    why="carries the messages between boxes",
    variable="SYNERGY_TEST_RABBIT_URL",
    programs=("rabbitmq-server", "rabbitmqctl"),
    places=("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin"),
    packages=(("rabbitmq-server",),),
    image="docker.io/library/rabbitmq:3-management",
    places_first=True,  # /usr/sbin has a wrapper that changes the user and drops the environment
)


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP interface of a node."""

    root: str
    user: str
    password: str

    def create(self, url: str) -> str:
        """A new virtual host for our account; the URL with it. Raises OSError."""
        vhost = new_name()
        self.ask("PUT", f"/api/vhosts/{vhost}")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.ask("PUT", f"/api/permissions/{vhost}/{quote(self.user, safe='')}", everything)
        return with_database(url, vhost)

    def delete(self, url: str) -> None:
        """Delete the virtual host that a URL names. Raises OSError."""
        self.ask("DELETE", f"/api/vhosts/{database_of(url)}")

    def ask(self, method: str, path: str, body: object = None) -> object:
        """One request; the answer. Raises OSError."""
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours, or given on purpose
            self.root.rstrip("/") + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic "
                + base64.b64encode(f"{self.user}:{self.password}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None


class Rabbit(Server):
    """One node. `conf` are further lines of its rabbitmq.conf."""

    need: ClassVar[Need] = NEED
    setting: ClassVar[str] = "broker_url"

    def __init__(self, inside: Path | None = None, *, conf: str = "") -> None:
        super().__init__(inside)
        self.http, self._dist, self._epmd = free_port(), free_port(), free_port()
        self.conf = conf
        self._api = Api(f"http://{HOST}:{self.http}", "guest", "guest")

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return self.url_of("%2F")

    def fresh(self) -> str:
        """The URL of a new virtual host."""
        return self._api.create(self.url)

    def url_of(self, vhost: str) -> str:
        """The URL of that virtual host, percent-encoded."""
        return f"amqp://guest:guest@{self.host}/{vhost}"

    def delete(self, url: str) -> None:
        """Delete the virtual host that a URL names, with all its queues."""
        self._api.delete(url)

    def delete_queue(self, url: str, name: str) -> None:
        """Delete a queue by its name on the server."""
        self.ask("DELETE", f"/api/queues/{database_of(url)}/{quote(name, safe='')}")

    def ask(self, method: str, path: str, body: object = None) -> object:
        """One request to its HTTP interface; the answer. Raises OSError."""
        return self._api.ask(method, path, body)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints; takes a second. Raises ServerError."""
        return self._run([self._tool("rabbitmqctl"), *arguments])

    def write_down(self) -> None:
        """Have what was declared on disk now, and not up to two seconds later; takes a second. Raises ServerError."""
        self.control("eval", "mnesia:sync_log().")

    def logs(self) -> list[Path]:
        """The node's own."""
        return sorted((self.folder / "log").glob("*.log"))

    def _command(self) -> list[str]:
        return [self._tool("rabbitmq-server")]

    def _prepare(self) -> None:
        folder = self.folder
        for name in ("mnesia", "log"):
            (folder / name).mkdir(exist_ok=True)
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("synergy-private-node")
            cookie.chmod(0o400)
        (folder / "rabbit.conf").write_text(CONF.format(port=self.port, http=self.http) + self.conf)
        (folder / "advanced.config").write_text(ADVANCED)
        (folder / "plugins").write_text("[rabbitmq_management].\n")

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbit.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        self.ask("GET", "/api/health/checks/virtual-hosts")  # 503 while one is being recovered
        return is_open(self.port)


def given(url: str) -> Given:
    """One that somebody else runs, with its management plugin: at SYNERGY_TEST_RABBIT_API, or on port 15672."""
    parts = urlsplit(url)
    host, user, password = parts.hostname or HOST, parts.username or "guest", parts.password or "guest"
    api = Api(os.environ.get(API_VARIABLE) or f"http://{host}:15672", user, password)
    return Given(url, lambda: api.create(url), api.delete)


def rabbitmq(inside: Path | None = None, *, conf: str = "") -> Rabbit:
    """One node with a folder in `inside`, or where temporary files go; see `Rabbit`."""
    return Rabbit(inside, conf=conf)
