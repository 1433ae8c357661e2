"""Which consumers of a queue file live: each holds a lock on one byte, which the kernel frees when it dies.

One file (`<queue file>.alive`), one byte per consumer, at the offset that is the consumer's id. (Its first
bytes hold a number that counts the changes of the list of consumers, so that publishers need not read the
list each time.) These are POSIX locks, the kind SQLite itself stands on: bound to the process (a forked
child does not keep its parent's alive), gone at once after a `kill -9`, never stale, right across
containers that share a folder but not pids.

The theory's trap: a process loses all its POSIX locks of a file when it closes *any* descriptor of it. So a
process opens the file once, for all its brokers, and never touches it otherwise. Locks of one's own process
never conflict, hence the set of ids that are held here.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading

_roll_calls: dict[str, RollCall] = {}
_guard = threading.Lock()


class RollCall:
    """The living consumers of one queue file, as this process sees them. One per file and process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._mine: set[int] = set()
        self._lock = threading.Lock()
        self._users = 0

    @classmethod
    def join(cls, path: str) -> RollCall:
        """This process's roll call for `path`; give it back with `leave`. Raises OSError."""
        with _guard:
            if path not in _roll_calls:
                _roll_calls[path] = cls(path)
            roll_call = _roll_calls[path]
            roll_call._users += 1
            return roll_call

    def leave(self) -> None:
        """One user less; the last one closes the file."""
        with _guard:
            self._users -= 1
            if self._users == 0:
                del _roll_calls[self._path]
                os.close(self._fd)

    def edition(self) -> bytes:
        """Differs from an earlier one if `new_edition` was called in between, by whatever process."""
        return os.pread(self._fd, 8, 0)

    def new_edition(self) -> None:
        """Say that the list of consumers changes. Call it inside the queue file's write transaction."""
        number = int.from_bytes(self.edition(), "big") + 1
        os.pwrite(self._fd, number.to_bytes(8, "big"), 0)

    def enrol(self) -> int:
        """A new consumer id, alive until `dismiss` or the end of this process."""
        while True:
            consumer = secrets.randbits(47) + 8  # bytes 0-7 are the edition
            with self._lock:
                if self._try_lock(consumer):
                    self._mine.add(consumer)
                    return consumer

    def dismiss(self, consumer: int) -> None:
        """The consumer is gone. Harmless when repeated."""
        with self._lock:
            if consumer in self._mine:
                self._mine.discard(consumer)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, consumer)

    def is_alive(self, consumer: int) -> bool:
        """Whether somebody holds this consumer's byte. Wrong for an instant at most, and then it says yes."""
        with self._lock:
            if consumer in self._mine:
                return True
            if not self._try_lock(consumer):
                return True
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, consumer)
            return False

    def _try_lock(self, consumer: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, consumer)
        except (BlockingIOError, PermissionError):  # POSIX allows either for "somebody has it"
            return False
        return True


def _after_fork() -> None:
    """A forked child holds none of its parent's locks; it begins anew."""
    global _guard
    _guard = threading.Lock()
    for roll_call in _roll_calls.values():
        os.close(roll_call._fd)
    _roll_calls.clear()


os.register_at_fork(after_in_child=_after_fork)
