"""Sleep until a signal, a readable descriptor or the end of a time, and lose no signal in between.

A signal that arrives just before the sleep writes a byte into a pipe, and the sleep ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

from supervisor.os_process import wait_readable


class Wakeup:
    """Takes over `signals` of this process while it is entered; only in the main thread."""

    def __init__(self, on_signal: Callable[[int], None], signals: Sequence[int]) -> None:
        self._on_signal, self._signals = on_signal, signals
        self._before: dict[int, Any] = {}
        self._read = self._write = self._before_fd = -1

    def __enter__(self) -> Wakeup:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._signals:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout_s: float, descriptors: Sequence[int]) -> None:
        """Until a signal came, one of the descriptors is readable, or `timeout_s` passed."""
        if self._read in wait_readable([self._read, *descriptors], timeout_s):
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._on_signal(number)
