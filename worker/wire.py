"""What travels between the worker process and a child: length-prefixed pickles over two pipes.

Both ends are this program on this machine and the child runs the user's code anyway, so pickle gives nothing away.
One message each way per unit of work. Pipes, because a socket pair wakes its sleeping reader also when the other
end reads, and a child would wake twice for each unit of work.
"""

from __future__ import annotations

import os
import pickle
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from scheduler.core.process import Process, Script
from scheduler.core.uow import Uow

_LENGTH = struct.Struct("<I")
_PIECE = 65536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What all requests of a process have in common. It is packed once; the child knows its bytes again, so
    there it is one object for each process."""

    definition: str  # the registered process: another name only for entries made at run time
    worker: str | Script
    predicate: str | None
    defined: dict[str, Any]  # the arguments of the process itself
    source: str | None
    sink: str | None


class Request(NamedTuple):
    """Worker → child: execute this."""

    recipe: Recipe
    uow: str
    kind: str  # work, check
    process: str
    timeperiod: str
    start: datetime
    end: datetime
    run: int
    attempt: int
    version: int
    final: bool
    repeat: bool  # `more` means: call again, here
    retries: bool  # a failure of this attempt would be retried
    cursor: str | None
    arguments: dict[str, Any]
    business_at: datetime
    business_rate: float


class Reply(NamedTuple):
    """Child → worker: how it ended. `result` is JSON text, checked by the child."""

    verb: str  # succeed, no_data, fail, cancel
    cursor: str | None = None
    more: bool = False
    result: str | None = None
    error: str | None = None
    traceback: str | None = None
    permanent: bool = False


def pack_recipe(process: Process) -> bytes:
    """What the requests of this process have in common, as bytes for `pack_request`."""
    recipe = Recipe(
        definition=process.name,
        worker=process.worker,
        predicate=None if process.readiness is None else process.readiness.predicate,
        defined=dict(process.arguments),
        source=process.source,
        sink=process.sink,
    )
    return pickle.dumps(recipe, pickle.HIGHEST_PROTOCOL)


def pack_request(
    recipe: bytes, uow: Uow, process: Process, business_at: datetime, business_rate: float
) -> bytes:
    """The request to execute `uow`, as bytes. Times travel as numbers: pickling one costs as much as all the rest."""
    return pack(
        (
            recipe,
            uow.id,
            uow.kind,
            uow.process,
            uow.timeperiod,
            _microseconds(uow.start),
            _microseconds(uow.end),
            uow.run,
            uow.attempt,
            uow.version,
            uow.final,
            uow.final or process.machine == "discrete",
            uow.failures < process.retry.max_retries,
            uow.cursor,
            uow.arguments,
            _microseconds(business_at),
            business_rate,
        )
    )


def unpack_request(message: Any) -> Request:
    """The request that `pack_request` made a message of."""
    recipe, uow, kind, process, timeperiod, start, end, *rest = message
    run, attempt, version, final, repeat, retries, cursor, arguments, business_at, business_rate = rest
    known = _recipe(recipe)
    return Request(
        known,
        uow,
        kind,
        process,
        timeperiod,
        _time(start),
        _time(end),
        run,
        attempt,
        version,
        final,
        repeat,
        retries,
        cursor,
        dict(known.defined if arguments is None else arguments),
        _time(business_at),
        business_rate,
    )


@cache
def _recipe(data: bytes) -> Recipe:
    found: Recipe = pickle.loads(data)  # noqa: S301 - see above
    return found


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def pack(message: Any) -> bytes:
    """One message as bytes."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def send(fd: int, data: bytes) -> None:
    """Write all of it; waits while the pipe is full. Raises BrokenPipeError when nobody reads any more."""
    written = os.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = os.write(fd, data)


class Inflow:
    """The receiving end of a pipe: bytes in, messages out. `ready` wants a descriptor that does not block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def wait(self) -> Any:
        """The next message; blocks. Raises EOFError when the other end is gone."""
        while True:
            for message in self._messages(1):
                return message
            data = os.read(self._fd, _PIECE)
            if not data:
                raise EOFError
            self._buffer += data

    def ready(self) -> tuple[list[Any], bool]:
        """The messages that are there, without blocking, and whether the other end still is."""
        is_open = True
        try:
            while data := os.read(self._fd, _PIECE):
                self._buffer += data
                if len(data) < _PIECE:
                    break
            else:
                is_open = False
        except BlockingIOError:
            pass
        return self._messages(None), is_open

    def _messages(self, most: int | None) -> list[Any]:
        found: list[Any] = []
        at = 0
        while most is None or len(found) < most:
            if len(self._buffer) - at < 4:
                break
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if len(self._buffer) - at - 4 < length:
                break
            found.append(pickle.loads(self._buffer[at + 4 : at + 4 + length]))  # noqa: S301 - see above
            at += 4 + length
        if at:
            del self._buffer[:at]
        return found
