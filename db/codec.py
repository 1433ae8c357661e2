"""Records to rows and back.

A `Codec` belongs to one table and one database: it holds, per column, how a value is handed to the
driver and how it comes back. The functions are the same for every statement, so they stand outside
of it; this is the hot path of every read and write.

What must hold: a record that was written and read again is equal to the one written, if its times
have no microseconds. Times are aware UTC with milliseconds; finer ones are cut off. A naive time is
a bug and fails an assertion. JSON is written compactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from db.schema import Table

EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)

Convert = Callable[[Any], Any]
Reader = Callable[[Iterable[Sequence[Any]]], list[Any]]


class Converter(NamedTuple):
    """How values of one type of column go to the driver and come back; None: as they are."""

    encode: Convert | None
    decode: Convert | None


@lru_cache(8192)  # a turn, and a batch of a worker, write the same few instants again and again
def encode_time(at: datetime) -> int:
    """An aware time as milliseconds since 1970."""
    assert at.tzinfo is not None, f"naive datetime {at}: times are aware UTC"
    return (at - EPOCH) // _MILLISECOND


@lru_cache(8192)  # the starts and ends of periods come again and again
def decode_time(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as an aware UTC time."""
    return EPOCH + timedelta(milliseconds=milliseconds)


_encode_json = msgspec.json.Encoder().encode
NotJson = msgspec.DecodeError
decode_json = msgspec.json.Decoder().decode


def encode_json(value: Any) -> str:
    """Compact JSON text."""
    return _encode_json(value).decode()


class Codec:
    """The rows of one table in one database."""

    def __init__(self, table: Table, converters: Mapping[str, Converter]) -> None:
        self.table = table
        self.names = tuple(column.name for column in table.columns)
        self.encode = {c.name: converters[c.type].encode for c in table.columns}
        self._decode = {c.name: converters[c.type].decode for c in table.columns}
        self._get = attrgetter(*self.names)
        self._encode_at = [
            (i, f) for i, name in enumerate(self.names) if (f := self.encode[name]) is not None
        ]
        assert not hasattr(table.kind, "__post_init__"), (
            f"{table.kind.__name__}: records are read without __init__"
        )

    def row(self, record: Any) -> list[Any]:
        """The values of a record for the driver, in the order of its columns."""
        values = list(self._get(record))
        for at, encode in self._encode_at:
            if values[at] is not None:
                values[at] = encode(values[at])
        return values

    def value(self, name: str, value: Any) -> Any:
        """One value for the driver."""
        encode = self.encode[name]
        return value if encode is None or value is None else encode(value)

    def records(self) -> Reader:
        """What turns rows with all columns into records.

        Goes past the __init__ of the frozen dataclass, which sets field by field: eight times faster.
        """
        kind: Any = self.table.kind
        names = self.names
        decoders = [(names[at], decode) for at, decode in self._decoders(names)]
        new = object.__new__

        def read(rows: Iterable[Sequence[Any]]) -> list[Any]:
            found = []
            for row in rows:
                record = new(kind)
                values = record.__dict__
                values.update(zip(names, row, strict=True))
                for name, decode in decoders:
                    value = values[name]
                    if value is not None:
                        values[name] = decode(value)
                found.append(record)
            return found

        return read

    def tuples(self, names: Sequence[str]) -> Reader:
        """What turns rows with the columns `names` into tuples."""
        decoders = self._decoders(names)

        def read(rows: Iterable[Sequence[Any]]) -> list[Any]:
            if not decoders:
                return [tuple(row) for row in rows]
            found = []
            for row in rows:
                values = list(row)
                for at, decode in decoders:
                    if values[at] is not None:
                        values[at] = decode(values[at])
                found.append(tuple(values))
            return found

        return read

    def _decoders(self, names: Sequence[str]) -> list[tuple[int, Convert]]:
        return [(i, decode) for i, name in enumerate(names) if (decode := self._decode[name]) is not None]
