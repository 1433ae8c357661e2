"""Timeperiods: labels, intervals, groups, nesting; mostly properties, with the calendar's corners by hand."""

from __future__ import annotations

from calendar import isleap, monthrange
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.errors import ConfigError, InvalidRequest
from scheduler.core.timeperiod import (
    Qualifier,
    Timeperiod,
    check_grouping,
    count_between,
    following,
    is_coarser,
    nests,
    spoken,
    timeperiod_at,
    timeperiod_of,
    timeperiods_between,
)

Q = Qualifier
MOST = {Q.MINUTELY: 59, Q.HOURLY: 23, Q.DAILY: 28, Q.WEEKLY: 1, Q.MONTHLY: 12, Q.YEARLY: 1, Q.INSTANT: 1}
MICROSECOND = timedelta(microseconds=1)

instants = st.datetimes(datetime(1971, 1, 1), datetime(9990, 1, 1), timezones=st.just(UTC))
kinds = st.sampled_from(list(Q)).flatmap(lambda q: st.tuples(st.just(q), st.integers(1, MOST[q])))
long_kinds = kinds.filter(lambda kind: kind[0] is not Q.INSTANT)
periods = st.builds(lambda instant, kind: timeperiod_at(instant, *kind), instants, kinds)


def day(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


# -- properties -------------------------------------------------------------------------------------


@given(instants, kinds)
def test_an_instant_lies_in_its_period(instant: datetime, kind: tuple[Q, int]) -> None:
    period = timeperiod_at(instant, *kind)
    assert period.start <= instant < period.end
    assert period.start.tzinfo is UTC and period.end.tzinfo is UTC
    assert (period.qualifier, period.grouping) == kind


@given(periods)
def test_label_and_interval_are_a_round_trip(period: Timeperiod) -> None:
    again = timeperiod_of(period.label, period.qualifier, period.grouping)
    assert again == period and hash(again) == hash(period)
    assert (again.start, again.end) == (period.start, period.end)
    for inside in (period.start, period.end - MICROSECOND):
        assert timeperiod_at(inside, period.qualifier, period.grouping) == period


@given(periods, st.integers(-2000, 2000))
def test_there_and_back_again(period: Timeperiod, n: int) -> None:
    try:
        there = following(period, n)
    except InvalidRequest:
        return  # out of the years
    assert following(there, -n) == period
    assert (there.start > period.start) == (n > 0)


@given(periods, st.integers(1, 20))
def test_periods_tile_without_gap_or_overlap(period: Timeperiod, n: int) -> None:
    """Stepping by one and stepping by n agree, and each period begins where the last one ended."""
    walked = period
    for steps in range(1, n + 1):
        after = following(walked)
        assert after.start == walked.end
        assert following(after, -1) == walked
        assert following(period, steps) == after
        walked = after


@given(instants, st.timedeltas(timedelta(0), timedelta(days=90)), long_kinds)
def test_between_finds_all_and_counts_right(start: datetime, length: timedelta, kind: tuple[Q, int]) -> None:
    if kind[0] is Q.MINUTELY:
        length /= 100
    end = start + length
    found = list(timeperiods_between(start, end, *kind))
    assert len(found) == count_between(start, end, *kind)
    if start == end:
        assert found == []
        return
    assert found[0].start <= start < found[0].end
    assert found[-1].start < end <= found[-1].end
    assert all(one.end == next_one.start for one, next_one in pairwise(found))


@given(instants, kinds, kinds)
def test_nesting_is_containment(instant: datetime, child: tuple[Q, int], parent: tuple[Q, int]) -> None:
    """Where kinds nest, no child crosses a parent's border; around the instant, seen from both sides."""
    if not nests(*child, *parent):
        return
    inner = timeperiod_at(instant, *child)
    outer = timeperiod_at(instant, *parent)
    assert outer.start <= inner.start and inner.end <= outer.end
    assert timeperiod_at(outer.start, *child).start == outer.start
    assert timeperiod_at(outer.end, *child).start == outer.end


@pytest.mark.parametrize("parent", list(Q))
@pytest.mark.parametrize("child", list(Q))
def test_what_does_not_nest_crosses_a_border_somewhere(child: Q, parent: Q) -> None:
    """`nests` is false only where a parent's border is shown to lie inside a child."""
    start, end = day(2023, 1, 1), day(2025, 12, 31)
    if Q.MINUTELY in (child, parent) or parent is Q.INSTANT:  # a short while shows it
        start, end = day(2024, 2, 28, 22), day(2024, 3, 1, 2)
    for child_grouping in (1, 2, 5, 7, 12, 28):
        for parent_grouping in (1, 2, 10, 12, 14, 28):
            if child_grouping > MOST[child] or parent_grouping > MOST[parent]:
                continue
            if parent is Q.INSTANT:
                crossed = child is not Q.INSTANT
            else:
                borders = (p.start for p in timeperiods_between(start, end, parent, parent_grouping))
                crossed = any(timeperiod_at(b, child, child_grouping).start != b for b in borders)
            assert nests(child, child_grouping, parent, parent_grouping) is not crossed


@given(instants, kinds, kinds)
def test_coarser_is_a_strict_order(instant: datetime, one: tuple[Q, int], other: tuple[Q, int]) -> None:
    assert is_coarser(*one, *other) + is_coarser(*other, *one) == (one != other)
    if nests(*one, *other) and not nests(*other, *one):
        assert is_coarser(*other, *one)


# -- the calendar's corners -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "qualifier", "grouping", "start", "end"),
    [
        ("2013070405", Q.HOURLY, 1, day(2013, 7, 4, 5), day(2013, 7, 4, 6)),
        ("2013123123", Q.HOURLY, 1, day(2013, 12, 31, 23), day(2014, 1, 1)),
        ("2013070400", Q.DAILY, 1, day(2013, 7, 4), day(2013, 7, 5)),
        ("2024022900", Q.DAILY, 1, day(2024, 2, 29), day(2024, 3, 1)),
        ("2100022800", Q.DAILY, 1, day(2100, 2, 28), day(2100, 3, 1)),
        ("2013120900", Q.WEEKLY, 1, day(2013, 12, 9), day(2013, 12, 16)),
        ("2013123000", Q.WEEKLY, 1, day(2013, 12, 30), day(2014, 1, 6)),
        ("2013070000", Q.MONTHLY, 1, day(2013, 7, 1), day(2013, 8, 1)),
        ("2013120000", Q.MONTHLY, 1, day(2013, 12, 1), day(2014, 1, 1)),
        ("2024020000", Q.MONTHLY, 1, day(2024, 2, 1), day(2024, 3, 1)),
        ("2013000000", Q.YEARLY, 1, day(2013, 1, 1), day(2014, 1, 1)),
        ("201307040515", Q.MINUTELY, 1, day(2013, 7, 4, 5, 15), day(2013, 7, 4, 5, 16)),
        ("201307040545", Q.MINUTELY, 15, day(2013, 7, 4, 5, 45), day(2013, 7, 4, 6)),
        ("201307040549", Q.MINUTELY, 7, day(2013, 7, 4, 5, 49), day(2013, 7, 4, 5, 56)),
        ("201307040556", Q.MINUTELY, 7, day(2013, 7, 4, 5, 56), day(2013, 7, 4, 6)),
        ("2013070400", Q.HOURLY, 3, day(2013, 7, 4), day(2013, 7, 4, 3)),
        ("2013070420", Q.HOURLY, 5, day(2013, 7, 4, 20), day(2013, 7, 5)),
        ("2013070100", Q.DAILY, 7, day(2013, 7, 1), day(2013, 7, 8)),
        ("2013072900", Q.DAILY, 7, day(2013, 7, 29), day(2013, 8, 1)),
        ("2013022200", Q.DAILY, 7, day(2013, 2, 22), day(2013, 3, 1)),
        ("2024022900", Q.DAILY, 28, day(2024, 2, 29), day(2024, 3, 1)),
        ("2013010000", Q.MONTHLY, 3, day(2013, 1, 1), day(2013, 4, 1)),
        ("2013110000", Q.MONTHLY, 5, day(2013, 11, 1), day(2014, 1, 1)),
        ("2013010000", Q.MONTHLY, 12, day(2013, 1, 1), day(2014, 1, 1)),
        ("9998000000", Q.YEARLY, 1, day(9998, 1, 1), day(9999, 1, 1)),
    ],
)
def test_label_says_interval(label: str, qualifier: Q, grouping: int, start: datetime, end: datetime) -> None:
    """Acceptance 60: groups are even, restart with their parent, and the last one may be shorter."""
    period = timeperiod_of(label, qualifier, grouping)
    assert (period.start, period.end) == (start, end)
    assert period.label == label


def test_an_instant_is_a_millisecond() -> None:
    period = timeperiod_at(datetime(2013, 7, 4, 5, 15, 30, 250_999, tzinfo=UTC), Q.INSTANT)
    assert period.label == "20130704051530250"
    assert period.end - period.start == timedelta(milliseconds=1)
    assert timeperiod_of("20130704051530250", Q.INSTANT) == period


def test_a_label_means_something_only_with_its_qualifier() -> None:
    """The first hour of a day has the same label as the day."""
    hour, whole_day = timeperiod_of("2026112100", Q.HOURLY), timeperiod_of("2026112100", Q.DAILY)
    assert hour.label == whole_day.label and hour != whole_day
    assert len({hour, whole_day, timeperiod_of("2026112100", Q.HOURLY, 3)}) == 3
    assert hour != "2026112100"


def test_other_time_zones_are_converted() -> None:
    east = datetime(2013, 7, 4, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert timeperiod_at(east, Q.DAILY).label == "2013070300"


def test_the_year_has_its_hours_and_leap_day() -> None:
    for year in (2023, 2024, 2100, 2400):
        span = (day(year, 1, 1), day(year + 1, 1, 1))
        days = 366 if isleap(year) else 365
        assert count_between(*span, Q.DAILY) == days
        assert count_between(*span, Q.HOURLY) == days * 24
        assert count_between(*span, Q.HOURLY, 5) == days * 5
        assert count_between(*span, Q.MINUTELY, 59) == days * 48
        assert count_between(*span, Q.MONTHLY) == 12
        assert count_between(*span, Q.DAILY, 7) == (60 if isleap(year) else 59)
        labels = {p.label for p in timeperiods_between(*span, Q.DAILY)}
        assert len(labels) == days and (f"{year}022900" in labels) == isleap(year)


@pytest.mark.parametrize("grouping", range(1, 29))
def test_day_groups_over_four_centuries(grouping: int) -> None:
    """Stepping far in one go arrives where the count says, for the only groups of uneven parents."""
    first = timeperiod_of("2000010100", Q.DAILY, grouping)
    last = timeperiod_at(day(2399, 12, 31), Q.DAILY, grouping)
    n = count_between(first.start, last.end, Q.DAILY, grouping)
    months = [(year, month) for year in range(2000, 2400) for month in range(1, 13)]
    assert n == sum(ceil(monthrange(year, month)[1] / grouping) for year, month in months)
    assert following(first, n - 1) == last
    assert following(last, 1 - n) == first


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "qualifier", "grouping", "right"),
    [
        ("2013070405", Q.DAILY, 1, "2013070400"),
        ("2013070400", Q.MONTHLY, 1, "2013070000"),
        ("2013070000", Q.YEARLY, 1, "2013000000"),
        ("2013121200", Q.WEEKLY, 1, "2013120900"),
        ("2013121201", Q.HOURLY, 3, "2013121200"),
        ("2013070900", Q.DAILY, 7, "2013070800"),
        ("2013020000", Q.MONTHLY, 3, "2013010000"),
        ("201307040517", Q.MINUTELY, 15, "201307040515"),
        ("2013070000", Q.DAILY, 1, "YYYYMMDD00"),
        ("2013070424", Q.HOURLY, 1, "YYYYMMDDHH"),
        ("20130704", Q.DAILY, 1, "YYYYMMDD00"),
        ("2013070405", Q.MINUTELY, 1, "YYYYMMDDHHMM"),
        ("201307040560", Q.MINUTELY, 1, "YYYYMMDDHHMM"),
        ("2013130100", Q.DAILY, 1, "month"),
        ("2013130000", Q.MONTHLY, 1, "month"),
        ("2013023000", Q.DAILY, 1, "day"),
        ("2023022900", Q.DAILY, 1, "day"),
        ("0000000000", Q.YEARLY, 1, "year"),
        ("1969123100", Q.DAILY, 1, "1970"),
        ("9999000000", Q.YEARLY, 1, "9998"),
        ("", Q.DAILY, 1, "YYYYMMDD00"),
        ("hello10chr", Q.DAILY, 1, "YYYYMMDD00"),
        ("-013070400", Q.DAILY, 1, "YYYYMMDD00"),
        ("２０１３０７０４００", Q.DAILY, 1, "YYYYMMDD00"),
        ("2013070400\n", Q.DAILY, 1, "YYYYMMDD00"),
        ("20130704051561250", Q.INSTANT, 1, "YYYYMMDDHHMMSSmmm"),
    ],
)
def test_a_wrong_label_is_refused_with_what_is_right(
    label: str, qualifier: Q, grouping: int, right: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        timeperiod_of(label, qualifier, grouping)
    message = str(error.value)
    assert right in message
    assert repr(label) in message or "year" in message
    assert "\n" not in message


def test_out_of_the_years_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="9998"):
        following(timeperiod_of("9998000000", Q.YEARLY))
    with pytest.raises(InvalidRequest, match="1970"):
        following(timeperiod_of("1970010100", Q.DAILY), -1)
    for qualifier in Q:
        period = timeperiod_at(day(2024, 2, 29, 12), qualifier)
        for n in (10**15, -(10**15), 10**30):
            with pytest.raises(InvalidRequest):
                following(period, n)
        for absurd in (day(1, 1, 1), day(9999, 12, 31)):
            with pytest.raises(InvalidRequest):
                timeperiod_at(absurd, qualifier)
    with pytest.raises(InvalidRequest, match="time zone"):
        timeperiod_at(datetime(2024, 1, 1), Q.DAILY)


def test_an_unknown_qualifier_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidRequest, match=r"'fortnightly'.*hourly"):
        timeperiod_of("2013070400", "fortnightly")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="'fortnightly'"):
        timeperiod_at(day(2013, 7, 4), "fortnightly")  # type: ignore[arg-type]
    assert timeperiod_of("2013070400", "daily").qualifier is Q.DAILY  # type: ignore[arg-type]


@pytest.mark.parametrize("qualifier", list(Q))
def test_groupings(qualifier: Q) -> None:
    """Acceptance 60: 24 hours, 29 days, 13 months, 2 years as grouping are refused."""
    check_grouping(qualifier, 1)
    check_grouping(qualifier, MOST[qualifier])
    for wrong in (0, -1, MOST[qualifier] + 1, 1.5, True, "3", None):
        with pytest.raises(ConfigError, match=f"time_grouping .* {qualifier}.*right is 1"):
            check_grouping(qualifier, wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, MOST[qualifier] + 1):
        with pytest.raises(ConfigError):
            timeperiod_at(day(2013, 7, 4), qualifier, wrong)
        with pytest.raises(ConfigError):
            timeperiod_of("2013070400", qualifier, wrong)


# -- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "qualifier", "grouping", "words"),
    [
        ("2013121222", Q.HOURLY, 1, "12 Dec 2013 22:00–23:00"),
        ("2013121223", Q.HOURLY, 1, "12 Dec 2013 23:00–24:00"),
        ("2013121200", Q.HOURLY, 3, "12 Dec 2013 00:00–03:00"),
        ("201312122215", Q.MINUTELY, 15, "12 Dec 2013 22:15–22:30"),
        ("2013121200", Q.DAILY, 1, "12 Dec 2013"),
        ("2013120100", Q.DAILY, 7, "1–7 Dec 2013"),
        ("2013120900", Q.WEEKLY, 1, "week of 9 Dec 2013"),
        ("2013120000", Q.MONTHLY, 1, "Dec 2013"),
        ("2013010000", Q.MONTHLY, 3, "Jan–Mar 2013"),
        ("2013000000", Q.YEARLY, 1, "2013"),
        ("20131212220001250", Q.INSTANT, 1, "12 Dec 2013 22:00:01.250"),
    ],
)
def test_spoken(label: str, qualifier: Q, grouping: int, words: str) -> None:
    assert spoken(timeperiod_of(label, qualifier, grouping)) == words


def test_rank_orders_by_coarseness() -> None:
    assert sorted(Q, key=lambda q: q.rank) == [
        Q.INSTANT,
        Q.MINUTELY,
        Q.HOURLY,
        Q.DAILY,
        Q.WEEKLY,
        Q.MONTHLY,
        Q.YEARLY,
    ]
    assert is_coarser(Q.DAILY, 8, Q.WEEKLY, 1) and not is_coarser(Q.HOURLY, 23, Q.DAILY, 1)
