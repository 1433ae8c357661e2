"""The work of the benchmarks: nothing. In a chain it notes when it began and ended, on the machine's one fine clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

from synergy import Task

_files: dict[str, int] = {}


def nothing(task: Task) -> None:
    """No work."""


def noted(task: Task) -> None:
    """No work, and a line `uow began ended` (nanoseconds since the machine started) in `<sink>/<pid>`."""
    began = time.monotonic_ns()
    folder = task.sink or "."
    if folder not in _files:
        _files[folder] = os.open(Path(folder, str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_files[folder], b"%s %d %d\n" % (task.uow.encode(), began, time.monotonic_ns()))


def read_notes(folder: Path) -> list[tuple[int, int]]:
    """When each noted work began and ended, in order."""
    lines = [line.split() for file in folder.iterdir() for line in file.read_text().splitlines()]
    return sorted((int(began), int(ended)) for _, began, ended in lines)
