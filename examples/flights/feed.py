"""The daemon that plays the feed: as business time passes it lands the raw rows that arrive, and speaks up
for the late ones.

It may be killed at any instant: what has landed and what was promised stands in the landing area, and it goes
on from there. Rows it should have landed while it was away land when it is back; their hours are closed by
then and are reprocessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path

from examples.flights import results
from examples.flights.landing import DATA, Landing, RawRow, raw_flights, raw_weather
from synergy import Daemon

LOOK_S = 0.1  # real seconds; while an hour passes in a second these are six business minutes


class Feed:
    """What is still to come, by arrival, and one step of the feed."""

    def __init__(self, landing: Landing, data: Path, lag_s: float) -> None:
        """`lag_s` is the lag of the hourly processes: an hour is closed so long after its end. Seconds."""
        self.landing = landing
        self.lag_s = lag_s
        self._until = until = landing.landed_until()
        by_arrival = attrgetter("arrival")
        self._flights = sorted(
            (r for r in raw_flights(data) if r.arrival > until), key=by_arrival, reverse=True
        )
        self._weather = sorted(
            (r for r in raw_weather(data) if r.arrival > until), key=by_arrival, reverse=True
        )

    @property
    def left(self) -> int:
        """How many raw rows have not landed yet."""
        return len(self._flights) + len(self._weather)

    def land(self, now: int) -> int:
        """Land every row that arrives by `now` (business seconds since 1970); how many these are."""
        flights, weather = _due(self._flights, now), _due(self._weather, now)
        if flights or weather or now // 3600 > self._until // 3600:  # every hour, also of a quiet night
            self.landing.land(flights, weather, now)
            self._until = now
        return len(flights) + len(weather)

    def answer_calls(self, daemon: Daemon) -> int:
        """Have the closed hours that received rows reprocessed; how many these are. Hours still open see them
        anyway.

        The clock is read here, after the landing was committed: an hour that is open even now has not had its
        last run.
        """
        calls = self.landing.open_calls()
        now = int(daemon.now().timestamp())
        closed = [call for call in calls if call.hour + 3600 + self.lag_s <= now]
        for call in closed:
            label = datetime.fromtimestamp(call.hour, UTC).strftime("%Y%m%d%H")
            daemon.reprocess(call.process, label, f"{call.rows} late rows")
        if calls:
            self.landing.answered(closed, [call for call in calls if call not in closed], now)
        return len(closed)


def _due(rows: list[RawRow], now: int) -> Sequence[RawRow]:
    """Take the rows that arrive by `now` off the end of the list."""
    due = []
    while rows and rows[-1].arrival <= now:
        due.append(rows.pop())
    return due


def flights_feed(daemon: Daemon) -> None:
    """Arguments: the files `landing` and `results`, `lag_s` of the hourly processes, `data` (raw folder).

    It also keeps house in the results: it is the one process of the example that is always on, and once.
    """
    landing = Landing(daemon.arguments["landing"], writes=True)
    try:
        feed = Feed(landing, Path(daemon.arguments.get("data") or DATA), float(daemon.arguments["lag_s"]))
        while not daemon.stopping.wait(LOOK_S):
            feed.land(int(daemon.now().timestamp()))
            feed.answer_calls(daemon)
            results.checkpoint(Path(daemon.arguments["results"]))
    finally:
        landing.close()
