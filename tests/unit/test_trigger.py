"""Triggers: the grammar, its refusals, and fire times against a scan of every minute."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.errors import ConfigError
from scheduler.core.trigger import Trigger, parse_trigger

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FAR = datetime(2200, 1, 1, tzinfo=UTC)
THURSDAY = datetime(2013, 12, 12, 5, 33, 20, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def fires(trigger: Trigger, after: datetime, n: int) -> list[str]:
    """The next n fire times, as the trigger's own wall clock shows them."""
    zone = ZoneInfo(trigger.time_zone)
    found = trigger.fires_between(after, FAR, n)
    assert all(fire.utcoffset() == timedelta(0) for fire in found)
    return [f"{fire.astimezone(zone):%a %Y-%m-%d %H:%M}" for fire in found]


# -- what the texts mean ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every 60", ["Thu 2013-12-12 05:34", "Thu 2013-12-12 05:35"]),
        ("every 3600", ["Thu 2013-12-12 06:00", "Thu 2013-12-12 07:00"]),
        ("at 06:00", ["Thu 2013-12-12 06:00", "Fri 2013-12-13 06:00"]),
        ("at 06:00,5:30,18:15", ["Thu 2013-12-12 06:00", "Thu 2013-12-12 18:15", "Fri 2013-12-13 05:30"]),
        ("at mon-09:00,fri-17:30", ["Fri 2013-12-13 17:30", "Mon 2013-12-16 09:00", "Fri 2013-12-20 17:30"]),
        ("at 0-09:00,6-10:00", ["Sun 2013-12-15 10:00", "Mon 2013-12-16 09:00"]),
        ("at *-06:00", ["Thu 2013-12-12 06:00", "Fri 2013-12-13 06:00"]),
        ("cron 0 9 * * 1", ["Mon 2013-12-16 09:00", "Mon 2013-12-23 09:00"]),
        ("cron 0 9 * * 0", ["Sun 2013-12-15 09:00"]),
        ("cron 0 9 * * 7", ["Sun 2013-12-15 09:00"]),
        ("cron 0 9 * * mon", ["Mon 2013-12-16 09:00"]),
        ("cron 0 9 * jan sun", ["Sun 2014-01-05 09:00"]),
        ("cron 0 9 13 * 1", ["Fri 2013-12-13 09:00", "Mon 2013-12-16 09:00", "Mon 2013-12-23 09:00"]),
        ("cron 0 9 1 * *", ["Wed 2014-01-01 09:00"]),
        ("cron 0 9 31 2 1", ["Mon 2014-02-03 09:00"]),
        ("cron */20 5-6 * * *", ["Thu 2013-12-12 05:40", "Thu 2013-12-12 06:00"]),
        ("cron 10-30/10 6 * * *", ["Thu 2013-12-12 06:10", "Thu 2013-12-12 06:20", "Thu 2013-12-12 06:30"]),
        ("cron 0 0 * * sat-sun", ["Sat 2013-12-14 00:00", "Sun 2013-12-15 00:00", "Sat 2013-12-21 00:00"]),
        ("cron 0 0 * * 5-7", ["Fri 2013-12-13 00:00", "Sat 2013-12-14 00:00", "Sun 2013-12-15 00:00"]),
        ("cron 0 0 * * sun-mon", ["Sun 2013-12-15 00:00", "Mon 2013-12-16 00:00", "Sun 2013-12-22 00:00"]),
        ("cron 0 0 29 2 *", ["Mon 2016-02-29 00:00", "Sat 2020-02-29 00:00"]),
        ("hourly", ["Thu 2013-12-12 06:00", "Thu 2013-12-12 07:00"]),
        ("daily", ["Fri 2013-12-13 00:00", "Sat 2013-12-14 00:00"]),
        ("weekly", ["Mon 2013-12-16 00:00", "Mon 2013-12-23 00:00"]),
        ("monthly", ["Wed 2014-01-01 00:00", "Sat 2014-02-01 00:00"]),
        ("quarterly", ["Wed 2014-01-01 00:00", "Tue 2014-04-01 00:00"]),
        ("yearly", ["Wed 2014-01-01 00:00", "Thu 2015-01-01 00:00"]),
    ],
)
def test_fires_when_it_says(text: str, expected: list[str]) -> None:
    """Acceptance 35: the triggers fire when they say, to the second; cron's 1 is a Monday."""
    trigger = parse_trigger(text)
    assert fires(trigger, THURSDAY, len(expected)) == expected
    first = trigger.next_after(THURSDAY)
    assert first is not None and (first.second, first.microsecond) == (0, 0)


@pytest.mark.parametrize(
    ("text", "kind", "canonical"),
    [
        ("every 300", "every", "every 300"),
        ("  EVERY   0300 ", "every", "every 300"),
        ("at *-6:00", "at", "at 06:00"),
        ("at fri-17:30, mon-09:00", "at", "at mon-09:00,fri-17:30"),
        ("at 0-09:00,4-17:30,mon-09:00", "at", "at mon-09:00,fri-17:30"),
        ("cron  0  9 * JAN Mon", "cron", "cron 0 9 * jan mon"),
        ("Hourly", "calendar", "hourly"),
        ("quarterly", "calendar", "quarterly"),
    ],
)
def test_text_is_canonical(text: str, kind: str, canonical: str) -> None:
    trigger = parse_trigger(text, time_zone="Europe/Berlin")
    assert (trigger.kind, trigger.text) == (kind, canonical)
    assert trigger.interval_s == (300 if kind == "every" else None)
    again = parse_trigger(trigger.text, time_zone="Europe/Berlin")
    assert again == trigger and hash(again) == hash(trigger)
    assert again != parse_trigger(trigger.text)


def test_every_counts_from_start_or_the_epoch() -> None:
    start = datetime(2013, 12, 12, 5, 0, 7, tzinfo=UTC)
    anchored = parse_trigger("every 90", start=start)
    assert anchored.first_at_or_after(THURSDAY) == start + timedelta(seconds=90 * 23)
    epoch = parse_trigger("every 7").next_after(THURSDAY)
    assert epoch is not None and int(epoch.timestamp()) % 7 == 0
    assert parse_trigger("every 1000000000").next_after(THURSDAY) is not None


def test_strictly_after_and_at_or_after() -> None:
    six = datetime(2013, 12, 12, 6, tzinfo=UTC)
    for text in ("every 3600", "at 06:00", "cron 0 6 * * *", "hourly"):
        for zone in ("UTC", "Etc/UTC"):
            trigger = parse_trigger(text, time_zone=zone)
            assert trigger.first_at_or_after(six) == six
            after = trigger.next_after(six)
            assert after is not None and after > six
            assert trigger.next_after(six - timedelta(milliseconds=1)) == six
            assert trigger.fires_between(six - MINUTE, six) == [six]  # until is inclusive
            assert trigger.fires_between(six, six + MINUTE) == []  # after is exclusive


def test_start_is_inclusive_and_end_is_exclusive() -> None:
    start, end = datetime(2013, 12, 12, 6, tzinfo=UTC), datetime(2013, 12, 14, 6, tzinfo=UTC)
    for text in ("at 06:00", "daily", "every 86400", "cron 0 6 * * *"):
        trigger = parse_trigger(text, start=start, end=end)
        assert trigger.fires_between(start - 9 * DAY, FAR) == [start, start + DAY]
        assert trigger.first_at_or_after(end - MINUTE) is None
        assert trigger.next_after(start + DAY) is None


def test_the_limit_limits() -> None:
    trigger = parse_trigger("every 1")
    found = trigger.fires_between(THURSDAY, FAR, 10)
    assert found == [THURSDAY + timedelta(seconds=n) for n in range(1, 11)]
    assert len(trigger.fires_between(THURSDAY, FAR)) == 1000
    assert trigger.fires_between(THURSDAY, FAR, 0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("monthly", ["Sun 2024-03-31 10:30", "Tue 2024-04-30 10:30", "Fri 2024-05-31 10:30"]),
        ("quarterly", ["Tue 2024-04-30 10:30", "Wed 2024-07-31 10:30", "Thu 2024-10-31 10:30"]),
        ("yearly", ["Fri 2025-01-31 10:30", "Sat 2026-01-31 10:30", "Sun 2027-01-31 10:30"]),
        ("weekly", ["Wed 2024-03-06 10:30", "Wed 2024-03-13 10:30", "Wed 2024-03-20 10:30"]),
        ("daily", ["Fri 2024-03-01 10:30", "Sat 2024-03-02 10:30", "Sun 2024-03-03 10:30"]),
        ("hourly", ["Fri 2024-03-01 00:30", "Fri 2024-03-01 01:30", "Fri 2024-03-01 02:30"]),
    ],
)
def test_calendar_words_count_from_start(text: str, expected: list[str]) -> None:
    """A 31st becomes the last day of a short month, and comes back in a long one."""
    start = datetime(2024, 1, 31, 10, 30, tzinfo=BERLIN)
    trigger = parse_trigger(text, start=start, time_zone="Europe/Berlin")
    assert trigger.first_at_or_after(start - 99 * DAY) == start
    assert fires(trigger, datetime(2024, 3, 1, tzinfo=BERLIN), 3) == expected


def test_a_leap_day_is_anchored_each_year() -> None:
    trigger = parse_trigger("yearly", start=datetime(2024, 2, 29, tzinfo=UTC))
    expected = [
        "Fri 2025-02-28 00:00",
        "Sat 2026-02-28 00:00",
        "Sun 2027-02-28 00:00",
        "Tue 2028-02-29 00:00",
    ]
    assert fires(trigger, datetime(2024, 3, 1, tzinfo=UTC), 4) == expected


def test_outside_the_years_nothing_fires() -> None:
    for text in ("every 60", "at 06:00", "cron 0 0 29 2 *", "hourly", "monthly", "daily"):
        for zone in ("UTC", "Europe/Berlin"):
            trigger = parse_trigger(text, time_zone=zone)
            assert trigger.next_after(datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)) is None
            assert trigger.next_after(datetime.max.replace(tzinfo=UTC)) is None
            early = trigger.first_at_or_after(datetime.min.replace(tzinfo=UTC))
            assert early is not None and early.year in (1970, 1972)


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("every 0", "whole number of seconds, 1 to"),
        ("every -5", "whole number of seconds"),
        ("every 1.5", "whole number of seconds"),
        ("every", "whole number of seconds"),
        ("every 5 minutes", "whole number of seconds"),
        ("every ５", "whole number of seconds"),
        ("every 99999999999", "whole number of seconds"),
        ("at", "not a time of day"),
        ("at 25:00", "'25:00' is not a time of day"),
        ("at 24:00", "00:00 to 23:59"),
        ("at 06:60", "not a time of day"),
        ("at 6", "not a time of day"),
        ("at 06:00:30", "not a time of day"),
        ("at 06:00,", "not a time of day"),
        ("at mon 09:00", "not a time of day"),
        ("at 7-10:00", "'7' is no day of the week; right is one of mon tue wed thu fri sat sun"),
        ("at monday-10:00", "'monday' is no day"),
        ("at -10:00", "no day of the week"),
        ("cron", "five fields .* not 0"),
        ("cron 0 9 * *", "five fields .* not 4"),
        ("cron 0 0 9 * * 1", "not 6: seconds and years are not supported"),
        ("cron @daily", "five fields"),
        ("cron 0 0 30 2 *", "never fire"),
        ("cron 0 0 31 4,jun,9,11 *", "never fire"),
        ("cron 60 * * * *", "'60' in its minute .* 0 to 59"),
        ("cron * 24 * * *", "in its hour .* 0 to 23"),
        ("cron * * 0 * *", "in its day-of-month .* 1 to 31"),
        ("cron * * * 13 *", "in its month .* 1 to 12 or jan to dec"),
        ("cron * * * * 8", "in its day-of-week .* 0 to 7 or mon to sun"),
        ("cron * * * mon *", "'mon' in its month"),
        ("cron */0 * * * *", "in its minute"),
        ("cron */ * * * *", "in its minute"),
        ("cron 5/15 * * * *", "step without a range"),
        ("cron 30-10 * * * *", "runs backwards"),
        ("cron 1,,2 * * * *", "in its minute"),
        ("cron -1 * * * *", "in its minute"),
        ("cron ? * * * *", "in its minute"),
        ("cron 0 0 L * *", "in its day-of-month"),
        ("", "right is 'every 300'"),
        ("   ", "right is 'every 300'"),
        ("rubbish", "right is 'every 300'"),
        ("0 9 * * 1", "right is .*'cron 0 9"),
        ("daily 06:00", "right is"),
        ("60", "right is"),
    ],
)
def test_nonsense_is_refused_with_the_reason(text: str, reason: str) -> None:
    """Acceptance 36: refused in one line that names the text, the reason and what is right."""
    with pytest.raises(ConfigError, match=reason) as error:
        parse_trigger(text)
    assert repr(text) in str(error.value) and "\n" not in str(error.value)


def test_wrong_limits_and_zones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"end .* must be after its start"):
        parse_trigger("daily", start=THURSDAY, end=THURSDAY)
    with pytest.raises(ConfigError, match="time zone"):
        parse_trigger("daily", start=datetime(2013, 1, 1))
    for zone in ("Mars/Olympus", "", "Europe", "../etc/passwd", 5):
        with pytest.raises(ConfigError, match=r"is not known; right is .*Europe/Berlin"):
            parse_trigger("daily", time_zone=zone)  # type: ignore[arg-type]
    for text in (None, 60, ["every 60"]):
        with pytest.raises(ConfigError, match="right is 'every 300'"):
            parse_trigger(text)  # type: ignore[arg-type]


@given(st.text(max_size=30) | st.from_regex(r"(every|at|cron) [0-9*,/ :a-z-]{0,20}", fullmatch=True))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        trigger = parse_trigger(text)
    except ConfigError:
        return
    assert parse_trigger(trigger.text) == trigger
    assert trigger.next_after(THURSDAY) is not None


# -- changes of the clocks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [  # Berlin: 2024-03-31 02:00 → 03:00 at 01:00 UTC; 2024-10-27 03:00 → 02:00 at 01:00 UTC
        ("at 02:30", "Europe/Berlin", "2024-03-30T12:00", ["2024-03-31T01:00", "2024-04-01T00:30"]),
        (
            "at 02:00,02:30,03:00",
            "Europe/Berlin",
            "2024-03-31T00:00",
            ["2024-03-31T01:00", "2024-04-01T00:00"],
        ),
        ("at 02:30", "Europe/Berlin", "2024-10-26T12:00", ["2024-10-27T00:30", "2024-10-28T01:30"]),
        ("cron 30 2 * * *", "Europe/Berlin", "2024-10-27T00:30", ["2024-10-28T01:30"]),
        ("cron 30 2 * * *", "Europe/Berlin", "2024-10-27T01:15", ["2024-10-28T01:30"]),
        ("cron 30 2 * * 0", "Europe/Berlin", "2024-03-30T12:00", ["2024-03-31T01:00", "2024-04-07T00:30"]),
        ("hourly", "Europe/Berlin", "2024-10-26T23:30", ["2024-10-27T00:00", "2024-10-27T01:00"]),
        ("hourly", "Europe/Berlin", "2024-03-30T23:30", ["2024-03-31T00:00", "2024-03-31T01:00"]),
        ("cron 30 * * * *", "Europe/Berlin", "2024-03-31T00:00", ["2024-03-31T00:30", "2024-03-31T01:30"]),
        ("daily", "America/New_York", "2024-03-09T12:00", ["2024-03-10T05:00", "2024-03-11T04:00"]),
        ("daily", "America/Havana", "2024-03-09T12:00", ["2024-03-10T05:00", "2024-03-11T04:00"]),
        ("hourly", "Asia/Kolkata", "2024-01-01T00:00", ["2024-01-01T00:30", "2024-01-01T01:30"]),
        # Samoa left out 30 Dec 2011
        ("at 09:00", "Pacific/Apia", "2011-12-29T20:00", ["2011-12-30T10:00", "2011-12-30T19:00"]),
    ],
)
def test_skipped_times_fire_after_the_gap_and_doubled_ones_once(
    text: str, zone: str, after: str, expected: list[str]
) -> None:
    trigger = parse_trigger(text, time_zone=zone)
    found = trigger.fires_between(datetime.fromisoformat(after + "+00:00"), FAR, len(expected))
    assert [f"{fire:%Y-%m-%dT%H:%M}" for fire in found] == expected
    for fire in found:  # also when asked at the very instant
        assert trigger.first_at_or_after(fire) == fire
        assert trigger.next_after(fire - timedelta(milliseconds=1)) == fire


def test_a_start_in_the_second_of_two_equal_hours_is_kept() -> None:
    start = datetime(2024, 10, 27, 1, 30, tzinfo=UTC)  # 02:30 in Berlin, for the second time
    trigger = parse_trigger("daily", start=start, time_zone="Europe/Berlin")
    assert trigger.fires_between(start - DAY, FAR, 2) == [start, start + DAY]


# The oracle: its own tiny reading of cron, and a walk over every minute.

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def allowed(field: str, low: int, high: int) -> set[int]:
    numbers = set()
    for part in field.split(","):
        body, _, step = part.partition("/")
        ends = [low, high] if body == "*" else [int(n) for n in body.split("-")]
        numbers |= {n for n in range(low, high + 1) if ends[0] <= n <= ends[-1]} & set(
            range(ends[0], high + 1, int(step or 1))
        )
    return numbers


def scan(cron: str, after: datetime, until: datetime, zone: ZoneInfo) -> list[datetime]:
    """Walk over the minutes. What names an hour fires when the wall clock first reaches or passes it."""
    fields = cron.split()
    minute, hour, dom, month, dow = (
        allowed(f, low, high) for f, (low, high) in zip(fields, RANGES, strict=True)
    )

    def matches(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in dom, wall.isoweekday() in dow or wall.isoweekday() % 7 in dow
        both = fields[2] != "*" and fields[4] != "*"
        right_day = (by_day or by_weekday) if both else (by_day and by_weekday)
        return right_day and wall.minute in minute and wall.hour in hour and wall.month in month

    found = []
    instant = after - timedelta(hours=4)  # so that the hand stands right before it counts
    hand = instant.astimezone(zone).replace(tzinfo=None)
    while instant < until:
        instant += MINUTE
        wall = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        if len(hour) == 24:
            hit = matches(wall)
        else:
            hit = False
            while hand < wall:
                hand += MINUTE
                hit = matches(hand) or hit
        if hit and instant > after:
            found.append(instant)
    return found


@st.composite
def cron_fields(draw: st.DrawFn, low: int, high: int, stars: int) -> str:
    if draw(st.integers(0, 9)) < stars:
        return "*"
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(2, 20))  # */1 is another way to write *
        parts.append(
            draw(st.sampled_from([f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"*/{step}"]))
        )
    return ",".join(parts)


crons = st.tuples(
    cron_fields(0, 59, 1),
    cron_fields(0, 23, 4),
    cron_fields(1, 31, 6),
    cron_fields(1, 12, 8),
    cron_fields(0, 7, 6),
).map(" ".join)
moments = st.tuples(
    st.sampled_from(
        [
            ("Europe/Berlin", "2024-03-31T01:00"),
            ("Europe/Berlin", "2024-10-27T01:00"),
            ("America/New_York", "2024-03-10T07:00"),
            ("America/New_York", "2024-11-03T06:00"),
            ("Australia/Lord_Howe", "2024-04-06T15:00"),
            ("Australia/Lord_Howe", "2024-10-05T15:30"),
            ("America/Havana", "2024-11-03T05:00"),
            ("Pacific/Apia", "2011-12-30T10:00"),
            ("UTC", "2024-03-01T00:00"),
            ("UTC", "2100-03-01T00:00"),
            ("Asia/Kolkata", "2023-12-31T18:30"),
        ]
    ),
    st.integers(-900, 100),
)


@settings(max_examples=60, deadline=None)
@given(crons, moments)
def test_cron_against_a_scan_of_every_minute(cron: str, moment: tuple[tuple[str, str], int]) -> None:
    """Acceptance 35, by an independent reading, around changes of the clocks and leap days."""
    (zone, change), minutes = moment
    after = datetime.fromisoformat(change + "+00:00") + minutes * MINUTE
    until = after + timedelta(hours=26)
    _, _, dom, month, dow = cron.split()
    if dow == "*" and all(
        d > monthrange(2024, m)[1] for d in allowed(dom, 1, 31) for m in allowed(month, 1, 12)
    ):
        with pytest.raises(ConfigError, match="never fire"):
            parse_trigger(f"cron {cron}", time_zone=zone)
        return
    trigger = parse_trigger(f"cron {cron}", time_zone=zone)
    assert trigger.fires_between(after, until, 5000) == scan(cron, after, until, ZoneInfo(zone))


@given(
    st.sampled_from(
        ["every 977", "at 02:30,sun-03:00", "cron 15 2 * * *", "cron 0 * * * *", "daily", "monthly"]
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 10**6),
)
def test_asking_is_consistent(text: str, zone: str, instant: datetime, seconds: int) -> None:
    """No fire time lies between an instant and the one that comes next, wherever one asks from."""
    trigger = parse_trigger(text, time_zone=zone)
    fire = trigger.next_after(instant)
    assert fire is not None and fire > instant
    assert trigger.first_at_or_after(fire) == fire
    between = instant + timedelta(seconds=seconds) % (fire - instant)
    assert trigger.next_after(between) == fire


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            "every 900",
            IntervalTrigger(seconds=900, start_date=datetime(1970, 1, 1, tzinfo=UTC), timezone=UTC),
        ),
        ("at 06:00", CronTrigger(hour=6, minute=0, timezone=UTC)),
        ("at mon-09:00", CronTrigger(day_of_week="mon", hour=9, minute=0, timezone=UTC)),
        ("cron 0 9 * * 1", CronTrigger(day_of_week="mon", hour=9, minute=0, timezone=UTC)),
        (
            "cron */20 3,4 1-7 2,6 *",
            CronTrigger(minute="*/20", hour="3,4", day="1-7", month="2,6", timezone=UTC),
        ),
    ],
)
@given(
    instant=st.datetimes(
        min_value=datetime(2000, 1, 1), max_value=datetime(2035, 1, 1), timezones=st.just(UTC)
    )
)
@settings(max_examples=60, deadline=None)
def test_we_fire_when_apscheduler_does_where_the_two_mean_the_same(
    ours: str, theirs: BaseTrigger, instant: datetime
) -> None:
    # it fires at or after `now`, to the microsecond; we fire strictly after
    expected = theirs.get_next_fire_time(None, instant + timedelta(microseconds=1))
    assert parse_trigger(ours).next_after(instant) == expected
