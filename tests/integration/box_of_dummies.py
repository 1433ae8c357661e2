"""A box for tests: the shipped supervisor over processes that do nothing, or crash. Run as a program.

    box_of_dummies.py FOLDER [drain]

`FOLDER/names` lists the processes; a name may say how it behaves: `stubborn` ignores TERM, `crash` dies at once,
`worker.…` is a worker. Each holds its pid file, as `process_starter.py` does, and appends its pid to
`FOLDER/starts/<name>`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from db import open_store
from mq import open_broker
from scheduler.clock import SystemClock
from supervisor.ledger import Ledger
from supervisor.os_process import PidFile, Running, spawn
from supervisor.plan import Limits
from supervisor.roster import Registered, kind_of
from supervisor.supervisor import Supervisor, stray_of

GRACE_S = 1.0
LEASE_S = 0.5


def dummy(folder: Path, name: str, instance: str) -> None:
    """Be a process until TERM."""
    lock = PidFile(folder / "run" / f"{name}.pid")
    lock.take(instance)
    stops: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in name else lambda *_: stops.append(1))
    (folder / "starts").mkdir(exist_ok=True)
    with (folder / "starts" / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if "crash" in name:
        os._exit(3)
    while not stops:
        signal.pause()
    with (folder / "stops").open("a") as file:
        file.write(f"{name}\n")


def supervise(folder: Path, drain: bool) -> int:
    """Be the supervisor."""
    clock = SystemClock(lambda: None)
    store = open_store(f"sqlite:///{folder}/store.db", clock=clock)
    store.init()

    def launch(item: Registered, instance: str) -> Running:
        argv = [sys.executable, __file__, str(folder), "dummy", item.name, instance]
        return spawn(
            argv,
            folder=folder,
            environment=os.environ,
            stray=stray_of(folder / "logs", item.name),
            instance=instance,
        )

    def load() -> dict[str, Registered]:
        return {name: Registered(name, kind_of(name)) for name in (folder / "names").read_text().split()}

    return Supervisor(
        ledger=Ledger("here", store, open_broker(f"embedded://{folder}/queue.db"), clock),
        load=load,
        launch=launch,
        folder=folder,
        limits=Limits(grace_s=GRACE_S, start_s=0.1, delay_s=0.2, deaths_max=3),
        leader_lease_s=LEASE_S,
    ).run(drain=drain)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if "dummy" in sys.argv:
        dummy(where, *sys.argv[3:])
    else:
        sys.exit(supervise(where, "drain" in sys.argv))
