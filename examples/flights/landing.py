"""The landing area: a SQLite file with the raw rows that have arrived, and the rule when each arrives.

Raw rows come from `data/*.csv.gz`. What arrived by the instant the demo goes live is loaded at once
(`create`), the rest is landed as business time passes (`Landing.land`), which is the work of `feed.py`.
Workers see only what has landed.

Theory. `seq` numbers the flights in the order of their landing; there is one writer, so a worker that has
seen everything up to `seq` n has missed nothing below n, and n is its cursor. An hour that receives rows may
be closed already, so with every landing a *call* is written in the same transaction: who landed the rows
looks at the clock *after* the commit, and either has the hour reprocessed or, while it is still open, drops
the call. A crash in between leaves the call open, for the next start.

Times are whole seconds since 1970 (UTC), also in the file: `hour` is the start of the hour a flight was to
depart in. Nothing here reads a clock. The file keeps SQLite's rollback journal: one writer, rare writes, no
checkpoints to care for.
"""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

DATA = Path(__file__).resolve().parent / "data"
YEAR_END = int(datetime(2014, 1, 1, tzinfo=UTC).timestamp())
LATE_PERCENT = 3
LATE_HOURS = 6
OBSERVED_AT_S = 51 * 60  # airports report their weather nine minutes before the full hour
BUSY_S = 30.0
CHUNK = 20_000

SCHEMA = """
CREATE TABLE flights (
    hour INTEGER, row INTEGER, seq INTEGER, minute INTEGER, origin TEXT, dest TEXT, carrier TEXT,
    dep_delay INTEGER, arr_delay INTEGER, cancelled INTEGER, distance INTEGER, air_time INTEGER,
    landed_at INTEGER, PRIMARY KEY (hour, row)
) WITHOUT ROWID;
CREATE TABLE weather (
    hour INTEGER, origin TEXT, temp REAL, wind_speed REAL, visib REAL, precip REAL, landed_at INTEGER,
    PRIMARY KEY (hour, origin)
) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, process TEXT, hour INTEGER, rows INTEGER, called_at INTEGER
);
CREATE TABLE feed (landed_until INTEGER, last_seq INTEGER);
"""
ADD_FLIGHT = (
    "INSERT INTO flights (hour, row, seq, landed_at, minute, origin, dest, carrier, dep_delay, arr_delay,"
    " cancelled, distance, air_time)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULLIF(?, ''), NULLIF(?, ''), ?, ?, NULLIF(?, ''))"
)
ADD_WEATHER = (
    "INSERT INTO weather (hour, landed_at, origin, temp, wind_speed, visib, precip)"
    " VALUES (?, ?, ?, NULLIF(?, ''), NULLIF(?, ''), NULLIF(?, ''), NULLIF(?, ''))"
)


class RawRow(NamedTuple):
    """A row of a raw file: when it arrives, its hour, its place in the file, and its other columns."""

    arrival: int
    hour: int
    row: int
    values: tuple[str, ...]


class Flight(NamedTuple):
    """A landed flight, as far as the workers need it. Minutes and miles; None: not known."""

    seq: int
    origin: str
    carrier: str
    cancelled: int
    dep_delay: int | None
    arr_delay: int | None
    distance: int
    air_time: int | None


class Observation(NamedTuple):
    """A landed observation of the weather: °F, mph, miles, inches; None: not known."""

    origin: str
    temp: float | None
    wind_speed: float | None
    visib: float | None
    precip: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """Rows were landed for this hour: if it is closed, this process must do it again."""

    id: int
    process: str
    hour: int
    rows: int


@lru_cache(maxsize=64)
def _epoch(time_hour: str) -> int:
    return int(datetime.fromisoformat(time_hour).timestamp())


def flight_arrival(line: bytes, hour: int, minute: int) -> int:
    """When this flight's row arrives: at its minute, or (a few percent, by the hash of the row) 1-6 hours
    after the hour.

    Nothing is held back beyond the end of the year, where the books are closed.
    """
    on_time = hour + minute * 60
    dice = crc32(line)
    if dice % 100 >= LATE_PERCENT:
        return on_time
    late = hour + 3600 * (2 + dice // 100 % LATE_HOURS)
    return late if late < YEAR_END else on_time


def raw_flights(data: Path = DATA) -> Iterator[RawRow]:
    """All flights of the raw file, in its order (by scheduled departure)."""
    with gzip.open(data / "flights.csv.gz", "rb") as file:
        next(file)
        for row, line in enumerate(file):
            time_hour, *values = line[:-1].decode("ascii").split(",")
            hour = _epoch(time_hour)
            yield RawRow(flight_arrival(line, hour, int(values[0])), hour, row, tuple(values))


def raw_weather(data: Path = DATA) -> Iterator[RawRow]:
    """All observations of the raw file, in its order (by hour)."""
    with gzip.open(data / "weather.csv.gz", "rb") as file:
        next(file)
        for row, line in enumerate(file):
            time_hour, *values = line[:-1].decode("ascii").split(",")
            hour = _epoch(time_hour)
            yield RawRow(hour + OBSERVED_AT_S, hour, row, tuple(values))


def create(path: Path, until: int, data: Path, progress: Callable[[int], None]) -> None:
    """Make a landing area with everything that arrived by `until`; `progress` gets the number of raw rows
    read so far.

    The file must not exist. It is made under this name: who wants all or nothing makes it elsewhere and
    renames it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        done = seq = 0
        rows = raw_flights(data)
        while chunk := list(islice(rows, CHUNK)):
            landed = [row for row in chunk if row.arrival <= until]
            connection.executemany(
                ADD_FLIGHT,
                ((r.hour, r.row, n, r.arrival, *r.values) for n, r in enumerate(landed, seq + 1)),
            )
            seq += len(landed)
            done += len(chunk)
            progress(done)
        rows = raw_weather(data)
        while chunk := list(islice(rows, CHUNK)):
            connection.executemany(
                ADD_WEATHER, ((r.hour, r.arrival, *r.values) for r in chunk if r.arrival <= until)
            )
            done += len(chunk)
            progress(done)
        connection.execute("INSERT INTO feed VALUES (?, ?)", (until, seq))
        connection.execute("COMMIT")


class Landing:
    """An open landing area. Not for several threads at once; several processes are fine."""

    def __init__(self, path: str | Path, *, writes: bool = False) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no landing area at {path}: make it with examples.flights.prepare")
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        if not writes:
            self._connection.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        self._connection.close()

    def flights(self, hour: int, after: int = 0) -> list[Flight]:
        """The flights of an hour whose `seq` is above `after`, in the order of the raw file."""
        found = self._connection.execute(
            "SELECT seq, origin, carrier, cancelled, dep_delay, arr_delay, distance, air_time FROM flights"
            " WHERE hour = ? AND seq > ?",
            (hour, after),
        )
        return [Flight(*row) for row in found]

    def weather(self, hour: int) -> list[Observation]:
        """The observations of an hour, one an airport at most."""
        found = self._connection.execute(
            "SELECT origin, temp, wind_speed, visib, precip FROM weather WHERE hour = ?", (hour,)
        )
        return [Observation(*row) for row in found]

    def landed_until(self) -> int:
        """Every row that arrives by this instant has landed."""
        return int(self._connection.execute("SELECT landed_until FROM feed").fetchone()[0])

    def land(self, flights: Iterable[RawRow], weather: Iterable[RawRow], now: int) -> None:
        """Land these rows, note a call for each of their hours, move `landed_until`: in one transaction."""
        sql = self._connection
        calls: dict[tuple[str, int], int] = {}
        with self._transaction():
            seq = int(sql.execute("SELECT last_seq FROM feed").fetchone()[0])
            for flight in flights:
                seq += 1
                sql.execute(ADD_FLIGHT, (flight.hour, flight.row, seq, now, *flight.values))
                calls["flights_hourly", flight.hour] = calls.get(("flights_hourly", flight.hour), 0) + 1
            for seen in weather:
                sql.execute(ADD_WEATHER, (seen.hour, now, *seen.values))
                calls["weather_hourly", seen.hour] = calls.get(("weather_hourly", seen.hour), 0) + 1
            sql.executemany(
                "INSERT INTO calls (process, hour, rows) VALUES (?, ?, ?)",
                [(*k, n) for k, n in calls.items()],
            )
            sql.execute("UPDATE feed SET landed_until = ?, last_seq = ?", (now, seq))

    def open_calls(self) -> list[Call]:
        """The calls nobody has followed or dropped yet, oldest first."""
        found = self._connection.execute(
            "SELECT id, process, hour, rows FROM calls WHERE called_at IS NULL ORDER BY id"
        )
        return [Call(*row) for row in found]

    def answered(self, followed: Iterable[Call], dropped: Iterable[Call], now: int) -> None:
        """The hours of the followed calls were closed and are being reprocessed; those stay as the record of
        late data. The hours of the dropped ones were still open: their own last run sees the rows."""
        sql = self._connection
        with self._transaction():
            sql.executemany("UPDATE calls SET called_at = ? WHERE id = ?", [(now, c.id) for c in followed])
            sql.executemany("DELETE FROM calls WHERE id = ?", [(c.id,) for c in dropped])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:  # raised again: nothing is kept of half a block
            self._connection.execute("ROLLBACK")
            raise

    def settled(self, until: int) -> bool:
        """Whether all that arrives by `until` has landed, and no call for a closed hour is still open."""
        return self.landed_until() >= until and not self.open_calls()

    def late(self) -> tuple[int, int]:
        """How many hours were reprocessed for late rows, and for how many rows."""
        found = self._connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(rows), 0) FROM calls WHERE called_at IS NOT NULL"
        )
        hours, rows = found.fetchone()
        return int(hours), int(rows)


@lru_cache(maxsize=4)
def reader(path: str | None) -> Landing:
    """The landing area in this file, opened once: a worker's child serves thousands of hours."""
    if not path:
        raise ValueError("this process has no source: register it with source=<file of the landing area>")
    return Landing(path)
