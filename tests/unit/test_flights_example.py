"""The flights example on its real data: vendored files, landing area, workers, feed, totals.

The workers run on a task made here, against real SQLite files in a temporary folder, and are compared with
numbers counted straight from the raw file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from examples.flights import (
    delays,
    landing,
    prepare,
    process_context,
    results,
    totals,
    weather,
    workers,
)
from examples.flights.feed import Feed, flights_feed
from synergy import Daemon, LeaseLost, Noop, Processed, Task
from worker.api import ProcessInfo, SinkToken

DAY = datetime(2013, 7, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEED_LAG_S = process_context.FEED_LAG_S


@dataclass
class Box:
    """A small state folder of real rows, and a way to make tasks for it."""

    places: prepare.Places
    data: Path

    def task(self, process: str, start: datetime, span: timedelta = HOUR, **more: Any) -> Task:
        kind = {1: "%Y%m%d%H", 24: "%Y%m%d00"}.get(int(span / HOUR), "%Y%m0000")
        source, sink = str(self.places.landing), str(self.places.results)
        return Task(
            process=process,
            timeperiod=start.strftime(kind),
            start=start,
            end=start + span,
            source=source,
            sink=sink,
            **more,
        )

    def totals(self, process: str, table: str = "flights") -> dict[str, int]:
        with closing(sqlite3.connect(self.places.results)) as sink:
            return results.totals(sink, table, process, 0, 1 << 40)

    def rows(self, name: str = "flights", prefix: str = "2013-07-04") -> list[dict[str, str]]:
        with gzip.open(self.data / f"{name}.csv.gz", "rt", newline="") as file:
            return [row for row in csv.DictReader(file) if row["time_hour"].startswith(prefix)]


@pytest.fixture(scope="session")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw rows of 3-5 July and of the year's last days, as a folder like `data/`."""
    folder = tmp_path_factory.mktemp("raw")
    days = tuple(d.encode() for d in ("2013-07-03", "2013-07-04", "2013-07-05", "2013-12-3", "2014-01-01"))
    for name in ("flights.csv.gz", "weather.csv.gz"):
        with gzip.open(landing.DATA / name, "rb") as file, gzip.open(folder / name, "wb") as small:
            small.writelines([next(file), *(line for line in file if line.startswith(days))])
    return folder


@pytest.fixture
def box(week: Path, tmp_path: Path) -> Iterator[Box]:
    """Everything that arrived until the end of 5 July has landed."""
    places = prepare.prepare(tmp_path / "a state", DAY + 48 * HOUR, data=week)
    yield Box(places, week)
    forget()


def forget() -> None:
    """Close the files that a worker's process keeps open."""
    landing.reader.cache_clear()
    results._connection.cache_clear()


def hourly(box: Box, start: datetime, **more: Any) -> Processed | Noop:
    task = box.task("flights_hourly", start, **more)
    return workers.Hourly(ProcessInfo(task.process, task.source, task.sink)).run(task)


def run_day(box: Box, day: datetime = DAY) -> None:
    """All of one day's jobs, in the order of their dependencies."""
    for hour in range(24):
        hourly(box, day + hour * HOUR)
        weather.hourly(box.task("weather_hourly", day + hour * HOUR))
    for table in ("flights", "weather"):
        child = {"table": table, "child": f"{table}_hourly"}
        workers.roll_up(box.task(f"{table}_daily", day, 24 * HOUR, arguments=child))
    delays.daily(box.task("delays_daily", day, 24 * HOUR))


# --- the vendored files ------------------------------------------------------------------------------------


def test_the_vendored_files_are_those_of_the_provenance() -> None:
    known = dict(
        line.split()[::-1] for line in (landing.DATA / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    )
    provenance = (landing.DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    rows = {}
    for name in ("flights.csv", "weather.csv"):
        packed = (landing.DATA / f"{name}.gz").read_bytes()
        plain = gzip.decompress(packed)
        assert hashlib.sha256(packed).hexdigest() == known[f"{name}.gz"]
        assert hashlib.sha256(plain).hexdigest() == known[name]
        assert known[f"{name}.gz"] in provenance
        rows[name] = plain.count(b"\n") - 1
        assert f"{rows[name]:,}" in provenance
    assert sum(rows.values()) == prepare.RAW_ROWS


def test_the_count_of_the_year_is_known_and_short() -> None:
    source = landing.DATA.parent / "count.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 25
    assert "examples" not in source.read_text(encoding="utf-8"), "it shares no code with the workers"
    counted = json.loads(subprocess.run([sys.executable, source], check=True, stdout=subprocess.PIPE).stdout)
    assert counted["flights"] == 336_776 - 88, "88 flights of the evening of 31 December are of 2014 in UTC"
    assert counted["departed"] + counted["cancelled"] == counted["flights"]


# --- the landing area --------------------------------------------------------------------------------------


def test_a_few_percent_arrive_late_and_none_after_the_year(week: Path) -> None:
    rows = list(landing.raw_flights(week))
    late = [row for row in rows if row.arrival >= row.hour + 3600]
    assert 0.02 < len(late) / len(rows) < 0.04
    waits = {(row.arrival - row.hour - 3600) // 3600 for row in late}
    assert waits == {1, 2, 3, 4, 5, 6}
    assert all(row.arrival < landing.YEAR_END for row in rows if row.hour < landing.YEAR_END)
    assert [row.arrival for row in rows] == [row.arrival for row in landing.raw_flights(week)]


def test_only_what_arrived_has_landed(week: Path, tmp_path: Path) -> None:
    until = DAY + 20 * HOUR + timedelta(minutes=30)
    seen: list[tuple[int, int]] = []
    places = prepare.prepare(tmp_path, until, lambda done, total: seen.append((done, total)), week)
    area = landing.Landing(places.landing)
    found = sum(len(area.flights(int((DAY + n * HOUR).timestamp()))) for n in range(24))
    begin, now = int(DAY.timestamp()), int(until.timestamp())
    expected = [r for r in landing.raw_flights(week) if r.hour >= begin and r.arrival <= now]
    assert found == len(expected) > 0
    assert seen[-1] == (prepare.RAW_ROWS, prepare.RAW_ROWS) and seen == sorted(seen)
    before = places.landing.read_bytes()
    prepare.prepare(tmp_path, until + HOUR, data=week)
    assert places.landing.read_bytes() == before, "what is there is left as it is"
    area.close()


def test_a_landing_area_half_made_is_made_again(week: Path, tmp_path: Path) -> None:
    (tmp_path / "landing.unfinished").write_bytes(b"killed in the middle")
    places = prepare.prepare(tmp_path, DAY, data=week)
    area = landing.Landing(places.landing)
    assert area.landed_until() == DAY.timestamp()
    area.close()


def test_a_missing_landing_area_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no landing area"):
        landing.Landing(tmp_path / "none.sqlite")
    with pytest.raises(ValueError, match="register it with source="):
        landing.reader(None)


# --- the workers -------------------------------------------------------------------------------------------


def test_hours_add_up_to_the_raw_rows_of_the_day(box: Box) -> None:
    run_day(box)
    rows = box.rows()
    for process in ("flights_hourly", "flights_daily"):
        found = box.totals(process)
        assert found["flights"] == len(rows)
        assert found["cancelled"] == sum(row["cancelled"] == "1" for row in rows)
        assert found["dep_delay_minutes"] == sum(int(row["dep_delay"] or 0) for row in rows)
        assert found["dep_delay_squares"] == sum(int(row["dep_delay"] or 0) ** 2 for row in rows)
        assert found["arr_delay_minutes"] == sum(int(row["arr_delay"] or 0) for row in rows)
        assert found["arrived"] == sum(row["arr_delay"] != "" for row in rows)
        assert found["distance"] == sum(int(row["distance"]) for row in rows)
        assert found["air_minutes"] == sum(int(row["air_time"] or 0) for row in rows)


def test_an_hour_without_flights_is_noop(box: Box) -> None:
    assert isinstance(hourly(box, DAY + 7 * HOUR), Noop)
    assert not any(box.totals("flights_hourly").values())


def test_a_day_without_hours_is_noop(box: Box) -> None:
    child = {"table": "flights", "child": "flights_hourly"}
    assert isinstance(workers.roll_up(box.task("flights_daily", DAY, 24 * HOUR, arguments=child)), Noop)
    assert isinstance(delays.daily(box.task("delays_daily", DAY, 24 * HOUR)), Noop)


def test_slices_of_an_hour_add_up_and_a_repeated_one_replaces_itself(week: Path, tmp_path: Path) -> None:
    start = DAY + 18 * HOUR
    box = Box(prepare.prepare(tmp_path, start + timedelta(minutes=20), data=week), week)
    first = hourly(box, start, final=False)
    assert isinstance(first, Processed) and first.cursor is not None
    some = box.totals("flights_hourly")
    assert isinstance(hourly(box, start, cursor=first.cursor, token=SinkToken(2, 3)), Noop)

    area = landing.Landing(box.places.landing, writes=True)
    feed = Feed(area, week, FEED_LAG_S)
    feed.land(int((start + 12 * HOUR).timestamp()))
    last = hourly(box, start, cursor=first.cursor, token=SinkToken(3, 5))
    assert isinstance(last, Processed)
    whole = box.totals("flights_hourly")
    assert 0 < some["flights"] < whole["flights"] == len(box.rows(prefix=f"{start:%Y-%m-%dT%H}"))

    hourly(
        box, start, cursor=first.cursor, token=SinkToken(3, 7)
    )  # the worker was lost after its write, before its finish
    assert box.totals("flights_hourly") == whole
    hourly(box, start, token=SinkToken(4, 9))  # reprocessed: from the beginning, in the place of both slices
    assert box.totals("flights_hourly") == whole
    area.close()
    forget()


def test_a_worker_that_lost_its_lease_writes_nothing(box: Box) -> None:
    start = DAY + 18 * HOUR
    hourly(box, start, token=SinkToken(2, 4))
    whole = box.totals("flights_hourly")
    with pytest.raises(LeaseLost):
        hourly(box, start, token=SinkToken(1, 2), cursor="100")
    assert box.totals("flights_hourly") == whole


def test_the_weather_of_a_day(box: Box) -> None:
    run_day(box)
    rows = box.rows("weather")
    found = box.totals("weather_daily", "weather")
    assert found == box.totals("weather_hourly", "weather")
    assert found["observations"] == len(rows)
    assert found["precip_hundredths"] == round(sum(float(row["precip"]) for row in rows) * 100)
    assert found["temp_hundredths"] == sum(round(float(row["temp"]) * 100) for row in rows)


def test_a_wind_that_no_airport_ever_had_is_not_counted() -> None:
    storm = landing.Observation("EWR", None, 1048.36, 10.0, 0.0)
    assert weather.sums([storm]) == {("EWR",): [1, 0, 0, 0, 0, 1000, 1, 0, 1]}


def test_hours_without_weather_are_noop_and_their_delays_unknown(box: Box) -> None:
    assert isinstance(
        weather.hourly(box.task("weather_hourly", datetime(2013, 12, 31, 12, tzinfo=UTC))), Noop
    )
    hourly(box, DAY + 18 * HOUR)
    delays.daily(box.task("delays_daily", DAY, 24 * HOUR))
    with closing(sqlite3.connect(box.places.results)) as sink:
        (day,) = delays.read(sink, "delays_daily", 0, 1 << 40).values()
    assert all(list(buckets) == [delays.UNKNOWN] for buckets in day.values())
    assert delays.correlation(day["wind"]) is None


def test_delays_join_every_departure_with_its_weather(box: Box) -> None:
    run_day(box)
    with closing(sqlite3.connect(box.places.results)) as sink:
        (day,) = delays.read(sink, "delays_daily", 0, 1 << 40).values()
    seen = {(row["time_hour"], row["origin"]): row for row in box.rows("weather")}
    wet = 0
    for row in box.rows():
        there = seen.get((row["time_hour"], row["origin"]))
        wet += there is not None and float(there["precip"]) > 0
    assert (
        sum(sums["flights"] for name, sums in day["rain"].items() if name not in ("none", "unknown")) == wet
    )
    for buckets in day.values():
        assert sum(sums["flights"] for sums in buckets.values()) == len(box.rows())
        assert (
            sum(sums["delay"] for sums in buckets.values())
            == box.totals("flights_daily")["dep_delay_minutes"]
        )


def test_the_correlation_is_pearsons() -> None:
    pairs = [(0, 5), (0, -3), (10, 20), (25, 4), (30, 60)]
    sums = {
        "departed": len(pairs),
        "delay": sum(y for _x, y in pairs),
        "delay_squares": sum(y * y for _x, y in pairs),
        "x": sum(x for x, _y in pairs),
        "x_squares": sum(x * x for x, _y in pairs),
        "x_delay": sum(x * y for x, y in pairs),
    }
    expected = statistics.correlation([float(x) for x, _y in pairs], [float(y) for _x, y in pairs])
    found = delays.correlation({"all": sums})
    assert found is not None and abs(found - expected) < 1e-12


def test_the_monthly_report_is_well_formed_and_holds_the_months_numbers(box: Box) -> None:
    for day in (DAY - 24 * HOUR, DAY, DAY + 24 * HOUR):
        run_day(box, day)
    task = box.task(
        "delays_monthly",
        datetime(2013, 7, 1, tzinfo=UTC),
        timedelta(days=31),
        arguments={"child": "delays_daily", "reports": str(box.places.reports)},
    )
    done = delays.monthly(task)
    assert isinstance(done, Processed) and done.result is not None
    assert done.result["report"] == "delays-2013-07.html"
    assert set(done.result["correlation"]) == {"wind", "visibility", "rain"}
    text = (box.places.reports / "delays-2013-07.html").read_text(encoding="utf-8")
    page = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    bars = page.findall(".//svg/rect")
    assert len(page.findall(".//svg")) == 2 and len(bars) > 10
    assert all(float(bar.get("height") or -1) >= 0 for bar in bars)
    assert f"{box.totals('delays_daily', 'delays')['flights'] // 3:,} flights" in "".join(page.itertext())
    assert "<script" not in text and "http" not in text, "nothing is loaded from elsewhere"
    assert [path.name for path in box.places.reports.iterdir()] == ["delays-2013-07.html"]


def test_a_month_without_days_is_noop(box: Box) -> None:
    arguments = {"child": "delays_daily", "reports": str(box.places.reports)}
    month = datetime(2013, 7, 1, tzinfo=UTC)
    task = box.task("delays_monthly", month, timedelta(days=31), arguments=arguments)
    assert isinstance(delays.monthly(task), Noop)
    assert not list(box.places.reports.iterdir())


def test_the_check_names_the_days_that_differ(box: Box) -> None:
    run_day(box)
    task = box.task("flights_check", DAY + 30 * HOUR, arguments={"days": 3})
    assert workers.check(task).result == {"days": 3, "waiting": []}
    hourly(box, DAY - HOUR)
    assert workers.check(task).result == {"days": 3, "waiting": ["2013070300"]}


# --- the feed ----------------------------------------------------------------------------------------------


class Player(Daemon):
    """The handle of a daemon whose every wait takes ten minutes of business time, up to `until`."""

    def __init__(self, places: prepare.Places, data: Path, start: datetime, until: datetime) -> None:
        self.places = places
        self.clock, self.until = start, until
        self.calls: list[tuple[str, str, str]] = []
        arguments = {
            "landing": str(places.landing),
            "results": str(places.results),
            "lag_s": FEED_LAG_S,
            "data": str(data),
        }
        super().__init__("flights_feed", arguments, lambda: self.clock, lambda *call: self.calls.append(call))
        self.stopping.wait = self.wait  # type: ignore[method-assign]

    def wait(self, timeout: float | None = None) -> bool:
        self.clock += timedelta(minutes=10)
        return self.clock > self.until


def player(week: Path, folder: Path, start: datetime, until: datetime) -> Player:
    return Player(prepare.prepare(folder, start, data=week), week, start, until)


def test_the_feed_lands_all_by_the_new_year_and_calls_for_the_late_rows(week: Path, tmp_path: Path) -> None:
    start = datetime(2013, 12, 31, tzinfo=UTC)
    daemon = player(week, tmp_path, start, datetime(2014, 1, 1, tzinfo=UTC))
    flights_feed(daemon)
    area = landing.Landing(daemon.places.landing)
    rows = [r for r in landing.raw_flights(week) if start.timestamp() < r.arrival < landing.YEAR_END]
    late = {r.hour for r in rows if r.arrival >= r.hour + 3600}
    label = "%Y%m%d%H"
    assert {hour for _process, hour, _why in daemon.calls} == {
        datetime.fromtimestamp(hour, UTC).strftime(label) for hour in late
    }
    assert {process for process, _hour, _why in daemon.calls} == {"flights_hourly"}
    hours, count_of_rows = area.late()
    assert (hours, count_of_rows) == (len(daemon.calls), sum(r.arrival >= r.hour + 3600 for r in rows))
    day = [r for r in landing.raw_flights(week) if start.timestamp() <= r.hour < landing.YEAR_END]
    assert sum(len(area.flights(int(start.timestamp()) + 3600 * n)) for n in range(24)) == len(day)
    assert area.settled(landing.YEAR_END) and not area.settled(landing.YEAR_END + 1)
    area.close()


def test_a_feed_that_was_away_goes_on_where_it_stood(week: Path, tmp_path: Path) -> None:
    start = datetime(2013, 12, 30, 12, tzinfo=UTC)
    first = player(week, tmp_path, start, start + 6 * HOUR)
    flights_feed(first)
    later = Player(first.places, week, start + 9 * HOUR, start + 12 * HOUR)
    flights_feed(later)
    area = landing.Landing(first.places.landing)
    until = later.until.timestamp()
    arrived = [r for r in landing.raw_flights(week) if start.timestamp() <= r.hour and r.arrival <= until]
    assert sum(len(area.flights(int(start.timestamp()) + 3600 * n)) for n in range(24)) == len(arrived)
    for name in ("flights_hourly", "weather_hourly"):
        closed = {hour for process, hour, _why in later.calls if process == name}
        assert {"2013123018", "2013123019"} <= closed, "hours that closed without their rows are done again"
        assert "2013123020" not in closed, "an hour that is still open sees the rows by itself"
    area.close()


def test_a_call_that_was_not_made_is_made_after_a_crash(week: Path, tmp_path: Path) -> None:
    start = datetime(2013, 12, 30, 12, tzinfo=UTC)
    daemon = player(week, tmp_path, start, start + 2 * HOUR)
    area = landing.Landing(daemon.places.landing, writes=True)
    feed = Feed(area, week, FEED_LAG_S)
    feed.land(int((start + 5 * HOUR).timestamp()))  # landed, and then the power went
    area.close()
    daemon.clock = start + 5 * HOUR - timedelta(minutes=10)
    daemon.until = start + 5 * HOUR
    flights_feed(daemon)
    flights = {hour for process, hour, _why in daemon.calls if process == "flights_hourly"}
    assert {"2013123012", "2013123013", "2013123014"} <= flights
    assert "2013123016" not in flights, "an hour that is still open sees the rows by itself"


# --- the totals --------------------------------------------------------------------------------------------


def test_totals_are_equal_at_every_level_and_one_broken_result_is_found(box: Box, tmp_path: Path) -> None:
    raw = tmp_path / "one-day.csv.gz"
    with gzip.open(box.data / "flights.csv.gz", "rb") as file, gzip.open(raw, "wb") as small:
        small.writelines([next(file), *(line for line in file if line.startswith(b"2013-07-04"))])
    run_day(box)
    for process, child, start in (
        ("flights_monthly", "flights_daily", datetime(2013, 7, 1, tzinfo=UTC)),
        ("flights_yearly", "flights_monthly", datetime(2013, 1, 1, tzinfo=UTC)),
    ):
        arguments = {"table": "flights", "child": child}
        workers.roll_up(box.task(process, start, timedelta(days=365), arguments=arguments))
    found = totals.compare(box.places.results, raw)
    assert found.equal and found.differences() == []
    assert found.table().row_count == len(found.counted)

    with closing(sqlite3.connect(box.places.results)) as sink, sink:
        sink.execute(
            "UPDATE flights SET departed = departed + 1 WHERE timeperiod = '2013070418' AND origin = 'JFK'"
        )
    broken = totals.compare(box.places.results, raw)
    assert not broken.equal
    assert all(line.startswith("flights_hourly: departed is ") for line in broken.differences())


def test_one_broken_raw_row_is_found(box: Box, tmp_path: Path) -> None:
    run_day(box)
    raw = tmp_path / "broken.csv.gz"
    with gzip.open(box.data / "flights.csv.gz", "rb") as file, gzip.open(raw, "wb") as small:
        lines = [next(file), *(line for line in file if line.startswith(b"2013-07-04"))]
        small.writelines([*lines[:-1], b"2013-07-04T18:00:00Z,0,JFK,LAX,DL,1,1,0,2475,300\n"])
    found = totals.compare(box.places.results, raw)
    assert not found.equal and any("flights_hourly: distance" in line for line in found.differences())


# --- the context -------------------------------------------------------------------------------------------


def test_the_context_names_workers_that_exist() -> None:
    for process in process_context.process_context:
        module, name = str(process.worker).split(":")
        assert callable(getattr(sys.modules[module], name)), process.name
    stacked = [name for tree in process_context.timetable_context for name in tree.processes]
    kinds = {process.name for process in process_context.process_context if process.kind == "managed"}
    assert sorted(stacked) == sorted(kinds)
