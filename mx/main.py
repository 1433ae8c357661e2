"""Run the dashboard: bind, serve in threads, say where, and stop when told.

One thread per open event stream, so there are more threads than streams: pages are always served.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from waitress.server import create_server  # type: ignore[import-untyped]

from mx.app import App
from mx.live import Hub
from mx.security import Tokens, check_bind
from mx.site import Site
from scheduler.core.errors import ConfigError, Unavailable
from scheduler.core.ports import Broker, Change, Clock, Store
from scheduler.core.records import Fact
from scheduler.core.timetable import Timetable

THREADS = 20
STREAMS = 12  # event streams at once; the other threads are for pages
STOP_S = 3.0
LOOK_S = 1.0

log = logging.getLogger("mx")


class Settings(Protocol):
    """What the dashboard reads of the settings."""

    @property
    def mx_host(self) -> str:
        """The address to bind to; loopback, as long as there are no users."""

    @property
    def mx_port(self) -> int:
        """The port; 0 takes a free one."""

    @property
    def mx_title(self) -> str:
        """The title of the pages."""

    @property
    def box(self) -> str:
        """The name of this box."""


def make_site(
    settings: Settings,
    store: Store,
    broker: Broker,
    clock: Clock,
    timetable: Timetable,
    stopping: threading.Event,
) -> Site:
    """Everything the handlers need. Raises ConfigError for an address that others can reach."""
    return Site(
        store=store,
        broker=broker,
        clock=clock,
        timetable=timetable,
        tokens=Tokens(),
        hub=Hub(clock, stopping, cap=STREAMS),
        hosts=check_bind(settings.mx_host),
        title=settings.mx_title,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError naming the setting to change."""
    name = "127.0.0.1" if host == "localhost" else host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((name, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"mx_port {port} is taken by another program; choose a free one, or 0 for any"
            ) from error
        raise ConfigError(f"mx_host {host!r}, mx_port {port} cannot be served: {error.strerror}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(store: Store, clock: Clock, box: str, url: str) -> None:
    """Write the real address down, so that others can show it."""
    key, value = f"mx:{box}", {"url": url, "since": clock.real().isoformat(timespec="milliseconds")}
    with store.transaction() as tx:
        if not tx.update([Change(Fact, key, {}, {"value": value})]):
            tx.insert([Fact(key=key, value=value)], ignore=True)


def _announced(store: Store, clock: Clock, box: str, url: str) -> bool:
    """Try to; a store that cannot be reached is shown by the pages, and is no reason to end."""
    try:
        announce(store, clock, box, url)
    except Unavailable as error:
        log.warning("the address %s could not be written down: %s", url, error)
        return False
    return True


def run_mx(
    settings: Settings,
    store: Store,
    broker: Broker,
    clock: Clock,
    timetable: Timetable,
    stopping: threading.Event,
    *,
    reload: threading.Event | None = None,
    load_timetable: Callable[[], Timetable] | None = None,
) -> int:
    """Serve until `stopping` is set; the exit code. Raises ConfigError if it cannot be served.

    When `reload` is set, the timetable that `load_timetable` returns is served from then on, at the same
    address; one that is refused leaves the old one in force.
    """
    site = make_site(settings, store, broker, clock, timetable, stopping)
    listener = bind(settings.mx_host, settings.mx_port)
    app = App(site)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a queue of a few requests is no news
    server = create_server(
        app, sockets=[listener], threads=THREADS, ident=None, clear_untrusted_proxy_headers=True
    )
    serving = threading.Thread(target=server.run, name="mx-http", daemon=True)
    serving.start()
    try:
        _tend(app, settings.box, address_of(listener), stopping, reload, load_timetable)
    finally:
        stopping.set()  # ends the streams, whoever asked us to stop
        server.task_dispatcher.shutdown(timeout=STOP_S)  # first whoever still answers, then the sockets
        pulled = threading.Event()
        server.trigger.pull_trigger(lambda: _close(server, pulled))
        pulled.set()
        serving.join(STOP_S)
        listener.close()
    return 0


def _close(server: Any, pulled: threading.Event) -> None:
    """Close every connection, then the server; in the server's own thread, whose loop ends by it.

    Another thread's pull of the trigger may bring us here before our own is through: not to be closed under it.
    """
    pulled.wait(STOP_S)
    for channel in list(server.active_channels.values()):
        channel.handle_close()
    server.close()


def _tend(
    app: App,
    box: str,
    url: str,
    stopping: threading.Event,
    reload: threading.Event | None,
    load_timetable: Callable[[], Timetable] | None,
) -> None:
    """Write the address down, and take over a new timetable when told, until it is time to stop."""
    told = _announced(app.site.store, app.site.clock, box, url)
    while not stopping.wait(LOOK_S if reload is not None or not told else None):
        told = told or _announced(app.site.store, app.site.clock, box, url)
        if reload is not None and load_timetable is not None and reload.is_set():
            reload.clear()
            try:
                app.site = replace(app.site, timetable=load_timetable())
                log.info("the context was loaded anew")
            except ConfigError as error:
                log.error("the context was not reloaded, the old one stays in force: %s", error)
