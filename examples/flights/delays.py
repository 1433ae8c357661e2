"""Does weather explain delays? A tree of its own that depends on both others.

A day joins the hours of its flights with the hours of its weather, airport by airport, and sorts the
departures into buckets of wind, visibility and rain. Beside the counts it keeps the sums that a correlation
is made of (weighted by departures): n, Σx, Σx², Σy, Σy², Σxy are integers and add up, so a month is the sum
of its days, and the coefficient comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from examples.flights import report, results
from synergy import Noop, Processed, Task

UNKNOWN = "unknown"
HOURS = """
SELECT f.origin, SUM(f.flights), SUM(f.cancelled), SUM(f.departed), SUM(f.dep_delay_minutes),
       SUM(f.dep_delay_squares), CASE WHEN w.wind_known THEN w.wind_tenths END,
       CASE WHEN w.visib_known THEN w.visib_hundredths END,
       CASE WHEN w.precip_known THEN w.precip_hundredths END
FROM flights f LEFT JOIN weather w
     ON w.process = 'weather_hourly' AND w.start = f.start AND w.slice = 0 AND w.origin = f.origin
WHERE f.process = 'flights_hourly' AND f.start >= ? AND f.start < ? GROUP BY f.start, f.origin
"""


@dataclass(frozen=True, slots=True)
class Factor:
    """Something of the weather: its buckets as (upper limit in whole parts, label), and the label above."""

    name: str
    title: str
    limits: tuple[tuple[int, str], ...]
    above: str

    def bucket(self, value: int | None) -> str:
        """The label of the bucket this value falls into."""
        if value is None:
            return UNKNOWN
        return next((label for limit, label in self.limits if value < limit), self.above)

    def buckets(self) -> list[str]:
        """All labels, from calm to rough or from low to high."""
        return [label for _limit, label in self.limits] + [self.above]


WIND = Factor(
    "wind",
    "Wind (mph)",
    ((50, "under 5"), (100, "5-10"), (150, "10-15"), (200, "15-20"), (250, "20-25")),
    "25+",
)
VISIBILITY = Factor(
    "visibility", "Visibility (miles)", ((100, "under 1"), (300, "1-3"), (600, "3-6"), (1000, "6-10")), "10"
)
RAIN = Factor("rain", "Rain (inches an hour)", ((1, "none"), (5, "under 0.05"), (10, "0.05-0.1")), "0.1+")
FACTORS = (WIND, VISIBILITY, RAIN)


def join(sink: Any, start: int, end: int) -> dict[tuple[str, ...], list[int]]:
    """The sums of `results.DELAY_SUMS` by (factor, bucket) over the hours in [start, end)."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for _origin, flights, cancelled, departed, delay, squares, *weather in sink.execute(
        HOURS, (start, end)
    ).fetchall():
        for factor, x in zip(FACTORS, weather, strict=True):
            group = groups.setdefault((factor.name, factor.bucket(x)), [0] * len(results.DELAY_SUMS))
            known = x or 0
            with_x = (known * departed, known * known * departed, known * delay)
            parts = (flights, cancelled, departed, delay, squares, *with_x)
            for place, part in enumerate(parts):
                group[place] += part
    return groups


def correlation(buckets: dict[str, dict[str, int]]) -> float | None:
    """Pearson's r of factor and delay over all departures with known weather; None: there is no spread."""
    known = [sums for name, sums in buckets.items() if name != UNKNOWN]
    total: Callable[[str], int] = lambda name: sum(sums[name] for sums in known)  # noqa: E731
    n, x, y = total("departed"), total("x"), total("delay")
    spread_x = n * total("x_squares") - x * x
    spread_y = n * total("delay_squares") - y * y
    if spread_x <= 0 or spread_y <= 0:
        return None
    return (n * total("x_delay") - x * y) / (sqrt(spread_x) * sqrt(spread_y))


def daily(task: Task) -> Processed | Noop:
    """One day: flights and weather joined by hour and airport."""
    with results.sink_of(task) as sink:
        groups = join(sink, results.seconds(task.start), results.seconds(task.end))
        results.clear(sink, "delays", task)
        results.add(sink, "delays", task, groups)
    if not groups:
        return Noop("no flights on this day")
    flights = sum(sums[0] for (factor, _bucket), sums in groups.items() if factor == WIND.name)
    return Processed({"flights": flights, "buckets": len(groups)})


def monthly(task: Task) -> Processed | Noop:
    """One month: the sums of its days, and a small report as a page of HTML with a picture.

    The page is put in its place inside the sink's transaction, after its token was accepted: a worker that
    lost its lease replaces neither the numbers nor the page.
    """
    with results.sink_of(task) as sink:
        results.roll_up(sink, "delays", task, task.arguments["child"])
        month = read(sink, task.process, results.seconds(task.start), results.seconds(task.start) + 1)
        if not month:
            return Noop(f"{task.arguments['child']} has no results in {task.timeperiod}")
        buckets = next(iter(month.values()))
        days = read(sink, task.arguments["child"], results.seconds(task.start), results.seconds(task.end))
        found = {factor.name: correlation(buckets.get(factor.name, {})) for factor in FACTORS}
        page = report.page(task.start, FACTORS, buckets, days, found)
        path = Path(task.arguments["reports"]) / f"delays-{task.start:%Y-%m}.html"
        write(path, page, task.token)
    rounded = {name: None if r is None else round(r, 3) for name, r in found.items()}
    return Processed({"report": path.name, "correlation": rounded})


def read(sink: Any, process: str, start: int, end: int) -> dict[int, dict[str, dict[str, dict[str, int]]]]:
    """The rows of a process as {start: {factor: {bucket: {sum: value}}}}, oldest first."""
    found: dict[int, dict[str, dict[str, dict[str, int]]]] = {}
    names = ", ".join(results.DELAY_SUMS)
    rows = sink.execute(
        f"SELECT start, factor, bucket, {names} FROM delays"
        " WHERE process = ? AND start >= ? AND start < ? ORDER BY start",
        (process, start, end),
    )
    for begin, factor, bucket, *sums in rows.fetchall():
        of_factor = found.setdefault(begin, {}).setdefault(factor, {})
        of_factor[bucket] = dict(zip(results.DELAY_SUMS, sums, strict=True))
    return found


def write(path: Path, page: str, token: tuple[int, int]) -> None:
    """Put the page in its place in one step: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{token[0]}-{token[1]}")
    fresh.write_text(page, encoding="utf-8")
    fresh.replace(path)
