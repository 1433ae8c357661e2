"""The inbox: the one thing the scheduler's threads share.

Whoever notices something puts it in; the main loop takes everything at once and sleeps on it
interruptibly. Putting the same unit of work in twice is putting it in once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from scheduler.core.slice import Item


class Inbox:
    """Items for the next turn, in the order they came. Safe for several threads."""

    def __init__(self) -> None:
        self._items: dict[Item, None] = {}
        self._condition = threading.Condition()
        self._woken = False

    def put(self, items: Iterable[Item]) -> None:
        """Add items, and wake the loop."""
        with self._condition:
            self._items.update(dict.fromkeys(items))
            self._woken = True
            self._condition.notify()

    def wake(self) -> None:
        """Wake the loop without an item: the store has something for it."""
        self.put(())

    def take(self, timeout_s: float, limit: int | None = None) -> list[Item]:
        """Everything that is there, at most `limit`; waits `timeout_s` seconds for the first."""
        with self._condition:
            if not self._items and not self._woken and timeout_s > 0:
                self._condition.wait(timeout_s)
            self._woken = False
            items = list(self._items)[:limit]
            for item in items:
                del self._items[item]
            return items
