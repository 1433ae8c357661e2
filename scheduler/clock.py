"""The two clocks: real time, and business time that can be shifted and scaled.

Business time is arithmetic on real time: one row in the store, `Fact("clock", …)`, read by every process,
says how. A `Mapping` is that row as a value: from the anchor on, business time runs `rate` times as fast as
real time, and it is never earlier than `floor`. The floor is what makes it stand still after a step back
until it is caught up, in processes that start later too. Everything is counted in whole milliseconds and
exact fractions, so that asking twice, there and back, and in another process gives the same answer.

Besides, each clock remembers the latest business time it has told and never tells an earlier one: neither
after a step of the machine's clock nor before everybody has read a new row.

`ManualClock` is the twin of `SystemClock` for tests and simulation. Neither decides anything, and neither
sleeps.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from typing import Any

from scheduler.core.errors import InvalidRequest, StoreUnavailable
from scheduler.core.ports import Store
from scheduler.core.records import Fact

FACT = "clock"  # the key of the row in the store
REFRESH_S = 1.0  # how old the row may be, in seconds of the monotonic clock
MAX_RATE = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST = (datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND

Reader = Callable[[], "dict[str, Any] | None"]  # the value of the row, or None; may raise StoreUnavailable


def _ms(instant: datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


def _instant(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST), _LAST))


@dataclass(frozen=True)
class Mapping:
    """How business time follows from real time. Instants are aware UTC; `rate` is 0 (frozen) or more."""

    real_anchor: datetime = _EPOCH
    business_anchor: datetime = _EPOCH
    rate: float = 1.0
    floor: datetime | None = None  # business time is never earlier

    @cached_property
    def _numbers(self) -> tuple[int, int, int, int, int]:
        """Anchors and floor in milliseconds, and the rate as an exact fraction."""
        rate = Fraction(self.rate)
        floor = _FIRST if self.floor is None else _ms(self.floor)
        return _ms(self.real_anchor), _ms(self.business_anchor), rate.numerator, rate.denominator, floor

    def business(self, real: datetime) -> datetime:
        """Business time at the real instant `real`; within the years 1 to 9999."""
        real0, business0, numerator, denominator, floor = self._numbers
        return _instant(max(floor, business0 + (_ms(real) - real0) * numerator // denominator))

    def real_for(self, business: datetime) -> datetime | None:
        """The first real millisecond at which business time has reached `business`; None: it never does."""
        real0, business0, numerator, denominator, floor = self._numbers
        # Business time has whole milliseconds only: an instant between two is reached with the second.
        wanted = -((_EPOCH - business) // _MILLISECOND)
        if wanted <= floor:
            return _instant(_FIRST)
        if numerator == 0:
            return _instant(_FIRST) if wanted <= business0 else None
        real = real0 - (wanted - business0) * denominator // -numerator  # rounded up
        return _instant(real) if real <= _LAST else None

    def to_fact(self) -> Fact:
        """As the store keeps it."""
        value: dict[str, Any] = {
            "real_anchor": self.real_anchor.isoformat(timespec="milliseconds"),
            "business_anchor": self.business_anchor.isoformat(timespec="milliseconds"),
            "rate": self.rate,
        }
        if self.floor is not None:
            value["floor"] = self.floor.isoformat(timespec="milliseconds")
        return Fact(key=FACT, value=value)

    @classmethod
    def from_value(cls, value: dict[str, Any] | None) -> Mapping:
        """Out of `Fact.value`; the identity for None. Raises InvalidRequest if it makes no sense."""
        if value is None:
            return cls()
        try:
            floor = value.get("floor")
            return cls(
                datetime.fromisoformat(value["real_anchor"]).astimezone(UTC),
                datetime.fromisoformat(value["business_anchor"]).astimezone(UTC),
                check_rate(value["rate"]),
                None if floor is None else datetime.fromisoformat(floor).astimezone(UTC),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                f"the row {FACT!r} in the store is damaged ({error}): expected real_anchor, business_anchor, "
                f"rate, got {value}"
            ) from error


def check_rate(rate: object) -> float:
    """`rate`, if business time can run at it. Raises InvalidRequest."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= MAX_RATE:
        raise InvalidRequest(f"clock rate {rate!r}: expected a number from 0 (frozen) to {MAX_RATE:,}")
    return rate


def mapping_command(
    current: Mapping,
    real: datetime,
    *,
    shift: timedelta | None = None,
    to: datetime | None = None,
    rate: float | None = None,
) -> Mapping:
    """The row after an operator's command at the real instant `real`: shift by, or set to, and run at `rate`.

    A new rate alone makes no step. After a step back business time stands still until it is caught up; it
    never goes back. Raises InvalidRequest.
    """
    if shift is not None and to is not None:
        raise InvalidRequest("clock: expected either a shift or an instant to set it to, got both")
    if to is not None and to.tzinfo is None:
        raise InvalidRequest(f"clock to {to.isoformat()}: expected an instant with a time zone")
    new_rate = current.rate if rate is None else check_rate(rate)
    shown = current.business(real)
    if to is not None:
        aim = _ms(to)
    else:  # from where it would be without the floor, so that a shift back and forth is no shift
        real0, business0, numerator, denominator, _ = current._numbers
        present = business0 + (_ms(real) - real0) * numerator // denominator
        aim = min(max(present, _FIRST), _LAST) + (0 if shift is None else shift // _MILLISECOND)
    if not _FIRST <= aim <= _LAST:
        raise InvalidRequest("clock: expected a business time within the years 1 to 9999")
    return Mapping(_instant(_ms(real)), _instant(aim), new_rate, shown)


class _TwoClocks:
    """What both clocks share: mapping, and the guard that business time never goes back."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._latest = _instant(_FIRST)
        self._lock = threading.Lock()

    @property
    def mapping(self) -> Mapping:
        """The mapping in force here."""
        return self._mapping

    def real(self) -> datetime:
        """As `Clock.real`."""
        raise NotImplementedError

    def refresh(self) -> None:
        """As `Clock.refresh`; there is nothing to read here."""

    def business(self) -> datetime:
        """As `Clock.business`."""
        told = self._mapping.business(self.real())
        with self._lock:
            if told > self._latest:
                self._latest = told
            return self._latest

    def real_for(self, instant: datetime) -> datetime | None:
        """As `Clock.real_for`; now if business time is there already."""
        now = self.real()
        if instant <= self.business():
            return now
        real = self._mapping.real_for(instant)
        return None if real is None else max(real, now)


class SystemClock(_TwoClocks):
    """The machine's clock, and business time by the row that `reader` reads (`store_reader`). Thread safe.

    The row is read at most once a second; while the store is away the last one read stays in force. Raises
    StoreUnavailable only as it is made, and from `refresh`.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__(Mapping())
        self._reader = reader
        self._value: dict[str, Any] | None = None
        self._read_at = 0.0
        self.refresh()

    def real(self) -> datetime:
        """As `Clock.real`."""
        return _EPOCH + timedelta(milliseconds=time.time_ns() // 1_000_000)

    def monotonic(self) -> float:
        """As `Clock.monotonic`."""
        return time.monotonic()

    def business(self) -> datetime:
        """As `Clock.business`."""
        if time.monotonic() - self._read_at >= REFRESH_S:
            try:
                self.refresh()
            except StoreUnavailable:
                self._read_at = time.monotonic()  # whoever needs the store now notices by itself
        return super().business()

    def refresh(self) -> None:
        """Read the row now. Raises StoreUnavailable."""
        self._read_at = time.monotonic()
        value = self._reader()
        if value != self._value:
            self._mapping, self._value = Mapping.from_value(value), value


class ManualClock(_TwoClocks):
    """A clock that stands until it is moved. `advance` is time passing; setting `real` is a clock jump."""

    def __init__(self, real: datetime, mapping: Mapping | None = None) -> None:
        super().__init__(mapping or Mapping())
        self._real = _instant(_ms(real))
        self._monotonic = 0.0

    def real(self) -> datetime:
        """As `Clock.real`."""
        return self._real

    def monotonic(self) -> float:
        """As `Clock.monotonic`."""
        return self._monotonic

    def advance(self, by: timedelta | float) -> None:
        """Let time pass (a timedelta, or seconds); whole milliseconds, never back."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        assert step >= timedelta(0), "time only passes; to set the clock back use set_real"
        step = math.ceil(step / _MILLISECOND) * _MILLISECOND
        self._real += step
        self._monotonic += step.total_seconds()

    def set_real(self, real: datetime) -> None:
        """The clock is set: real time jumps, the monotonic clock does not notice."""
        self._real = _instant(_ms(real))

    def set_mapping(self, mapping: Mapping) -> None:
        """As if another row had been read."""
        self._mapping = mapping


def store_reader(store: Store) -> Reader:
    """The reader of the row in `store`, for `SystemClock`."""

    def read() -> dict[str, Any] | None:
        fact = store.get(Fact, FACT)
        return None if fact is None else fact.value

    return read
