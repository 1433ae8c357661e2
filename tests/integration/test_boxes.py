"""Two boxes on one machine, each in a network of its own, over real MongoDB and RabbitMQ servers (27, 44, 72).

A box is a network namespace that reaches the servers over a link of its own; to lose the network, the link is
taken down. Where namespaces are not allowed (they need root) the boxes share the machine's network, which is said,
and the link is a proxy that cuts and refuses.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
import pytest

from db import open_store
from scheduler.clock import SystemClock
from scheduler.core.job import Job
from scheduler.core.ports import Store, Where
from scheduler.core.records import BoxProcess
from scheduler.core.uow import Uow
from scripts.servers import shared
from tests.cut_proxy import CutProxy

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
PROGRAM = "import sys, commands; sys.exit(commands.main(sys.argv[1:]))"
LEASE_S = 3
T = TypeVar("T")
_numbers = itertools.count(os.getpid() % 200 * 100)

CONTEXT = """
import os
from synergy import Retry, daemon, managed, queue, tree
synergy_start_timeperiod = "{start}"
process_context = [
    managed("meter_hourly", "meter_work:run", "hourly", max_active=6, retry=Retry(max_retries=0)),
    managed("special_hourly", "meter_work:run", "hourly", queue="special", boxes=["north*"], max_active=4),
    managed("meter_daily", "meter_work:run", "daily", blocking="children", queue="special", boxes=["north*"]),
    daemon("ticker", "meter_work:tick", boxes=["sou*"]),
    {more}
]
timetable_context = [tree("meter", ["meter_hourly", "meter_daily"])]
queue_context = [queue("default", workers=1, slots=2), queue("special", boxes=["north*"])]
"""
WORK = """
import os, time
from pathlib import Path
def run(task):
    log = Path(os.environ["WORK_LOG"])
    with log.open("a") as file:
        file.write(f"{task.process}@{task.timeperiod} {os.environ['SYNERGY_BOX']} begins\\n")
    time.sleep(float((log.parent / "pace").read_text()))
    with log.open("a") as file:
        file.write(f"{task.process}@{task.timeperiod} {os.environ['SYNERGY_BOX']} ends\\n")
def tick(daemon):
    daemon.stopping.wait()
"""


def until(condition: Callable[[], T], what: Callable[[], str] | str) -> T:
    """What `condition` returns once it is true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)
    return found


class Link:
    """How one box reaches the servers: URLs as seen from there, a prefix for its commands, up and down."""

    def __init__(self, store_url: str, broker_url: str) -> None:
        self.number = next(_numbers)
        self.prefix: list[str] = []
        self._stack = ExitStack()
        here = "127.0.0.1"
        self.is_apart = _may_have_namespaces()
        if self.is_apart:
            here = self._make_namespace()
        else:
            warnings.warn("network namespaces are not allowed here: a proxy plays the link", stacklevel=2)
        self._proxies: list[CutProxy] = []
        self.store_url, self.broker_url = (self._through(url, here) for url in (store_url, broker_url))
        self.store_url += "?directConnection=true"

    def _make_namespace(self) -> str:
        name, low, high = f"syn{self.number}", self.number % 250, self.number // 250 % 250
        outside, inside = f"10.{200 + high % 50}.{low}.1", f"10.{200 + high % 50}.{low}.2"
        self.device = f"{name}o"
        for words in (
            f"netns add {name}",
            f"link add {self.device} type veth peer name {name}i netns {name}",
            f"addr add {outside}/30 dev {self.device}",
            f"link set {self.device} up",
            f"-n {name} addr add {inside}/30 dev {name}i",
            f"-n {name} link set {name}i up",
            f"-n {name} link set lo up",
        ):
            _ip(words)
        self._stack.callback(_ip, f"netns del {name}")
        self.prefix = ["ip", "netns", "exec", name]
        return outside

    def _through(self, url: str, here: str) -> str:
        parts = urlsplit(url)
        proxy = CutProxy(parts.hostname or "", parts.port or 0, here)
        self._proxies.append(proxy)
        self._stack.callback(proxy.close)
        account, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{account}{at}{here}:{proxy.port}", query="").geturl()

    def down(self) -> None:
        """Nothing goes through any more."""
        if self.is_apart:
            _ip(f"link set {self.device} down")
        else:
            for proxy in self._proxies:
                proxy.refuse(True)

    def up(self) -> None:
        """It does again."""
        if self.is_apart:
            _ip(f"link set {self.device} up")
        else:
            for proxy in self._proxies:
                proxy.refuse(False)

    def close(self) -> None:
        """Take the network away."""
        self._stack.close()


def _may_have_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"synprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip(f"netns del {name}")
    return made


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


class Box:
    """A box: its name, its link, a state folder of its own, and the commands typed on it."""

    def __init__(self, name: str, folder: Path, link: Link) -> None:
        self.name, self.folder, self.link = name, folder, link
        self.state = folder / f"state-{name}"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SYNERGY_")}

    def type(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*self.link.prefix, sys.executable, "-c", PROGRAM, *words],
            env={
                **self.environment,
                "SPT_NOENV": "1",
                "PYTHONPATH": str(ROOT),
                "SYNERGY_CONTEXT": str(self.folder),
                "SYNERGY_BOX": self.name,
                "SYNERGY_STATE_FOLDER": str(self.state),
                "SYNERGY_STORE_URL": self.link.store_url,
                "SYNERGY_BROKER_URL": self.link.broker_url,
                "WORK_LOG": str(self.folder / "work.log"),
            },
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def ok(self, *words: str) -> str:
        code, out, err = self.type(*words)
        assert code == 0, f"{self.name}: {words} → {code}: {out}{err}{self.logs()}"
        return out

    def living(self) -> list[psutil.Process]:
        """All processes of this box."""
        mine = []
        for process in psutil.process_iter(["pid", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("SYNERGY_STATE_FOLDER") == str(self.state):
                mine.append(process)
        return mine

    def logs(self) -> str:
        parts = [f"== {p.name}\n{p.read_text()[-2000:]}" for p in sorted(self.state.glob("logs/*"))]
        return "\n".join(parts)

    def clean(self) -> None:
        for process in self.living():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                pass


class Site:
    """Two boxes, north and south, on the same servers."""

    def __init__(self, folder: Path, store_url: str, north: Link, south: Link) -> None:
        self.folder, self.store_url = folder, store_url
        self.north, self.south = Box("north", folder, north), Box("south-1", folder, south)

    def write(self, more: str = "", pace_s: float = 0.05) -> None:
        start = datetime.now(UTC) - timedelta(hours=30)
        text = CONTEXT.format(start=f"{start:%Y%m%d%H}", more=more)
        (self.folder / "process_context.py").write_text(text)
        (self.folder / "meter_work.py").write_text(WORK)
        (self.folder / "pace").write_text(str(pace_s))
        (self.folder / "synergy.toml").write_text(
            f"mx_port = 0\ngrace_s = 6\ndrain_s = 1\nleader_lease_s = 2\nworker_lease_s = {LEASE_S}\nsweep_s = 1\n"
        )

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = open_store(self.store_url, clock=SystemClock(lambda: None))
        try:
            yield store
        finally:
            store.close()

    def work(self) -> list[list[str]]:
        """What the workers wrote: job, box, begins or ends."""
        log = self.folder / "work.log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def logs(self) -> str:
        return f"NORTH\n{self.north.logs()}\nSOUTH\n{self.south.logs()}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store_url, broker_url = shared("mongod").fresh(), shared("rabbitmq").fresh()
    with ExitStack() as stack:
        links = [Link(store_url, broker_url), Link(store_url, broker_url)]
        for link in links:
            stack.callback(link.close)
        made = Site(tmp_path, store_url, *links)
        made.write()
        stack.callback(made.north.clean)
        stack.callback(made.south.clean)
        yield made


def unfinished(store: Store) -> int:
    """Jobs of periods that are over for long and are not done."""
    old = datetime.now(UTC) - timedelta(hours=3)
    return sum(
        store.count(Job, [Where("process", "=", name), Where("end", "<", old), Where("open", "=", True)]).get(
            (), 0
        )
        for name in ("meter_hourly", "special_hourly", "meter_daily")
    )


def silent_on(box: Box) -> set[str]:
    """The processes of the other box of which nobody knows, as `status` says."""
    rows = json.loads(box.type("status", "--json")[1])["processes"]
    return {row["name"] for row in rows if row["state"] == "SILENT" and row["box"] != box.name}


def test_44_each_box_runs_what_is_meant_for_it_and_shares_the_rest(site: Site) -> None:
    site.write(pace_s=0.5)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda box: box.ok("start"), (site.north, site.south)))
    with site.store() as store:
        rows = {row.id: row for row in store.find(BoxProcess)}
        here = {"supervisor", "scheduler", "mx", "worker.default.1"}
        assert set(rows) == {
            *(f"north/{name}" for name in (*here, "worker.special.1")),
            *(f"south-1/{name}" for name in (*here, "ticker")),
        }
        until(lambda: store.count(Job).get((), 0) > 60 and unfinished(store) == 0, site.logs)
    boxes: dict[str, set[str]] = {}
    for job, box, _what in site.work():
        boxes.setdefault(job.partition("@")[0], set()).add(box)
    assert boxes["meter_hourly"] == {"north", "south-1"}, "both take from the queue they share"
    assert boxes["special_hourly"] == {"north"}

    # what is new is taken over, and nobody else restarted; one box steers what belongs to the other
    before = {id_: row.pid for id_, row in rows.items()}
    site.write(more='daemon("fresh", "meter_work:tick", boxes=["south-?"]),')
    site.south.ok("reload")
    with site.store() as store:
        fresh = [Where("id", "=", "south-1/fresh"), Where("state", "=", "RUNNING")]
        until(lambda: store.find(BoxProcess, fresh), "the new daemon")
        others = store.find(BoxProcess, [Where("id", "!=", "south-1/fresh")])
        assert {row.id: row.pid for row in others} == before
    shown = json.loads(site.north.type("status", "--json")[1])
    assert {row["box"] for row in shown["processes"]} == {"north", "south-1"}

    # the scheduler of one box stands by for the other's
    leader = shown["leader"]["holder"] if isinstance(shown["leader"], dict) else shown["leader"]
    first, second = (site.north, site.south) if leader.startswith("north") else (site.south, site.north)
    first.ok("stop")
    assert first.living() == []
    with site.store() as store:
        held = until(
            lambda: [
                row
                for row in store.find(BoxProcess, [Where("box", "=", second.name)])
                if row.kind == "scheduler"
            ],
            "the other's scheduler",
        )
        assert held[0].state == "RUNNING"
    assert second.type("status")[0] == 0
    until(
        lambda: second.name in str(json.loads(second.type("status", "--json")[1])["leader"]),
        "the other scheduler leads",
    )
    second.ok("stop")


def test_27_and_72_a_box_that_loses_its_network_loses_its_work_and_nothing_else(site: Site) -> None:
    """Scenarios 27 and 72: its workers stop what they may not finish, another box does it, and it is shown."""
    site.write(pace_s=12)  # much longer than a lease
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda box: box.ok("start"), (site.north, site.south)))
    with site.store() as store:
        at_work = [Where("state", "=", "in_progress"), Where("owner", "prefix", "south-1/")]
        lost = until(lambda: store.find(Uow, at_work), "work on the southern box")
        site.south.link.down()
        (site.folder / "pace").write_text("0.05")
        for uow in lost:
            ended = [Where("id", "=", f"{uow.process}@{uow.timeperiod}"), Where("open", "=", False)]
            until(partial(store.find, Job, ended), site.logs)
            found = store.get(Uow, uow.id)
            assert found is not None and found.state == "processed" and found.attempt == uow.attempt + 1
            assert found.owner is None or found.owner.startswith("north/")
        ends = [(job, box) for job, box, what in site.work() if what == "ends"]
        for uow in lost:
            assert (f"{uow.process}@{uow.timeperiod}", "south-1") not in ends, "it was stopped in time"
        silent = until(lambda: silent_on(site.north), lambda: site.north.type("status")[1])
        assert silent == {"supervisor", "scheduler", "mx", "worker.default.1", "ticker"}
        site.south.link.up()
        until(lambda: unfinished(store) == 0, site.logs)
        # back again, by itself: it takes work
        site.write(more='managed("again_hourly", "meter_work:run", "hourly", max_active=6),', pace_s=2)
        site.north.ok("reload")
        site.south.ok("reload")
        until(
            lambda: "south-1" in {box for job, box, _ in site.work() if job.startswith("again_hourly")},
            site.logs,
        )
        uows = store.find(Uow, [Where("kind", "=", "work")])
        for uow in uows:
            accepts = uow.history.count('"verb":"accept"') + (uow.state == "requested")  # that one is to come
            assert accepts == uow.attempt or '"verb":"release"' in uow.history, uow.history
    lines = sum(len(path.read_text().splitlines()) for path in (site.south.state / "logs").glob("*.log"))
    assert lines < 400, "what happened is said in lines, not in thousands\n" + site.south.logs()
    site.south.ok("stop")
    site.north.ok("stop")
    assert site.south.living() == [] and site.north.living() == []


@pytest.mark.timeout(300)
def test_the_flights_are_counted_right_by_workers_on_two_boxes(tmp_path: Path, raw: Path) -> None:
    """The demo plays on one box, its second worker is on another; the box of the demo has the feed."""
    store_url, broker_url = shared("mongod").fresh(), shared("rabbitmq").fresh()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SYNERGY_")},
        "FLIGHTS_FEED_BOX": "one",
        "FLIGHTS_STATE": str(tmp_path / "one" / "flights"),
        "FLIGHTS_START": "2013121500",
        "FLIGHTS_DATA": str(raw),
        "PYTHONPATH": str(ROOT),
        "SPT_NOENV": "1",
    }
    words = [
        "--state-folder",
        str(tmp_path / "one"),
        "--port",
        "0",
        "--store",
        store_url,
        "--broker",
        broker_url,
    ]
    days = ["--from", "2013-12-15", "--live", "2013-12-31T00", "--rate", "3600"]
    with (tmp_path / "output").open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "demo", "--exit", *words, *days],
            cwd=ROOT,
            env={**environment, "SYNERGY_BOX": "one"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    said = (tmp_path / "output").read_text
    link = Link(store_url, broker_url)
    other = Box("two", ROOT / "examples" / "flights", link)
    other.state = tmp_path / "two"
    other.environment = environment
    try:
        until(lambda: (tmp_path / "one" / "run" / "scheduler.pid").exists(), said)
        other.ok("start", "--set", "mx_port=0")
        limit = time.monotonic() + 200
        while demo.poll() is None:
            assert time.monotonic() < limit, said()
            time.sleep(0.2)
        assert demo.returncode == 0, said()
        assert "the totals are equal" in said()
        store = open_store(store_url, clock=SystemClock(lambda: None))
        done = store.count(Uow, [Where("state", "=", "processed")], ("box",))
        store.close()
        assert set(done) == {("one",), ("two",)} and min(done.values()) > 20, done
    finally:
        if demo.poll() is None:
            demo.terminate()  # it stops its box
            demo.wait(60)
        other.clean()
        link.close()
