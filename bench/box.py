"""The whole scheduler on the embedded pair, in a scratch folder: what is measured beside the floor.

The shipped scheduler process, the shipped workers with their child processes, a store file, a queue file.
One process is registered, suspended; its rows are made before the clock starts, and `resume` starts it.
Each part counts its own store operations from a signal on, and writes the counts down as it ends.

Started as a program it is one part: `python -m bench.box FOLDER NAME`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil

from db import open_store
from db.counts import Counts
from mq import open_broker
from mq.embedded import EmbeddedBroker
from scheduler.clock import SystemClock, store_reader
from scheduler.control import submit
from scheduler.core.job import Job
from scheduler.core.ports import Broker, Clock, Store, Where
from scheduler.core.process import after, context, managed
from scheduler.core.records import ProcessRow
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow

ROOT = Path(__file__).resolve().parents[1]
NAME = "step"
PATIENCE_S = 60.0
WORKERS = ("worker.1", "worker.2")
SLOTS = 16
Tell = Callable[[int], None]  # how many jobs are done


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run. `start`: an hour's label, `jobs` hours before the last closed one."""

    jobs: int
    synchronous: str = "NORMAL"
    max_active: int = 256
    slots: int = SLOTS  # of each of the two workers
    chain: bool = False  # each hour stands on the one before it
    start: str = ""
    store: str = ""  # the URL of an empty store; without one a file in the scratch folder
    broker: str = ""  # the URL of a broker with empty queues; without one a file in the scratch folder
    profile: str = ""  # a folder for a profile of each part

    def timetable(self, folder: Path) -> Timetable:
        """The one process, hour after hour."""
        step = managed(
            NAME,
            worker="bench.works:noted" if self.chain else "bench.works:nothing",
            time_qualifier="hourly",
            blocking="children" if self.chain else "normal",
            depends_on=[after(NAME, -1)] if self.chain else [],
            sink=str(folder / "notes"),
            max_active=1 if self.chain else self.max_active,
            is_on=False,
        )
        return Timetable(context([step], start=self.start))


class Box:
    """One run of a `Plan` in `folder`, which must be empty."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        now = datetime.now(UTC)
        self.until = (now - timedelta(minutes=10)).replace(minute=0, second=0, microsecond=0)
        start = self.until - timedelta(hours=plan.jobs)
        self.plan = Plan(**{**asdict(plan), "start": start.strftime("%Y%m%d%H")})
        self.folder = folder
        (folder / "notes").mkdir()
        (folder / "plan.json").write_text(json.dumps(asdict(self.plan)))
        self.store, self.broker, _ = connect(folder, self.plan)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, tell: Tell = lambda done: None) -> dict[str, Any]:
        """Run it; numbers. Raises RuntimeError with the parts' own words if it does not get on."""
        try:
            for name in ("scheduler", *WORKERS):
                self._start(name)
            self._wait(self._is_ready, "the rows are made and the workers are ready")
            for part in self.parts.values():
                part.send_signal(signal.SIGUSR1)
            cpu = self._cpu()
            submit(self.store, self.broker, "resume", {"process": NAME}, actor="bench")
            self._watch(tell)
            cpu = {kind: spent - cpu[kind] for kind, spent in self._cpu().items()}
        finally:
            self._stop()
        numbers = self._numbers()
        numbers["cpu_ms_per_job"] = {kind: round(s * 1000 / self.plan.jobs, 4) for kind, s in cpu.items()}
        return numbers

    def close(self) -> None:
        """Let go of the files."""
        self.broker.close()
        self.store.close()

    def _start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "bench.box", str(self.folder), name]
            self.parts[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def _is_ready(self) -> bool:
        row = self.store.get(ProcessRow, NAME)
        is_made = row is not None and row.frontier is not None and row.frontier >= self.until
        are_up = is_made and all((self.folder / f"{name}.ready").exists() for name in WORKERS)
        return are_up and all(child.status() == psutil.STATUS_SLEEPING for child in self._children())

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not condition():
            ended = [name for name, part in self.parts.items() if part.poll() is not None]
            if ended or time.monotonic() > ends:
                raise RuntimeError(f"not reached: {what}; ended: {ended}\n{self._said()}")
            time.sleep(0.05)

    def _watch(self, tell: Tell) -> None:
        """Until all is done; raises when nothing moves any more."""
        left, ends = self.plan.jobs, time.monotonic() + PATIENCE_S
        is_ours = (Where("process", "=", NAME), Where("open", "=", True), Where("start", "<", self.until))
        while left:
            time.sleep(0.2)
            now_left = self.store.count(Job, is_ours).get((), 0)
            if now_left < left:
                left, ends = now_left, time.monotonic() + PATIENCE_S
                tell(self.plan.jobs - left)
            elif time.monotonic() > ends:
                raise RuntimeError(f"{left} of {self.plan.jobs} jobs are left\n{self._said()}")

    def _cpu(self) -> dict[str, float]:
        """Seconds of processor time so far, of the scheduler, the workers, and their children."""
        spent = {"scheduler": 0.0, "workers": 0.0, "children": 0.0}
        for name, part in self.parts.items():
            process = psutil.Process(part.pid)
            spent["scheduler" if name == "scheduler" else "workers"] += _seconds(process)
        spent["children"] = sum(_seconds(child) for child in self._children())
        return spent

    def _children(self) -> list[psutil.Process]:
        """What the parts have started."""
        parts = [psutil.Process(part.pid) for part in self.parts.values()]
        return [child for part in parts for child in part.children(recursive=True)]

    def _stop(self) -> None:
        for part in self.parts.values():
            part.terminate()
        for part in self.parts.values():
            try:
                part.wait(10)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()

    def _said(self) -> str:
        return "".join(f"{file.name}: {file.read_text()}" for file in self.folder.glob("*.log"))

    def _numbers(self) -> dict[str, Any]:
        jobs = self.plan.jobs
        is_ours = (Where("process", "=", NAME), Where("state", "=", "processed"))
        done = self.store.select(Job, ("settled_at",), is_ours)
        uows = self.store.select(Uow, ("created_at", "started_at", "finished_at"), (), ("started_at",))
        assert len(done) >= jobs, f"{len(done)} of {jobs} jobs are processed\n{self._said()}"
        seconds = (max(at for (at,) in done) - min(row[0] for row in uows)).total_seconds()
        counts = {name: json.loads((self.folder / f"{name}.counts").read_text()) for name in self.parts}
        sums = {key: sum(counted[key] for counted in counts.values()) for key in counts["scheduler"]}
        return {
            "jobs": jobs,
            "seconds": round(seconds, 4),
            "jobs_per_second": round(jobs / seconds, 1),
            **{f"{key}_per_job": round(number / jobs, 3) for key, number in sums.items()},
            "counts": counts,
        }


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


# -- one part ---------------------------------------------------------------------------------------------


class CountedStore(Store, Protocol):
    """A store that counts what it is asked."""

    counts: Counts


def connect(folder: Path, plan: Plan) -> tuple[CountedStore, Broker, Clock]:
    """The pair of files in `folder`, or what the plan names."""
    readers: list[Any] = []
    clock = SystemClock(lambda: readers[0]() if readers else None)
    url = plan.store or f"sqlite:///{folder}/store.sqlite"
    store: Any = open_store(url, clock=clock, synchronous=plan.synchronous, maintain=True)
    store.init()
    readers.append(store_reader(store))
    return store, open_broker(plan.broker or f"embedded://{folder}/queues.sqlite"), clock


@contextmanager
def counted(folder: Path, name: str, store: CountedStore, broker: Broker) -> Iterator[None]:
    """Count what the part does to store and queues, from SIGUSR1 on; write it down at the end."""
    zero: dict[str, int] = {}

    def now() -> dict[str, int]:
        commits = broker.file.commits if isinstance(broker, EmbeddedBroker) else 0
        return {**asdict(store.counts), "queue_commits": commits}

    def begin(_signal: int, _frame: object) -> None:
        zero.update(now())

    signal.signal(signal.SIGUSR1, begin)
    try:
        yield
    finally:
        counts = {key: number - zero.get(key, 0) for key, number in now().items()}
        (folder / f"{name}.counts").write_text(json.dumps(counts))


def run_scheduler(folder: Path, plan: Plan) -> None:
    """The scheduler, as `process_starter.py scheduler` runs it."""
    from scheduler.daemon import run

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    store, broker, clock = connect(folder, plan)
    with counted(folder, "scheduler", store, broker):
        run(store, broker, clock, plan.timetable(folder), stopping, holder="bench")


def run_worker(folder: Path, plan: Plan, name: str) -> None:
    """A worker, as `process_starter.py worker.<queue>.<n>` runs it."""
    from worker.main import run_worker

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    opened: list[Any] = []

    def open_all() -> tuple[Store, Broker, Clock]:
        store, broker, clock = connect(folder, plan)
        opened.append(counted(folder, name, store, broker))
        opened[0].__enter__()
        return store, broker, clock

    run_worker(
        connect=open_all,
        processes=plan.timetable(folder).processes,
        queues=["default"],
        owner=name,
        box="bench",
        slots=plan.slots,
        ready=lambda runner: (folder / f"{name}.ready").write_text(str(os.getpid())),
    )
    opened[0].__exit__(None, None, None)


def main() -> None:
    """One part."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    plan = Plan(**json.loads((folder / "plan.json").read_text()))

    def part() -> None:
        if name == "scheduler":
            run_scheduler(folder, plan)
        else:
            run_worker(folder, plan, name)

    if not plan.profile:
        part()
        return
    import cProfile

    profile = cProfile.Profile(time.thread_time)
    profile.runcall(part)
    profile.dump_stats(Path(plan.profile) / f"{name}.prof")


if __name__ == "__main__":
    main()
