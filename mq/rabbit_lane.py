"""A lane: requests that wait for their answer, written one below the other, on a channel of an event loop.

A routine is a generator. What it yields is called with `then`, and whatever `then` is called with comes back
as the value of the yield:

    answer = yield lambda then: channel.queue_declare("q", passive=True, callback=then)

One routine at a time, so that answers cannot be taken for each other's. When the channel closes, the error is
thrown into the routine, and those that wait are closed. Used by the loop's thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

Routine = Generator[Any, Any, None]


class Lane:
    """Runs routines one after another. `errors` are the exceptions that end a routine quietly."""

    def __init__(self, errors: tuple[type[Exception], ...]) -> None:
        self._quiet: tuple[type[BaseException], ...] = (StopIteration, *errors)
        self._waiting: deque[Routine] = deque()
        self._current: Routine | None = None
        self._step = 0

    def run(self, routine: Routine) -> None:
        """Run it now, or after those that came before."""
        self._waiting.append(routine)
        if self._current is None:
            self._next()

    def throw(self, error: Exception) -> None:
        """What the current routine waits for will not come: it may go on from there."""
        if self._current is not None:
            self._resume(lambda routine: routine.throw(error))
            self._next()

    def fail(self, error: Exception) -> None:
        """The channel is gone: end everything."""
        waiting, self._waiting = list(self._waiting), deque()
        current, self._current = self._current, None
        self._step += 1
        if current is not None:
            try:
                current.throw(error)
            except self._quiet:
                pass
            finally:
                current.close()
        for routine in waiting:
            routine.close()

    def _next(self) -> None:
        while self._current is None and self._waiting:
            self._current = self._waiting.popleft()
            self._resume(lambda routine: next(routine))

    def _resume(self, go_on: Callable[[Routine], Any]) -> None:
        """One step of the current routine."""
        routine = self._current
        assert routine is not None
        self._step += 1
        step = self._step
        try:
            start = go_on(routine)
            start(lambda *answer: self._answered(step, answer))
        except self._quiet:
            if self._current is routine:
                self._current = None
            routine.close()

    def _answered(self, step: int, answer: tuple[Any, ...]) -> None:
        if step != self._step or self._current is None:
            return  # an answer to somebody who is gone
        self._resume(lambda routine: routine.send(answer[0] if answer else None))
        self._next()
