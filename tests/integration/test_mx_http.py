"""The dashboard over WSGI: the real application on a real store, with a scheduler turned by hand.

Scenarios 6 (nothing is made by asking), 46 (GET changes nothing; Host; CSRF), 47 (failures are JSON or
a page, never a bare 500), 48 (text stays text) and 49 (a page's cost does not follow the history).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from db.schema import TABLES
from mx.app import App
from mx.live import Hub
from mx.routes import ROUTES
from mx.security import SEED_COOKIE, Tokens, check_bind
from mx.site import Site
from scheduler import control
from scheduler.core.errors import StoreUnavailable
from scheduler.core.ports import Store
from scheduler.core.process import managed, tree
from tests.browser.mx_seed import BAD, FAILED, HOSTILE, open_seeded
from tests.world import World

HOST = {"Host": "localhost"}
HTML = {"Host": "localhost", "Accept": "text/html"}


def make_client(world: Any, store: Store | None = None, *, wait_s: float = 0.0) -> Client:
    """A client of the application; `wait_s` 0: an outcome that is not there at once is none."""
    site = Site(
        store=store or world.store,
        broker=world.broker,
        clock=world.clock,
        timetable=world.timetable,
        tokens=Tokens(),
        hub=Hub(world.clock, threading.Event(), cap=2, interval_s=0.01),
        hosts=check_bind("127.0.0.1"),
        wait_s=wait_s,
    )
    client = Client(App(site))
    client.site = site  # type: ignore[attr-defined]
    return client


class Seeded:
    """The seeded store, with the names that `make_client` reads."""

    def __init__(self, folder: Path) -> None:
        self.store, self.broker, self.clock, self.timetable = open_seeded(folder)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    found = Seeded(tmp_path_factory.mktemp("mx"))
    yield found
    found.broker.close()
    found.store.close()


@pytest.fixture
def world() -> World:
    return World(
        [
            managed("hourly", "x.y:z", "hourly", tags=["<i>tag</i>"]),
            managed("daily", "x.y:z", "daily", blocking="children"),
        ],
        [tree("t", ["hourly", "daily"], title="<b>tree</b>")],
        start="2020050100",
        now="2020-05-01T03:10",
    )


def dump(store: Store) -> str:
    """Everything in the store."""
    return "\n".join(repr(store.find(kind)) for kind in TABLES)


def get(client: Client, path: str, **headers: str) -> TestResponse:
    """As a browser would."""
    return client.get(path, headers={**HTML, **headers})


def submit(client: Client, body: Any, **headers: str) -> TestResponse:
    """As a program would."""
    return client.post("/api/commands", json=body, headers={**HOST, **headers})


# -- reading ---------------------------------------------------------------------------------------

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


# -- who may ask, who may change -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_another_host_is_refused(seeded: Seeded, host: str) -> None:
    """Scenario 46: a page that points its own name at this machine gets nothing."""
    answer = make_client(seeded).get("/", headers={"Host": host, "Accept": "text/html"})
    assert answer.status_code == 421 and answer.mimetype == "application/json"
    assert "this server is not" in answer.json["error"]  # type: ignore[index]


def test_a_browser_without_the_token_changes_nothing(world: World) -> None:
    """Scenario 46: CSRF."""
    client, before = make_client(world), dump(world.store)
    page = get(client, "/jobs/hourly/2020050100").text
    token = page.split('<meta name="csrf" content="')[1].split('"')[0]
    body = {"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}}
    browser = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    form = {"verb": "skip", "job": "hourly@2020050100"}
    assert submit(client, body, **browser).status_code == 403
    assert submit(client, body, **browser, **{"X-CSRF-Token": "0" * 64}).status_code == 403
    assert submit(client, body, Origin="http://evil.example", **{"X-CSRF-Token": token}).status_code == 403
    assert client.post("/commands", data=form, headers=HTML).status_code == 403
    assert client.post("/theme", data={"theme": "dark"}, headers=HTML).status_code == 403
    plain = client.post("/api/commands", data=json.dumps(body), content_type="text/plain", headers=HOST)
    assert plain.status_code == 403
    assert dump(world.store) == before
    assert client.get_cookie(SEED_COOKIE) is not None
    assert submit(client, body, **browser, **{"X-CSRF-Token": token}).status_code == 202
    assert dump(world.store) != before


def test_get_is_no_way_to_change(world: World) -> None:
    """Scenario 46."""
    client = make_client(world)
    for path in ("/commands", "/api/commands", "/theme"):
        answer = client.get(path, headers=HOST)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_the_theme_is_a_cookie_of_the_server(world: World) -> None:
    client = make_client(world)
    token = get(client, "/").text.split('<meta name="csrf" content="')[1].split('"')[0]
    fields = {"csrf": token, "theme": "dark", "back": "/jobs"}
    answer = client.post("/theme", data=fields, headers=HTML)
    assert answer.status_code == 303 and answer.headers["Location"] == "/jobs"
    assert '<html lang="en" data-theme="dark">' in get(client, "/").text
    outside = client.post("/theme", data={**fields, "back": "//evil.example"}, headers=HTML)
    assert outside.headers["Location"] == "/"


# -- commands --------------------------------------------------------------------------------------


@pytest.fixture
def turning(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A scheduler that takes a command as soon as it is submitted."""
    submitted = control.submit

    def submit_and_turn(*args: Any, **kwargs: Any) -> str:
        id_ = submitted(*args, **kwargs)
        world.settle()
        return id_

    monkeypatch.setattr(control, "submit", submit_and_turn)
    return world


def test_an_act_answers_the_new_state(turning: World) -> None:
    """Scenario 47: 200 and the new state."""
    client = make_client(turning)
    job = "hourly@2020050103"
    answer = submit(
        client, {"verb": "skip", "target": {"jobs": [job]}, "reason": "no data", "seen": {job: "embryo"}}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json and answer.json["jobs"] == [{"job": job, "state": "skipped", "reason": "manual"}]
    assert turning.job(job).detail == "no data"
    again = client.get(answer.json["address"], headers=HOST)
    assert again.status_code == 200 and again.json and again.json["state"] == "done"


def test_an_unlawful_act_is_refused_with_what_is_allowed(turning: World) -> None:
    """Scenario 47: 409."""
    client, job = make_client(turning), "hourly@2020050103"
    submit(client, {"verb": "skip", "target": {"jobs": [job]}})
    answer = submit(client, {"verb": "skip", "target": {"jobs": [job]}})
    assert answer.status_code == 409 and answer.json
    assert answer.json["state"] == "refused" and "reprocess" in answer.json["allowed"]
    seen = submit(client, {"verb": "reprocess", "target": {"jobs": [job]}, "seen": {job: "embryo"}})
    assert seen.status_code == 409 and seen.json and "by now" in seen.json["error"]
    assert turning.job(job).state == "skipped"


def test_without_a_scheduler_an_act_waits(world: World) -> None:
    """202 with the address of the command; the same id twice is one command."""
    client = make_client(world)
    body = {"id": "once", "verb": "hold", "target": {"scope": "*"}, "reason": "maintenance"}
    first, second = submit(client, body), submit(client, body)
    assert first.status_code == second.status_code == 202
    assert first.headers["Location"].endswith("/api/commands/once")
    world.settle()
    outcome = client.get("/api/commands/once", headers=HOST).json
    assert outcome and outcome["state"] == "done"
    assert "Everything is held by local" in get(client, "/").text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 400),
        ("skip", 400),
        ({}, 400),
        ({"verb": "explode"}, 400),
        ({"verb": "late_data", "target": {"jobs": ["hourly@2020050100"]}}, 400),
        ({"verb": "skip"}, 400),
        ({"verb": "skip", "target": {"jobs": []}}, 400),
        ({"verb": "skip", "target": {"jobs": "hourly@2020050100"}}, 400),
        ({"verb": "skip", "target": {"jobs": ["x"] * 10_001}}, 409),
        ({"verb": "drop_late", "target": {}}, 404),
        ({"verb": "narrow_late", "target": {"command": "nobody"}}, 404),
        ({"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}, "reason": 7}, 400),
        ({"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}, "reason": "x" * 1001}, 400),
        ({"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}, "seen": {"a": 1}}, 400),
        ({"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}, "actor": "root"}, 400),
        ({"verb": "skip", "target": {"jobs": ["hourly@2020050100"]}, "id": "../x"}, 400),
        ({"verb": "skip", "target": {"jobs": ["hourly@2099010100"]}}, 404),
        ({"verb": "suspend", "target": {"process": "nobody"}}, 404),
        ({"verb": "hold", "target": {"scope": "tree:nobody"}}, 404),
        ({"verb": "hold", "target": {"scope": 3}}, 400),
        ({"verb": "hold", "target": {"scope": "*"}, "reason": "x" * 2_100_000}, 413),
    ],
)
def test_bad_commands_are_refused_and_not_stored(world: World, body: Any, status: int) -> None:
    """Scenario 47."""
    before = dump(world.store)
    answer = submit(make_client(world), body)
    assert answer.status_code == status and answer.json and answer.json["error"], answer.text
    assert dump(world.store) == before


def test_a_body_that_is_no_json(world: World) -> None:
    answer = make_client(world).post("/api/commands", data="{", content_type="application/json", headers=HOST)
    assert answer.status_code == 400 and answer.json and "no JSON" in answer.json["error"]


def test_the_plan_is_what_happens(turning: World) -> None:
    """Scenario 50, one job: the list that was shown is the list of the outcome."""
    client, job = make_client(turning), "daily@2020050100"
    shown = client.get("/api/jobs/daily/2020050100/plan?verb=skip", headers=HOST).json
    assert shown and len(shown["effects"]) == 25  # the day, its hours, also those that are not due
    done = submit(client, {"verb": "skip", "target": {"jobs": [job]}, "reason": "x"}).json
    assert done and done["outcome"]["jobs"] == shown["effects"]


def test_a_form_works_without_scripts(turning: World) -> None:
    client = make_client(turning)
    plan = get(client, "/plan?verb=skip&job=hourly@2020050103").text
    token = plan.split('<meta name="csrf" content="')[1].split('"')[0]
    seen = json.dumps({"hourly@2020050103": "embryo"})
    assert "seen" in plan
    fields = {
        "csrf": token,
        "verb": "skip",
        "job": "hourly@2020050103",
        "seen": seen,
        "reason": "<i>r</i>",
        "back": "/jobs/hourly/2020050103",
    }
    answer = client.post("/commands", data=fields, headers=HTML)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/jobs/hourly/2020050103")
    assert "&lt;i&gt;r&lt;/i&gt;" in get(client, "/jobs/hourly/2020050103").text
    refused = client.post("/commands", data=fields, headers=HTML)
    assert refused.status_code == 409 and "Nothing was done" in refused.text


# -- when things are down --------------------------------------------------------------------------


class Down:
    """A store that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise StoreUnavailable("the store cannot be reached: connection refused")

        return fail


def test_a_store_that_is_away_is_said_in_words(world: World) -> None:
    """Scenario 47: 503, as a page and as JSON."""
    client = make_client(world, Down())
    page, data = get(client, "/"), client.get("/api/processes", headers=HOST)
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "connection refused" in page.text and "Not reachable now" in page.text
    assert (data.status_code, data.mimetype) == (503, "application/json")


def test_a_bug_is_no_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 47: nothing answers 500 with HTML, nor tells its inside."""
    client = make_client(world)
    monkeypatch.setattr("mx.gather.common", lambda site: 1 / 0)
    answer = get(client, "/")
    assert (answer.status_code, answer.mimetype) == (500, "application/json")
    assert "division" not in answer.text


def test_it_keeps_showing_without_a_scheduler(world: World) -> None:
    client = make_client(world)
    assert "The scheduler is not running" not in get(client, "/").text
    world.engine.step_down()
    world.clock.advance(90)
    page = get(client, "/")
    assert page.status_code == 200
    assert "The scheduler is not running; last seen" in page.text and "1 min 30 s" in page.text
    assert get(client, "/jobs/hourly/2020050100").status_code == 200


def test_what_failed_needs_somebody_and_names_who_waits(seeded: Seeded) -> None:
    text = get(make_client(seeded), "/").text
    assert "Two things need you." in text
    assert "weather_hourly failed, 2 periods" in text
    assert "attempt 5 of 6 failed" in text and "fails, 3 jobs wait for it" in text
    assert FAILED.partition("@")[2] in text and BAD.partition("@")[2] in text


# -- the event stream ------------------------------------------------------------------------------


def test_streams_are_counted_and_given_back(world: World) -> None:
    """Beyond the cap: 503, and the page polls."""
    client = make_client(world)
    first, second = get(client, "/live"), get(client, "/live?job=hourly@2020050100")
    assert first.mimetype == "text/event-stream" and first.status_code == second.status_code == 200
    assert get(client, "/live").status_code == 503
    first.close()
    third = get(client, "/live")
    assert third.status_code == 200
    second.close()
    third.close()
    assert client.site.hub.streams == 0  # type: ignore[attr-defined]


def test_a_stream_tells_that_something_changed(world: World) -> None:
    client = make_client(world)
    stream = get(client, "/live?job=hourly@2020050103")
    beats = stream.iter_encoded()
    first = json.loads(next(iter(beats)).decode().removeprefix("data: "))
    assert first["clock"] == "Fri 1 May 2020 03:10:00"
    control.submit(world.store, world.broker, "skip", {"jobs": ["hourly@2020050103"]}, actor="t")
    world.settle()
    world.wait(2)
    second = json.loads(next(iter(beats)).decode().removeprefix("data: "))
    assert second["version"] > first["version"]
    stream.close()
