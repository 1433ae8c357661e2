"""A private RabbitMQ node: with its own Erlang name service and cookie, so that the machine's own is not touched.

Virtual hosts, queues and accounts are made over its HTTP interface (a few ms; the command line takes a second).
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from itertools import count
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from scripts.servers.parts import NotHere, find_program, free_port, is_open
from scripts.servers.server import Server

PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin")
CONF = """listeners.tcp.default = 127.0.0.1:{port}
management.tcp.port = {http}
management.tcp.ip = 127.0.0.1
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
log.file.level = error
"""
ADVANCED = "[{rabbit, [{channel_tick_interval, 500}]}].\n"  # how often a channel looks for late acks; usually a minute
_numbers = count(1)


def find_rabbitmq() -> Path | None:
    """The server's program, if there is one; never the wrapper that changes the user and drops the environment."""
    real = find_program("rabbitmq-server.real", PLACES[:1])
    for place in PLACES:
        if (Path(place) / "rabbitmq-server").is_file():
            return Path(place) / "rabbitmq-server"
    return real or find_program("rabbitmq-server")


class Rabbit(Server):
    """One node. `conf` are further lines of its rabbitmq.conf."""

    name: ClassVar[str] = "rabbitmq"
    setting: ClassVar[str] = "broker_url"

    def __init__(self, inside: Path | None = None, *, conf: str = "") -> None:
        super().__init__(inside)
        self.http, self._dist, self._epmd = free_port(), free_port(), free_port()
        self.conf = conf

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return self.url_of("%2F")

    def fresh(self) -> str:
        """The URL of a new virtual host."""
        vhost = f"v{next(_numbers)}"
        self.ask("PUT", f"/api/vhosts/{vhost}")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.ask("PUT", f"/api/permissions/{vhost}/guest", everything)
        return self.url_of(vhost)

    def url_of(self, vhost: str) -> str:
        """The URL of that virtual host, percent-encoded."""
        return f"amqp://guest:guest@{self.host}/{vhost}"

    def delete(self, url: str) -> None:
        """Delete the virtual host that a URL names, with all its queues."""
        self.ask("DELETE", f"/api/vhosts/{vhost_of(url)}")

    def delete_queue(self, url: str, name: str) -> None:
        """Delete a queue by its name on the server."""
        self.ask("DELETE", f"/api/queues/{vhost_of(url)}/{quote(name, safe='')}")

    def ask(self, method: str, path: str, body: object = None) -> object:
        """One request to its HTTP interface; the answer. Raises OSError."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints; takes a second. Raises ServerError."""
        program = find_rabbitmq()
        assert program is not None
        return self._run([str(program.with_name("rabbitmqctl")), *arguments])

    def logs(self) -> list[Path]:
        """The node's own."""
        return sorted((self.folder / "log").glob("*.log"))

    def _command(self) -> list[str]:
        program = find_rabbitmq()
        if program is None:
            raise NotHere("RabbitMQ", "it carries the messages", "apt install rabbitmq-server")
        return [str(program)]

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
        self.ask("GET", "/api/overview")
        return is_open(self.port)


def vhost_of(url: str) -> str:
    """The virtual host that a URL names, percent-encoded."""
    return url.partition("?")[0].rpartition("/")[2]


def rabbitmq(inside: Path | None = None, *, conf: str = "") -> Rabbit:
    """One node with a folder in `inside`, or where temporary files go; see `Rabbit`."""
    return Rabbit(inside, conf=conf)
