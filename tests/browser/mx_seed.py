"""A seeded store for the dashboard's tests: some 20,000 jobs, one bad night, hostile texts.

Rows are written directly: what the pages show must not depend on a scheduler that runs. The night is
13 December 2013, 03:07:42 of the business clock; real time is the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from db import open_store
from mq import open_broker
from scheduler.core.event import Event, history_line
from scheduler.core.job import Job, job_id
from scheduler.core.ports import Broker, Store
from scheduler.core.process import Context, Retry, context, freerun, managed, tree
from scheduler.core.records import BoxProcess, Hold, Lease, LogChunk, ProcessRow
from scheduler.core.timeperiod import Timeperiod, timeperiods_between
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> ünïcode ✓ 日本 \u202eevil"
NIGHT = datetime(2013, 12, 13, 3, 7, 42, tzinfo=UTC)
START = datetime(2012, 11, 10, tzinfo=UTC)
BAD = "weather_hourly@2013121222"
RUNNING = "flights_hourly@2013121303"
FAILED = "weather_hourly@2013120904"


class NightClock:
    """Real time is the machine's; business time runs along, from the night on."""

    def __init__(self) -> None:
        self._shift = NIGHT - self.real()

    def real(self) -> datetime:
        """Now, in milliseconds."""
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)

    def business(self) -> datetime:
        """The night's time."""
        return self.real() + self._shift

    def real_for(self, business: datetime) -> datetime:
        """When business time will be so late."""
        return max(business - self._shift, self.real())

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def refresh(self) -> None:
        """There is nothing to read."""


def make_context() -> Context:
    """Three trees and a freerun."""
    retry = Retry(max_retries=5, delay_s=60)
    hourly: dict[str, Any] = {"retry": retry, "max_active": 2}
    return context(
        [
            managed(
                "flights_hourly", "x.y:z", "hourly", state_machine="continuous", trigger="every 300", **hourly
            ),
            managed("flights_daily", "x.y:z", "daily", blocking="children"),
            managed("flights_monthly", "x.y:z", "monthly", state_machine="recomputing", trigger="every 3600"),
            managed("flights_yearly", "x.y:z", "yearly", state_machine="recomputing", trigger="every 3600"),
            managed(
                "weather_hourly", "x.y:z", "hourly", retry=retry, tags=("noaa", "night-shift"), owner="data"
            ),
            managed("weather_daily", "x.y:z", "daily", blocking="children"),
            managed("delays_daily", "x.y:z", "daily", blocking="dependencies", deadline="05:00"),
            managed("delays_monthly", "x.y:z", "monthly", blocking="children"),
            freerun("check", "x.y:z", trigger="every 3600"),
        ],
        [
            tree(
                "flights",
                ["flights_hourly", "flights_daily", "flights_monthly", "flights_yearly"],
                title="Flights",
            ),
            tree("weather", ["weather_hourly", "weather_daily"], title="Weather & <b>wind</b>"),
            tree(
                "delays",
                ["delays_daily", "delays_monthly"],
                depends_on=["flights", "weather"],
                title="Delays",
            ),
        ],
        [],
        f"{START:%Y%m%d%H}",
    )


def state_of(process: str, period: Timeperiod) -> dict[str, Any]:
    """The state of a job that is not simply processed."""
    start = period.start
    if process == "flights_hourly" and 5 <= start.hour <= 9:
        return {"state": "noop"}
    if process == "weather_hourly" and (start.month, start.day) == (2, 9) and start.hour < 6:
        return {"state": "skipped", "reason": "manual", "detail": "station closed by snow"}
    if job_id(process, period.label) in (FAILED, "weather_hourly@2013120905"):
        return {"state": "skipped", "reason": "retries_exhausted", "detail": f"ValueError: {HOSTILE}"}
    if process == "delays_daily" and (start.month, start.day) == (12, 9):
        return {"state": "skipped", "reason": "dependency", "detail": "weather_daily 9 Dec was skipped"}
    return {"state": "processed"}


OPEN: dict[str, dict[str, Any]] = {
    BAD: {"state": "in_progress", "run": 1, "uow_open": True, "uow": BAD + "#1"},
    "flights_hourly@2013121302": {
        "state": "final_run",
        "run": 7,
        "uow_open": True,
        "uow": "flights_hourly@2013121302#7",
    },
    RUNNING: {"state": "in_progress", "run": 2, "uow_open": True, "uow": RUNNING + "#2"},
    "flights_monthly@2013120000": {
        "state": "in_progress",
        "run": 37,
        "uow_open": True,
        "uow": "flights_monthly@2013120000#37",
    },
    "flights_yearly@2013000000": {
        "state": "in_progress",
        "run": 60,
        "warning": "run 59: timed_out: it took too long",
    },
}


def jobs_of(timetable: Timetable, name: str, real: datetime) -> Iterator[Job]:
    """All jobs of a process up to the night."""
    process = timetable.processes[name]
    for period in timeperiods_between(timetable.start_of(name), NIGHT, process.qualifier, process.grouping):
        id_ = job_id(name, period.label)
        settled = real - (NIGHT - min(period.end, NIGHT)) / 24
        job = Job(
            id=id_,
            process=name,
            timeperiod=period.label,
            start=period.start,
            end=period.end,
            created_at=settled,
        )
        late = name in ("weather_daily", "delays_daily") and period.end > NIGHT - timedelta(days=1)
        late = late or (name == "weather_hourly" and period.start >= datetime(2013, 12, 12, 22, tzinfo=UTC))
        if id_ in OPEN:
            yield replace(job, **OPEN[id_])
        elif period.end > NIGHT or late:
            yield job
        else:
            done = state_of(name, period)
            yield replace(job, **done, open=False, run=1, uow=f"{id_}#1", settled_at=settled, settled_seq=1)


def uows(real: datetime) -> list[Uow]:
    """The unfinished units of work, and one that failed for good."""

    def one(job: str, run: int, start: datetime, hours: int, **more: Any) -> Uow:
        process, _, label = job.partition("@")
        begun = real - timedelta(seconds=90)
        return Uow(
            id=f"{job}#{run}", process=process, timeperiod=label, run=run, start=start,
            end=start + timedelta(hours=hours), created_at=begun, requested_at=begun, published_at=begun,
            queue="default", **more,
        )  # fmt: skip

    def held(ago_s: float, lease_s: float = 60, **more: Any) -> dict[str, Any]:
        return {"state": "in_progress", "box": "ewr-01", "started_at": real - timedelta(seconds=ago_s),
                "lease_until": real + timedelta(seconds=lease_s), **more}  # fmt: skip

    def lines(*entries: tuple[str, str, int, str]) -> dict[str, Any]:
        text = "".join(
            history_line(verb, state, real - timedelta(seconds=ago), "worker.weather.1", message, attempt=5)
            for verb, state, ago, message in entries
        )
        return {"history": text, "history_n": len(entries), "copied": len(entries)}

    failed = f"ValueError: could not convert string to float: 'NA' {HOSTILE}"
    hour = datetime(2013, 12, 12, 22, tzinfo=UTC)
    return [
        one(
            BAD, 1, hour, 1, state="invalid", attempt=5, failures=5, error=failed, owner="worker.weather.1",
            traceback=f"Traceback (most recent call last):\n  {HOSTILE}\n{failed}",
            retry_at=real + timedelta(hours=2),
            started_at=real - timedelta(seconds=64), finished_at=real - timedelta(seconds=61),
            **lines(
                ("request", "requested", 90, ""), ("accept", "in_progress", 64, ""), ("fail", "invalid", 61, failed)
            ),
        ),
        one("flights_hourly@2013121302", 7, hour + timedelta(hours=4), 1, final=True,
            **held(9, owner="worker.flights.1")),
        one(RUNNING, 2, hour + timedelta(hours=5), 1, cursor="412", progress={"done": 3, "total": 10},
            **held(4, owner="worker.flights.2")),
        one("flights_monthly@2013120000", 37, datetime(2013, 12, 1, tzinfo=UTC), 744, losses=1, attempt=2,
            **held(372, owner="worker.flights.1")),
        one(FAILED, 1, datetime(2013, 12, 9, 4, tzinfo=UTC), 1, state="canceled", attempt=6, failures=6, error=failed,
            **lines(("fail", "invalid", 300, failed), ("give_up", "canceled", 299, ""))),
    ]  # fmt: skip


def logs(real: datetime) -> list[LogChunk]:
    """What attempts 4 and 5 printed, with markup and a line cut in two."""

    def chunk(attempt: int, n: int, text: str) -> LogChunk:
        return LogChunk(uow=BAD + "#1", attempt=attempt, n=n, at=real - timedelta(seconds=70 - n), text=text)

    tail = 'Traceback (most recent call last):\n  File "weather.py", line 48, in parse_row\n'
    return [
        chunk(4, 0, 'INFO run 1 attempt 4\nWARN LGA wind_gust is "NA"\nValueError: could not'),
        chunk(4, 1, " convert string to float: 'NA'\n"),
        chunk(5, 0, f"INFO run 1 attempt 5\n{HOSTILE}\n"),
        chunk(5, 1, tail + "ValueError: could not convert string to float: 'NA'\n"),
        LogChunk(uow=RUNNING + "#2", attempt=1, n=0, at=real, text="INFO reading rows from 412\n"),
    ]


def events(real: datetime, some: list[Job]) -> list[Event]:
    """The last events: dispatches, one failure for good, some chatter."""
    found: list[Event] = []
    for job in some:
        state = {"processed": "complete", "noop": "no_data", "skipped": "skip"}[job.state]
        found.append(
            Event(
                source="scheduler", seq=len(found) + 1, at=job.settled_at or real, business_at=job.end,
                kind=f"job.{state}", process=job.process, timeperiod=job.timeperiod,
                severity="warning" if state == "skip" else "success", message=job.detail or "",
                data={"state": job.state},
            )
        )  # fmt: skip
    process, _, label = BAD.partition("@")
    for kind, severity, ago in (
        ("job.dispatch", "info", 90),
        ("uow.accept", "info", 64),
        ("uow.fail", "error", 61),
    ):
        found.append(
            Event(
                source="scheduler", seq=len(found) + 1, at=real - timedelta(seconds=ago), business_at=NIGHT, kind=kind,
                process=process, timeperiod=label, uow=BAD + "#1", severity=severity,
                message=HOSTILE if severity == "error" else "", data={"attempt": 5},
            )
        )  # fmt: skip
    return found


def boxes(real: datetime) -> list[BoxProcess]:
    """Two boxes, a worker in a crash loop."""

    def one(box: str, name: str, kind: str, state: str = "RUNNING", **more: Any) -> BoxProcess:
        return BoxProcess(id=f"{box}/{name}", box=box, name=name, kind=kind, state=state, pid=4711, since=real,
                          seen_at=real + timedelta(days=1), **more)  # fmt: skip

    return [
        one("ewr-01", "supervisor", "supervisor"),
        one("ewr-01", "scheduler", "scheduler"),
        one("ewr-01", "worker.flights.1", "worker"),
        one("ewr-01", "worker.flights.2", "worker"),
        one("ewr-01", "worker.weather.1", "worker"),
        one("jfk-02", "worker.delays.1", "worker", "BACKOFF", restarts=6, exit_code=1,
            message=f"ModuleNotFoundError: No module named 'pyarrow' {HOSTILE}"),
    ]  # fmt: skip


def seed(store: Store, timetable: Timetable, clock: NightClock, *, leading: bool = True) -> int:
    """Fill an empty store; returns how many jobs there are."""
    real, total, told = clock.real(), 0, list[Job]()
    store.init()
    for name, process in timetable.processes.items():
        row = ProcessRow(
            name=name, kind=process.kind, state="scheduled", qualifier=str(process.qualifier), start=START,
            frontier=NIGHT + timedelta(hours=1), usual_ms=3400, usual_p95_ms=6100,
        )  # fmt: skip
        rows = list(jobs_of(timetable, name, real)) if process.kind == "managed" else []
        told += [job for job in rows[-60:] if not job.open] + [job for job in rows if job.reason]
        total += len(rows)
        with store.transaction() as tx:
            tx.insert([row])
            for at in range(0, len(rows), 2000):
                tx.insert(rows[at : at + 2000])
    lease_ends = real + (timedelta(days=1) if leading else timedelta(seconds=-90))
    with store.transaction() as tx:
        tx.insert([*uows(real), *logs(real), *boxes(real)])
        tx.insert(events(real, sorted(told, key=lambda job: (job.settled_at or real, job.id))))
        tx.insert([Lease(name="leader", holder="ewr-01", token=41, expires_at=lease_ends, taken_at=real)])
        tx.insert(
            [
                Hold(
                    scope="process:delays_monthly",
                    actor="anna",
                    reason=f"schema change {HOSTILE}",
                    since=real,
                )
            ]
        )
    return total


def open_seeded(folder: Path, *, leading: bool = True) -> tuple[Store, Broker, NightClock, Timetable]:
    """A seeded SQLite file and an embedded broker in `folder`."""
    clock, timetable = NightClock(), Timetable(make_context())
    store = open_store(f"sqlite:///{folder}/store.db", clock=clock)
    seed(store, timetable, clock, leading=leading)
    return store, open_broker(f"embedded://{folder}/queues.db"), clock, timetable
