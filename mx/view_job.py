"""The job page: what may be done, why it is not done, its runs, its log, what is around it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mx.present import (
    UOW_STATES,
    Badge,
    duration_words,
    first_line,
    period_words,
    plural,
    reason_words,
    state_badge,
    state_word,
    time_words,
    usual_words,
    worker_words,
)
from scheduler.core.event import Event, history_entries
from scheduler.core.explain import Explanation
from scheduler.core.inputs import Blocker
from scheduler.core.job import Job
from scheduler.core.lifecycle import JOB
from scheduler.core.process import Process
from scheduler.core.records import ProcessRow
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow

VERBS = {
    "request": "requested",
    "accept": "accepted",
    "succeed": "processed",
    "no_data": "nothing to do",
    "fail": "failed",
    "retry": "to be tried again",
    "release": "given back",
    "give_up": "given up",
    "cancel": "canceled",
    "stop": "let go of",
    "stopped": "let go of",
    "lose": "lost",
}
VERB_SEVERITY = {
    "fail": "error",
    "give_up": "error",
    "cancel": "warning",
    "succeed": "success",
    "lose": "warning",
}


@dataclass(frozen=True, slots=True)
class Act:
    """A button of the toolbar. `opens` a plan that asks first; otherwise it acts at once."""

    verb: str
    text: str
    icon: str
    key: str
    opens: bool
    allowed: bool
    title: str
    scope: str = ""  # of hold and release
    is_first: bool = False
    is_grave: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing in the way, or the job itself at the end of the chain."""

    icon: str
    state: str
    title: str
    href: str
    sentence: str
    code: str
    is_root: bool
    unblock: str = ""


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of a unit of work's history."""

    at: str
    iso: datetime | None
    severity: str
    text: str
    actor: str
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """A unit of work."""

    run: int
    id: str
    shape: str
    state: str
    word: str
    kind: str
    attempts: str
    requested: str
    took: str
    worker: str
    error: str
    is_bad: bool
    traceback: str
    result: str
    range: str
    is_shown: bool
    href: str
    history: tuple[HistoryLine, ...]


@dataclass(frozen=True, slots=True)
class EventLine:
    """An event of the job."""

    severity: str
    text: str
    message: str
    actor: str
    at: str
    iso: datetime


def badges(
    job: Job, marks: Sequence[str], uow: Uow | None, process: Process | None, late: timedelta | None
) -> list[Badge]:
    """State first, then the marks."""
    found = [state_badge(job.state)]
    if job.stopping:
        found.append(Badge("v", "warning", "stopping", f"waits for {job.stopping} to be let go of"))
    for mark in marks:
        text = mark
        if mark == "retrying" and uow is not None and process is not None:
            text = f"attempt {uow.attempt} of {process.retry.max_retries + 1}" + (
                " failed" if uow.state == "invalid" else ""
            )
        if mark == "late" and late is not None:
            text = f"late {duration_words(late.total_seconds())}"
        found.append(Badge("m", mark, text))
    return found


def acts(job: Job, uow: Uow | None, held_by: str, process: Process | None) -> list[Act]:
    """The toolbar: every act, those that are not allowed now with the reason in the title."""
    legal = JOB.verbs(job.state)
    open_uow = uow if uow is not None and job.uow_open else None
    failed = open_uow is not None and open_uow.state == "invalid"
    gone = process is None
    here = f"job:{job.id}"
    skipped_with = "and what is below it" if not job.is_finished else ""
    found = [
        _act(
            "retry",
            "Retry now",
            "redo",
            "r",
            failed and not gone,
            "nothing of it failed and waits",
            first=failed,
        ),
        _act(
            "run_now",
            "Run now",
            "play",
            "n",
            not job.is_finished and open_uow is None and job.stopping is None and not gone,
            "it is finished" if job.is_finished else "a unit of work is under way",
        ),
        _act(
            "reprocess",
            "Reprocess…",
            "redo",
            "p",
            "reprocess" in legal and job.state != "embryo",
            "it was never run",
        ),
        _act("skip", "Skip…", "skip", "s", "skip" in legal, f"it is {job.state} already", title=skipped_with),
        _act("mark_done", "Mark done…", "check", "d", "mark_done" in legal, f"it is {job.state} already"),
    ]
    if held_by == here:
        found.append(_act("release", "Release", "play", "h", True, "", scope=here))
    else:
        found.append(_act("hold", "Hold…", "pause", "h", not job.is_finished, "it is finished", scope=here))
    found.append(
        _act("kill", "Kill…", "kill", "Shift K", open_uow is not None, "nothing of it runs", grave=True)
    )
    return found


def _act(
    verb: str,
    text: str,
    icon: str,
    key: str,
    allowed: bool,
    refusal: str,
    *,
    title: str = "",
    scope: str = "",
    first: bool = False,
    grave: bool = False,
) -> Act:
    return Act(
        verb=verb,
        text=text,
        icon=icon,
        key=key,
        opens=text.endswith("…"),
        allowed=allowed,
        title=title if allowed else f"not now: {refusal}",
        scope=scope,
        is_first=first,
        is_grave=grave and allowed,
    )


def why_title(job: Job) -> tuple[str, str]:
    """The title of the panel that explains, and the dim words beside it."""
    if job.is_finished and job.stopping is None:
        how = job.state.replace("_", " ")
        return f"Why it is {how}", reason_words(job.reason)
    return "Why it is not done", "everything in the way, and what would clear it"


def chain(
    found: Explanation, jobs: Mapping[str, Job], timetable: Timetable, business: datetime, real: datetime
) -> list[Step]:
    """Everything in the way: the roots first, then what this job itself waits for."""
    roots = [
        _step(id_, blocker, jobs, timetable, business, real, is_root=True) for id_, blocker in found.roots
    ]
    rooted = set(found.roots)
    own = [
        _step(blocker.job or found.job, blocker, jobs, timetable, business, real, is_root=False)
        for blocker in found.own
        if (found.job, blocker) not in rooted
    ]
    return roots + own


def _step(
    id_: str,
    blocker: Blocker,
    jobs: Mapping[str, Job],
    timetable: Timetable,
    business: datetime,
    real: datetime,
    *,
    is_root: bool,
) -> Step:
    job = jobs.get(id_)
    name, _, label = id_.partition("@")
    process, title = timetable.processes.get(name), id_
    if job is not None and process is not None:
        title = f"{name} {period_words(process.qualifier, job.start, job.end, business)}"
    until = ""
    if blocker.until is not None:
        now = business if blocker.code in BUSINESS else real
        wait = (blocker.until - now).total_seconds()
        until = f" Until {time_words(blocker.until, now)}" + (
            f", in {duration_words(wait)}." if wait > 0 else "."
        )
    return Step(
        icon=ICONS.get(blocker.code, "v-info"),
        state=job.state if job else "embryo",
        title=title,
        href=f"/jobs/{name}/{label}" if job else "",
        sentence=_sentence(blocker.sentence) + until,
        code=blocker.code,
        is_root=is_root,
        unblock=blocker.unblock,
    )


BUSINESS = frozenset(
    {"not_begun", "not_closed", "trigger", "children", "dependency"}
)  # `until` is business time
ICONS = {
    "held": "m-held",
    "suspended": "m-held",
    "stopping": "m-lost",
    "uow": "i-worker",
    "place": "i-queue",
    "children": "i-tree",
    "dependency": "i-machine",
    "trigger": "i-forecast",
    "not_closed": "i-since",
    "not_begun": "i-since",
    "readiness": "i-search",
    "hidden": "v-warning",
    "retired": "v-warning",
}


def _sentence(text: str) -> str:
    text = text.strip()
    return (text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")) if text else ""


def runs(uows: Sequence[Uow], shown: str, address: str, real: datetime) -> list[Run]:
    """The units of work, newest first."""
    found = []
    for uow in uows:
        word, shape, state = UOW_STATES[uow.state]
        if uow.state == "in_progress" and uow.final:
            state = "final_run"
        ended = uow.finished_at or (real if uow.state == "in_progress" else None)
        took = duration_words((ended - uow.started_at).total_seconds()) if uow.started_at and ended else ""
        covers = []
        if uow.cursor is not None:
            covers.append(f"from {uow.cursor}")
        if uow.cursor_end is not None:
            covers.append(f"to {uow.cursor_end}")
        counted = [f"{uow.failures} failed"] if uow.failures else []
        counted += [f"{uow.losses} lost"] if uow.losses else []
        found.append(
            Run(
                run=uow.run,
                id=uow.id,
                shape=shape,
                state=state,
                word=word,
                kind="readiness check" if uow.kind == "check" else ("final" if uow.final else "slice"),
                attempts=str(uow.attempt) + (f" ({', '.join(counted)})" if counted else ""),
                requested=time_words(uow.requested_at, real),
                took=took,
                worker=worker_words(uow.owner),
                error=first_line(uow.error, 600),
                is_bad=uow.state in ("invalid", "canceled"),
                traceback=uow.traceback or "",
                result=", ".join(f"{key} {value}" for key, value in (uow.result or {}).items())[:400],
                range=" ".join(covers),
                is_shown=uow.id == shown,
                href=f"{address}?run={uow.run}#log",
                history=tuple(history(uow, real)),
            )
        )
    return found


def history(uow: Uow, real: datetime) -> list[HistoryLine]:
    """The history of a unit of work in words."""
    found = []
    for entry in history_entries(uow.history):
        verb = str(entry.get("verb", ""))
        at = datetime.fromisoformat(entry["at"]) if "at" in entry else None
        attempt = entry.get("attempt")
        text = VERBS.get(verb, verb.replace("_", " ")) + (f", attempt {attempt}" if attempt else "")
        message = str(entry.get("message") or entry.get("error") or "")
        severity = VERB_SEVERITY.get(verb, "info")
        found.append(
            HistoryLine(
                time_words(at, real),
                at,
                severity,
                text,
                worker_words(str(entry.get("actor", ""))),
                first_line(message, 400),
            )
        )
    return found


def events(found: Sequence[Event], real: datetime) -> list[EventLine]:
    """The events of a job, newest first."""
    return [
        EventLine(
            severity=event.severity if event.severity != "debug" else "info",
            text=_event_words(event),
            message=first_line(event.message),
            actor=worker_words(event.actor),
            at=time_words(event.at, real),
            iso=event.at,
        )
        for event in found
    ]


def _event_words(event: Event) -> str:
    entity, _, verb = event.kind.partition(".")
    word = VERBS.get(verb, verb.replace("_", " ")) if entity == "uow" else verb.replace("_", " ")
    data = event.data or {}
    if entity == "uow":
        attempt = data.get("attempt")
        run = (event.uow or "").rpartition("#")[2]
        return f"run {run} {word}" + (f", attempt {attempt}" if attempt else "")
    if entity == "job":
        return word + (f": {state_word(str(data['state']))}" if data.get("state") else "")
    return f"{entity} {word}"


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the panel "Job"."""

    name: str
    value: str
    over: str = ""
    href: str = ""


def facts(
    job: Job,
    process: Process | None,
    row: ProcessRow | None,
    timetable: Timetable,
    business: datetime,
    real: datetime,
) -> list[Fact]:
    """What there is to know about a job."""
    found = [Fact("period", f"{_full(job.start)} to {_full(job.end)}", "UTC, business time")]
    if process is not None:
        if process.kind == "managed":
            closing = job.end + timedelta(seconds=process.lag_s)
            closed = closing <= business
            age = duration_words(abs((business - closing).total_seconds()))
            found.append(
                Fact(
                    "closed" if closed else "closes",
                    time_words(closing, business),
                    f"{age} ago" if closed else f"in {age}",
                )
            )
        rule = f"{process.machine}, {process.blocking}" if process.kind == "managed" else process.kind
        found.append(Fact("process", process.name, rule))
        tree = timetable.tree_of(process.name)
        if tree is not None:
            found.append(Fact("tree", tree.title, href=f"/timetable/{tree.name}?at={job.start:%Y%m%d}"))
        found.append(
            Fact(
                "queue", process.queue, f"priority {process.priority}, {plural(process.max_active, 'place')}"
            )
        )
        if process.deadline:
            found.append(Fact("deadline", process.deadline))
    if row is not None:
        found.append(
            Fact(
                "usual run",
                usual_words(row.usual_ms, row.usual_p95_ms),
                "of the last 100" if row.usual_ms else "",
            )
        )
    found.append(
        Fact(
            "runs",
            str(job.run) if job.run else "none yet",
            f"reprocessed {plural(job.generation, 'time')}" if job.generation else "",
        )
    )
    if job.settled_at is not None and job.is_finished:
        found.append(Fact("finished", time_words(job.settled_at, real)))
    if job.cursor is not None:
        found.append(Fact("cursor", job.cursor))
    if job.again is not None:
        found.append(Fact("again", f"runs once more after this: {job.again}"))
    if job.arguments:
        found.append(
            Fact("arguments", ", ".join(f"{key}={value}" for key, value in job.arguments.items())[:400])
        )
    overrides = row.overrides if row is not None else {}
    if process is not None and process.tags and "tags" not in overrides:
        found.append(Fact("tags", ", ".join(process.tags)))
    found += [
        Fact(key.replace("_", " "), _value(entry["value"]), f"set by {entry['actor']}")
        for key, entry in overrides.items()
        if key in ("trigger", "priority", "max_active", "tags")
    ]
    if process is not None and process.owner:
        found.append(Fact("owner", process.owner))
    return found


def _value(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _full(at: datetime) -> str:
    return f"{at:%a} {at.day} {at:%b %Y %H:%M}" + (f":{at:%S}" if at.second or at.microsecond else "")
