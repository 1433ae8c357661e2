"""The one route table: it feeds dispatch, and whatever describes the addresses.

A menu entry appears with its page. GET never changes anything; what changes something is POST.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Response

from mx import api, pages

Handler = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Route:
    """An address, and who answers."""

    path: str
    handler: Handler
    summary: str
    method: str = "GET"

    @property
    def name(self) -> str:
        """`pages.overview`."""
        module: Any = self.handler.__module__
        return f"{module.rpartition('.')[2]}.{self.handler.__name__}"

    @property
    def is_api(self) -> bool:
        """Whether it answers JSON."""
        return self.path.startswith("/api/")


ROUTES = (
    Route("/", pages.overview, "What needs you, what runs, the newest periods of every tree"),
    Route(
        "/timetable",
        pages.timetable,
        "Periods by processes, all trees; ?at=2013, 201312, 20131212, 2013121222",
    ),
    Route("/timetable/<tree>", pages.timetable, "Periods by processes, one tree"),
    Route("/jobs", pages.jobs, "Jobs by state, mark and process, newest first"),
    Route("/jobs/<process>/<timeperiod>", pages.job, "A job: state, why, runs, log, events"),
    Route("/jobs/<process>/<timeperiod>/log", pages.log, "The whole log of a unit of work as text; ?run=1"),
    Route("/plan", pages.plan, "What an act would do, before it is done; ?verb=skip&job=process@timeperiod"),
    Route("/commands", pages.command, "An act, from a form", "POST"),
    Route("/theme", pages.theme, "Light, dark, or as the system says", "POST"),
    Route("/live", pages.live, "Event stream: something changed, and what time it is"),
    Route("/static/<name>", pages.static, "Style, script, glyphs"),
    Route("/favicon.ico", pages.favicon, "The glyph of the tab, for browsers that ask by habit"),
    Route("/healthz", api.healthz, "Whether the store can be read and a scheduler leads"),
    Route("/api/processes", api.processes, "Every process, its definition and what happened to it"),
    Route("/api/jobs", api.jobs, "Jobs of a process; ?process=&state=&limit="),
    Route("/api/jobs/<process>/<timeperiod>", api.job, "A job with its units of work, blockers and events"),
    Route(
        "/api/jobs/<process>/<timeperiod>/plan",
        api.plan,
        "What an act would do to which jobs; ?verb=reprocess",
    ),
    Route("/api/timetable", api.timetable, "States of the periods of all trees; ?at="),
    Route("/api/timetable/<tree>", api.timetable, "States of the periods of one tree; ?at="),
    Route("/api/commands", api.submit, "Submit a command: 200 done, 409 refused, 202 not yet", "POST"),
    Route("/api/commands/<name>", api.command, "A command and its outcome"),
)
