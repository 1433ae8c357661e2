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
        assert not hasattr(table.kind, "__post_init__"), (
            f"{table.kind.__name__}: records are read without __init__"
        )
        self._row = self._writer()

    def row(self, record: Any) -> list[Any]:
        """The values of a record for the driver, in the order of its columns."""
        return self._row(record)

    def _writer(self) -> Callable[[Any], list[Any]]:
        """`row`, written out column by column: two thirds of the time of a loop over them."""
        names: dict[str, Any] = {}
        values = []
        for at, name in enumerate(self.names):
            encode = self.encode[name]
            values.append(f"of[{name!r}]" if encode is None else _unless_null(f"of[{name!r}]", at))
            names[f"f{at}"] = encode
        source = f"def write(record):\n of = record.__dict__\n return [{', '.join(values)}]"
        return _defined(source, "write", names)

    def value(self, name: str, value: Any) -> Any:
        """One value for the driver."""
        encode = self.encode[name]
        return value if encode is None or value is None else encode(value)

    def records(self) -> Reader:
        """What turns rows with all columns into records.

        Goes past the __init__ of the frozen dataclass, which sets field by field, and is written out column by
        column: two thirds of the time of a loop over them, a third of that of __init__.
        """
        decode = [self._decode[name] for name in self.names]
        names: dict[str, Any] = {f"f{at}": one for at, one in enumerate(decode)}
        names |= {"new": object.__new__, "put": object.__setattr__, "kind": self.table.kind}
        values = [
            f"{name!r}: {f'v{at}' if decode[at] is None else _unless_null(f'v{at}', at)}"
            for at, name in enumerate(self.names)
        ]
        source = (
            "def read(rows):\n"
            " found = []\n"
            f" for {', '.join(f'v{at}' for at in range(len(values)))}, in rows:\n"
            "  record = new(kind)\n"
            f"  put(record, '__dict__', {{{', '.join(values)}}})\n"
            "  found.append(record)\n"
            " return found"
        )
        return _defined(source, "read", names)

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


def _unless_null(value: str, at: int) -> str:
    """Source text: `value` converted by the function `f<at>`; null stays null."""
    return f"f{at}(x) if (x := {value}) is not None else None"


def _defined(source: str, name: str, names: dict[str, Any]) -> Callable[[Any], list[Any]]:
    """The function `name` that `source` defines: text made of the names of fields, which are identifiers."""
    exec(source, names)  # noqa: S102 — as dataclasses and namedtuple do
    found: Callable[[Any], list[Any]] = names[name]
    return found
