"""A stage for the runner: real store and broker in memory, a clock moved by hand, played executions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from db import open_store
from mq import open_broker
from scheduler.clock import ManualClock
from scheduler.core.errors import StoreUnavailable
from scheduler.core.event import history_entries
from scheduler.core.ports import REPORT_QUEUE, Outgoing
from scheduler.core.process import Process, managed
from scheduler.core.uow import Uow, uow_id
from tests.leader import decide
from worker.executor import Note, Outcome
from worker.runner import Runner

NOW = datetime(2020, 5, 1, 12, tzinfo=UTC)


class PlayedExecutor:
    """Runs nothing: the test ends executions."""

    def __init__(self, capacity: int = 2) -> None:
        self.capacity = capacity
        self.running: dict[str, Uow] = {}
        self.stops: list[tuple[str, bool]] = []
        self.leases: dict[str, float] = {}
        self.ended: list[Outcome] = []
        self.said: list[Note] = []
        self.waited: list[float] = []

    def start(self, uow: Uow, process: Process) -> None:
        assert len(self.running) < self.capacity and uow.token
        self.running[uow.token] = uow

    def end(self, uow_id: str, verb: str = "succeed", **values: Any) -> None:
        uow = next(u for u in self.running.values() if u.id == uow_id)
        assert uow.token
        del self.running[uow.token]
        self.ended.append(Outcome(uow_id=uow.id, token=uow.token, verb=verb, **values))  # type: ignore[arg-type]

    def poll(self, timeout_s: float, also: Sequence[int] = ()) -> list[Outcome]:
        self.waited.append(timeout_s)
        ended, self.ended = self.ended, []
        return ended

    def is_ready(self, fd: int) -> bool:
        return True

    def notes(self) -> list[Note]:
        said, self.said = self.said, []
        return said

    def stop(self, token: str, *, hard: bool = False) -> None:
        self.stops.append((token, hard))
        if token in self.running:
            self.end(self.running[token].id, "stopped")

    def lease(self, token: str, seconds_left: float) -> None:
        self.leases[token] = seconds_left

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class Faulty:
    """A store whose next transactions fail: before the commit, or after it (the answer is lost)."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.faults: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    @contextmanager
    def transaction(self, lease: Any = None) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        with self.store.transaction() as transaction:
            yield transaction
            if fault == "before":
                raise StoreUnavailable("the line is cut")
        if fault == "after":
            raise StoreUnavailable("no answer to the commit")


class Stage:
    """A runner and everything around it."""

    def __init__(self, *processes: Process, slots: int = 2, **options: Any) -> None:
        self.clock = ManualClock(NOW)
        self.store = Faulty(open_store("sqlite:///:memory:", clock=self.clock))
        self.store.init()
        self.broker = open_broker("embedded:///:memory:")
        self.executor = PlayedExecutor(slots)
        tokens = itertools.count(1)
        self.processes = {p.name: p for p in processes or (hourly(),)}
        self.runner = Runner(
            store=self.store,
            broker=self.broker,
            clock=self.clock,
            executor=self.executor,
            processes=self.processes,
            queues=["default"],
            owner="w1",
            box="here",
            new_token=lambda: f"t{next(tokens)}",
            **options,
        )
        self.reports = self.broker.consume([REPORT_QUEUE], 1000)

    def request(self, n: int = 0, process: str = "hourly", *, send: bool = True, **values: Any) -> str:
        start = NOW + timedelta(hours=n)
        label = start.strftime("%Y%m%d%H")
        fields: dict[str, Any] = {"published_at": NOW, "requested_at": NOW, "created_at": NOW, **values}
        uow = Uow(
            id=uow_id(f"{process}@{label}", 1),
            process=process,
            timeperiod=label,
            run=1,
            start=start,
            end=start + timedelta(hours=1),
            queue="default",
            **fields,
        )
        with self.store.transaction() as transaction:
            transaction.insert([uow])
        if send:
            self.send(uow.id)
        return uow.id

    def send(self, *ids: str, priority: int = 5) -> None:
        self.broker.publish([Outgoing("default", uow_id, priority) for uow_id in ids])

    def uow(self, uow_id: str) -> Uow:
        found = self.store.get(Uow, uow_id)
        assert isinstance(found, Uow)
        return found

    def leader(self, uow_id: str, verb: str, **values: Any) -> None:
        """A change by the leading scheduler."""
        decide(self.store, self.uow(uow_id), verb, **values)

    def reported(self) -> list[str]:
        messages = self.reports.receive(1000, 0)
        self.reports.ack([message.tag for message in messages])
        return [message.body for message in messages]


def hourly(**options: Any) -> Process:
    return managed("hourly", "worker.ready_made:nothing", "hourly", **options)


def verbs(uow: Uow) -> list[str]:
    return [entry["verb"] for entry in history_entries(uow.history)]
