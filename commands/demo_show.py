"""What the demo shows: progress bars in a terminal, a line now and then in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

PIPE_EVERY_S = 5.0
SMOOTH_S = 10.0  # the rate is that of the last seconds


class Show:
    """Used by one thread."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._progress: Progress | None = None
        self._bar = self._unit = ""
        self._said_at = self._began = 0.0
        self._seen: list[tuple[float, float]] = []

    def line(self, text: str) -> None:
        """Something to know."""
        self.console.print(text, markup=False, soft_wrap=True)

    def problem(self, text: str) -> None:
        """Something that is wrong; on stderr."""
        Console(file=sys.stderr, highlight=False).print(text, markup=False, style="red", soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table."""
        self.console.print(table)

    @contextmanager
    def bar(self, title: str, unit: str) -> Iterator[None]:
        """A progress bar while the block runs; `update` moves it."""
        self._bar, self._unit, self._began, self._said_at = title, unit, time.monotonic(), 0.0
        self._seen = []
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=12),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=4,
            )
            self._progress.add_task(title, total=None, note="")
            self._progress.start()
        try:
            yield
        finally:
            self.close()

    def update(self, done: float, total: float, note: str = "") -> None:
        """So much is done of so much."""
        now = time.monotonic()
        self._seen = [*(s for s in self._seen if now - s[0] < SMOOTH_S), (now, done)]
        note = note or self._rate(done, total)
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, total=total, note=note)
        elif now - self._said_at >= PIPE_EVERY_S or (done >= total and self._said_at):
            if self._said_at >= 0:
                self.line(f"{self._bar}: {100 * done / total if total else 100:.0f} %, {note}")
            self._said_at = now if done < total else -1.0

    def _rate(self, done: float, total: float) -> str:
        since, before = self._seen[0]
        took = self._seen[-1][0] - since
        rate = f", {(done - before) / took:,.0f}/s" if took > 0.5 else ""
        return f"{done:,.0f} of {total:,.0f} {self._unit}{rate}"

    def close(self) -> None:
        """End what is shown; may be called twice."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()
