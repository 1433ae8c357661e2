"""Templates: the environment they are rendered in, and what every page is given.

Everything is escaped; a name that was not given is an error, never an empty string.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from werkzeug.wrappers import Request, Response

from mx import assets
from mx.present import (
    ago,
    clock_words,
    duration_words,
    iso,
    number,
    plural,
    safe_text,
    state_word,
    time_words,
    worker_words,
)
from mx.security import SEED_COOKIE, THEME_COOKIE
from mx.site import Site

if TYPE_CHECKING:
    from mx.gather import Common

FOLDER = Path(__file__).with_name("templates")


def _shown(value: Any) -> Any:
    """What every expression of a template goes through."""
    return safe_text(value) if type(value) is str else value


@cache
def environment() -> Environment:
    """The one environment; templates are compiled once."""
    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=50,
        finalize=_shown,
    )
    found.filters.update(
        number=number,
        plural=plural,
        word=state_word,
        duration=duration_words,
        iso=iso,
        ago=ago,
        times=time_words,
        worker=worker_words,
    )
    found.globals.update(asset=assets.address, sprite=assets.address("sprite.svg"))
    return found


def render(template: str, **context: Any) -> str:
    """A template as text."""
    return environment().get_template(template).render(**context)


def theme_of(request: Request) -> str:
    """light, dark, or "" for what the system says."""
    wanted = request.cookies.get(THEME_COOKIE, "")
    return wanted if wanted in ("light", "dark") else ""


def page(
    site: Site,
    request: Request,
    template: str,
    common: Common | None,
    *,
    status: int = 200,
    nav: str,
    **context: Any,
) -> Response:
    """A whole page. `common` is None where the store cannot be read."""
    seed = request.cookies.get(SEED_COOKIE) or request.environ["mx.seed"]
    body = render(
        template,
        csrf=site.tokens.token(seed),
        theme=theme_of(request),
        nav=nav,
        path=request.full_path.rstrip("?"),
        trees=list(site.timetable.trees.values()),
        clock=clock_words(site.clock.business()),
        business=common.at.business if common else site.clock.business(),
        real=common.at.real if common else None,
        need=common.need if common else 0,
        items=common.items if common else (),
        holds=common.holds if common else (),
        leading=common.at.leading if common else False,
        lease=common.at.leader if common else None,
        version=site.version,
        site_title=site.title,
        live=common is not None,
        **context,
    )
    response = Response(body, status, mimetype="text/html")
    response.headers["Cache-Control"] = "no-store"
    return response
