"""Live without reloading, and acts from the page, with a scheduler that answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, expect

from scheduler import control
from scheduler.core.job import Job
from scheduler.core.ports import Change, Where
from scheduler.core.records import Hold, LogChunk
from scheduler.core.uow import Uow
from tests.browser.conftest import Open, Served
from tests.browser.mx_seed import RUNNING

pytestmark = pytest.mark.browser


def first(served: Served, **where: object) -> Job:
    """The oldest hour that is like that, once there is one."""
    conditions = [
        Where("process", "=", "hourly"),
        *(Where(name, "=", value) for name, value in where.items()),
    ]
    pause = threading.Event()
    for _ in range(500):
        found = served.store.find(Job, conditions, ("start",), 1)
        if found:
            return found[0]
        pause.wait(0.02)
    raise AssertionError(f"no hour is {where}")


def stay(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    """Whether it is still there."""
    return bool(page.evaluate("window.stayed === true"))


def test_a_change_arrives_without_a_reload(acting: Served, open_page: Open) -> None:
    job = first(acting, state="embryo")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    expect(page.locator("#badges")).to_contain_text("embryo")
    page.wait_for_function("document.getElementById('live').classList.contains('live')")
    stay(page)
    control.submit(
        acting.store, acting.broker, "skip", {"jobs": [job.id]}, actor="cli", reason="by <b>cli</b>"
    )
    expect(page.locator("#badges")).to_contain_text("skipped")
    expect(page.locator("#explain")).to_contain_text("by <b>cli</b>")
    expect(page.locator("#events-body")).to_contain_text("skip: skipped")
    assert stayed(page)


def test_a_log_grows_while_it_is_looked_at(seeded: Served, open_page: Open) -> None:
    process, _, label = RUNNING.partition("@")
    page = open_page(f"{seeded.url}/jobs/{process}/{label}")
    expect(page.locator("#log-body")).to_contain_text("reading rows from 412")
    stay(page)
    page.evaluate("document.querySelector('#runs details').open = false")
    chunk = LogChunk(uow=RUNNING + "#2", attempt=1, n=1, at=seeded.clock.real(), text="WARN <i>row 413</i>\n")
    with seeded.store.transaction() as tx:
        tx.insert([chunk])
    expect(page.locator("#log-body")).to_contain_text("<i>row 413</i>")
    assert stayed(page)
    assert not page.evaluate("document.querySelector('#runs details').open"), "what was closed stays closed"


def test_without_a_stream_the_page_polls(seeded: Served, open_page: Open) -> None:
    page = open_page("about:blank", expect="503")
    page.route(
        "**/live*", lambda route: route.fulfill(status=503, body="{}", content_type="application/json")
    )
    page.goto(seeded.url + "/")
    expect(page.locator("#holds")).not_to_contain_text("process check")
    stay(page)
    with seeded.store.transaction() as tx:
        tx.insert([Hold(scope="process:check", actor="bob", reason="poll", since=seeded.clock.real())])
    expect(page.locator("#holds")).to_contain_text("process check", timeout=15_000)
    assert stayed(page)
    with seeded.store.transaction() as tx:
        tx.delete(Hold, [Where("scope", "=", "process:check")])


def test_silence_is_said_with_its_hour(seeded: Served, open_page: Open) -> None:
    """After 10 s without stream or answer the dot is hollow and the page says since when."""
    page = open_page("about:blank", expect="ERR_")
    page.clock.install()
    page.goto(seeded.url + "/")
    page.wait_for_function("document.getElementById('live').classList.contains('live')")
    page.context.set_offline(True)
    page.route("**/*", lambda route: route.abort())
    page.evaluate("window.dispatchEvent(new Event('pagehide'))")  # gives the stream back, as when it breaks
    page.clock.run_for(12_000)
    expect(page.locator("#stale")).to_contain_text(re.compile(r"Not live since \d\d:\d\d:\d\d UTC"))
    expect(page.locator("#live-dot")).to_have_class(re.compile("dot-off"))


def test_skip_asks_for_a_reason_and_shows_what_it_does(acting: Served, open_page: Open) -> None:
    job = first(acting, state="embryo")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    stay(page)
    page.locator("#acts").get_by_role("link", name="Skip…").click()
    dialog = page.locator("#dialog")
    expect(dialog.get_by_role("heading")).to_contain_text("Skip hourly")
    expect(dialog.locator("tbody tr")).to_have_count(1)
    dialog.get_by_role("button", name="Skip 1 job").click()
    assert acting.store.get(Job, job.id).state == "embryo", "without a reason nothing happens"  # type: ignore[union-attr]
    dialog.get_by_label("Reason").fill("no feed that night")
    dialog.get_by_role("button", name="Skip 1 job").click()
    expect(page.locator("#toasts")).to_contain_text("skip: done")
    expect(page.locator("#badges")).to_contain_text("skipped")
    found = acting.store.get(Job, job.id)
    assert found is not None and (found.state, found.reason, found.detail) == (
        "skipped",
        "manual",
        "no feed that night",
    )
    assert stayed(page)


def test_reprocess_lists_every_job_and_does_just_that(acting: Served, open_page: Open) -> None:
    """Scenario 50, from the page."""
    job = first(acting, state="in_progress")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    page.locator("#acts").get_by_role("link", name="Reprocess…").click()
    expect(page.locator("#dialog")).to_contain_text("is canceled and runs again")
    page.locator("#dialog").get_by_label("Reason").fill("late rows")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#toasts")).to_contain_text("reprocess: done")
    found = acting.store.get(Job, job.id)
    assert found is not None and found.generation == 1


def test_hold_and_release(acting: Served, open_page: Open) -> None:
    job = first(acting, state="embryo")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    page.locator("#acts").get_by_role("link", name="Hold…").click()
    page.locator("#dialog").get_by_role("button", name="Hold 1 job").click()
    expect(page.locator("#badges")).to_contain_text("held")
    expect(page.locator("#explain")).to_contain_text("Held by local")
    page.locator("#acts").get_by_role("button", name="Release").click()
    expect(page.locator("#badges")).not_to_contain_text("held")
    assert acting.store.get(Hold, f"job:{job.id}") is None


def test_kill_and_mark_done(acting: Served, open_page: Open) -> None:
    job = first(acting, state="in_progress")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    page.locator("#acts").get_by_role("link", name="Kill…").click()
    page.locator("#dialog").get_by_label("Reason").fill("runs wild")
    page.locator("#dialog").get_by_role("button", name="Kill 1 job").click()
    expect(page.locator("#badges")).to_contain_text("skipped")
    page.locator("#acts").get_by_role("link", name="Mark done…").click()
    page.locator("#dialog").get_by_label("Reason").fill("done by hand")
    page.locator("#dialog").get_by_role("button", name=re.compile("Mark done")).click()
    expect(page.locator("#badges")).to_contain_text("processed")


def test_retry_now_takes_a_failed_one_at_once(acting: Served, open_page: Open) -> None:
    job = first(acting, state="in_progress")
    assert job.uow is not None
    later = acting.clock.real() + timedelta(hours=2)
    with acting.store.transaction() as tx:
        sets = {
            "state": "invalid",
            "retry_at": later,
            "due_at": later,
            "error": "it broke",
            "failures": 1,
            "attempt": 1,
        }
        assert tx.update([Change(Uow, job.uow, {"state": "requested"}, sets)]) == 1
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}")
    page.locator("#acts").get_by_role("button", name="Retry now").click()
    expect(page.locator("#toasts")).to_contain_text("retry: done")
    uow = acting.store.get(Uow, job.uow)
    assert uow is not None and (uow.state, uow.attempt) == ("requested", 2)


def test_a_refusal_says_what_is_allowed(acting: Served, open_page: Open) -> None:
    """What was shown is no longer true: nothing happens, and the page says so."""
    job = first(acting, state="embryo")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}", expect="409")
    page.locator("#acts").get_by_role("link", name="Skip…").click()
    expect(page.locator("#dialog")).to_contain_text("Skip 1 job")
    control.submit(acting.store, acting.broker, "skip", {"jobs": [job.id]}, actor="cli")
    expect(page.locator("#badges")).to_contain_text("skipped")
    page.locator("#dialog").get_by_label("Reason").fill("too late")
    page.locator("#dialog").get_by_role("button", name="Skip 1 job").click()
    expect(page.locator("#toasts")).to_contain_text("Nothing was done")
    expect(page.locator("#toasts")).to_contain_text("reprocess")


def test_without_its_token_a_page_can_change_nothing(acting: Served, open_page: Open) -> None:
    """Scenario 46: the same act, with the token taken away: 403."""
    job = first(acting, state="embryo")
    page = open_page(f"{acting.url}/jobs/hourly/{job.timeperiod}", expect="403")
    body = {"verb": "skip", "target": {"jobs": [job.id]}}
    post = """async ([body, token]) => (await fetch('/api/commands', {method: 'POST', body: JSON.stringify(body),
        headers: {'Content-Type': 'application/json', ...(token ? {'X-CSRF-Token': token} : {})}})).status"""
    assert page.evaluate(post, [body, ""]) == 403
    assert page.evaluate(post, [body, "0" * 64]) == 403
    assert acting.store.get(Job, job.id).state == "embryo"  # type: ignore[union-attr]
    token = page.locator("meta[name=csrf]").get_attribute("content")
    assert page.evaluate(post, [body, token]) == 200


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another site on this machine."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,><p>elsewhere</p>")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_another_site_can_change_nothing(acting: Served, open_page: Open, elsewhere: str) -> None:
    """Scenario 46: a page of another origin posts in vain, though the browser sends our cookie along."""
    job = first(acting, state="embryo")
    page = open_page(acting.url + "/", expect="403")  # the cookie is there
    page.goto(elsewhere)
    body = '{"verb":"skip","target":{"jobs":["' + job.id + '"]},"reason":"'
    script = """([url, body]) => {
        const form = document.createElement('form'), field = document.createElement('input');
        Object.assign(form, {method: 'post', action: url, enctype: 'text/plain'});
        Object.assign(field, {name: body, value: '"}'});
        form.append(field); document.body.append(form); form.submit(); }"""
    with page.expect_navigation() as answer:
        page.evaluate(script, [acting.url + "/api/commands", body])
    assert answer.value is not None and answer.value.status == 403
    assert "comes from another site" in page.locator("body").inner_text()
    assert acting.store.get(Job, job.id).state == "embryo"  # type: ignore[union-attr]
