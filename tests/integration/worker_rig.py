"""Real workers for tests: a folder with a store, a queue file and user code, and worker processes on it.

Started as a program it is one worker: `worker_rig.py FOLDER OWNER`, with its options in `OWNER.options`.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from db import open_store  # noqa: E402
from mq import open_broker  # noqa: E402
from scheduler.clock import ManualClock  # noqa: E402
from scheduler.core.event import history_entries  # noqa: E402
from scheduler.core.ports import REPORT_QUEUE, Outgoing, Where, control_queue  # noqa: E402
from scheduler.core.process import Process  # noqa: E402
from scheduler.core.records import LogChunk  # noqa: E402
from scheduler.core.uow import Uow, uow_id  # noqa: E402
from tests.leader import decide  # noqa: E402
from worker.main import WorkerProcess, run_worker  # noqa: E402

START = datetime(2020, 5, 1, tzinfo=UTC)
PATIENCE_S = 20.0


class Rig:
    """The leader's side, played by a test. `code` is the user's module `jobs`; `context` its processes."""

    def __init__(self, folder: Path, context: str, code: str = "") -> None:
        self.folder = folder
        (folder / "jobs.py").write_text(code)
        (folder / "rig_context.py").write_text("from synergy import *\n" + context)
        self.processes = load(folder)
        self.store = open_store(store_url(folder), clock=WallClock())
        self.store.init()
        self.broker = open_broker(broker_url(folder))
        self.reports = self.broker.consume([REPORT_QUEUE], 10_000)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.threads: list[tuple[WorkerProcess, threading.Thread]] = []

    def request(self, process: str, n: int = 0, *, send: bool = True, **values: Any) -> str:
        """Save a unit of work of `process` for hour `n`, and publish it."""
        start = START + timedelta(hours=n)
        label = start.strftime("%Y%m%d%H")
        now = self.store.now()
        run = values.pop("run", 1)
        priority = values.get("priority", 5)
        uow = Uow(
            id=uow_id(f"{process}@{label}", run),
            process=process,
            timeperiod=label,
            run=run,
            start=start,
            end=start + timedelta(hours=1),
            queue="default",
            **{"final": True, "created_at": now, "requested_at": now, "published_at": now, **values},
        )
        with self.store.transaction() as transaction:
            transaction.insert([uow])
        if send:
            self.send(uow.id, priority)
        return uow.id

    def send(self, uow_id: str, priority: int = 5) -> None:
        """Publish a unit of work that is saved."""
        self.broker.publish([Outgoing("default", uow_id, priority)])

    def worker(self, owner: str = "w1", **options: Any) -> WorkerProcess:
        """Start a worker in a thread of this process: as real, and ready in a third of the time."""
        connect = lambda: (self.store, self.broker, WallClock())  # noqa: E731
        worker = WorkerProcess(connect=connect, **self._options(owner, options))
        thread = threading.Thread(target=worker.run, name=owner)
        self.threads.append((worker, thread))
        thread.start()
        return worker

    def process(self, owner: str = "w1", **options: Any) -> subprocess.Popen[bytes]:
        """Start a worker process, to be killed or told to stop; its own output goes to `<owner>.log`."""
        (self.folder / f"{owner}.options").write_text(json.dumps(options))
        with (self.folder / f"{owner}.log").open("ab") as log:
            arguments = [sys.executable, __file__, str(self.folder), owner]
            process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.workers.append(process)
        return process

    def _options(self, owner: str, options: dict[str, Any]) -> dict[str, Any]:
        return worker_options(self.folder, owner, self.processes, options)

    def uow(self, uow_id: str) -> Uow:
        found = self.store.get(Uow, uow_id)
        assert found is not None
        return found

    def wait(self, uow_id: str, *states: str) -> Uow:
        """The unit of work once it is in one of `states` (default: finished or invalid)."""
        wanted = states or ("processed", "noop", "invalid", "canceled")
        self.until(lambda: self.uow(uow_id).state in wanted, f"{uow_id} is {'/'.join(wanted)}")
        return self.uow(uow_id)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Look whenever a worker reports, and every 20 ms; fails after a while, with the workers' logs."""
        ends = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            if time.monotonic() > ends:
                logs = "".join(path.read_text() for path in self.folder.glob("*.log"))
                raise AssertionError(f"not in {PATIENCE_S:g} s: {what}\n{logs}")
            self.reports.ack([message.tag for message in self.reports.receive(1000, 0.02)])
        return found

    def leader(self, uow_id: str, verb: str, **values: Any) -> None:
        """A change by the leading scheduler; a cancel is told to the worker."""
        uow = self.uow(uow_id)
        decide(self.store, uow, verb, **values)
        if verb == "cancel" and uow.owner:
            self.broker.publish([Outgoing(control_queue(uow.owner), uow_id)])

    def log(self, uow_id: str) -> str:
        chunks = self.store.find(LogChunk, [Where("uow", "=", uow_id)], ["attempt", "n"])
        return "".join(chunk.text for chunk in chunks)

    def file(self, name: str) -> Path:
        return self.folder / name

    def close(self) -> None:
        for worker, _thread in self.threads:
            worker.drain()
            worker.drain()
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
        for _worker, thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "a worker did not stop"
        for process in self.workers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.broker.close()
        self.store.close()


class WallClock(ManualClock):
    """The machine's clock, without a business row."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))

    def real(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=datetime.now(UTC).microsecond // 1000 * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


MakeRig = Callable[..., Rig]


def verbs(rig: Rig, uow_id: str) -> list[str]:
    """The history of a unit of work, by its verbs."""
    return [entry["verb"] for entry in history_entries(rig.uow(uow_id).history)]


def store_url(folder: Path) -> str:
    return f"sqlite:///{folder}/store.sqlite"


def broker_url(folder: Path) -> str:
    """What stands in `broker.url`, or a file of queues."""
    if (folder / "broker.url").exists():
        return (folder / "broker.url").read_text()
    return f"embedded://{folder}/queues.sqlite"


def load(folder: Path) -> dict[str, Process]:
    spec = importlib.util.spec_from_file_location("rig_context", folder / "rig_context.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {process.name: process for process in module.processes}


def alive(pid: int) -> bool:
    """Whether a process lives, and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def worker_options(
    folder: Path, owner: str, processes: dict[str, Process], options: dict[str, Any]
) -> dict[str, Any]:
    given = {"processes": processes, "queues": ["default"], "owner": owner, "box": "here"}
    return {**given, "context_folder": folder, **options}


def main() -> int:
    folder, owner = Path(sys.argv[1]), sys.argv[2]
    options = json.loads((folder / f"{owner}.options").read_text())

    def connect() -> tuple[Any, Any, Any]:
        store = open_store(store_url(folder), clock=WallClock())
        return store, open_broker(broker_url(folder)), WallClock()

    return run_worker(connect=connect, **worker_options(folder, owner, load(folder), options))


if __name__ == "__main__":
    sys.exit(main())
