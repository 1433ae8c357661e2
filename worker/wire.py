"""What travels between the worker process and a child: length-prefixed pickles over a socket pair.

Both ends are this program on this machine and the child runs the user's code anyway, so pickle gives nothing away.
One message each way per unit of work.
"""

from __future__ import annotations

import pickle
import socket
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from scheduler.core.process import Script

_LENGTH = struct.Struct("<I")
_PIECE = 65536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Request(NamedTuple):
    """Worker → child: execute this."""

    uow: str
    kind: str  # work, check
    process: str
    definition: str  # the registered process: another name only for entries made at run time
    worker: str | Script
    predicate: str | None
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
    defined: dict[str, Any]  # the arguments of the process itself
    source: str | None
    sink: str | None
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


def pack_request(request: Request) -> bytes:
    """A request as bytes. Its times travel as numbers: pickling a time costs as much as all the rest."""
    start, end, at = (_microseconds(time) for time in (request.start, request.end, request.business_at))
    return pack(tuple(request._replace(start=start, end=end, business_at=at)))  # type: ignore[arg-type]


def unpack_request(message: Any) -> Request:
    """The request that `pack_request` made a message of."""
    request = Request._make(message)
    start, end, at = (_time(n) for n in (request.start, request.end, request.business_at))  # type: ignore[arg-type]
    return request._replace(start=start, end=end, business_at=at)


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def pack(message: Any) -> bytes:
    """One message as bytes."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class Inflow:
    """The receiving end: bytes in, messages out."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = bytearray()

    def wait(self) -> Any:
        """The next message; blocks. Raises EOFError when the other end is gone."""
        while True:
            for message in self._messages(1):
                return message
            if not self._take(0):
                raise EOFError

    def ready(self) -> tuple[list[Any], bool]:
        """The messages that are there, without blocking, and whether the other end still is."""
        taken = _PIECE
        try:
            while taken == _PIECE:
                taken = self._take(socket.MSG_DONTWAIT)
        except BlockingIOError:
            taken = -1
        return self._messages(None), taken != 0

    def _take(self, flags: int) -> int:
        """Receive once; how many bytes, 0 at the end. Raises BlockingIOError."""
        try:
            data = self._end.recv(_PIECE, flags)
        except ConnectionResetError:
            return 0
        self._buffer += data
        return len(data)

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
