"""The overview below its verdict: what runs, the strips of every tree, the machinery. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mx.marks import Marks
from mx.present import (
    MARKS,
    STATES,
    UNITS,
    Brief,
    ago,
    count_word,
    duration_words,
    number,
    period_words,
    plural,
    state_word,
    time_words,
    usual_words,
    worker_words,
)
from mx.view_attention import Behind, job_href, seen_at
from scheduler.core.process import Process
from scheduler.core.records import BoxProcess, ProcessRow
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow

RUNNING_MAX = 20
BAR = 144.0  # width of the picture "against usual"


@dataclass(frozen=True, slots=True)
class Count:
    """A number of jobs in a state or with a mark."""

    kind: str
    name: str
    word: str
    value: str
    is_zero: bool
    href: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One period: state as colour and shape, the word in the title."""

    state: str
    mark: str
    title: str
    href: str
    text: str = ""
    is_current: bool = False
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A unit of work that runs."""

    process: str
    period: str
    href: str
    state: str
    word: str
    worker: str
    took: str
    elapsed: float  # of BAR
    p50: float | None
    p95: float | None
    usual: str
    attempt: str
    progress: str


@dataclass(frozen=True, slots=True)
class Line:
    """One process with its newest periods."""

    name: str
    href: str
    unit: str
    cells: tuple[Cell, ...]
    lag: str
    now: str
    usual: str
    state: str  # of the process, where it is not scheduled
    can_run: bool  # run-now of a freerun process


@dataclass(frozen=True, slots=True)
class Group:
    """A tree, or the processes outside of trees."""

    title: str
    href: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """One OS process of a box."""

    name: str
    dot: str
    text: str
    age: str
    bad: bool


def counts(states: Mapping[str, int], marks: Mapping[str, int]) -> list[Count]:
    """The line of counts: every state, then every mark."""
    found = [
        Count("s", state, word, number(states.get(state, 0)), not states.get(state), f"/jobs?state={state}")
        for state, word in STATES.items()
    ]
    return found + [
        Count("m", mark, mark, number(marks.get(mark, 0)), not marks.get(mark), f"/jobs?mark={mark}")
        for mark in MARKS
    ]


def running(
    uows: Sequence[Uow],
    processes: Mapping[str, Process],
    rows: Mapping[str, ProcessRow],
    real: datetime,
    business: datetime,
) -> list[Running]:
    """What runs now, the longest first."""
    active = [uow for uow in uows if uow.state == "in_progress"]
    active.sort(key=lambda uow: (uow.started_at or real, uow.id))
    return [_running(uow, processes, rows, real, business) for uow in active[:RUNNING_MAX]]


def _running(
    uow: Uow,
    processes: Mapping[str, Process],
    rows: Mapping[str, ProcessRow],
    real: datetime,
    business: datetime,
) -> Running:
    process, row = processes.get(uow.process), rows.get(uow.process)
    took = max(0.0, (real - (uow.started_at or real)).total_seconds())
    usual = (row.usual_ms or 0) / 1000 if row else 0.0
    p95 = (row.usual_p95_ms or 0) / 1000 if row else 0.0
    scale = BAR / max(took, p95 * 1.4, 0.001)
    done = uow.progress or {}
    total = done.get("total")
    progress = f"{done.get('done', 0)} of {total}" if total else ""
    state = "final_run" if uow.final else "in_progress"
    return Running(
        process=uow.process,
        period=period_words(process.qualifier, uow.start, uow.end, business) if process else uow.timeperiod,
        href=job_href(uow.process, uow.timeperiod),
        state=state,
        word=state_word(state) if uow.kind == "work" else "readiness check",
        worker=worker_words(uow.owner),
        took=duration_words(took),
        elapsed=round(took * scale, 1),
        p50=round(usual * scale, 1) if usual else None,
        p95=round(p95 * scale, 1) if p95 else None,
        usual=usual_words(row.usual_ms, row.usual_p95_ms) if row else "not known yet",
        attempt=f"attempt {uow.attempt}" if uow.attempt > 1 else "",
        progress=progress,
    )


def cell(brief: Brief, process: Process, business: datetime, marks: Marks, text: str = "") -> Cell:
    """The cell of a job."""
    mark = marks.of(brief)
    words = f"{brief.process} {period_words(process.qualifier, brief.start, brief.end, business)}: "
    words += state_word(brief.state) + (f", {brief.reason.replace('_', ' ')}" if brief.reason else "")
    return Cell(
        state=brief.state,
        mark=mark,
        title=words + (f", {mark}" if mark else ""),
        href=job_href(brief.process, brief.timeperiod),
        text=text,
    )


def groups(
    timetable: Timetable,
    rows: Mapping[str, ProcessRow],
    strips: Mapping[str, Sequence[Brief]],
    behind: Mapping[str, Behind],
    marks: Marks,
    business: datetime,
) -> list[Group]:
    """Every tree and every process outside of trees, with the strip of its newest periods."""

    def line(name: str) -> Line:
        process, row = timetable.processes[name], rows.get(name)
        late = behind.get(name)
        strip = strips.get(name, ())
        state = row.state if row else "new"
        return Line(
            name=name,
            href=(strip and job_href(name, strip[-1].timeperiod)) or "",
            unit=unit_words(process),
            cells=tuple(cell(brief, process, business, marks) for brief in strip),
            lag=duration_words(late.late.total_seconds()) if late else "",
            now=_now_words(strip, process, business, late),
            usual=usual_words(row.usual_ms, row.usual_p95_ms) if row else "not known yet",
            state="" if state == "scheduled" else state,
            can_run=process.kind == "freerun" and state == "scheduled",
        )

    found = []
    for tree in timetable.trees.values():
        members = sorted(tree.processes, key=lambda name: timetable.processes[name].qualifier.rank)
        found.append(Group(tree.title, f"/timetable/{tree.name}", tuple(line(name) for name in members)))
    loose = [
        name
        for name, process in timetable.processes.items()
        if process.kind != "daemon" and not timetable.tree_of(name)
    ]
    if loose:
        found.append(Group("Outside of trees", "", tuple(line(name) for name in sorted(loose))))
    return found


def unit_words(process: Process) -> str:
    """`hour`, `3 hours`, `on demand`."""
    if process.kind == "freerun":
        return "freerun"
    unit = UNITS[process.qualifier]
    return unit if process.grouping == 1 else plural(process.grouping, unit)


def _now_words(strip: Sequence[Brief], process: Process, business: datetime, late: Behind | None) -> str:
    if not strip:
        return "no period yet" if process.kind == "managed" else "never ran"
    if late and late.waiting > 1:
        return f"{plural(late.waiting, 'closed period')} unfinished"
    last = strip[-1]
    words = period_words(process.qualifier, last.start, last.end, business)
    if last.open and last.end > business:
        return f"{words} open, {state_word(last.state)}"
    return f"{words} {state_word(last.state)}"


def machines(boxes: Iterable[BoxProcess], uows: Sequence[Uow], real: datetime, leader: str) -> list[Machine]:
    """The OS processes of all boxes, as dots with words."""
    busy: dict[str, int] = {}
    for uow in uows:
        if uow.state == "in_progress" and uow.owner:
            name = worker_words(uow.owner)
            busy[name] = busy.get(name, 0) + 1
    found = []
    boxes = list(boxes)
    seen = seen_at(boxes)
    for box in boxes:
        last = seen[box.id]
        silent = last is None or real - last > timedelta(seconds=30)
        dot, words = _dot(box, silent)
        doing = busy.get(box.id, 0) or busy.get(box.name, 0)
        extra = f"{count_word(doing).lower()} running" if doing else ""
        if box.kind == "scheduler" and box.state == "RUNNING" and leader:
            extra = extra or f"pid {box.pid}"
        found.append(
            Machine(
                name=box.name,
                dot=dot,
                text=", ".join(part for part in (box.box, words, extra) if part),
                age=ago(last, real).removesuffix(" ago") if silent else "",
                bad=box.state in ("FATAL", "BACKOFF"),
            )
        )
    return found


def _dot(box: BoxProcess, silent: bool) -> tuple[str, str]:
    if box.state in ("FATAL", "BACKOFF"):
        words = "does not start" if box.state == "FATAL" else "crash loop"
        return "dot-critical", f"{words}, {plural(box.restarts, 'restart')}"
    if box.state in ("STOPPED", "EXITED"):
        return "dot-off", "stopped" if box.state == "STOPPED" else "ended"
    if silent:
        return "dot-off", "not seen"
    if box.state in ("STARTING", "STOPPING"):
        return "dot-warning", box.state.lower()
    return "", "running"


def since_words(at: datetime, real: datetime) -> str:
    """`since 22:14`, with the day where it was another."""
    return f"since {time_words(at, real, seconds=False)}"
