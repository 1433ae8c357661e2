"""A doorbell between two threads of one process: a descriptor that is readable while it rings.

Whoever rings has put something there before; whoever clears looks afterwards. In that order nothing is missed.
"""

from __future__ import annotations

import select
import socket


class Bell:
    """A socket pair. `ring` from any thread; the rest is for one."""

    def __init__(self) -> None:
        self._mine, self._theirs = socket.socketpair()
        self._mine.setblocking(False)
        self._theirs.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._mine.fileno(), select.POLLIN)
        self._rings = False
        self._closed = False

    def ring(self) -> None:
        """Make it readable."""
        if not self._rings and not self._closed:
            self._rings = True
            try:
                self._theirs.send(b"!")
            except OSError:
                pass  # full: it rings; closed: nobody listens

    def clear(self) -> None:
        """Stop ringing. What was put there before this is seen by a look after it."""
        try:
            while len(self._mine.recv(64)) == 64:
                pass
        except OSError:
            pass  # it did not ring, or was closed
        self._rings = False

    def wait(self, timeout_s: float) -> bool:
        """Return when it rings, or after `timeout_s`; whether it rings."""
        return bool(self._poll.poll(max(0, int(timeout_s * 1000 + 0.999))))

    def fileno(self) -> int:
        """Readable while it rings."""
        return self._mine.fileno()

    def close(self) -> None:
        """Take it down; may be called twice."""
        self._closed = True
        self._mine.close()
        self._theirs.close()
