"""What a consumer may be sent: bookkeeping of one subscription, without any I/O.

A worker takes only what a free slot starts now. But a broker pushes: it sends until `size` messages are not
acked. So the acks of a consumer that wants nothing more are kept back, and each of them is given out for one
message that is wanted. Acks that were kept for long (the work takes its time) must go out all the same, since
brokers cut off who keeps a message: then the subscription is ended, and another, of the size that is wanted,
takes its place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Window:
    """One subscription to one queue. Times are seconds of a monotonic clock."""

    queue: str  # its name on the server
    size: int  # messages that the broker sends without an ack
    tag: str = ""  # the server's name for the subscription
    out: int = 0  # sent and not acked
    is_over: bool = False  # another takes its place, or none
    kept: deque[tuple[int, float]] = field(default_factory=deque)  # acks: (delivery tag, since)

    @property
    def free(self) -> int:
        """How many messages may still come."""
        return self.size - self.out

    def release(self, wanted: int) -> list[int]:
        """The acks to give out so that `wanted` messages may come."""
        count = min(len(self.kept), wanted - self.free)
        released = [self.kept.popleft()[0] for _ in range(count)]
        self.out -= len(released)
        return released

    def has_kept(self, since: float) -> bool:
        """Whether an ack was kept from before `since`."""
        return bool(self.kept) and self.kept[0][1] <= since

    def end(self) -> list[int]:
        """It is over: all acks that were kept."""
        self.is_over = True
        released = [tag for tag, _ in self.kept]
        self.kept.clear()
        self.out -= len(released)
        return released
