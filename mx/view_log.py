"""A log as numbered lines, attempt by attempt, the troubled ones marked. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mx.present import worker_words
from scheduler.core.records import LogChunk
from scheduler.core.uow import Uow

LINES_MAX = 4000  # lines of a log shown; the rest is in the download
LEVEL = re.compile(r"\b(DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b")
TROUBLE = re.compile(r"^(Traceback \(most recent call last\)|[\w.]*(Error|Exception)\b)")
SEVERITY = {"WARN": "warning", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error", "FATAL": "error"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log."""

    number: int
    at: str
    level: str
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class LogPart:
    """What one attempt printed."""

    title: str
    lines: tuple[LogLine, ...]


def log_parts(uow: Uow | None, chunks: Sequence[LogChunk]) -> tuple[list[LogPart], int, int | None]:
    """The log by attempt, how many lines, and the number of the first line that looks like an error."""
    parts: list[LogPart] = []
    number, first_error = 0, None
    by_attempt: dict[int, list[LogChunk]] = {}
    for chunk in chunks:
        by_attempt.setdefault(chunk.attempt, []).append(chunk)
    for attempt in sorted(by_attempt):
        lines = []
        for at, text in _lines(by_attempt[attempt]):
            number += 1
            level, severity = _level(text)
            if severity == "error" and first_error is None:
                first_error = number
            lines.append(
                LogLine(number, f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}", level, severity, text)
            )
        title = f"attempt {attempt}" + (
            f", {worker_words(uow.owner)}" if uow and uow.owner and uow.attempt == attempt else ""
        )
        parts.append(LogPart(title, tuple(lines[-LINES_MAX:])))
    return parts, number, first_error


def _lines(chunks: Sequence[LogChunk]) -> list[tuple[datetime, str]]:
    """The lines of an attempt; a line that two pieces share gets the time of the first."""
    found: list[tuple[datetime, str]] = []
    is_open = False
    for chunk in chunks:
        for i, line in enumerate(chunk.text.split("\n")):
            if i == 0 and is_open and found:
                found[-1] = (found[-1][0], found[-1][1] + line)
            else:
                found.append((chunk.at, line.rstrip("\r")))
        is_open = True
        if found and chunk.text.endswith("\n"):
            found.pop()
            is_open = False
    return found


def _level(text: str) -> tuple[str, str]:
    level = LEVEL.search(text[:80])
    if level:
        return level[1][:5], SEVERITY.get(level[1], "")
    return ("ERROR", "error") if TROUBLE.match(text) else ("", "")
