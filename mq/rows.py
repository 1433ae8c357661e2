"""The rows of the queue file: how messages are put, taken, acked and given back. SQL only, always in a
transaction.

A waiting message is a row of `messages`, which lie in the order in which they are taken. Taking moves up to
n of them out of there, into one row of `claims` that names the consumer; so a message costs one insert and
one delete in a single tree, and a claim of 64 costs as much bookkeeping as a claim of one. Giving back puts
them into their old places. Ids come from `stamp`, which never goes back: first come, first out.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mq.envelope import DEAD
from scheduler.core.ports import Outgoing

_PUT = "INSERT INTO messages (queue, rank, id, body) VALUES (?, ?, ?, ?)"
_PUT_BACK = "INSERT OR IGNORE INTO messages (queue, rank, id, body, redelivered) VALUES (?, ?, ?, ?, 1)"
_HEAD = "SELECT rank, id, body, redelivered FROM messages WHERE queue = ? ORDER BY rank, id LIMIT ?"
_TAKE_ONE = "DELETE FROM messages WHERE queue = ? AND rank = ? AND id = ?"
_TAKE = "DELETE FROM messages WHERE queue = ? AND (rank, id) <= (?, ?)"
_CLAIM = "INSERT INTO claims (consumer, messages) VALUES (?, ?)"
_BURY = "INSERT OR IGNORE INTO messages (queue, rank, id, body, redelivered) VALUES (?, ?, ?, ?, ?)"
_LET_GO = (
    "DELETE FROM messages WHERE queue = ? AND id <="
    " (SELECT id FROM messages WHERE queue = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
)
BELLS = "SELECT id, address FROM consumers WHERE queue = ?"
ANY = "SELECT 1 FROM messages WHERE queue = ? LIMIT 1"
DEPTH = "SELECT count(*) FROM messages WHERE queue = ?"
ADDRESSES = "SELECT DISTINCT id, address FROM consumers"

DEAD_MOST = 1000

Stamp = Callable[[], int]
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Taken(NamedTuple):
    """A message out of the table; the first four fields say where it lay."""

    queue: str
    rank: int
    id: int
    body: bytes | str
    redelivered: int


def clock_stamp() -> int:
    """Ids across the processes of a machine, drawn inside the write lock: nanoseconds since it started."""
    return time.monotonic_ns()


def counting_stamp() -> Stamp:
    """Ids inside one process: as `clock_stamp`, but the same in every run. Leaves room for a batch."""
    return itertools.count(0, 1_000_000_000).__next__


def put(db: sqlite3.Connection, messages: Sequence[Outgoing], stamp: Stamp) -> None:
    """Insert a batch; a row takes longer than the nanosecond that its id is ahead."""
    first = stamp()
    if len(messages) == 1:
        queue, body, priority = messages[0]
        db.execute(_PUT, (queue, -priority, first, body))
    else:
        rows = [(queue, -priority, first + i, body) for i, (queue, body, priority) in enumerate(messages)]
        db.executemany(_PUT, rows)


def take(db: sqlite3.Connection, queues: Sequence[str], limit: int) -> list[Taken]:
    """Remove the first `limit` messages over all `queues` and return them in order."""
    found: list[Taken] = []
    for queue in queues:
        found += [Taken(queue, *row) for row in db.execute(_HEAD, (queue, limit))]
    if len(queues) > 1 and found:
        found.sort(key=_place)
        del found[limit:]
    if len(found) == 1:
        db.execute(_TAKE_ONE, found[0][:3])
    else:
        for queue, rank, last in {taken.queue: taken[:3] for taken in found}.values():
            db.execute(_TAKE, (queue, rank, last))
    return found


def bury(db: sqlite3.Connection, refused: Sequence[Taken]) -> None:
    """Keep what could not be read, for people to look at: the newest DEAD_MOST of them."""
    if not refused:
        return
    places = [(DEAD, taken.rank, taken.id, taken.body, taken.redelivered) for taken in refused]
    db.executemany(_BURY, places)
    db.execute(_LET_GO, (DEAD, DEAD, DEAD_MOST))


def claim(db: sqlite3.Connection, consumer: int, entries: Sequence[Sequence[Any]]) -> int:
    """Note that `consumer` holds these (queue, rank, id, body); returns the claim's id."""
    row = db.execute(_CLAIM, (consumer, _encode(entries))).lastrowid
    assert row is not None
    return row


def release(db: sqlite3.Connection, claim_id: int, consumer: int, left: Sequence[Sequence[Any]]) -> None:
    """Of this claim only `left` is still held."""
    if left:
        sql = "UPDATE claims SET messages = ? WHERE id = ? AND consumer = ?"
        db.execute(sql, (_encode(left), claim_id, consumer))
    else:
        db.execute("DELETE FROM claims WHERE id = ? AND consumer = ?", (claim_id, consumer))


def put_back(db: sqlite3.Connection, entries: Iterable[Sequence[Any]]) -> None:
    """Give messages their old places, marked as delivered before."""
    db.executemany(_PUT_BACK, entries)


def subscribe(db: sqlite3.Connection, consumer: int, address: str, pid: int, queues: Iterable[str]) -> None:
    """Enter a consumer into the list."""
    rows = [(queue, consumer, address, pid) for queue in queues]
    db.executemany("INSERT INTO consumers (queue, id, address, pid) VALUES (?, ?, ?, ?)", rows)


def unsubscribe(db: sqlite3.Connection, consumer: int) -> bool:
    """Strike a consumer off the list and give back all it holds; whether it held anything."""
    claims = db.execute("SELECT messages FROM claims WHERE consumer = ?", (consumer,)).fetchall()
    for (messages,) in claims:
        put_back(db, json.loads(messages))
    db.execute("DELETE FROM claims WHERE consumer = ?", (consumer,))
    db.execute("DELETE FROM consumers WHERE id = ?", (consumer,))
    return bool(claims)


def unsubscribe_all(db: sqlite3.Connection) -> None:
    """As `unsubscribe`, for every consumer there ever was."""
    for (consumer,) in db.execute("SELECT consumer FROM claims UNION SELECT id FROM consumers").fetchall():
        unsubscribe(db, consumer)


def make_older(db: sqlite3.Connection) -> None:
    """Put all that waits before everything to come: the clock of the ids began again at 0.

    All move by one span that is longer than they lie apart, so none ever meets another on the way.
    """
    db.execute("UPDATE messages SET id = id - (SELECT max(id) - min(min(id), 0) + 1 FROM messages)")


def bells(db: sqlite3.Connection, queues: Iterable[str]) -> dict[int, str]:
    """Consumer id → address of all who consume one of `queues`."""
    return {row[0]: row[1].decode() for queue in queues for row in db.execute(BELLS, (queue,))}


def _place(taken: Taken) -> tuple[int, int]:
    return taken.rank, taken.id
