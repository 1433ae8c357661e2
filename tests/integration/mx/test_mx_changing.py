"""The dashboard over WSGI, changed: who may ask, who may change, and what commands are answered.

Scenarios 46 (GET changes nothing; Host; CSRF) and 47 (failures are JSON or a page, never a bare 500).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from mx.security import SEED_COOKIE
from scheduler import control
from tests.integration.mx.mx_client import HOST, HTML, Seeded, dump, get, make_client
from tests.world import World


def submit(client: Client, body: Any, **headers: str) -> TestResponse:
    """As a program would."""
    return client.post("/api/commands", json=body, headers={**HOST, **headers})


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
