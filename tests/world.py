"""A small world for tests: the real engine, store and broker in memory, a clock that is moved by hand.

Workers are played by the test: `work` accepts a unit of work and reports an outcome, by the same
compare-and-sets as the worker runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from db import open_store
from mq import open_broker
from scheduler import control
from scheduler.clock import ManualClock
from scheduler.core.command import Command
from scheduler.core.event import Event, history_line
from scheduler.core.job import Job
from scheduler.core.lifecycle import UOW
from scheduler.core.ports import REPORT_QUEUE, Change, Outgoing, Where
from scheduler.core.process import Process, Queue, Tree, context, freerun, managed, tree
from scheduler.core.records import ProcessRow
from scheduler.core.slice import Item
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow
from scheduler.engine import Engine

LEASE_S = 60.0


def at(text: str) -> datetime:
    """`2020-05-01T03:10` as an aware UTC instant."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class World:
    """One scheduler, and workers played by hand."""

    def __init__(
        self,
        processes: Iterable[Process],
        trees: Iterable[Tree] = (),
        *,
        start: str | None = None,
        now: str,
        queues: Iterable[Queue] = (),
        **engine: Any,
    ) -> None:
        self.clock = ManualClock(at(now))
        self.store = open_store("sqlite:///:memory:", clock=self.clock)
        self.store.init()
        self.broker = open_broker("embedded:///:memory:")
        self.timetable = Timetable(context(list(processes), list(trees), list(queues), start))
        self.holder = 0
        self.engine: Engine
        self.options = engine
        self.sent: list[Outgoing] = []
        self.restart()

    def restart(self, timetable: Timetable | None = None) -> None:
        """A new scheduler takes over at once."""
        self.timetable = timetable or self.timetable
        self.holder += 1
        if self.holder > 1:
            self.engine.step_down()
        self.engine = Engine(
            self.store, self.broker, self.clock, self.timetable, holder=f"s{self.holder}", **self.options
        )
        assert self.engine.lead()
        self.settle()
        self.engine.trust_leases()

    def redefine(
        self, processes: Iterable[Process], trees: Iterable[Tree] = (), start: str | None = None
    ) -> None:
        """Restart with another context."""
        self.restart(Timetable(context(list(processes), list(trees), (), start)))

    def settle(self, rounds: int = 10_000) -> None:
        """Turn until nothing is left to do at this instant."""
        reports = self.broker.consume([REPORT_QUEUE], 1000)
        try:
            for _ in range(rounds):
                messages = reports.receive(1000, 0)
                reports.ack([message.tag for message in messages])
                items = [Item("uow", message.body) for message in messages]
                items += self.engine.due()
                if not items:
                    return
                self.engine.turn(items)
        finally:
            reports.close()
        raise AssertionError("the world does not come to rest")

    def go(self, to: str | datetime) -> None:
        """Move the clock to an instant, and let the scheduler turn there."""
        instant = at(to) if isinstance(to, str) else to
        self.clock.advance((instant - self.clock.business()).total_seconds())
        self.settle()

    def wait(self, seconds: float) -> None:
        """Move the clock by seconds."""
        self.go(self.clock.business() + timedelta(seconds=seconds))

    # -- looking ----------------------------------------------------------------------------------

    def job(self, id_: str) -> Job:
        """A job that must be there."""
        job = self.store.get(Job, id_)
        assert job is not None, f"no job {id_}"
        return job

    def jobs(self, process: str) -> list[Job]:
        """All jobs of a process, in order."""
        return self.store.find(Job, (Where("process", "=", process),), ("start",))

    def states(self, process: str) -> list[str]:
        """Their states."""
        return [job.state for job in self.jobs(process)]

    def uow(self, id_: str) -> Uow:
        """A unit of work that must be there."""
        uow = self.store.get(Uow, id_)
        assert uow is not None, f"no unit of work {id_}"
        return uow

    def uows(self, *where: Where) -> list[Uow]:
        """Units of work, oldest first."""
        return self.store.find(Uow, where, ("created_at", "start"))

    def open_uows(self, process: str | None = None) -> list[Uow]:
        """Those that wait for a worker or are with one."""
        where = [Where("state", "in", ("requested", "in_progress"))]
        if process is not None:
            where.append(Where("process", "=", process))
        return self.store.find(Uow, where, ("start",))

    def messages(self, queue: str = "default") -> list[str]:
        """The messages that wait, in order; they are left where they are."""
        consumer = self.broker.consume([queue], 10_000)
        found = consumer.receive(10_000, 0)
        consumer.close()
        return [message.body for message in found]

    def row(self, process: str) -> ProcessRow:
        """What the store remembers of a process."""
        row = self.store.get(ProcessRow, process)
        assert row is not None
        return row

    def events(self, *kinds: str) -> list[Event]:
        """The scheduler's events in order, of some kinds or all."""
        where = (Where("kind", "in", kinds),) if kinds else ()
        return self.store.find(Event, where, ("seq",))

    def explain(self, job: str) -> Any:
        """Why a job is not done."""
        return control.Reader(self.store, self.timetable, self.clock).explain(job)

    # -- acting -----------------------------------------------------------------------------------

    def accept(self, id_: str, owner: str = "w1", lease_s: float = LEASE_S) -> Uow:
        """A worker accepts a unit of work."""
        uow = self.uow(id_)
        now = self.store.now()
        until = now + timedelta(seconds=lease_s)
        self._change(
            uow,
            "accept",
            owner=owner,
            box="b1",
            token=f"{owner}/{uow.version}",
            started_at=now,
            lease_until=until,
            due_at=until,
        )
        return self.uow(id_)

    def finish(self, id_: str, verb: str = "succeed", *, report: bool = True, **sets: Any) -> Uow:
        """A worker finishes it, and reports; with `report=False` the report is lost."""
        uow = self.uow(id_)
        now = self.store.now()
        if verb == "fail":
            sets.setdefault("failures", uow.failures + 1)
            sets.setdefault("error", "ValueError: no")
            sets.setdefault("traceback", "Traceback…")
        self._change(uow, verb, finished_at=now, lease_until=None, due_at=now, **sets)
        if report:
            self.broker.publish([Outgoing(REPORT_QUEUE, id_)])
        return self.uow(id_)

    def stopped(self, id_: str) -> None:
        """The worker of a canceled unit of work lets go of it."""
        uow = self.uow(id_)
        change = Change(Uow, id_, {"state": "canceled", "token": uow.token}, {"stopped_at": self.store.now()})
        with self.store.transaction() as tx:
            assert tx.update([change]) == 1
        self.broker.publish([Outgoing(REPORT_QUEUE, id_)])
        self.settle()

    def _change(self, uow: Uow, verb: str, **sets: Any) -> None:
        state = UOW.successor(uow.id, uow.state, verb)
        line = history_line(
            verb, state, self.store.now(), sets.get("owner") or uow.owner or "w1", attempt=uow.attempt
        )
        change = Change(
            Uow,
            uow.id,
            {"state": uow.state, "version": uow.version},
            {"state": state, "version": uow.version + 1, "dirty": True, **sets},
            line,
        )
        with self.store.transaction() as tx:
            assert tx.update([change]) == 1

    def work(self, job_or_uow: str, verb: str = "succeed", *, settle: bool = True, **sets: Any) -> Uow:
        """A worker accepts a job's unit of work, does X, and reports it."""
        id_ = job_or_uow if "#" in job_or_uow else str(self.job(job_or_uow).uow)
        if self.uow(id_).state == "requested":
            self.accept(id_)
        uow = self.finish(id_, verb, **sets)
        if settle:
            self.settle()
        return uow

    def work_all(self, process: str | None = None, verb: str = "succeed", limit: int = 10_000) -> list[str]:
        """Workers do X with everything that is requested, oldest first, until nothing is."""
        done: list[str] = []
        while len(done) < limit:
            waiting = [uow for uow in self.open_uows(process) if uow.state == "requested"]
            if not waiting:
                return done
            for uow in waiting:
                self.work(uow.id, verb)
                done.append(uow.id)
        raise AssertionError("there is always more to do")

    def command(self, verb: str, target: Any = None, **more: Any) -> Command:
        """An operator's command, resolved. `target`: a job id, a list of them, or a dictionary."""
        if isinstance(target, str):
            target = {"jobs": [target]}
        elif isinstance(target, list):
            target = {"jobs": target}
        id_ = control.submit(
            self.store, self.broker, verb, target or {}, actor=more.pop("actor", "anna"), **more
        )
        self.settle()
        return control.wait(self.store, id_, 0)


def a_small_world() -> World:
    """Hours in a day, and a freerun process every two hours: something of each kind is stored."""
    return World(
        [
            managed("hourly", "x.y:z", "hourly"),
            managed("daily", "x.y:z", "daily", blocking="children"),
            freerun("sweeper", "x.y:z", trigger="every 7200"),
        ],
        [tree("t", ["hourly", "daily"])],
        start="2020050100",
        now="2020-05-01T00:10",
    )
