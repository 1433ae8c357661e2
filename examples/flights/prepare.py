"""Everything the example needs on disk before it starts: the landing area as of the instant it goes live, and
empty results.

python -m examples.flights.prepare FOLDER [2013-12-29T00]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from examples.flights import landing, results

RAW_ROWS = 336_776 + 26_115
LIVE_FROM = datetime(2013, 12, 29, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Places:
    """The files and folders of the example inside a state folder."""

    state: Path

    @property
    def landing(self) -> Path:
        """The rows that have arrived (SQLite)."""
        return self.state / "landing.sqlite"

    @property
    def results(self) -> Path:
        """What the workers made of them (SQLite); the sink."""
        return self.state / "results.sqlite"

    @property
    def reports(self) -> Path:
        """The monthly reports (HTML)."""
        return self.state / "reports"


def prepare(
    state_folder: Path,
    live_from: datetime = LIVE_FROM,
    progress: Callable[[int, int], None] = lambda done, total: None,
    data: Path = landing.DATA,
) -> Places:
    """Make what is not there yet. What arrived by `live_from` has landed; the rest is left to the feed.

    `progress` gets (raw rows read, all raw rows), some twenty times. A landing area that is there is left as
    it is, and an unfinished one of a run that was killed is made again.
    """
    places = Places(state_folder)
    places.reports.mkdir(parents=True, exist_ok=True)
    results.create(places.results)
    if not places.landing.exists():
        unfinished = places.landing.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        landing.create(unfinished, int(live_from.timestamp()), data, lambda done: progress(done, RAW_ROWS))
        unfinished.rename(places.landing)
    progress(RAW_ROWS, RAW_ROWS)
    return places


if __name__ == "__main__":
    moment = datetime.fromisoformat(sys.argv[2]).replace(tzinfo=UTC) if len(sys.argv) > 2 else LIVE_FROM
    print(prepare(Path(sys.argv[1]), moment).landing)
