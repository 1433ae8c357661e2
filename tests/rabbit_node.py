"""A private RabbitMQ node for tests: own folder, own ports, own Erlang name service; nothing of the machine's own.

`node.url()` gives a fresh virtual host. Made and stopped through the node's HTTP interface and its process group.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

BIN = Path("/usr/lib/rabbitmq/bin")
UP_S = 90.0
CONF = """listeners.tcp.default = 127.0.0.1:{amqp}
management.tcp.port = {http}
management.tcp.ip = 127.0.0.1
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
log.file.level = error
"""
ADVANCED = "[{rabbit, [{channel_tick_interval, 500}]}].\n"  # how often a channel looks for late acks
_numbers = count(1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RabbitNode:
    """One node in `folder`."""

    def __init__(self, folder: Path, conf: str = CONF) -> None:
        self.folder = folder
        self.amqp, self.http, self._dist, self._epmd = (free_port() for _ in range(4))
        for name in ("home", "mnesia", "log"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        cookie = folder / "home" / ".erlang.cookie"
        cookie.write_text("synergy-tests")
        cookie.chmod(0o400)
        (folder / "rabbit.conf").write_text(conf.format(amqp=self.amqp, http=self.http))
        (folder / "advanced.config").write_text(ADVANCED)
        (folder / "plugins").write_text("[rabbitmq_management].\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": f"t{self.amqp}@localhost",
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
        }

    def start(self) -> None:
        """Start it, and return when it answers."""
        with (self.folder / "out.log").open("ab") as out:
            self._process = subprocess.Popen(
                [str(BIN / "rabbitmq-server")],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until = time.monotonic() + UP_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "out.log").read_text()[-2000:]
            assert time.monotonic() < until, f"the node did not answer within {UP_S:g} s"
            threading.Event().wait(0.1)

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/api/overview")
            with socket.create_connection(("127.0.0.1", self.amqp), 1):
                return True
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it; what is durable stays in its folder."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        subprocess.run(
            ["epmd", "-port", str(self._epmd), "-kill"],
            env=self._environment,
            capture_output=True,
            check=False,
        )

    def close(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, options: str = "", port: int | None = None, vhost: str | None = None) -> str:
        """The URL of a virtual host that is new, or of that one."""
        if vhost is None:
            vhost = f"v{next(_numbers)}"
            self.ask("PUT", f"/api/vhosts/{vhost}")
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            self.ask("PUT", f"/api/permissions/{vhost}/guest", everything)
        return f"amqp://guest:guest@127.0.0.1:{port or self.amqp}/{vhost}{options}"

    def delete_vhost(self, url: str) -> None:
        """The end of it."""
        with contextlib.suppress(OSError):
            self.ask("DELETE", f"/api/vhosts/{vhost_of(url)}")

    def delete_queue(self, url: str, name: str) -> None:
        """Delete a queue by its name on the server."""
        self.ask("DELETE", f"/api/queues/{vhost_of(url)}/{quote(name, safe='')}")

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers."""
        done = subprocess.run(
            [str(BIN / "rabbitmqctl"), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def close_late_consumers(self, after_ms: int) -> None:
        """Channels opened from now on are closed after so long without an ack."""
        self.ctl("eval", f"application:set_env(rabbit, consumer_timeout, {after_ms}).")

    def ask(self, method: str, path: str, body: object = None) -> object:
        """One request to its HTTP interface. Raises OSError."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def vhost_of(url: str) -> str:
    """The virtual host that a URL of ours names."""
    return url.rpartition("/")[2].partition("?")[0]


@contextlib.contextmanager
def node_in(folder: Path) -> Iterator[RabbitNode]:
    """A node while the block runs."""
    node = RabbitNode(folder)
    try:
        node.start()
        yield node
    finally:
        node.close()


_shared: list[RabbitNode] = []


def shared_node() -> RabbitNode:
    """The node that all tests of this process share, started when the first asks."""
    import atexit
    import tempfile

    if not _shared:
        node = RabbitNode(Path(tempfile.mkdtemp(prefix="synergy-rabbit-")))
        atexit.register(node.close)
        node.start()
        _shared.append(node)
    return _shared[0]
