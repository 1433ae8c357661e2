"""The dashboard as a server: binding, its address, stopping, and streams over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from waitress.trigger import trigger  # type: ignore[import-untyped]

from mx import main
from scheduler.core.errors import ConfigError
from scheduler.core.process import context, managed
from scheduler.core.records import Fact
from scheduler.core.timetable import Timetable
from tests.world import World


@dataclass(frozen=True)
class Settings:
    """What run_mx reads."""

    mx_host: str = "127.0.0.1"
    mx_port: int = 0
    mx_title: str = "Flights <i>"
    box: str = "here"


@pytest.fixture
def world() -> World:
    return World([managed("hourly", "x.y:z", "hourly")], start="2020050100", now="2020-05-01T03:10")


Serve = Callable[[], int]


@pytest.fixture
def serve(world: World) -> Iterator[Serve]:
    """Starts the server; returns its port once it told its address."""
    stopping, ends = threading.Event(), list[int]()
    told = threading.Event()
    thread: list[threading.Thread] = []
    announce = main.announce

    def announce_and_tell(*args: Any) -> None:
        announce(*args)
        told.set()

    def start() -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(main, "announce", announce_and_tell)
            run = (Settings(), world.store, world.broker, world.clock, world.timetable, stopping)
            thread.append(threading.Thread(target=lambda: ends.append(main.run_mx(*run))))
            thread[0].start()
            assert told.wait(10)
        fact = world.store.get(Fact, "mx:here")
        assert fact is not None
        return int(str(fact.value["url"]).rpartition(":")[2])

    yield start
    stopping.set()
    thread[0].join(10)
    assert ends == [0]


def ask(port: int, path: str) -> tuple[int, bytes]:
    """GET, as a browser would."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_a_free_port_is_taken_and_told(serve: Serve) -> None:
    port = serve()
    status, body = ask(port, "/")
    assert status == 200 and b"Flights &lt;i&gt;" in body
    status, body = ask(port, "/healthz")
    assert status == 200 and json.loads(body)["leading"] is True


def test_a_full_house_of_streams_leaves_pages_served(serve: Serve) -> None:
    """A stream takes a thread; beyond the cap 503, and pages go on."""
    port = serve()
    streams = []
    for _ in range(main.STREAMS):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/live")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.readline().startswith(b"data: ")
        streams.append((connection, answer))
    assert ask(port, "/live")[0] == 503
    assert ask(port, "/")[0] == 200
    for connection, answer in streams:
        answer.close()
        connection.close()


def test_stopping_ends_open_streams(serve: Serve) -> None:
    port = serve()  # the fixture joins the server's thread, and so fails if the stream keeps it
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/live")
    assert connection.getresponse().readline().startswith(b"data: ")


def run(world: World, settings: Settings) -> str:
    """The one line with which it does not start."""
    parts = world.store, world.broker, world.clock, world.timetable
    with pytest.raises(ConfigError) as refused:
        main.run_mx(settings, *parts, threading.Event())
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
    assert world.store.get(Fact, "mx:here") is None
    return str(refused.value)


def test_a_taken_port_is_said_in_one_line(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"mx_port {port} is taken" in run(world, Settings(mx_port=port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_others_are_not_served_without_users(world: World, host: str) -> None:
    """Scenario 46."""
    assert "needs users" in run(world, Settings(mx_host=host))


def test_a_reload_serves_the_new_timetable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused leaves the old one in force."""
    monkeypatch.setattr(main, "LOOK_S", 0.01)
    stopping, reload, loaded = threading.Event(), threading.Event(), threading.Event()
    new = Timetable(context([managed("another", "x.y:z", "hourly")], start="2020050100"))
    answers: list[Timetable | ConfigError] = [ConfigError("two processes are named alike"), new]

    def load() -> Timetable:
        answer = answers.pop(0)
        if isinstance(answer, ConfigError):
            reload.set()  # once more
            raise answer
        loaded.set()
        return answer

    parts = world.store, world.broker, world.clock, world.timetable, stopping
    run_it = lambda: main.run_mx(Settings(), *parts, reload=reload, load_timetable=load)  # noqa: E731
    thread = threading.Thread(target=run_it)
    thread.start()
    reload.set()
    assert loaded.wait(10)
    fact = world.store.get(Fact, "mx:here")
    assert fact is not None
    port = int(str(fact.value["url"]).rpartition(":")[2])
    seen = threading.Event()
    for _ in range(200):
        if b'"another"' in ask(port, "/api/processes")[1]:
            break
        seen.wait(0.02)
    else:
        pytest.fail("the new timetable is not served")
    stopping.set()
    thread.join(10)


def test_a_stop_that_another_thread_hurries_along_closes_nothing_too_early(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    """The server's loop may find our wish to close through another's pull, before our own pull is through."""
    pull = trigger._physical_pull

    def hurried(self: Any) -> None:
        pull(self)  # another's
        while self.thunks and not self.lock.locked():
            pass  # the loop takes it up
        if self.lock.acquire(timeout=0.5):  # … and was through with it
            self.lock.release()
        pull(self)

    monkeypatch.setattr(trigger, "_physical_pull", hurried)
    assert ask(serve(), "/")[0] == 200
