"""Where a process's log lines go, and how they look. Called once, by `process_starter.py` and `launch.py`.

In the background a process writes to its own rotating file, and what it prints becomes log lines too; in the
foreground all goes to stderr. Passwords in URLs are masked by the formatter, the last station of every line: a
filter would miss tracebacks.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 5_000_000
BACKUPS = 3
SECRETS = (
    re.compile(
        r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(?=@)"
    ),  # the password of scheme://user:password@
    re.compile(
        r"(?P<keep>\b(?:password|passwd|secret|token|api_key)\b['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;]+",
        re.IGNORECASE,
    ),
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def mask(text: str) -> str:
    """`text` without what nobody should read in a log."""
    for pattern in SECRETS:
        text = pattern.sub(lambda found: found["keep"] + "***", text)
    return text


def _stamp(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


class TextFormatter(logging.Formatter):
    """One line for people: instant, level, process, message; a traceback follows."""

    def __init__(self, process: str) -> None:
        super().__init__("%(message)s")
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`, with secrets masked."""
        return mask(f"{_stamp(record)} {record.levelname:<7} {self.process}: {super().format(record)}")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines; `extra` fields are fields of it."""

    def __init__(self, process: str) -> None:
        super().__init__("%(message)s")
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`, with secrets masked."""
        line: dict[str, object] = {
            "at": _stamp(record),
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = mask(self.formatException(record.exc_info))
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = mask(value) if isinstance(value, str) else value
        return json.dumps(line, ensure_ascii=False, default=lambda value: mask(str(value)))


class PrintedLines(io.TextIOBase):
    """What is printed in the background, as log lines."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__()
        self._logger, self._level = logger, level
        self._rest = ""
        self._busy = threading.local()  # a handler that fails prints, and must not come back here

    def write(self, text: str) -> int:
        """Log each whole line."""
        if getattr(self._busy, "now", False):
            return len(text)
        self._busy.now = True
        try:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                if line.strip():
                    self._logger.log(self._level, "%s", line.rstrip())
        finally:
            self._busy.now = False
        return len(text)

    def flush(self) -> None:
        """A line that was not ended is logged as it is."""
        if self._rest.strip():
            rest, self._rest = self._rest, ""
            self.write(rest + "\n")


def last_words(file: Path, limit: int = 300) -> str:
    """What a process said last: why it ended, if it did. Empty if it said nothing."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 8192))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if line.startswith("{"):
        try:
            record = json.loads(line)
            line = str(record.get("traceback") or record.get("message")).strip().split("\n")[-1]
        except (ValueError, AttributeError):
            return ""
    found = re.fullmatch(r"\S+ [A-Z]+ +\S+: (?P<message>.*)", line)
    return (found["message"] if found else line)[:limit]


def configure(process: str, *, level: str = "INFO", style: str = "text", file: Path | None = None) -> None:
    """Send the log of this process to `file`, or to stderr. `style`: text or json."""
    formatter: logging.Formatter = JsonFormatter(process) if style == "json" else TextFormatter(process)
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    if file is not None:
        sys.stdout = PrintedLines(logging.getLogger("printed"), logging.INFO)
        sys.stderr = PrintedLines(logging.getLogger("printed"), logging.WARNING)
