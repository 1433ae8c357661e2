"""What runs, and when: the flights pyramid, the weather, a tree that depends on both, a check, and the feed.

All three machines are here. `flights_hourly` is continuous (it adds up rows as they land), the month and the
year are recomputing (they show the month and the year to date), the rest is discrete. Files live in the
folder that the environment variable `FLIGHTS_STATE` names, or in `state/flights` of the project;
`examples.flights.prepare` fills it.
"""

from __future__ import annotations

import os
from pathlib import Path

from examples.flights.prepare import Places
from synergy import Retry, daemon, freerun, managed, queue, tree

PLACES = Places(
    Path(
        os.environ.get("FLIGHTS_STATE") or Path(__file__).resolve().parents[2] / "state" / "flights"
    ).resolve()
)
LANDING = str(PLACES.landing)
RESULTS = str(PLACES.results)
DATA = os.environ.get("FLIGHTS_DATA")  # a folder of raw files other than ours
START = os.environ.get("FLIGHTS_START", "2013010100")  # a later hour plays less of the year

FEED_BOX = os.environ.get("FLIGHTS_FEED_BOX", "*")  # with several boxes: the one that plays the feed

FEED_LAG_S = 1800.0  # an hour is closed half an hour after its end: by then its feed is usually complete
RETRY = Retry(max_retries=5, delay_s=1.0)
HOURS_AT_ONCE = 24
DAYS_AT_ONCE = 4
QUEUE = "flights"

process_context = [
    managed(
        "flights_hourly",
        "examples.flights.workers:Hourly",
        "hourly",
        trigger="every 900",
        state_machine="continuous",
        source=LANDING,
        sink=RESULTS,
        lag_s=FEED_LAG_S,
        max_active=HOURS_AT_ONCE,
        queue=QUEUE,
        retry=RETRY,
        tags=("flights",),
        owner="data",
        description="Adds up the flights of an hour as they land.",
    ),
    managed(
        "flights_daily",
        "examples.flights.workers:roll_up",
        "daily",
        blocking="children",
        sink=RESULTS,
        arguments={"table": "flights", "child": "flights_hourly"},
        max_active=DAYS_AT_ONCE,
        queue=QUEUE,
        retry=RETRY,
        tags=("flights",),
        owner="data",
        description="The sums of a day's hours.",
    ),
    managed(
        "flights_monthly",
        "examples.flights.workers:roll_up",
        "monthly",
        trigger="every 21600",
        state_machine="recomputing",
        sink=RESULTS,
        arguments={"table": "flights", "child": "flights_daily"},
        queue=QUEUE,
        retry=RETRY,
        tags=("flights",),
        owner="data",
        description="The sums of a month's days; while it is open, the month to date.",
    ),
    managed(
        "flights_yearly",
        "examples.flights.workers:roll_up",
        "yearly",
        trigger="every 43200",
        state_machine="recomputing",
        sink=RESULTS,
        arguments={"table": "flights", "child": "flights_monthly"},
        queue=QUEUE,
        retry=RETRY,
        tags=("flights",),
        owner="data",
        description="The sums of a year's months; while it is open, the year to date.",
    ),
    managed(
        "weather_hourly",
        "examples.flights.weather:hourly",
        "hourly",
        source=LANDING,
        sink=RESULTS,
        lag_s=FEED_LAG_S,
        max_active=HOURS_AT_ONCE,
        queue=QUEUE,
        retry=RETRY,
        tags=("weather",),
        owner="data",
        description="What the three airports observed in an hour.",
    ),
    managed(
        "weather_daily",
        "examples.flights.workers:roll_up",
        "daily",
        blocking="children",
        sink=RESULTS,
        arguments={"table": "weather", "child": "weather_hourly"},
        max_active=DAYS_AT_ONCE,
        queue=QUEUE,
        retry=RETRY,
        tags=("weather",),
        owner="data",
        description="The sums of a day's observations.",
    ),
    managed(
        "delays_daily",
        "examples.flights.delays:daily",
        "daily",
        blocking="dependencies",
        sink=RESULTS,
        max_active=DAYS_AT_ONCE,
        queue=QUEUE,
        retry=RETRY,
        tags=("delays",),
        owner="data",
        description="A day's departures by wind, visibility and rain.",
    ),
    managed(
        "delays_monthly",
        "examples.flights.delays:monthly",
        "monthly",
        blocking="children",
        sink=RESULTS,
        arguments={"child": "delays_daily", "reports": str(PLACES.reports)},
        queue=QUEUE,
        retry=RETRY,
        tags=("delays",),
        owner="data",
        description="Does weather explain delays? A month's numbers and a report with pictures.",
    ),
    freerun(
        "flights_check",
        "examples.flights.workers:check",
        trigger="every 3600",
        queue=QUEUE,
        sink=RESULTS,
        arguments={"days": 7},
        tags=("flights",),
        owner="data",
        description="Compares the hours of the last days with their days.",
    ),
    daemon(
        "flights_feed",
        "examples.flights.feed:flights_feed",
        arguments={"landing": LANDING, "results": RESULTS, "lag_s": FEED_LAG_S, "data": DATA},
        boxes=[FEED_BOX],
        tags=("feed",),
        owner="data",
        description="Lands the raw rows as business time passes, some of them late.",
    ),
]

timetable_context = [
    tree(
        "flights",
        ["flights_hourly", "flights_daily", "flights_monthly", "flights_yearly"],
        title="Flights from New York",
        start=START,
    ),
    tree("weather", ["weather_hourly", "weather_daily"], title="Weather at the airports", start=START),
    tree(
        "delays",
        ["delays_daily", "delays_monthly"],
        depends_on=["flights", "weather"],
        title="Does weather explain delays?",
        start=START,
    ),
]

queue_context = [queue(QUEUE, workers=2, slots=2)]
