"""The weather tree: what the airports observed in an hour. Days are summed up by `workers.roll_up`.

Discrete: an hour's observation is there or it is not. 46 hours of 2013 have none, and end as noop.
"""

from __future__ import annotations

from examples.flights import results
from examples.flights.landing import Observation, reader
from synergy import Noop, Processed, Task

MOST_WIND_MPH = 200.0  # faster is an error of the instrument: the raw data has one hour of 1,048 mph


def whole(value: float | None, scale: int) -> tuple[int, int]:
    """The value in whole parts (10: tenths), and 1; two zeros if it is not known."""
    return (0, 0) if value is None else (round(value * scale), 1)


def sums(observations: list[Observation]) -> dict[tuple[str, ...], list[int]]:
    """The sums of `results.WEATHER_SUMS` by airport."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for seen in observations:
        wind = seen.wind_speed
        if wind is not None and wind > MOST_WIND_MPH:
            wind = None
        groups[(seen.origin,)] = [
            1,
            *whole(seen.temp, 100),
            *whole(wind, 10),
            *whole(seen.visib, 100),
            *whole(seen.precip, 100),
        ]
    return groups


def hourly(task: Task) -> Processed | Noop:
    """The observations of one hour, as integers."""
    observations = reader(task.source).weather(results.seconds(task.start))
    with results.sink_of(task) as sink:
        results.clear(sink, "weather", task)
        results.add(sink, "weather", task, sums(observations))
    if not observations:
        return Noop("no airport reported in this hour")
    return Processed({"airports": len(observations)})
