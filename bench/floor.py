"""The floor: the durable writes of the design and nothing else, for the engine to be measured beside.

One scheduler loop and two workers, each a process, on a store file and a queue file like the real ones: the
same tables (the columns that are written), the same indexes, the same order of writes, group commit. There
is no decision, no validation, no transition table, no core, and the work is nothing. What this program
takes is what the design costs on this machine and disk; what the engine takes more is ours.

Per job the store gets:  request  uow inserted, job updated, 2 events        (scheduler, all of a turn in
one commit) accept   uow compared and set, lease, history line   (worker, with the finishes before it)
finish   uow compared and set, history line          (worker) collect  2 events copied, job updated, 1
event, mark  (scheduler) and each scheduler commit writes the lease row. The queue file gets two messages,
to a worker and back.

`measure("throughput", jobs)` gives jobs per second; `measure("chain", jobs)` requests each job when its
predecessor's report was taken, and gives the gaps from the end of one work to the beginning of the next.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import json
import multiprocessing
import os
import select
import socket
import sqlite3
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WINDOW, BATCH, WORKERS = 256, 64, 2  # requested and not yet collected; taken at once by a worker; processes
STOP, LOOK = b"q", b"m"
SCHEMA = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, process TEXT, timeperiod TEXT, start INT, "end" INT, state TEXT,
  version INT, open INT, run INT, uow TEXT, uow_open INT, requested_seq INT, settled_seq INT, settled_at INT,
  created_at INT);
CREATE INDEX jobs_period ON jobs (process, start);
CREATE INDEX jobs_open ON jobs (process, start) WHERE open = 1;
CREATE TABLE units_of_work (id TEXT PRIMARY KEY, process TEXT, timeperiod TEXT, run INT, state TEXT,
  attempt INT, version INT, queue TEXT, priority INT, final INT, start INT, "end" INT, created_at INT,
  requested_at INT, due_at INT, owner TEXT, box TEXT, token TEXT, started_at INT, lease_until INT,
  finished_at INT, result TEXT, history TEXT, history_n INT, copied INT, dirty INT);
CREATE INDEX uows_due ON units_of_work (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX uows_unfinished ON units_of_work (process)
  WHERE state IN ('in_progress', 'invalid', 'requested');
CREATE INDEX uows_dirty ON units_of_work (id) WHERE dirty = 1;
CREATE INDEX uows_token ON units_of_work (token) WHERE state = 'in_progress';
CREATE INDEX uows_period ON units_of_work (process, timeperiod);
CREATE TABLE events (source TEXT, seq INT, at INT, business_at INT, kind TEXT, process TEXT, timeperiod TEXT,
  uow TEXT, ref TEXT, actor TEXT, severity TEXT, data TEXT, PRIMARY KEY (source, seq)) WITHOUT ROWID;
CREATE INDEX events_period ON events (process, timeperiod) WHERE process IS NOT NULL;
CREATE INDEX events_kind ON events (kind, severity);
CREATE INDEX events_alarming ON events (source, seq) WHERE severity IN ('critical', 'error', 'warning');
CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT, token INT, expires_at INT);
INSERT INTO leases VALUES ('scheduler', 'floor', 1, 0);
"""
QUEUE_SCHEMA = """
CREATE TABLE messages (queue TEXT, rank INT, id INT, body TEXT, PRIMARY KEY (queue, rank, id)) WITHOUT ROWID;
CREATE TABLE claims (id INTEGER PRIMARY KEY, consumer INT, messages TEXT);
"""
REQUEST = (
    "INSERT INTO units_of_work VALUES (?,'p',?,1,'requested',1,0,'work',5,1,?,?,?,?,?,NULL,NULL,NULL,NULL,"
    "NULL,NULL,NULL,'',0,0,0)"
)
DISPATCH = (
    "UPDATE jobs SET state='final_run', version=version+1, run=1, uow=?, uow_open=1, requested_seq=? "
    "WHERE id=? AND state='embryo' AND version=0"
)
EVENT = "INSERT INTO events VALUES ('scheduler',?,?,?,?,'p',?,?,?,?,'info',?)"
ACCEPT = (
    "UPDATE units_of_work SET state='in_progress', version=version+1, owner=?, box='b', token=?, "
    "started_at=?, lease_until=?, due_at=?, history=history||?, history_n=history_n+1, dirty=1 "
    "WHERE id=? AND state='requested'"
)
FINISH = (
    "UPDATE units_of_work SET state='processed', version=version+1, finished_at=?, due_at=NULL, result=?, "
    "history=history||?, history_n=history_n+1, dirty=1 WHERE id=? AND state='in_progress' AND token=?"
)
SETTLE = (
    "UPDATE jobs SET state='processed', version=version+1, open=0, uow_open=0, settled_seq=?, settled_at=? "
    "WHERE id=? AND state='final_run' AND version=1"
)


class File:
    """A SQLite file in WAL mode whose writers take turns by a lock; `with file as db:` is one transaction."""

    def __init__(self, path: Path, synchronous: str, autocheckpoint: int = 0) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(f"PRAGMA synchronous={synchronous}")
        self.db.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
        self.db.execute("PRAGMA cache_size=-16000")
        self.turn = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
        self.commits = 0

    def __enter__(self) -> sqlite3.Connection:
        fcntl.flock(self.turn, fcntl.LOCK_EX)
        self.db.execute("BEGIN IMMEDIATE")
        return self.db

    def __exit__(self, *_: object) -> None:
        self.db.execute("COMMIT")
        fcntl.flock(self.turn, fcntl.LOCK_UN)
        self.commits += 1


class Queue:
    """A queue to take from, with a bell; and all queues to put into."""

    def __init__(self, folder: Path, queue: str, bell: str) -> None:
        self.file, self.folder, self.queue = File(folder / "queue", "OFF", 1000), folder, queue
        self.claims: list[int] = []
        self.bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bell.bind(str(folder / bell))
        self.bell.setblocking(False)
        self.poll = select.poll()
        self.poll.register(self.bell, select.POLLIN)

    def put(self, queue: str, bodies: list[str], bells: list[str]) -> None:
        with self.file as db:
            first = time.monotonic_ns()
            rows = [(queue, -5, first + i, body) for i, body in enumerate(bodies)]
            db.executemany("INSERT INTO messages VALUES (?,?,?,?)", rows)
        self.ring(bells, LOOK)

    def ring(self, bells: list[str], kind: bytes) -> None:
        for bell in bells:
            with contextlib.suppress(BlockingIOError):  # it rings already
                self.bell.sendto(kind, str(self.folder / bell))

    def take(self, limit: int, wait: bool) -> list[str] | None:
        """Ack what was taken before, take more; None: to stop."""
        while True:
            while self.poll.poll(0):
                if self.bell.recv(1) == STOP:
                    return None
            rows = []
            if (
                self.claims
                or self.file.db.execute(
                    "SELECT 1 FROM messages WHERE queue=? LIMIT 1", (self.queue,)
                ).fetchall()
            ):
                rows = self._take(limit)
            if rows or not wait:
                return [row[2] for row in rows]
            self.poll.poll(1000)

    def _take(self, limit: int) -> list[Any]:
        with self.file as db:
            db.executemany("DELETE FROM claims WHERE id=?", [(claim,) for claim in self.claims])
            rows = db.execute(
                "SELECT rank, id, body FROM messages WHERE queue=? ORDER BY rank, id LIMIT ?",
                (self.queue, limit),
            ).fetchall()
            self.claims = []
            if rows:
                db.execute(
                    "DELETE FROM messages WHERE queue=? AND (rank, id)<=(?,?)", (self.queue, *rows[-1][:2])
                )
                cursor = db.execute(
                    "INSERT INTO claims (consumer, messages) VALUES (1,?)", (json.dumps(rows),)
                )
                self.claims = [cursor.lastrowid or 0]
        return rows


def line(verb: str, state: str, actor: str, at: int) -> str:
    """One line of a history."""
    return f'{{"verb":"{verb}","state":"{state}","at":{at},"actor":"{actor}","attempt":1}}\n'


def now() -> int:
    """Milliseconds."""
    return time.time_ns() // 1_000_000


def worker(folder: Path, name: str, synchronous: str, pipe: Connection) -> None:
    """Accept, do nothing, finish, report; the finishes of one batch share a commit with the next accepts."""
    store, queue = File(folder / "store", synchronous), Queue(folder, "work", name)
    works: list[tuple[str, int, int]] = []  # uow, began, ended
    done: list[str] = []
    pipe.send("ready")
    spent = time.process_time()
    while (uows := queue.take(BATCH, wait=not done)) is not None:
        with store as db:
            at = now()
            finished = line("succeed", "processed", name, at)
            db.executemany(FINISH, [(at, "{}", finished, uow, name + uow) for uow in done])
            accepted, lease = line("accept", "in_progress", name, at), at + 60_000
            db.executemany(ACCEPT, [(name, name + uow, at, lease, lease, accepted, uow) for uow in uows])
        if done:
            queue.put("report", done, ["scheduler"])
        for uow in uows:
            began = time.monotonic_ns()
            works.append((uow, began, time.monotonic_ns()))
        done = uows
    pipe.send((works, store.commits, queue.file.commits, time.process_time() - spent))


def scheduler(folder: Path, jobs: int, window: int, synchronous: str, bells: list[str]) -> dict[str, Any]:
    """Request up to `window` jobs at a time, collect what was reported, until all are processed."""
    store, queue = File(folder / "store", synchronous), Queue(folder, "report", "scheduler")
    seq = requested = collected = turns = 0
    began = checkpointed = time.monotonic()
    spent = time.process_time()
    while collected < jobs:
        reported = queue.take(WINDOW, wait=requested > collected) or []
        request = range(requested, min(jobs, collected + len(reported) + window))
        at, settled, dispatched = now(), [], []
        events: list[tuple[Any, ...]] = []
        sql = (
            f"SELECT id, timeperiod, history FROM units_of_work WHERE id IN ({','.join('?' * len(reported))})"
        )
        with store as db:
            for uow, period, history in db.execute(sql, reported):
                for n, entry in enumerate(history.splitlines(), 1):
                    seq += 1
                    kind = "uow.succeed" if '"succeed"' in entry else "uow.accept"
                    events.append((seq, at, at, kind, period, uow, f"{uow}/{n}", "w", entry))
                seq += 1
                events.append(
                    (seq, at, at, "job.complete", period, uow, None, "scheduler", '{"state":"processed"}')
                )
                settled.append((seq, at, uow[:-2]))
            new = []
            for n in request:
                period = f"{2013000000 + n}"
                job, uow = f"p@{period}", f"p@{period}#1"
                new.append((uow, period, n, n + 1, at, at, at + 60_000))
                dispatched.append((uow, seq + 1, job))
                events.append(
                    (seq + 1, at, at, "job.dispatch_final", period, uow, None, "scheduler", '{"run":1}')
                )
                events.append(
                    (seq + 2, at, at, "uow.request", period, uow, None, "scheduler", '{"attempt":1}')
                )
                seq += 2
            db.executemany("UPDATE units_of_work SET copied=2, dirty=0 WHERE id=?", [(u,) for u in reported])
            db.executemany(SETTLE, settled)
            db.executemany(REQUEST, new)
            db.executemany(DISPATCH, dispatched)
            db.executemany(EVENT, events)
            db.execute("UPDATE leases SET expires_at=? WHERE name='scheduler' AND token=1", (at + 10_000,))
        if new:
            queue.put("work", [row[0] for row in new], bells)
        requested, collected, turns = request.stop, collected + len(settled), turns + 1
        if time.monotonic() - checkpointed >= 1:
            store.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            checkpointed = time.monotonic()
    seconds = time.monotonic() - began
    queue.ring(bells, STOP)
    return {
        "seconds": seconds,
        "turns": turns,
        "commits": store.commits,
        "queue_commits": queue.file.commits,
        "cpu": time.process_time() - spent,
    }


def prepare(folder: Path, jobs: int) -> None:
    """The files, with an embryo row for every job."""
    store, queue = File(folder / "store", "OFF"), File(folder / "queue", "OFF")
    store.db.executescript(SCHEMA)
    queue.db.executescript(QUEUE_SCHEMA)
    rows = [(f"p@{2013000000 + n}", f"{2013000000 + n}", n, n + 1) for n in range(jobs)]
    with store as db:
        sql = "INSERT INTO jobs VALUES (?,'p',?,?,?,'embryo',0,1,0,NULL,0,0,0,NULL,0)"
        db.executemany(sql, rows)
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check(folder: Path, jobs: int) -> None:
    """All writes are there."""
    db = File(folder / "store", "OFF").db
    assert db.execute("SELECT count(*) FROM jobs WHERE state='processed' AND version=2").fetchone() == (jobs,)
    sql = (
        "SELECT count(*) FROM units_of_work WHERE state='processed' AND history_n=2 AND dirty=0 AND copied=2"
    )
    assert db.execute(sql).fetchone() == (jobs,)
    assert db.execute("SELECT count(*), max(seq) FROM events").fetchone() == (5 * jobs, 5 * jobs)


def measure(mode: str, jobs: int, synchronous: str = "NORMAL", folder: Path | None = None) -> dict[str, Any]:
    """Run it once in a scratch folder below `folder`. Times in seconds, gaps in milliseconds."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="floor-") as scratch:
        home = Path(scratch)
        prepare(home, jobs)
        bells = [f"w{n}" for n in range(WORKERS)]
        pipes = [multiprocessing.Pipe() for _ in bells]
        spawn = multiprocessing.get_context("spawn")
        processes = [
            spawn.Process(target=worker, args=(home, bell, synchronous, pipe[1]), daemon=True)
            for bell, pipe in zip(bells, pipes, strict=True)
        ]
        for process in processes:
            process.start()
        for pipe, _ in pipes:
            pipe.recv()
        result = scheduler(home, jobs, 1 if mode == "chain" else WINDOW, synchronous, bells)
        answers = [pipe.recv() for pipe, _ in pipes]
        for process in processes:
            process.join()
        check(home, jobs)
    works = sorted((began, ended) for answer in answers for _, began, ended in answer[0])
    assert len(works) == jobs
    summary = {
        "mode": mode,
        "synchronous": synchronous,
        "jobs": jobs,
        "seconds": round(result["seconds"], 4),
        "store_commits_per_job": round((result["commits"] + sum(a[1] for a in answers)) / jobs, 3),
        "queue_commits_per_job": round((result["queue_commits"] + sum(a[2] for a in answers)) / jobs, 3),
        "jobs_per_second": round(jobs / result["seconds"], 1),
        "cpu_ms_per_job": {
            "scheduler": round(result["cpu"] * 1000 / jobs, 4),
            "workers": round(sum(answer[3] for answer in answers) * 1000 / jobs, 4),
        },
    }
    if mode == "chain":
        gaps = sorted((after[0] - before[1]) / 1e6 for before, after in itertools.pairwise(works))
        summary["gap_ms_median"] = round(statistics.median(gaps), 3)
        summary["gap_ms_p95"] = round(gaps[int(len(gaps) * 0.95)], 3)
        summary["gap_ms_p99"] = round(gaps[int(len(gaps) * 0.99)], 3)
    return summary


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The durable writes of the design and nothing else.")
    parser.add_argument("mode", choices=("throughput", "chain"))
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--synchronous", choices=("NORMAL", "FULL"), default="NORMAL")
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is meant (default: the temporary folder)"
    )
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.mode, arguments.jobs, arguments.synchronous, arguments.folder)))


if __name__ == "__main__":
    main()
