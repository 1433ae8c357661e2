"""The dashboard over WSGI while things are down, and the stream that tells what changed.

Scenario 47 (failures are JSON or a page, never a bare 500).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler import control
from scheduler.core.errors import StoreUnavailable
from tests.integration.mx.mx_client import HOST, get, make_client
from tests.world import World


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
