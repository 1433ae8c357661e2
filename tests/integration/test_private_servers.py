"""The private servers that other tests stand on: what they keep, what they survive, and that nothing of them stays."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.servers import (
    NotHere,
    Rabbit,
    Redis,
    Server,
    ServerError,
    free_port,
    mariadb,
    mongo_set,
    mongod,
    postgres,
    rabbitmq,
    redis,
    shared,
)
from scripts.servers import guard as guard_module
from scripts.servers import redis_server as redis_module
from scripts.servers import server as server_module
from scripts.servers.guard import marked
from scripts.servers.parts import EPHEMERAL, database_of, with_database
from scripts.servers.redis_server import say
from scripts.servers.sharing import KINDS

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 30.0
pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Kind:
    """A kind of server, and how one writes to it and reads again."""

    make: Callable[[], Server]
    write: Callable[[str], object]
    read: Callable[[str], bool]


def mongo_client(url: str) -> Any:
    from pymongo import MongoClient

    return MongoClient(url)


def write_mongo(url: str) -> None:
    with mongo_client(url) as client:
        client.get_database(database_of(url)).things.insert_one({"_id": 1})


def read_mongo(url: str) -> bool:
    with mongo_client(url) as client:
        return client.get_database(database_of(url)).things.count_documents({}) == 1


def write_rabbit(url: str) -> None:
    import pika

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("things", durable=True)
        channel.basic_publish("", "things", b"1", pika.BasicProperties(delivery_mode=2))


def read_rabbit(url: str) -> bool:
    import pika

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return connection.channel().basic_get("things", auto_ack=False)[2] == b"1"


def write_postgres(url: str) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE things (a int)")
        connection.execute("INSERT INTO things VALUES (1)")


def read_postgres(url: str) -> bool:
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute("SELECT a FROM things").fetchall() == [(1,)]


def in_mariadb(url: str, *texts: str) -> Any:
    import pymysql

    host, _, port = url.partition("@")[2].partition("/")[0].partition(":")
    account = {"user": "synergy", "password": "synergy", "database": database_of(url)}
    with (
        pymysql.connect(host=host, port=int(port), **account, autocommit=True) as raw,
        raw.cursor() as cursor,
    ):
        for text in texts:
            cursor.execute(text)
        return cursor.fetchall()


ALL = {
    "mongod": Kind(mongod, write_mongo, read_mongo),
    "rabbitmq": Kind(rabbitmq, write_rabbit, read_rabbit),
    "postgres": Kind(postgres, write_postgres, read_postgres),
    "mariadb": Kind(
        mariadb,
        lambda url: in_mariadb(url, "CREATE TABLE things (a int)", "INSERT INTO things VALUES (1)"),
        lambda url: in_mariadb(url, "SELECT a FROM things") == ((1,),),
    ),
    "redis": Kind(redis, lambda url: say(url, "SET a 1"), lambda url: say(url, "EXISTS a") == ":1"),
}


@pytest.mark.parametrize("name", ALL)
def test_one_life(name: str) -> None:
    """Started, written to, killed, started again with its port and data, stopped; nothing of it stays."""
    kind = ALL[name]
    with kind.make() as server:
        port, folder, url = server.port, server.folder, server.fresh()
        assert url != server.fresh() and server.pid is not None
        kind.write(url)
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        if isinstance(server, Rabbit):
            server.write_down()
        server.kill()
        assert not server.is_running and server.pid is None and not any(map(lives, family))
        server.start()
        assert server.port == port and kind.read(url), "what was written is there after kill -9"
        with pytest.raises(ServerError, match="runs already"):
            server.start()
        server.stop()
        assert not is_open(port) and marked(folder) == []
    assert not folder.exists() and not is_open(port) and marked(folder) == []
    server.close()
    with pytest.raises(ServerError, match="was closed"):
        server.start()


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_paused_one_is_there_and_answers_nobody() -> None:
    with redis() as server:
        server.pause()
        with socket.create_connection(("127.0.0.1", server.port), 1) as connection:
            connection.settimeout(0.3)
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(16)
            server.resume()
            connection.settimeout(10)
            assert connection.recv(16) == b"+PONG\r\n"
        server.pause()
        server.stop()
        with pytest.raises(ServerError, match="does not run"):
            server.pause()


def test_pause_returns_when_every_thread_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a stop takes hold of the threads of a server milliseconds later."""
    send = guard_module.kill

    def late(pid: int, sig: int) -> None:
        threading.Timer(0.3, send, (pid, sig)).start()

    with redis() as server:
        assert server.pid is not None
        threads = psutil.Process(server.pid).threads()
        with monkeypatch.context() as busy:
            busy.setattr(server_module, "kill", late)
            server.pause()
        states = [guard_module.stat_of(Path(f"/proc/{server.pid}/task/{one.id}"))[0] for one in threads]
        assert set(states) == {"T"} and len(states) > 1


def test_a_set_of_three_elects_another_primary() -> None:
    with mongo_set() as three:
        url = three.fresh()
        write_mongo(url)
        first = three.primary()
        first.kill()
        second = three.primary()
        assert second is not first and read_mongo(url)
        first.start()
        assert sum(member.is_running for member in three.members) == 3
        folders = [member.folder for member in three.members]
    assert not any(map(Path.exists, folders))


def test_an_account_and_options() -> None:
    """A standalone that lets nobody in without a password."""
    from pymongo.errors import OperationFailure

    with mongod(replica_set="", options=["--auth"], account=("root", "secret")) as server:
        write_mongo(server.url)
        assert "replicaSet" not in server.url and "root:secret@" in server.url
        with (
            mongo_client(server.url.replace("root:secret@", "").replace("authSource=admin", "")) as client,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            client.synergy.things.find_one()


def test_what_a_server_said_is_in_the_error() -> None:
    server = mongod(options=["--nonsense"])
    with pytest.raises(ServerError, match=r"MongoDB ended with exit code 2:(.|\n)*nonsense"):
        server.start()
    server.close()


PARENT = """
import sys, threading
sys.path.insert(0, {root!r})
from scripts.servers import mongod, postgres, rabbitmq, redis
servers = []
def start():
    for make in ({servers}):
        servers.append(make().start())
thread = threading.Thread(target=start)  # its end is not the end of the servers
thread.start()
thread.join()
for server in servers:
    assert server.is_running
    print(server.port, server.folder, flush=True)
{then}
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_none_outlives_the_process_that_started_it(end: signal.Signals | None) -> None:
    then = "threading.Event().wait()" if end else ""
    servers = ["mongod", "postgres", "rabbitmq", "redis"] if end == signal.SIGKILL else ["postgres", "redis"]
    code = PARENT.format(root=str(ROOT), servers=", ".join(servers), then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    found = [parent.stdout.readline().split() for _ in servers]
    if end is None:
        assert parent.wait() == 0, "it ended by itself, and closed nothing"
        assert not any(Path(folder).exists() for _port, folder in found), "and waited until they were gone"
    else:
        assert all(is_open(int(port)) for port, _folder in found)
        parent.send_signal(end)
        parent.wait()
    parent.stdout.close()
    until = time.monotonic() + GONE_S
    while any(Path(folder).exists() or marked(folder) for _port, folder in found):
        assert time.monotonic() < until, "a server was left behind"
        time.sleep(0.1)
    assert not any(is_open(int(port)) for port, _folder in found)


def test_shared_is_one_of_each_kind_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared("redis") is shared("redis")
    need, _make, _given = KINDS["redis"]
    with redis() as server:
        monkeypatch.setitem(KINDS, "given", KINDS["redis"])
        monkeypatch.setenv(need.variable, server.url)
        named = shared("given")
        assert named.url == server.url and named.fresh() == server.url


@pytest.mark.parametrize("name", ["mongod", "rabbitmq", "postgres", "mariadb"])
def test_a_named_one_gives_fresh_databases_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared(name)
    if name == "rabbitmq":
        monkeypatch.setenv("SYNERGY_TEST_RABBIT_API", f"http://127.0.0.1:{getattr(server, 'http', 15672)}")
    named = KINDS[name][2](server.url)
    first, second = named.fresh(), named.fresh()
    ALL[name].write(first)
    ALL[name].write(second)
    assert ALL[name].read(first)
    named.delete(first)
    named.delete(second)


# -- where its programs are ---------------------------------------------------------------------------------

DOCKER = """#!{python} -I
import os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    print(*words, file=log)
if words[0] == "run":
    image = words.index({image!r})
    program = words[words.index("--entrypoint") + 1]
    for at, word in enumerate(words[:image]):
        if word == "--env":
            name, _, value = words[at + 1].partition("=")
            os.environ[name] = value
    assert program == "redis-server"
    os.execv({real!r}, [program, *words[image + 1 :]])
"""


def test_without_the_program_it_runs_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is a stand-in that notes what it was told, and runs the program itself."""
    real, log = shutil.which("redis-server"), tmp_path / "log"
    assert real is not None
    docker = tmp_path / "docker"
    image = redis_module.NEED.image
    docker.write_text(DOCKER.format(python=sys.executable, log=str(log), image=image, real=real))
    docker.chmod(0o755)
    monkeypatch.setattr(Redis, "need", replace(redis_module.NEED, places=()))
    monkeypatch.setenv("PATH", str(tmp_path))
    with redis() as server:
        say(server.url, "SET a 1")
        server.kill()
        server.start()
        assert say(server.url, "EXISTS a") == ":1"
        name = server.folder.name
    said = log.read_text().splitlines()
    assert said[:2] == ["info", f"image inspect {image}"]
    assert said[2].startswith(
        f"run --rm --name {name}-1 --network host --user {os.geteuid()}:{os.getegid()} --volume "
    )
    assert [line for line in said if line.startswith("rm")] == [
        f"rm --force {name}-1",
        f"rm --force {name}-2",
    ]


def test_what_is_nowhere_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "need", replace(redis_module.NEED, places=()))
    monkeypatch.setenv("PATH", str(tmp_path))
    server = redis()
    with pytest.raises(
        NotHere, match=r"no Redis on this machine .*: apt install redis-server, or SYNERGY_TEST_R"
    ):
        server.start()
    server.close()


def test_ports_are_none_that_an_outgoing_connection_may_get() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert max(ports) < int(EPHEMERAL.read_text().split()[0])


def test_another_database_of_the_same_server() -> None:
    assert with_database("a://u:p@h:1,h:2/b?c=d", "e") == "a://u:p@h:1,h:2/e?c=d"
    assert with_database("a://h", "e") == "a://h/e"
    assert database_of("a://h/b?c=/d") == "b"
