"""What a turn of the engine costs with a short and with a long history, and the same active set.

The shipped engine on a real store file and queue file, one box with `few` finished jobs and one with `many`,
turn by turn in alternation. A turn is everything the scheduler's loop does for a batch of reports: what is due,
gather, decide, apply, publish, how long to sleep. The workers' part is played between the turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.box import NAME, Plan, connect
from scheduler.clock import ManualClock
from scheduler.control import submit
from scheduler.core.event import Event
from scheduler.core.job import Job, job_id
from scheduler.core.ports import Where
from scheduler.core.slice import Item
from scheduler.core.uow import Uow, uow_id
from scheduler.engine import Engine
from worker import changes
from worker.executor import Outcome

BATCH = 64
HOUR = timedelta(hours=1)
FEW, MANY, TURNS = 100, 100_000, 40


class Box:
    """An engine in `folder`, with `finished` jobs in its history and `turns` turns of work before it."""

    def __init__(self, folder: Path, finished: int, turns: int, synchronous: str) -> None:
        end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR
        ready = end - HOUR * BATCH * (turns + 2)
        plan = Plan(
            jobs=0,
            synchronous=synchronous,
            max_active=BATCH,
            start=(ready - HOUR * finished).strftime("%Y%m%d%H"),
        )
        self.store, self.broker, _ = connect(folder, plan)
        self.clock = ManualClock(end + HOUR)
        self._remember(finished, ready - HOUR * finished)
        self.engine = Engine(self.store, self.broker, self.clock, plan.timetable(folder), holder="bench")
        assert self.engine.lead()
        self.waiting = self.broker.consume(["default"], 10_000)
        self.walls: list[float] = []
        self.queries: list[int] = []
        self._settle()
        submit(self.store, self.broker, "resume", {"process": NAME}, actor="bench")
        self._pass([])

    def _remember(self, finished: int, start: datetime) -> None:
        """Jobs that were done long ago, with their units of work and events."""
        for first in range(0, finished, 2000):
            records: list[Any] = []
            for n in range(first, min(first + 2000, finished)):
                records += _done(start + HOUR * n, n)
            with self.store.transaction() as transaction:
                transaction.insert(records)

    def _settle(self) -> None:
        """Until all rows are made."""
        items = self.engine.due()
        while items:
            self.engine.turn(items)
            items = [item for item in self.engine.due() if item.kind == "advance"]

    def _pass(self, reported: list[str]) -> None:
        items = [*self.engine.due(), *[Item("uow", id_) for id_ in reported]]
        self.engine.turn(items)
        self.engine.outbox.flush()
        self.engine.sleep_s(1.0)

    def turn(self) -> None:
        """The workers do what waits; then one turn, timed."""
        reported = self._work()
        self.clock.advance(timedelta(milliseconds=20))
        counts = self.store.counts
        queries, began = counts.queries, time.perf_counter()
        self._pass(reported)
        self.walls.append(time.perf_counter() - began)
        self.queries.append(counts.queries - queries)

    def _work(self) -> list[str]:
        """Accept and finish everything that is requested."""
        messages = self.waiting.receive(10_000, 0)
        self.waiting.ack([message.tag for message in messages])
        ids = [message.body for message in messages]
        now = self.store.now()
        found = self.store.find(Uow, [Where("id", "in", ids)])
        accepts = [
            changes.accept(uow, owner="w", box="b", token=uow.id, now=now, lease_s=60.0) for uow in found
        ]
        with self.store.transaction() as transaction:
            assert transaction.update(accepts) == len(ids)
        finishes = [
            changes.finish(uow, Outcome(uow_id=uow.id, token=uow.id, verb="succeed"), now=now)
            for uow in self.store.find(Uow, [Where("id", "in", ids)])
        ]
        with self.store.transaction() as transaction:
            assert transaction.update(finishes) == len(ids)
        return ids

    def close(self) -> None:
        """Let go of the files."""
        self.broker.close()
        self.store.close()


def _done(start: datetime, n: int) -> Iterator[Any]:
    label = start.strftime("%Y%m%d%H")
    job, end = job_id(NAME, label), start + HOUR
    uow = uow_id(job, 1)
    yield Job(
        id=job, process=NAME, timeperiod=label, start=start, end=end, state="processed", version=2, open=False,
        run=1, uow=uow, requested_seq=3 * n + 1, settled_seq=3 * n + 3, settled_at=end, created_at=start,
    )  # fmt: skip
    yield Uow(
        id=uow, process=NAME, timeperiod=label, run=1, state="processed", version=2, start=start, end=end,
        created_at=end, requested_at=end, started_at=end, finished_at=end, owner="w", token=uow, history_n=3, copied=3,
    )  # fmt: skip
    for k, kind in enumerate(("job.dispatch", "uow.succeed", "job.complete"), 1):
        yield Event(
            source="scheduler", seq=3 * n + k, at=end, business_at=end, kind=kind, process=NAME, timeperiod=label
        )  # fmt: skip


def measure(
    *,
    few: int = FEW,
    many: int = MANY,
    turns: int = TURNS,
    synchronous: str = "NORMAL",
    folder: Path | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Both boxes, turn by turn. Milliseconds; `ratio` is that of the medians, many to few."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
        boxes = []
        for name, finished in (("few", few), ("many", many)):
            home = Path(scratch, name)
            home.mkdir()
            boxes.append(Box(home, finished, turns, synchronous))
        for n in range(turns):
            for box in boxes if n % 2 else boxes[::-1]:
                box.turn()
            tell(n + 1)
        for box in boxes:
            box.close()
    ms = [statistics.median(box.walls[2:]) * 1000 for box in boxes]
    return {
        "bench": "turn",
        "synchronous": synchronous,
        "turns": turns,
        "jobs_per_turn": BATCH,
        "few": {
            "finished": few,
            "turn_ms_median": round(ms[0], 3),
            "queries": statistics.median(boxes[0].queries),
        },
        "many": {
            "finished": many,
            "turn_ms_median": round(ms[1], 3),
            "queries": statistics.median(boxes[1].queries),
        },
        "ratio": round(ms[1] / ms[0], 3),
    }
