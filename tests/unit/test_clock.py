"""The clocks: business time is continuous, never goes back, and is the same in every process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.clock import FACT, ManualClock, Mapping, SystemClock, mapping_command, store_reader
from scheduler.core.errors import InvalidRequest, StoreUnavailable
from scheduler.core.records import Fact

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MS = timedelta(milliseconds=1)


def whole_ms(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000, tzinfo=UTC)


instants = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(whole_ms)
rates = st.one_of(st.sampled_from([0, 1, 1.0, 3600, 0.5, 1 / 3, 86400.0]), st.floats(0, 10_000))
spans = st.integers(0, 10**11).map(lambda n: n * MS)
mappings = st.builds(Mapping, instants, instants, rates, st.none() | instants)


# the mapping


def test_the_default_is_the_identity() -> None:
    assert Mapping().business(NOON) == NOON
    assert Mapping().real_for(NOON) == NOON


@given(mappings, instants, spans)
def test_business_time_never_goes_back(mapping: Mapping, real: datetime, later: timedelta) -> None:
    assert mapping.business(real) <= mapping.business(real + later)


@given(mappings, instants)
def test_business_time_has_whole_milliseconds(mapping: Mapping, real: datetime) -> None:
    business = mapping.business(real)
    assert business.microsecond % 1000 == 0 and business.tzinfo is UTC


@given(mappings, instants)
def test_real_for_is_the_first_instant_at_which_business_time_is_there(
    mapping: Mapping, business: datetime
) -> None:
    real = mapping.real_for(business)
    if real is None:
        assert mapping.business(datetime(9999, 12, 31, tzinfo=UTC)) < business
    else:
        assert mapping.business(real) >= business
        if real.year > 1:  # else: it has always been there
            assert mapping.business(real - MS) < business


def test_real_for_between_two_milliseconds_is_the_second() -> None:
    assert Mapping().real_for(NOON + timedelta(microseconds=1)) == NOON + MS


@given(mappings)
def test_the_row_keeps_all_of_it(mapping: Mapping) -> None:
    fact = mapping.to_fact()
    assert fact.key == FACT
    assert Mapping.from_value(json.loads(json.dumps(fact.value))) == mapping


def test_the_row_may_be_in_another_zone() -> None:
    there = timezone(timedelta(hours=5))
    row = {"real_anchor": NOON.astimezone(there).isoformat(), "business_anchor": NOON.isoformat(), "rate": 1}
    assert Mapping.from_value(row) == Mapping(NOON, NOON, 1)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"real_anchor": "yesterday", "business_anchor": "today", "rate": 1},
        {"real_anchor": NOON.isoformat(), "business_anchor": NOON.isoformat(), "rate": -1},
        {"real_anchor": NOON.isoformat(), "business_anchor": NOON.isoformat(), "rate": "fast"},
        {"real_anchor": 5, "business_anchor": NOON.isoformat(), "rate": 1},
    ],
)
def test_a_damaged_row_is_named(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="clock"):
        Mapping.from_value(row)


def test_the_end_of_time_is_no_error() -> None:
    fast = Mapping(NOON, NOON, 1_000_000)
    assert fast.business(NOON + timedelta(days=365 * 100)).year == 9999
    assert Mapping(NOON, NOON, 1e-9).real_for(NOON + timedelta(days=365)) is None


# commands


@given(mappings, instants, rates, spans)
def test_a_new_rate_continues_without_a_step(
    m: Mapping, real: datetime, rate: float, later: timedelta
) -> None:
    new = mapping_command(m, real, rate=rate)
    assert new.business(real) == m.business(real)
    assert new.rate == rate
    assert new.business(real) <= new.business(real + later)
    assert new.business(real + later) <= Mapping(real, m.business(real), rate).business(real + later)


@given(mappings, instants, st.integers(-(10**11), 10**11), rates, spans)
def test_no_shift_takes_business_time_back(
    m: Mapping, real: datetime, ms: int, rate: float, later: timedelta
) -> None:
    assume(100 < Mapping(m.real_anchor, m.business_anchor, m.rate).business(real).year < 9900)
    new = mapping_command(m, real, shift=ms * MS, rate=rate)
    assert new.business(real + later) >= m.business(real)


def test_a_shift_forward_is_there_at_once() -> None:
    new = mapping_command(Mapping(), NOON, shift=HOUR)
    assert new.business(NOON) == NOON + HOUR
    assert new.business(NOON + HOUR) == NOON + 2 * HOUR


def test_a_shift_back_stands_still_until_caught_up() -> None:
    new = mapping_command(Mapping(), NOON, shift=-HOUR)
    assert new.business(NOON) == NOON
    assert new.business(NOON + HOUR) == NOON
    assert new.business(NOON + 2 * HOUR) == NOON + HOUR
    assert new.real_for(NOON + timedelta(seconds=1)) == NOON + HOUR + timedelta(seconds=1)


def test_a_new_rate_keeps_what_is_to_be_caught_up() -> None:
    back = mapping_command(Mapping(), NOON, shift=-HOUR)
    faster = mapping_command(back, NOON, rate=2)
    assert faster.business(NOON + HOUR / 2) == NOON
    assert faster.business(NOON + HOUR) == NOON + HOUR


def test_a_shift_back_and_forth_is_no_shift() -> None:
    there = mapping_command(Mapping(), NOON, shift=-HOUR)
    back = mapping_command(there, NOON + timedelta(minutes=1), shift=HOUR)
    assert back.business(NOON + HOUR) == NOON + HOUR


def test_set_to_an_instant_and_a_rate() -> None:
    start = datetime(2013, 12, 30, tzinfo=UTC)
    assert mapping_command(Mapping(), NOON, to=start).business(NOON) == NOON, "never back"
    long_ago = Mapping(NOON, datetime(2013, 1, 1, tzinfo=UTC), 0)
    new = mapping_command(long_ago, NOON, to=start, rate=3600)
    assert new.business(NOON) == start
    assert new.business(NOON + timedelta(seconds=24)) == start + 24 * HOUR


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate": -1},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": True},
        {"shift": HOUR, "to": NOON},
        {"to": datetime(2026, 1, 1)},
        {"shift": timedelta(days=-800_000)},
        {"shift": timedelta(days=10_000_000)},
    ],
)
def test_a_command_that_makes_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        mapping_command(Mapping(), NOON, **arguments)


# the manual clock


def test_time_passes_on_all_clocks() -> None:
    clock = ManualClock(NOON, Mapping(NOON, NOON, 3600))
    clock.advance(1.5)
    assert clock.real() == NOON + timedelta(seconds=1.5)
    assert clock.business() == NOON + 1.5 * HOUR
    assert clock.monotonic() == 1.5


def test_after_a_step_back_business_time_stands_still_until_caught_up() -> None:
    clock = ManualClock(NOON)
    clock.business()
    clock.set_real(NOON - HOUR)
    assert clock.real() == NOON - HOUR and clock.monotonic() == 0
    assert clock.business() == NOON
    clock.advance(HOUR)
    assert clock.business() == NOON
    clock.advance(MS)
    assert clock.business() == NOON + MS


def test_frozen() -> None:
    clock = ManualClock(NOON, Mapping(NOON, NOON, 0))
    clock.advance(HOUR)
    assert clock.business() == NOON
    assert clock.real_for(NOON + MS) is None
    assert clock.real_for(NOON) == clock.real()


def test_real_for_is_never_in_the_past() -> None:
    clock = ManualClock(NOON)
    assert clock.real_for(NOON - HOUR) == NOON
    assert clock.real_for(NOON + HOUR) == NOON + HOUR


@given(
    st.lists(st.tuples(st.sampled_from(["pass", "jump", "map"]), st.integers(-(10**9), 10**9)), max_size=20)
)
def test_whatever_happens_business_time_never_goes_back(steps: list[tuple[str, int]]) -> None:
    clock = ManualClock(NOON)
    latest = clock.business()
    for kind, n in steps:
        match kind:
            case "pass":
                clock.advance(abs(n) * MS)
            case "jump":
                clock.set_real(NOON + n * MS)
            case "map":
                clock.set_mapping(Mapping(NOON, NOON + n * MS, abs(n) % 100 / 10))
        assert clock.business() >= latest
        latest = clock.business()


# the system clock


class Row:
    """The row in the store, and how often it was read."""

    def __init__(self, mapping: Mapping | None = None) -> None:
        self.mapping = mapping
        self.reads = 0
        self.away = False

    def __call__(self) -> dict[str, Any] | None:
        self.reads += 1
        if self.away:
            raise StoreUnavailable
        return self.mapping.to_fact().value if self.mapping else None


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Both clocks of the machine, in seconds, to be set."""
    now = {"time": NOON.timestamp() + 0.9876549, "monotonic": 100.0}
    monkeypatch.setattr("scheduler.clock.time.time_ns", lambda: int(now["time"] * 1e9))
    monkeypatch.setattr("scheduler.clock.time.monotonic", lambda: now["monotonic"])
    return now


def test_real_time_is_utc_cut_to_milliseconds(ticks: dict[str, float]) -> None:
    clock = SystemClock(Row())
    assert clock.real() == clock.business() == NOON + 987 * MS
    assert clock.real().tzinfo is UTC


def test_the_row_is_read_once_a_second(ticks: dict[str, float]) -> None:
    row = Row()
    clock = SystemClock(row)
    for _ in range(100):
        clock.business()
    assert row.reads == 1
    row.mapping = mapping_command(Mapping(), clock.real(), shift=HOUR)
    assert clock.business() == clock.real()
    ticks["monotonic"] += 1
    assert clock.business() == clock.real() + HOUR
    assert row.reads == 2


def test_refresh_reads_at_once(ticks: dict[str, float]) -> None:
    row = Row()
    clock = SystemClock(row)
    row.mapping = mapping_command(Mapping(), clock.real(), shift=HOUR)
    clock.refresh()
    assert clock.business() == clock.real() + HOUR


def test_the_row_goes_away_again(ticks: dict[str, float]) -> None:
    row = Row(Mapping(NOON, NOON - HOUR, 1))
    clock = SystemClock(row)
    assert clock.business() == clock.real() - HOUR
    clock.refresh()
    row.mapping = None
    clock.refresh()
    assert clock.business() == clock.real()


def test_without_the_store_the_last_row_stays_in_force(ticks: dict[str, float]) -> None:
    row = Row(Mapping(NOON, NOON + HOUR, 1))
    clock = SystemClock(row)
    row.away = True
    ticks["monotonic"] += 5
    assert clock.business() == clock.real() + HOUR
    clock.business()
    assert row.reads == 2, "it is asked once a second only"
    with pytest.raises(StoreUnavailable):
        clock.refresh()
    with pytest.raises(StoreUnavailable):
        SystemClock(row)


def test_the_machines_clock_is_set_back(ticks: dict[str, float]) -> None:
    clock = SystemClock(Row())
    before = clock.business()
    ticks["time"] -= 60
    assert clock.real() < before
    assert clock.business() == before
    ticks["time"] += 61
    assert clock.business() == before + timedelta(seconds=1)


def test_the_row_of_a_store() -> None:
    class OneRow:
        """The part of a store that is asked."""

        def get(self, kind: type, *key: str) -> Fact | None:
            assert (kind, key) == (Fact, (FACT,))
            return Mapping(NOON, NOON, 2).to_fact()

    read = store_reader(OneRow())  # type: ignore[arg-type]
    assert Mapping.from_value(read()) == Mapping(NOON, NOON, 2)
