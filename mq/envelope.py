"""What a message looks like on the wire, for every broker: the id of a unit of work as UTF-8 text, no more.

Two directions: `seal` refuses what we must not send (a bug or a bad argument of the caller:
InvalidRequest); `unseal` judges what came in, which any program may have put there. It raises nothing: an
adapter drops what is not ours and says so in one line (`refusal`). It must not look anything up: whether
the id exists is the store's.
"""

from __future__ import annotations

import re

from scheduler.core.errors import InvalidRequest
from scheduler.core.ports import Outgoing

MAX_BODY = 255  # characters
MAX_QUEUE = 255  # bytes: AMQP's limit of a queue's name
PRIORITIES = range(11)
# process@timeperiod#run: the shape only. What a legal name is, the core decides.
_UOW_ID = re.compile(r"[^ @#]+@[^ @#]+#(check-)?[1-9][0-9]*")


def is_uow_id(body: str) -> bool:
    """Whether `body` has the shape of a unit of work's id."""
    return len(body) <= MAX_BODY and body.isprintable() and _UOW_ID.fullmatch(body) is not None


def seal(message: Outgoing) -> Outgoing:
    """`message`, if it may be sent. Raises InvalidRequest naming what is wrong with it."""
    queue, body, priority = message
    if not is_uow_id(body):
        raise InvalidRequest(
            f"message {shown(body)} is not a unit of work's id: expected process@timeperiod#run, "
            f"at most {MAX_BODY} characters"
        )
    check_queue(queue)
    if priority not in PRIORITIES:
        raise InvalidRequest(f"priority {priority!r} of {body}: expected a whole number from 0 to 10")
    return message


def check_queue(queue: str) -> str:
    """`queue`, if it may be the name of a queue. Raises InvalidRequest."""
    if not queue or not queue.isprintable() or (len(queue) > 63 and len(queue.encode()) > MAX_QUEUE):
        raise InvalidRequest(f"queue {shown(queue)}: expected a printable name of at most {MAX_QUEUE} bytes")
    return queue


def unseal(body: object) -> str | None:
    """The unit of work's id in a body that was received (bytes or text), or None if it is not ours."""
    if isinstance(body, bytes):
        try:
            body = body.decode()
        except UnicodeDecodeError:
            return None
    return body if isinstance(body, str) and is_uow_id(body) else None


def refusal(queue: str, body: object) -> str:
    """The line for the log when a body that is not ours was dropped from `queue`."""
    return (
        f"queue {queue}: dropped the message {shown(body)}: it is not a unit of work's id "
        "(process@timeperiod#run), so the scheduler did not send it; look for another program on this queue"
    )


def shown(body: object) -> str:
    """`body` for a message to a person: quoted, one line, cut at 60 characters."""
    text = ascii(body)
    return text if len(text) <= 60 else text[:57] + "…"
