"""Words of the dashboard: durations, periods, times, and text of unknown origin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mx.lateness import deadline_at, lateness
from mx.present import (
    STATES,
    cell_words,
    count_word,
    duration_words,
    period_words,
    plural,
    safe_text,
    time_words,
    usual_words,
    worst,
)
from mx.view_log import log_parts
from mx.view_timetable import crumbs, neighbours, parse_at
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.lifecycle import JobState
from scheduler.core.process import managed
from scheduler.core.records import LogChunk, ProcessRow
from scheduler.core.timeperiod import Qualifier, timeperiod_at

NOW = datetime(2013, 12, 13, 3, 7, 42, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 ms"),
        (0.0008, "0.8 ms"),
        (0.34, "340 ms"),
        (0.9996, "1.0 s"),
        (3.42, "3.4 s"),
        (38, "38 s"),
        (59.6, "1 min"),
        (372, "6 min 12 s"),
        (14_520, "4 h 2 min"),
        (86_400, "1 day"),
        (273_600, "3 days 4 h"),
        (-5, "0.0 ms"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


@pytest.mark.parametrize(
    ("qualifier", "grouping", "at", "words", "cell"),
    [
        (Qualifier.YEARLY, 1, "2013-05-01", "2013", "2013"),
        (Qualifier.MONTHLY, 1, "2013-12-05", "Dec 2013", "Dec"),
        (Qualifier.MONTHLY, 3, "2013-02-05", "Jan–Mar 2013", "Jan–Mar"),
        (Qualifier.WEEKLY, 1, "2013-12-12", "9–15 Dec", "9 Dec"),
        (Qualifier.WEEKLY, 1, "2013-12-31", "30 Dec – 5 Jan 2014", "30 Dec"),
        (Qualifier.DAILY, 1, "2013-12-12", "12 Dec", "12"),
        (Qualifier.DAILY, 1, "2012-12-12", "12 Dec 2012", "12"),
        (Qualifier.HOURLY, 1, "2013-12-12T22:10", "12 Dec 22:00–23:00", "22"),
        (Qualifier.HOURLY, 1, "2013-12-12T23:10", "12 Dec 23:00–24:00", "23"),
        (Qualifier.HOURLY, 3, "2013-12-12T04:10", "12 Dec 03:00–06:00", "03"),
        (Qualifier.MINUTELY, 5, "2013-12-12T22:07", "12 Dec 22:05–22:10", "22:05"),
    ],
)
def test_periods_are_written_as_people_say_them(
    qualifier: Qualifier, grouping: int, at: str, words: str, cell: str
) -> None:
    instant = datetime.fromisoformat(at).replace(tzinfo=UTC)
    period = timeperiod_at(instant, qualifier, grouping)
    assert period_words(qualifier, period.start, period.end, NOW) == words
    assert cell_words(qualifier, period.start, period.end) == cell


def test_times_say_no_more_than_is_needed() -> None:
    assert time_words(NOW, NOW) == "03:07:42"
    assert time_words(NOW - timedelta(days=1), NOW) == "12 Dec 03:07:42"
    assert time_words(NOW - timedelta(days=400), NOW) == "8 Nov 2012 03:07:42"
    assert time_words(None, NOW) == "never"


def test_counts_and_usual() -> None:
    assert [plural(n, "job") for n in (0, 1, 8302)] == ["no jobs", "1 job", "8,302 jobs"]
    assert [count_word(n) for n in (0, 2, 13)] == ["No", "Two", "13"]
    assert usual_words(6100, 11_000) == "6.1–11 s"
    assert usual_words(40_000, 90_000) == "40 s – 1 min 30 s"
    assert usual_words(None, None) == "not known yet"


def test_every_state_has_a_word_of_its_own() -> None:
    """Scenario 45: the word (colour and shape are looked at in the browser)."""
    assert set(STATES) == set(JobState)
    assert len(set(STATES.values())) == len(JobState)


def test_the_worst_state_stands_for_several() -> None:
    assert worst(["processed", "noop", "skipped", "in_progress"]) == "skipped"
    assert worst(["processed", "embryo"]) == "embryo"
    assert worst([]) == "none"


def test_text_that_turns_or_hides_is_named() -> None:
    """Scenario 48: what HTML escaping does not catch."""
    assert safe_text("a\u202eb") == "a⟨202E⟩b"
    assert safe_text("\x1b[31mred\x1b[0m\tx") == "red\tx"
    assert safe_text("\x00\x07") == "␀␇"
    assert safe_text("<b> ünï 日本") == "<b> ünï 日本"  # escaping is the templates' business


def test_a_log_line_cut_in_two_is_one_line() -> None:
    chunks = [
        LogChunk(uow="u", attempt=1, n=0, at=NOW, text="INFO a\nValueError: half"),
        LogChunk(uow="u", attempt=1, n=1, at=NOW, text=" and half\n"),
        LogChunk(uow="u", attempt=2, n=0, at=NOW, text="WARN again\n\n"),
    ]
    parts, lines, first_error = log_parts(None, chunks)
    assert [[line.text for line in part.lines] for part in parts] == [
        ["INFO a", "ValueError: half and half"],
        ["WARN again", ""],
    ]
    assert [line.severity for part in parts for line in part.lines] == ["", "error", "warning", ""]
    assert (lines, first_error) == (4, 2)


def test_what_is_looked_at_is_a_period_that_began() -> None:
    """Scenario 6: absurd is 400, future and before the start are 404."""
    start = datetime(2012, 11, 10, tzinfo=UTC)
    assert parse_at("20131212", NOW, start).instant == datetime(2013, 12, 12, tzinfo=UTC)
    assert parse_at("", NOW, start).text == "20131213"
    for absurd in ("20131", "2013-12", "20131301", "20130230", "２０１３", "0000", "99999999999", "x"):
        with pytest.raises(InvalidRequest):
            parse_at(absurd, NOW, start)
    for absent in ("2014", "20131214", "2013121304", "2011", "201210"):
        with pytest.raises(NotFound):
            parse_at(absent, NOW, start)


def test_the_way_around_the_timetable() -> None:
    start = datetime(2012, 11, 10, tzinfo=UTC)
    at = parse_at("20131201", NOW, start)
    assert neighbours(at, "/timetable", NOW, start) == ("/timetable?at=20131130", "/timetable?at=20131202")
    year = parse_at("2013", NOW, start)
    assert neighbours(year, "/timetable", NOW, start) == ("/timetable?at=2012", "")
    assert crumbs(at, "/t")[-1] == ("1", "/t?at=20131201")


def test_late_is_past_the_deadline_or_unusually_long_after_the_close() -> None:
    end = datetime(2013, 12, 12, 23, tzinfo=UTC)
    plain = managed("p", "x:y", "hourly", start="2013010100")
    row = ProcessRow(name="p", kind="managed", usual_p95_ms=120_000)
    # lag 5 min + usual 2 min + 1 min
    assert lateness(plain, row, end, end + timedelta(minutes=8)) is None
    assert lateness(plain, row, end, end + timedelta(minutes=9)) == timedelta(minutes=1)
    assert deadline_at(managed("p", "x:y", "hourly", deadline="05:00"), end) == end + timedelta(hours=6)
    assert deadline_at(managed("p", "x:y", "hourly", deadline="+2h"), end) == end + timedelta(hours=2)
    assert deadline_at(plain, end) is None
