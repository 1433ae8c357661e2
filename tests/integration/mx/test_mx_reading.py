"""The dashboard over WSGI, read: every page is served and safe, makes nothing, and reads little.

Scenarios 6 (nothing is made by asking), 46 (GET changes nothing), 47 (failures are JSON or a page), 48 (text stays
text) and 49 (a page's cost does not follow the history).
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from db.schema import TABLES
from mx.routes import ROUTES
from scheduler.core.ports import Store
from tests.browser.mx_seed import BAD, FAILED, HOSTILE
from tests.integration.mx.mx_client import HOST, Seeded, dump, get, make_client

PATHS = (
    "/",
    "/timetable",
    "/timetable?at=2013",
    "/timetable?at=201312&heat=weather_hourly",
    "/timetable/weather?at=20131212&job=weather_hourly@2013121222",
    "/timetable?at=2013121222",
    "/jobs",
    "/jobs?state=skipped",
    "/jobs?mark=late",
    "/jobs?process=weather_hourly&state=processed",
    "/jobs/weather_hourly/2013121222",
    "/jobs/weather_hourly/2013121222?run=1",
    "/jobs/weather_hourly/2013121222/log",
    "/jobs/flights_hourly/2013121302",
    "/jobs/flights_monthly/2013120000",
    "/jobs/weather_hourly/2013120904",
    "/plan?verb=reprocess&job=flights_hourly@2013121117",
    "/plan?verb=skip&job=delays_daily@2013121300",
    "/plan?verb=mark_done&job=weather_hourly@2013120904",
    "/plan?verb=kill&job=weather_hourly@2013121222",
    "/plan?verb=hold&job=weather_hourly@2013121222",
    "/healthz",
    "/api/processes",
    "/api/jobs?process=weather_hourly&limit=5",
    "/api/jobs/weather_hourly/2013121222",
    "/api/jobs/flights_hourly/2013121117/plan?verb=reprocess",
    "/api/timetable?at=20131212",
    "/api/timetable/delays",
)


def test_every_route_is_asked_below() -> None:
    asked = {"/static/<name>", "/favicon.ico", "/live", "/api/commands/<name>"}
    asked |= {path.partition("?")[0] for path in PATHS}
    for route in ROUTES:
        if route.method == "GET" and route.path not in asked:
            pattern = re.compile(re.sub(r"<\w+>", "[^/]+", route.path))
            assert any(pattern.fullmatch(path) for path in asked), f"{route.path} is asked by no test"


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_served_and_safe(seeded: Seeded, path: str) -> None:
    """Scenario 48: what is hostile appears as text only; every answer bears the headers."""
    answer = get(make_client(seeded), path)
    assert answer.status_code == 200, answer.text[:500]
    text = answer.text
    if answer.mimetype == "text/html":
        assert "<script>alert" not in text and "<img src=x" not in text and "<b>wind" not in text
        assert " style=" not in text and " onclick=" not in text and "javascript:" not in text
        assert "\u202e" not in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    if path.startswith("/api/") or path == "/healthz":
        json.loads(text)


def test_reading_changes_nothing(seeded: Seeded) -> None:
    """Scenario 46."""
    before = dump(seeded.store)
    client = make_client(seeded)
    for path in PATHS:
        get(client, path)
        client.head(path, headers=HOST)
    assert dump(seeded.store) == before


ABSENT = (
    ("/jobs/weather_hourly/2099010100", 404),
    ("/jobs/weather_hourly/2013121400", 404),
    ("/jobs/weather_hourly/0001010100", 400),
    ("/jobs/weather_hourly/banana", 400),
    ("/jobs/weather_hourly/2013133300", 400),
    ("/jobs/weather_daily/2013121222", 400),
    ("/jobs/nobody/2013121222", 404),
    ("/jobs/weather_hourly/" + "9" * 3000, 400),
    ("/jobs/weather_hourly/2013121222?run=99", 404),
    ("/jobs/weather_hourly/2013121222?run=x", 400),
    ("/timetable?at=2099", 404),
    ("/timetable?at=banana", 400),
    ("/timetable?at=20130230", 400),
    ("/timetable?heat=nobody", 404),
    ("/timetable/nobody", 404),
    ("/timetable?job=weather_hourly@2099010100", 404),
    ("/plan?verb=skip&job=weather_hourly@2099010100", 404),
    ("/plan?verb=explode&job=weather_hourly@2013121222", 400),
    ("/plan", 404),
    ("/jobs?state=happy", 400),
    ("/jobs?mark=x", 400),
    ("/jobs?process=nobody", 404),
    ("/api/jobs?process=weather_hourly&limit=-1", 400),
    ("/api/jobs?process=weather_hourly&limit=99999999999999999999", 400),
    ("/api/jobs/weather_hourly/2099010100", 404),
    ("/api/timetable?at=2099010100", 404),
    ("/api/commands/nope", 404),
    ("/static/../app.py", 404),
    ("/static/app.py", 404),
    ("/nowhere", 404),
    ("/%00%ff", 404),
)


@pytest.mark.parametrize(("path", "status"), ABSENT)
def test_what_is_not_there_is_said(seeded: Seeded, path: str, status: int) -> None:
    """Scenarios 6 and 47: 404 or 400 with a reason, as JSON for programs, as a page for people."""
    client = make_client(seeded)
    answer = client.get(path, headers=HOST)
    assert answer.status_code == status and answer.mimetype == "application/json", answer.text[:300]
    assert answer.json and answer.json["error"]
    page = get(client, path)
    assert page.status_code == status
    assert page.mimetype == ("application/json" if path.startswith("/api/") else "text/html")


def test_what_is_not_there_is_not_made(seeded: Seeded) -> None:
    """Scenario 6."""
    before = dump(seeded.store)
    for path, _ in ABSENT:
        get(make_client(seeded), path)
    assert dump(seeded.store) == before


def test_the_whole_log_is_text(seeded: Seeded) -> None:
    answer = get(make_client(seeded), "/jobs/weather_hourly/2013121222/log?run=1")
    assert answer.mimetype == "text/plain"
    assert "ValueError: could not convert" in answer.text and HOSTILE in answer.text


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store, self.reads, self.rows = store, 0, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("find", "select", "count", "get"):
            return found

        def asked(*args: Any, **kwargs: Any) -> Any:
            self.reads += 1
            answer = found(*args, **kwargs)
            self.rows += len(answer) if isinstance(answer, list) else 1
            return answer

        return asked


@pytest.mark.parametrize("path", [path for path in PATHS if "log" not in path])
def test_a_page_reads_little_of_a_long_history(seeded: Seeded, path: str) -> None:
    """Scenario 49: of 20,000 jobs, none is loaded that is not shown."""
    store = Counting(seeded.store)
    assert sum(seeded.store.count(TABLES_JOB).values()) > 20_000
    get(make_client(seeded, store), path)
    assert store.reads < 90 and store.rows < 1300, (path, store.reads, store.rows)


TABLES_JOB = next(kind for kind, table in TABLES.items() if table.name == "jobs")


def test_what_failed_needs_somebody_and_names_who_waits(seeded: Seeded) -> None:
    text = get(make_client(seeded), "/").text
    assert "Two things need you." in text
    assert "weather_hourly failed, 2 periods" in text
    assert "attempt 5 of 6 failed" in text and "fails, 3 jobs wait for it" in text
    assert FAILED.partition("@")[2] in text and BAD.partition("@")[2] in text
