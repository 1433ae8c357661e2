"""The JSON side: the same facts as the pages, and commands.

Every failure is a JSON object with `error`. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

from werkzeug.wrappers import Request, Response

from mx import acts, gather, queries
from mx.site import Site
from scheduler.core.command import Command
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB, JobState
from scheduler.core.ports import Where

LIMIT_MAX = 1000


def _plain(value: Any) -> Any:
    """What json cannot say by itself."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def reply(body: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer."""
    text = json.dumps(body, default=_plain, ensure_ascii=False, separators=(",", ":"))
    response = Response(text + "\n", status, mimetype="application/json")
    response.headers.extend({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def healthz(site: Site, request: Request) -> Response:
    """200 while the store can be read; tells who leads, and what waits."""
    at = queries.now(site)
    return reply(
        {
            "leading": at.leading,
            "leader": at.leader.holder if at.leader and at.leading else None,
            "queues": queries.depth(site),
            "unfinished": len(queries.unfinished_uows(site)),
            "streams": site.hub.streams,
        }
    )


def processes(site: Site, request: Request) -> Response:
    """Every process of the context, with its row."""
    rows = queries.rows_of_processes(site)
    found = []
    for name, process in sorted(site.timetable.processes.items()):
        tree, row = site.timetable.tree_of(name), rows.get(name)
        found.append(
            {
                "name": name,
                "kind": process.kind,
                "qualifier": str(process.qualifier),
                "grouping": process.grouping,
                "tree": tree.name if tree else None,
                "machine": process.machine,
                "blocking": process.blocking,
                "queue": process.queue,
                "priority": process.priority,
                "max_active": process.max_active,
                "tags": list(process.tags),
                "state": row.state if row else "new",
                "frontier": row.frontier if row else None,
                "usual_ms": row.usual_ms if row else None,
                "overrides": row.overrides if row else {},
            }
        )
    return reply({"processes": found})


def jobs(site: Site, request: Request) -> Response:
    """Jobs of one process, newest first."""
    name = request.args.get("process", "")
    if name not in site.timetable.processes:
        raise NotFound(f"there is no process {name!r:.80}; say ?process=NAME")
    limit = gather.whole_number(request.args.get("limit", "100"), "limit", 1, LIMIT_MAX)
    where = [Where("process", "=", name)]
    state = request.args.get("state", "")
    if state:
        if state not in tuple(JobState):
            raise InvalidRequest(f"state {state!r:.40} is unknown; use one of {', '.join(JobState)}")
        where.append(Where("state", "=", state))
    return reply({"jobs": site.store.find(Job, where, ("-start",), limit)})


def job(site: Site, request: Request, process: str, timeperiod: str) -> Response:
    """One job and everything about it, but its log."""
    facts = gather.job(site, process, timeperiod)
    return reply(
        {
            "job": facts.job,
            "allowed": JOB.verbs(facts.job.state),
            "blockers": facts.blockers,
            "units_of_work": facts.uows,
            "events": facts.events,
            "marks": facts.marks.all_of(facts.job),
        }
    )


def plan(site: Site, request: Request, process: str, timeperiod: str) -> Response:
    """The list of jobs an act would touch; nothing is done."""
    found = gather.existing_job(site, process, timeperiod)
    verb = request.args.get("verb", "")
    return reply({"verb": verb, "job": found.id, "effects": gather.effects(site, verb, found)})


def timetable(site: Site, request: Request, tree: str = "") -> Response:
    """The cells of the timetable page as data."""
    facts = gather.timetable(site, tree, request.args.get("at", ""))
    return reply({"at": facts.at.text, "jobs": facts.jobs})


def submit(site: Site, request: Request) -> Response:
    """A command: {verb, target, arguments, reason, seen}."""
    try:
        body = json.loads(request.get_data(as_text=True))
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None
    found = acts.carry_out(site, acts.parse(site, body))
    status, answer = acts.answer(site, found)
    headers = {"Location": acts.address(found)} if status == 202 else {}
    return reply(answer, status, **headers)


def command(site: Site, request: Request, name: str) -> Response:
    """A command's outcome; 200 also where it was refused: this only tells."""
    found = site.store.get(Command, name)
    if found is None:
        raise NotFound(f"there is no command {name!r:.80}")
    return reply({**acts.answer(site, found)[1], "status": found.status})
