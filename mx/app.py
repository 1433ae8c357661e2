"""The WSGI application: who may ask, which handler answers, and what a failure looks like.

Every request goes the same way: Host header, route, CSRF token for what changes, handler, headers.
Errors of ours have a status; a bug is logged with its traceback and answered by 500 and JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from mx import gather
from mx.api import reply
from mx.render import page
from mx.routes import ROUTES, Route
from mx.security import (
    SECURITY_HEADERS,
    SEED_COOKIE,
    TOKEN_FIELD,
    TOKEN_HEADER,
    host_allowed,
    refusal,
)
from mx.site import Site
from scheduler.core.errors import SchedulerError, Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("mx")

BODY_MAX = 2 * 1024 * 1024  # 10,000 jobs by name, with what was seen of each


class MxRequest(Request):
    """A request with bounds."""

    max_content_length = BODY_MAX
    max_form_memory_size = BODY_MAX
    max_form_parts = 50


class App:
    """The dashboard as a WSGI callable."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.routes = {route.name: route for route in ROUTES}
        self.map = Map(
            [
                Rule(
                    route.path,
                    endpoint=route.name,
                    methods=[route.method],
                    strict_slashes=False,
                    merge_slashes=False,
                )
                for route in ROUTES
            ]
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = MxRequest(environ)
        environ["mx.seed"] = self.site.tokens.new_seed()
        response = self._answer(request)
        self._dress(request, response)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        route: Route | None = None
        try:
            if not host_allowed(request.headers.get("Host", ""), self.site.hosts):
                names = ", ".join(sorted(self.site.hosts))
                return self._failure(
                    request, True, 421, f"this server is not {request.host[:80]!r}; it is {names}"
                )
            name, arguments = self.map.bind_to_environ(request.environ).match()
            route = self.routes[name]
            refused = self._refusal(request)
            if refused is not None:
                return self._failure(request, route.is_api, 403, refused)
            return route.handler(self.site, request, **arguments)
        except SchedulerError as error:
            return self._failure(request, _is_api(request), error.http_status, str(error))
        except MethodNotAllowed as error:
            allowed = ", ".join(error.valid_methods or ())
            response = self._failure(
                request, _is_api(request), 405, f"{request.method} is not allowed here; allowed: {allowed}"
            )
            response.headers["Allow"] = allowed
            return response
        except HTTPException as error:
            code = error.code or 500
            text = (
                f"there is nothing at {request.path[:120]}"
                if code == 404
                else (error.description or error.name)
            )
            return self._failure(request, _is_api(request), code, text)
        except Exception:  # the one place where a bug is caught: a request must not end the server
            log.exception("%s %s failed", request.method, request.path)
            return reply({"error": "this is a fault of the program; its log tells more", "status": 500}, 500)

    def _refusal(self, request: Request) -> str | None:
        """Why a change may not be made: everything but GET and HEAD needs the token."""
        if request.method in ("GET", "HEAD"):
            return None
        is_json = request.mimetype == "application/json"
        token = request.headers.get(TOKEN_HEADER) or ("" if is_json else request.form.get(TOKEN_FIELD, ""))
        seed = request.cookies.get(SEED_COOKIE, "")
        return refusal(self.site.tokens, dict(request.headers), seed, token, is_json=is_json)

    def _failure(self, request: Request, is_api: bool, status: int, text: str) -> Response:
        if not is_api and "text/html" in request.headers.get("Accept", "") and status != 500:
            return self._failure_page(request, status, text)
        return reply({"error": text, "status": status}, status)

    def _failure_page(self, request: Request, status: int, text: str) -> Response:
        common = None
        try:
            common = gather.common(self.site)
        except Unavailable:
            pass  # then the page says so, without the numbers in its header
        title = {404: "There is nothing here", 503: "Not reachable now", 403: "Not allowed"}.get(
            status, HTTPStatus(status).phrase
        )
        return page(
            self.site,
            request,
            "error.html",
            common,
            status=status,
            nav="",
            title=title,
            message=text,
            allowed=[],
            back="/",
        )

    def _dress(self, request: Request, response: Response) -> None:
        for name, value in SECURITY_HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        if SEED_COOKIE not in request.cookies and response.mimetype == "text/html":
            response.set_cookie(
                SEED_COOKIE, request.environ["mx.seed"], httponly=True, samesite="Strict", path="/"
            )


def _is_api(request: Request) -> bool:
    return request.path.startswith("/api/")
