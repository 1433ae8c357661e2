"""Every name and argument on the RabbitMQ side, in this one place: whoever comes first declares, all alike.

A queue that exists with other arguments closes the channel of whoever declares it (406). So the name carries
the kind, arguments follow from the name alone, and nobody else declares.

* `synergy.classic.<queue>`: durable, priorities 0 to 10, strict. `synergy.quorum.<queue>`: replicated; from
  RabbitMQ 4 on priorities 6 to 10 come before 0 to 5, before that there are none.
* `synergy.control.<owner>`: a worker's own; goes by itself when nobody has used it for EXPIRES_S.
* `synergy.dead` (exchange and queue): what was refused, at most DEAD_MOST of the last DEAD_S.
* `synergy.nudge` (exchange): calls without a message; each consumer binds an exclusive queue of its own.

Nothing here is removed in RabbitMQ 4: no mirrored queues, no transient queues that are not exclusive, no
global prefetch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any

from mq.envelope import DEAD as DEAD

PREFIX = "synergy."
CONTROL = "control."
NUDGE = "synergy.nudge"
EXPIRES_S = 1800
DEAD_MOST = 10_000
DEAD_S = 14 * 86400
LONGEST = 255  # bytes: AMQP's limit of a name
HIGH = 6
Steps = Generator[Any, Any, None]


def queue_name(queue: str, kind: str) -> str:
    """What `queue` is called on the server. One that would be too long is cut, and ends in a hash."""
    name = PREFIX + (queue if queue.startswith(CONTROL) else f"{kind}.{queue}")
    data = name.encode()
    if len(data) <= LONGEST:
        return name
    return f"{data[:180].decode(errors='ignore')}.{hashlib.sha256(data).hexdigest()}"


def priority_of(priority: int, kind: str) -> int:
    """What is sent: a quorum queue takes 5 and more for high, we say 6."""
    return priority if kind == "classic" or priority >= HIGH else min(priority, 4)


def arguments(name: str) -> dict[str, Any]:
    """The arguments of the queue of that name on the server."""
    found: dict[str, Any] = {"x-queue-type": "classic", "x-dead-letter-exchange": DEAD}
    if name.startswith(PREFIX + CONTROL):
        found["x-expires"] = EXPIRES_S * 1000
    elif name.startswith(f"{PREFIX}quorum."):
        found["x-queue-type"] = "quorum"
    else:
        found["x-max-priority"] = 10
    return found


def declare(channel: Any, name: str) -> Steps:
    """Steps that make the queue of that name on the server, if it is not there."""
    yield lambda then: channel.queue_declare(name, durable=True, arguments=arguments(name), callback=then)


def declare_common(channel: Any) -> Steps:
    """Steps that make what all queues stand on: the place for refused messages, and the exchange of nudges."""
    yield lambda then: channel.exchange_declare(DEAD, "fanout", durable=True, callback=then)
    limits = {"x-queue-type": "classic", "x-max-length": DEAD_MOST, "x-message-ttl": DEAD_S * 1000}
    yield lambda then: channel.queue_declare(DEAD, durable=True, arguments=limits, callback=then)
    yield lambda then: channel.queue_bind(DEAD, DEAD, callback=then)
    yield lambda then: channel.exchange_declare(NUDGE, "direct", durable=True, callback=then)
