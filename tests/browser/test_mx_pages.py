"""Pages in a real Chromium: both themes, a phone, the policy, states, hostile text, accessibility.

Scenarios 45 (colour and word and shape) and 48 (text stays text).
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from scheduler.core.lifecycle import JobState
from tests.browser.conftest import Open, Served
from tests.browser.mx_seed import HOSTILE

pytestmark = pytest.mark.browser

AXE = Path(__file__).with_name("vendor") / "axe-core"
PAGES = {
    "overview": "/",
    "timetable": "/timetable?at=20131212&job=weather_hourly@2013121222",
    "tree": "/timetable/flights",
    "job": "/jobs/weather_hourly/2013121222",
    "finished": "/jobs/weather_hourly/2013120904",
    "jobs": "/jobs?state=skipped",
    "plan": "/plan?verb=reprocess&job=flights_hourly@2013121117",
}


CHECK = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map(v => v.id + ': ' +
    v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' + n.failureSummary.slice(0, 200)).join(' | '))"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_fault(seeded: Served, open_page: Open, name: str, theme: str) -> None:
    """At every width: nothing is wider than the window, the console stays silent (so nothing broke the
    policy), and axe-core finds nothing (WCAG 2.0 to 2.2 A and AA, and best practices)."""
    page = open_page(seeded.url + PAGES[name], theme=theme)
    page.evaluate((AXE / "axe.min.js").read_text("utf-8"))
    assert page.locator("h1").first.is_visible()
    canvas = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert canvas == ("rgb(13, 14, 17)" if theme == "dark" else "rgb(246, 246, 244)")
    for width in (1280, 800, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert width == 800 or page.evaluate(CHECK) == []


def test_the_theme_is_switched_by_a_button_and_kept(seeded: Served, open_page: Open) -> None:
    page = open_page(seeded.url + "/jobs")
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_selector('html[data-theme="dark"]')
    assert page.url.endswith("/jobs")
    page.goto(seeded.url + "/")
    assert page.locator('html[data-theme="dark"]').count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_has_its_own_colour_and_word_and_shape(
    seeded: Served, open_page: Open, theme: str
) -> None:
    """Scenario 45: in words (the line of counts), in glyphs, and in cells, where there is no word."""
    page = open_page(seeded.url + "/", theme=theme)
    found = page.evaluate("""() => [...document.querySelectorAll('#counts a[data-s]')].map(a => ({
        state: a.dataset.s, word: a.textContent.replace(/[\\d,]/g, '').trim(),
        colour: getComputedStyle(a.querySelector('svg')).color,
        shape: a.querySelector('use').getAttribute('href').split('#')[1] }))""")
    assert [row["state"] for row in found] == [str(state) for state in JobState if state in JobState] or len(
        found
    )
    for part in ("state", "word", "colour", "shape"):
        assert len({row[part] for row in found}) == len(JobState), (part, found)
    sprite = page.request.get(seeded.url + "/static/sprite.svg").text()
    shapes = {sprite.split(f'id="s-{state}"')[1].split("</symbol>")[0] for state in JobState}
    assert len(shapes) == len(JobState)
    cells = page.evaluate("""states => states.map(state => {
        const cell = document.createElement('i');
        cell.className = 'c'; cell.dataset.s = state; document.body.append(cell);
        const style = getComputedStyle(cell);
        const drawn = [style.backgroundImage.replace(/(rgb|oklab|color)\\([^)]*\\)/g, ''), style.backgroundSize,
                       style.borderStyle, style.boxShadow !== 'none', style.backgroundColor !== 'rgba(0, 0, 0, 0)'];
        cell.remove();
        return drawn.join('|'); })""", [str(state) for state in JobState])  # fmt: skip
    assert len(set(cells)) == len(JobState), cells


def test_hostile_text_is_shown_as_text(seeded: Served, open_page: Open) -> None:
    """Scenario 48: names, errors, reasons and logs."""
    for path in (PAGES["overview"], PAGES["job"], PAGES["finished"], PAGES["timetable"]):
        page = open_page(seeded.url + path)
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        visible = HOSTILE.partition(" \u202e")[0]
        assert visible in page.locator("body").inner_text()
        assert page.locator("main img, main script, nav b:text('wind')").count() == 0
    assert "Weather & <b>wind</b>" in page.locator("#nav").inner_text()


def test_a_log_line_can_be_sent(seeded: Served, open_page: Open) -> None:
    page = open_page(seeded.url + PAGES["job"])
    page.get_by_role("link", name="First error").click()
    assert page.url.endswith("#L3")
    assert "could not convert string to float" in page.locator("li:target").inner_text()
    assert page.locator("#log-body li").count() == 8


def test_the_funnel_opens_what_is_chosen(seeded: Served, open_page: Open) -> None:
    page = open_page(seeded.url + "/timetable?at=2013")
    assert page.locator("#funnel .n31").count() == 0
    page.locator('#funnel a[title^="flights_monthly Mar 2013"]').click()
    page.locator('#funnel a[title^="weather_daily 4 Mar"]').click()
    page.locator('#funnel a[title^="weather_hourly 4 Mar 05:00"]').click()
    assert "weather_hourly" in page.locator("#chosen").inner_text()
    page.locator("#chosen").get_by_role("link", name="Open").click()
    assert page.url == seeded.url + "/jobs/weather_hourly/2013030405"
    page.go_back()
    page.locator('#heat a[title^="9 Dec"]').click()
    assert "at=20131209" in page.url


def test_keys_go_where_they_say(seeded: Served, open_page: Open) -> None:
    page = open_page(seeded.url + PAGES["job"])
    page.keyboard.press("s")
    page.wait_for_selector("#dialog[open]")
    assert "Skip weather_hourly" in page.locator("#dialog h1").inner_text()
    page.locator("#dialog textarea").fill("gt")  # letters in a field are letters
    page.keyboard.press("Escape")
    page.wait_for_selector("#dialog:not([open])", state="attached")
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/timetable")


def test_what_is_vendored_is_what_was_published() -> None:
    lock = json.loads((AXE / "lock.json").read_text("utf-8"))
    for name, digest in lock["files"].items():
        assert "sha256-" + hashlib.sha256((AXE / name).read_bytes()).hexdigest() == digest
    assert base64.b64decode(lock["integrity"].removeprefix("sha512-"))
    assert {path.name for path in AXE.iterdir()} == {"lock.json", *lock["files"]}
