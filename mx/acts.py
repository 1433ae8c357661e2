"""What may be asked for from outside: a request's words to a Command, and a command's outcome to an answer.

Bad input is refused here, before anything is stored: 400 for what makes no sense, 404 for what is not
there. Whether an act is lawful is decided by the leading scheduler alone.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mx import queries
from mx.site import Site
from scheduler import control
from scheduler.core.command import COMMAND_VERBS, DONE, EXPIRED, REFUSED, Command
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB
from scheduler.core.plan import check_number

ACTOR = "local"  # without users everyone is
FIELDS = ("id", "verb", "target", "arguments", "reason", "seen")
VERBS = tuple(verb for verb in COMMAND_VERBS if verb != "late_data")  # that one is for workers
REASON_MAX = 1000
ID = re.compile(r"[\w.:@#-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ask:
    """A well-formed request for an act."""

    id: str
    verb: str
    target: dict[str, Any]
    arguments: dict[str, Any]
    reason: str
    seen: dict[str, str]


def parse(site: Site, body: Any) -> Ask:
    """A request's body as what is asked for. Raises InvalidRequest, NotFound or Refused; stores nothing."""
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object with verb, target, arguments, reason and seen")
    for name in body:
        if name not in FIELDS:
            raise InvalidRequest(f"field {name!r} is unknown; use {', '.join(FIELDS)}")
    verb = body.get("verb")
    if not isinstance(verb, str) or verb not in VERBS:
        raise InvalidRequest(f"verb {verb!r} is unknown; use one of {', '.join(VERBS)}")
    target, arguments = _object(body, "target"), _object(body, "arguments")
    seen, reason, id_ = _object(body, "seen"), body.get("reason", ""), body.get("id", uuid.uuid4().hex)
    if not isinstance(reason, str) or len(reason) > REASON_MAX:
        raise InvalidRequest(f"reason must be a text of at most {REASON_MAX} characters")
    if not all(isinstance(value, str) for value in seen.values()):
        raise InvalidRequest("seen must map job ids to the states that were seen")
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise InvalidRequest("id must be 1 to 80 letters, digits and .:@#_-")
    _check_target(site, verb, COMMAND_VERBS[verb], target)
    return Ask(id_, verb, target, arguments, reason.strip(), seen)


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object, got {value!r:.80}")
    return value


def _check_target(site: Site, verb: str, kind: str, target: Mapping[str, Any]) -> None:
    if kind == "job" or (kind == "job or process" and "jobs" in target):
        jobs = target.get("jobs")
        if not isinstance(jobs, list) or not jobs or not all(isinstance(job, str) for job in jobs):
            raise InvalidRequest(f'{verb} needs target {{"jobs": ["process@timeperiod", …]}}')
        check_number(len(jobs))
        there = queries.jobs_by_id(site, dict.fromkeys(jobs))
        for job in jobs:
            if job not in there:
                raise NotFound(f"there is no job {job!r:.120}")
    elif kind in ("process", "job or process"):
        name = target.get("process")
        if not isinstance(name, str):
            raise InvalidRequest(f'{verb} needs target {{"process": "name"}}')
        if (
            verb != "submit"
            and name not in site.timetable.processes
            and name not in queries.rows_of_processes(site)
        ):
            raise NotFound(f"there is no process {name!r:.80}")
    elif kind == "command":
        id_ = target.get("command")
        if not isinstance(id_, str) or site.store.get(Command, id_) is None:
            raise NotFound(f"there is no command {id_!r:.120}; the late data that waits is on the overview")
    elif kind == "scope":
        _check_scope(site, verb, target.get("scope"))


def _check_scope(site: Site, verb: str, scope: object) -> None:
    if not isinstance(scope, str):
        raise InvalidRequest(f'{verb} needs target {{"scope": "*" or "tree:…", "process:…", "job:…"}}')
    what, _, name = scope.partition(":")
    known = (
        scope == "*"
        or (what == "tree" and name in site.timetable.trees)
        or (what == "process" and name in site.timetable.processes)
        or (what == "job" and site.store.get(Job, name) is not None)
    )
    if not known:
        raise NotFound(
            f"there is nothing at {scope!r:.120}; use *, tree:NAME, process:NAME or job:PROCESS@PERIOD"
        )


def carry_out(site: Site, ask: Ask) -> Command:
    """Submit it, and wait for its outcome for a moment: the command as it stands then."""
    id_ = control.submit(
        site.store,
        site.broker,
        ask.verb,
        ask.target,
        actor=ACTOR,
        arguments=ask.arguments,
        reason=ask.reason,
        seen=ask.seen,
        key=ask.id,
    )
    return control.wait(site.store, id_, site.wait_s)


def address(command: Command) -> str:
    """Where the outcome of a command can be read."""
    return f"/api/commands/{command.id}"


def answer(site: Site, command: Command) -> tuple[int, dict[str, Any]]:
    """A command as status and JSON: 200 new state, 202 no outcome yet, 4xx refused and what is allowed."""
    body: dict[str, Any] = {
        "id": command.id,
        "verb": command.verb,
        "state": command.state,
        "message": command.message,
        "address": address(command),
    }
    if command.state == DONE:
        return command.status or 200, {**body, "outcome": command.outcome, "jobs": _states(site, command)}
    if command.state in (REFUSED, EXPIRED):
        message = command.message or f"{command.verb} was {command.state}"
        allowed = (command.outcome or {}).get("allowed")
        if allowed is None:
            allowed = _allowed(site, command)
        status = command.status or 409
        return status, {**body, "error": message, "outcome": command.outcome, "allowed": allowed}
    return 202, {**body, "message": "no scheduler has taken it yet; its address tells the outcome"}


def _states(site: Site, command: Command) -> list[dict[str, Any]]:
    jobs = command.target.get("jobs")
    found = queries.jobs_by_id(site, jobs) if isinstance(jobs, list) else {}
    return [{"job": job.id, "state": job.state, "reason": job.reason} for job in found.values()]


def _allowed(site: Site, command: Command) -> list[str]:
    states = {row["state"] for row in _states(site, command)}
    return sorted(set.intersection(*(set(JOB.verbs(state)) for state in states))) if states else []


def from_form(form: Mapping[str, str]) -> dict[str, Any]:
    """The fields of an HTML form as the body of a request."""
    verb, job, scope, process = (form.get(name, "") for name in ("verb", "job", "scope", "process"))
    target: dict[str, Any] = {}
    if job:
        target["jobs"] = [job]
    elif scope:
        target["scope"] = scope
    elif process:
        target["process"] = process
    body: dict[str, Any] = {"verb": verb, "target": target, "reason": form.get("reason", "")}
    if form.get("id"):
        body["id"] = form["id"]
    if job and form.get("state"):
        body["seen"] = {job: form["state"]}
    if form.get("seen"):
        try:
            body["seen"] = json.loads(form["seen"])
        except ValueError:
            raise InvalidRequest("seen is no JSON") from None
    return body
