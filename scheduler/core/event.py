"""The event: an append-only fact. History, audit, log lines, metrics and digest all read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

_QUOTE = json.encoder.encode_basestring
_DECODE = json.JSONDecoder().raw_decode
_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # dumps builds one each time

SEVERITIES = ("debug", "info", "success", "warning", "error", "critical")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact. `(source, seq)` is its key: numbered without gaps by its only writer."""

    source: str  # "scheduler", or "box:<id>", "mx:<id>"
    seq: int
    at: datetime  # real time
    business_at: datetime
    kind: str  # "job.dispatch", "uow.accept", "process.suspend", "hold.set", "command.done", …: entity.verb
    process: str | None = None
    timeperiod: str | None = None
    uow: str | None = None
    ref: str | None = None  # "<uow>/n" for line n of a unit of work's history
    actor: str = "scheduler"
    tags: str = ""  # those of the process, space separated
    severity: str = "info"
    message: str = ""
    data: dict[str, Any] | None = None


def history_line(verb: str, state: str, at: datetime, actor: str, message: str = "", **data: Any) -> str:
    """One line of a unit of work's history: what `Change.entry` carries, newline included.

    `at` is real time; extra `data` (attempt, version, error, …) must be JSON. Two or three are written per attempt.
    """
    line = f'{{"verb":"{verb}","state":"{state}","at":"{_text(at)}","actor":{_QUOTE(actor)}'
    if message:
        line += f',"message":{_QUOTE(message)}'
    for name, value in data.items():
        line += f',"{name}":{value}' if type(value) is int else f',"{name}":{_ENCODE(value)}'
    return line + "}\n"


@lru_cache(256)  # a batch has few instants
def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def history_entries(history: str, after: int = 0) -> list[dict[str, Any]]:
    """The lines of a history as dictionaries, without the first `after`."""
    return [_DECODE(line)[0] for line in history.splitlines()[after:]]
