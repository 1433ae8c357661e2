"""What a message looks like on the wire, for every broker: the id of a unit of work as UTF-8 text, no more.

That is version 1 of the message. A later version n is written `v<n> <id>`, and what it has to say besides behind
another blank; no id has a blank, so nobody confuses them. Whoever knows version n reads every older one, and the
next: what stands behind the id may be left out of account, because a message only wakes, and the store has all
else. So scheduler and workers of two successive versions work together while a site is updated, in both directions.
What is later still is refused and kept with the dead ones; the unit of work stays in the store, requested, and is
published again until somebody reads it.

Two directions: `seal` refuses what we must not send (a bug or a bad argument of the caller:
InvalidRequest); `unseal` judges what came in, which any program may have put there. It raises nothing: an
adapter drops what is not ours and says so in one line (`refusal`). It must not look anything up: whether
the id exists is the store's.
"""

from __future__ import annotations

import re

from scheduler.core.errors import InvalidRequest
from scheduler.core.ports import Outgoing

VERSION = 1  # what we write
NEWEST = VERSION + 1  # what we read
DEAD = "synergy.dead"  # the queue of what was refused, on every broker
MAX_BODY = 255  # characters
MAX_LATER = 4096  # characters of a message of a later version
MAX_QUEUE = 255  # bytes: AMQP's limit of a queue's name
PRIORITIES = range(11)
# process@timeperiod#run: the shape only. What a legal name is, the core decides.
_UOW_ID = re.compile(r"[^ @#]+@[^ @#]+#(check-)?[1-9][0-9]*")
_LATER = re.compile(r"v([1-9][0-9]{0,8}) ([^ ]+)(?: .*)?")


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
    """The unit of work's id in a body that was received (bytes or text), or None if we cannot read it."""
    text = _text(body)
    if text is None or is_uow_id(text):
        return text
    version, id_ = _later(text)
    return id_ if 1 < version <= NEWEST else None


def _text(body: object) -> str | None:
    if isinstance(body, bytes):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return None
    return body if isinstance(body, str) else None


def _later(text: str) -> tuple[int, str]:
    """Version and id of a message of a later version; 0 if it is none."""
    found = _LATER.fullmatch(text) if len(text) <= MAX_LATER and text.isprintable() else None
    return (int(found[1]), found[2]) if found is not None and is_uow_id(found[2]) else (0, "")


def refusal(queue: str, body: object) -> str:
    """The line for the log when a body that we cannot read was taken from `queue`, and put to the dead ones."""
    text = _text(body)
    version, id_ = _later(text) if text is not None else (0, "")
    if version > NEWEST:
        return (
            f"queue {queue}: dropped the message of {id_}: it is of message version {version}, this program reads"
            f" up to {NEWEST}; update the program of this box. The unit of work is published again"
        )
    return (
        f"queue {queue}: dropped the message {shown(body)}: it is not a unit of work's id "
        "(process@timeperiod#run), so the scheduler did not send it; look for another program on this queue"
    )


def shown(body: object) -> str:
    """`body` for a message to a person: quoted, one line, cut at 60 characters."""
    text = ascii(body)
    return text if len(text) <= 60 else text[:57] + "…"
