"""What needs a person, what heals by itself, and the sentence that says so. Pure: facts in, items out.

Causes, not symptoms: a job skipped because something below it was skipped is not listed, the one
that failed is, with how many wait for it. What heals by itself says so and stands below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mx.present import (
    Badge,
    ago,
    count_word,
    duration_words,
    first_line,
    period_words,
    plural,
    reason_words,
    time_words,
)
from scheduler.core.command import Command
from scheduler.core.job import Job
from scheduler.core.process import Process
from scheduler.core.records import BoxProcess, ProcessRow
from scheduler.core.timetable import Span
from scheduler.core.uow import Uow, job_of

STALE_S = 30.0  # a supervisor that was silent for so long is said to be
COMMAND_SLOW_S = 60.0
SHOWN_MAX = 5  # jobs named in one item


@dataclass(frozen=True, slots=True)
class Link:
    """A name that leads somewhere: of a job, a process."""

    text: str
    href: str
    dim: str = ""


@dataclass(frozen=True, slots=True)
class Button:
    """A thing that can be done from an item: `href` opens (a plan), `verb` acts at once."""

    text: str
    icon: str
    href: str = ""
    verb: str = ""
    job: str = ""
    state: str = ""  # the state that was seen
    is_first: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One cause on the overview."""

    key: str
    severity: str
    title: str
    href: str
    why: str = ""
    quote: str = ""  # the error, verbatim
    due: str = ""
    badges: tuple[Badge, ...] = ()
    buttons: tuple[Button, ...] = ()
    jobs: tuple[Link, ...] = ()
    more: str = ""
    mark: str = ""  # a mark instead of a severity, for what heals by itself
    heals: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good, the error behind it, and who waits for it."""

    job: Job
    error: str
    waiting: Sequence[tuple[Span, int]] = ()


@dataclass(frozen=True, slots=True)
class Behind:
    """A process whose oldest closed job is late."""

    process: Process
    start: datetime
    end: datetime
    timeperiod: str
    late: timedelta
    waiting: int
    has_deadline: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What the items are made from."""

    real: datetime
    business: datetime
    leading: bool
    leader_seen: datetime | None
    processes: Mapping[str, Process]
    rows: Mapping[str, ProcessRow]
    failures: Sequence[Failure] = ()
    uows: Sequence[Uow] = ()
    boxes: Sequence[BoxProcess] = ()
    behind: Sequence[Behind] = ()
    commands: Sequence[Command] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)  # uow id -> jobs that wait for it


def job_href(process: str, timeperiod: str) -> str:
    """Where a job's page is."""
    return f"/jobs/{process}/{timeperiod}"


def plan_href(verb: str, job: str) -> str:
    """Where the plan of an act on a job is."""
    return f"/plan?verb={verb}&job={job}"


def items(facts: Facts) -> list[Item]:
    """Everything worth a look: what needs a person first, the gravest first."""
    found = [*_scheduler(facts), *_failures(facts), *_crashes(facts), *_commands(facts), *_retrying(facts)]
    found += [*_lost(facts), *_unusual(facts), *_behind(facts)]
    order = ("critical", "error", "warning", "info")
    return sorted(found, key=lambda item: (item.heals, order.index(item.severity)))


def verdict(facts: Facts, found: Sequence[Item]) -> tuple[str, str]:
    """The one large sentence, and the one below it."""
    if not facts.leading:
        if facts.leader_seen is None:
            return "The scheduler is not running; never seen here.", "Commands wait until one runs."
        silence = duration_words((facts.real - facts.leader_seen).total_seconds())
        return (
            f"The scheduler is not running; last seen {time_words(facts.leader_seen, facts.real)}.",
            f"Nothing new has been started for {silence}. Below is what the store knows; "
            "commands wait until a scheduler runs.",
        )
    need, heal = sum(not item.heals for item in found), sum(item.heals for item in found)
    head = (
        "Nothing needs you."
        if not need
        else f"{count_word(need)} {'thing needs' if need == 1 else 'things need'} you."
    )
    running = sum(uow.state == "in_progress" for uow in facts.uows)
    waiting = sum(item.waiting for item in facts.behind)
    parts = [
        f"{plural(running, 'unit of work', 'units of work')} running"
        if running
        else "Nothing runs at this moment"
    ]
    if waiting:
        parts.append(f"{plural(waiting, 'closed period')} to catch up")
    if heal:
        parts.append(f"{plural(heal, 'thing')} healing without you")
    sentence = "; ".join(parts) + "."
    return head, sentence[0].upper() + sentence[1:]


def _period(facts: Facts, process: str, start: datetime, end: datetime) -> str:
    found = facts.processes.get(process)
    return period_words(found.qualifier, start, end, facts.business) if found else ""


def _scheduler(facts: Facts) -> list[Item]:
    if facts.leading:
        return []
    return [
        Item(
            key="scheduler",
            severity="critical",
            title="No scheduler is in charge",
            href="/",
            why="Units of work that run go on to their end; nothing is decided, retried or started. "
            "./launch.py start scheduler, or its supervisor, brings it back.",
            due=f"last seen {ago(facts.leader_seen, facts.real)}" if facts.leader_seen else "",
        )
    ]


def _failures(facts: Facts) -> list[Item]:
    groups: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in facts.failures:
        key = (failure.job.process, failure.job.reason or "", first_line(failure.error, 80))
        groups.setdefault(key, []).append(failure)
    return [_failure(facts, *key, group) for key, group in groups.items()]


def _failure(facts: Facts, process: str, reason: str, _: str, group: list[Failure]) -> Item:
    newest = group[0].job
    period = _period(facts, process, newest.start, newest.end)
    n = len(group)
    waiting = sum(count for _, count in group[0].waiting)
    title = f"{process} {period} failed" if n == 1 else f"{process} failed, {plural(n, 'period')}"
    why = f"{'It is' if n == 1 else 'They are'} skipped: {reason_words(reason)}. What stands on "
    why += f"{'it' if n == 1 else 'them'} is built without {'it' if n == 1 else 'them'}."
    return Item(
        key=f"failed:{process}:{reason}:{newest.timeperiod}",
        severity="error",
        title=title
        + (f", {plural(waiting, 'job')} {'waits' if waiting == 1 else 'wait'} for it" if waiting else ""),
        href=job_href(process, newest.timeperiod),
        why=why,
        quote=first_line(group[0].error),
        due=f"since {time_words(newest.settled_at, facts.real)}" if newest.settled_at else "",
        badges=(Badge("s", "skipped", f"skipped, {reason.replace('_', ' ')}"),),
        buttons=(
            Button("Reprocess…", "redo", href=plan_href("reprocess", newest.id), is_first=True, key="p"),
            Button("Why", "steps", href=job_href(process, newest.timeperiod), key="w"),
            Button("Log", "jobs", href=job_href(process, newest.timeperiod) + "#log", key="l"),
        ),
        jobs=tuple(_job_link(facts, failure.job) for failure in group[1 : SHOWN_MAX + 1]),
        more=f"and {n - 1 - SHOWN_MAX} more" if n - 1 > SHOWN_MAX else "",
    )


def _job_link(facts: Facts, job: Job) -> Link:
    return Link(
        f"{job.process} {_period(facts, job.process, job.start, job.end)}",
        job_href(job.process, job.timeperiod),
    )


def seen_at(boxes: Sequence[BoxProcess]) -> dict[str, datetime | None]:
    """When each process was seen last: its supervisor writes a row only when it changes, and its own regularly."""
    supervisors = {box.box: box.seen_at for box in boxes if box.kind == "supervisor"}
    return {box.id: max(filter(None, (box.seen_at, supervisors.get(box.box))), default=None) for box in boxes}


def _crashes(facts: Facts) -> list[Item]:
    found = []
    seen = seen_at(facts.boxes)
    for box in facts.boxes:
        last = seen[box.id]
        silent = last is not None and (facts.real - last).total_seconds() > STALE_S
        if box.state in ("FATAL", "BACKOFF") and not silent:
            gave_up = box.state == "FATAL"
            found.append(
                Item(
                    key=f"box:{box.id}",
                    severity="error",
                    title=f"{box.name} on {box.box} {'does not start' if gave_up else 'is in a crash loop'}",
                    href="/#boxes",
                    why=f"It ended {plural(box.restarts, 'time')}, last with exit code {box.exit_code}. "
                    + ("Its supervisor gave up." if gave_up else "Its supervisor tries again."),
                    quote=first_line(box.message),
                )
            )
        elif box.kind == "supervisor" and silent and box.desired == "on" and box.state == "RUNNING":
            found.append(
                Item(
                    key=f"box:{box.id}",
                    severity="warning",
                    title=f"The supervisor of {box.box} is silent",
                    href="/#boxes",
                    why="What dies there is not started again, until it is back.",
                    due=f"since {ago(last, facts.real)}".removesuffix(" ago"),
                )
            )
    return found


def _behind(facts: Facts) -> list[Item]:
    def words(behind: Behind) -> str:
        return f"{behind.process.name} {_period(facts, behind.process.name, behind.start, behind.end)}"

    missed = [behind for behind in facts.behind if behind.has_deadline]
    found = [
        Item(
            key=f"deadline:{behind.process.name}",
            severity="critical",
            title=f"{words(behind)} missed its deadline",
            href=job_href(behind.process.name, behind.timeperiod),
            why=f"It was due {behind.process.deadline}; "
            f"{plural(behind.waiting, 'closed period')} unfinished.",
            badges=(Badge("m", "late", f"late {duration_words(behind.late.total_seconds())}"),),
            buttons=(Button("Why", "steps", href=job_href(behind.process.name, behind.timeperiod), key="w"),),
        )
        for behind in missed
    ]
    rest = [behind for behind in facts.behind if not behind.has_deadline]
    if rest and facts.leading:
        longest = max(rest, key=lambda behind: behind.late)
        moving = any(uow.state != "invalid" for uow in facts.uows)
        waiting = sum(behind.waiting for behind in rest)
        names = (
            plural(len(rest), "process is", "processes are")
            if len(rest) > 1
            else f"{rest[0].process.name} is"
        )
        found.append(
            Item(
                key="behind",
                severity="info" if moving else "warning",
                mark="late",
                heals=moving,
                title=f"{names} behind, {plural(waiting, 'closed period waits', 'closed periods wait')}",
                href=job_href(longest.process.name, longest.timeperiod),
                why="Each starts as soon as what it stands on is finished."
                if moving
                else "Nothing runs that would change it.",
                due="catches up by itself" if moving else "",
                badges=(Badge("m", "late", f"late {duration_words(longest.late.total_seconds())}"),),
                jobs=tuple(
                    Link(
                        words(behind),
                        job_href(behind.process.name, behind.timeperiod),
                        f"{plural(behind.waiting, 'period')}, late {duration_words(behind.late.total_seconds())}",
                    )
                    for behind in sorted(rest, key=lambda behind: -behind.late)
                ),
            )
        )
    return found


def _commands(facts: Facts) -> list[Item]:
    found = []
    for command in facts.commands if facts.leading else ():
        age = (facts.real - command.submitted_at).total_seconds()
        if command.status is not None:  # late data beyond the limit: it waits for a person
            found.append(_late(command, age))
        elif age > COMMAND_SLOW_S:
            found.append(
                Item(
                    key=f"command:{command.id}",
                    severity="warning",
                    title=f"{command.verb.replace('_', ' ')} by {command.actor} waits",
                    href="/",
                    why=command.message or "It was not taken yet.",
                    quote=first_line(command.reason),
                    due=f"since {duration_words(age)}",
                )
            )
    return found


def _late(command: Command, age: float) -> Item:
    jobs = command.target.get("jobs") or ["?"]
    what = jobs[0] if len(jobs) == 1 else f"{len(jobs):,} jobs"
    return Item(
        key=f"command:{command.id}",
        severity="critical",
        title=f"Late data for {what} waits for you",
        href="/",
        why=f"{command.message}. `launch.py late` shows it, and narrows or drops it.",
        quote=first_line(command.reason),
        due=f"by {command.actor}, since {duration_words(age)}",
    )


def _uow_item(facts: Facts, uow: Uow, **more: object) -> Item:
    state = "in_progress"
    words = {"href": job_href(uow.process, uow.timeperiod), "heals": True, "severity": "info", **more}
    buttons: tuple[Button, ...] = (
        Button("Why", "steps", href=job_href(uow.process, uow.timeperiod), key="w"),
    )
    if uow.state == "invalid":
        retry = Button(
            "Retry now", "redo", verb="retry", job=job_of(uow.id), state=state, is_first=True, key="r"
        )
        buttons = (retry, *buttons, Button("Skip…", "skip", href=plan_href("skip", job_of(uow.id)), key="s"))
    return Item(buttons=buttons, **words)  # type: ignore[arg-type]


def _name(facts: Facts, uow: Uow) -> str:
    return f"{uow.process} {_period(facts, uow.process, uow.start, uow.end)}"


def _retrying(facts: Facts) -> list[Item]:
    found = []
    for uow in facts.uows:
        if uow.state != "invalid":
            continue
        process = facts.processes.get(uow.process)
        most = (process.retry.max_retries if process else 0) + 1
        when = (
            f"It is tried again at {time_words(uow.retry_at, facts.real)}"
            if uow.retry_at
            else "It is tried again"
        )
        wait = (uow.retry_at - facts.real).total_seconds() if uow.retry_at else 0.0
        waiting = facts.waiting.get(uow.id, 0)
        found.append(
            _uow_item(
                facts,
                uow,
                key=f"retry:{uow.id}",
                severity="warning",
                mark="retrying",
                title=f"{_name(facts, uow)} fails"
                + (
                    f", {plural(waiting, 'job')} {'waits' if waiting == 1 else 'wait'} for it"
                    if waiting
                    else ""
                ),
                why=when + ("; after the last attempt it is skipped." if uow.failures < most else "."),
                quote=first_line(uow.error),
                due=f"heals by itself, or not: next try in {duration_words(wait)}"
                if wait > 0
                else "tried again now",
                badges=(Badge("m", "retrying", f"attempt {uow.failures} of {most} failed"),),
            )
        )
    return found


def _lost(facts: Facts) -> list[Item]:
    found = []
    for uow in facts.uows:
        expired = uow.state == "in_progress" and uow.lease_until is not None and uow.lease_until < facts.real
        if expired or (uow.losses and uow.state in ("in_progress", "requested")):
            who = uow.owner or "its worker"
            found.append(
                _uow_item(
                    facts,
                    uow,
                    key=f"lost:{uow.id}",
                    severity="warning",
                    mark="lost",
                    title=f"{_name(facts, uow)} lost its worker",
                    why=f"{who} did not renew its lease in time; it is given to another."
                    if expired
                    else f"Attempt {uow.attempt} "
                    f"{'runs' if uow.state == 'in_progress' else 'waits for a place'};"
                    " a lost worker is no failure of the work and is not counted.",
                    due="heals by itself",
                    badges=(Badge("m", "lost", f"lost {plural(max(uow.losses, 1), 'time')}"),),
                )
            )
    return found


def _unusual(facts: Facts) -> list[Item]:
    found = []
    for uow in facts.uows:
        row = facts.rows.get(uow.process)
        if uow.state != "in_progress" or uow.started_at is None or row is None or not row.usual_p95_ms:
            continue
        took = (facts.real - uow.started_at).total_seconds()
        if took > 2 * row.usual_p95_ms / 1000 and took > 30:
            found.append(
                _uow_item(
                    facts,
                    uow,
                    key=f"unusual:{uow.id}",
                    severity="warning",
                    title=f"{_name(facts, uow)} runs unusually long",
                    why=f"{duration_words(took)}; 95 of 100 runs end within "
                    f"{duration_words(row.usual_p95_ms / 1000)}.",
                    due="heals by itself, or not",
                )
            )
    return found
