"""A process of its own for the broker suite: does what it is told on stdin, one JSON line each, and answers
so.

`[verb, argument, ...]` → the result, or `{"error": …}`. It never acts unasked, so a test knows where it
stands when it kills it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mq import open_broker
from scheduler.core.errors import SchedulerError
from scheduler.core.ports import Outgoing


def main(url: str) -> None:
    """Serve until stdin ends."""
    broker = open_broker(url)
    consumer: Any = None
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        result: Any = None
        try:
            match verb:
                case "publish":
                    broker.publish([Outgoing(*message) for message in arguments[0]])
                case "consume":
                    consumer = broker.consume(*arguments)
                case "receive":
                    result = consumer.receive(*arguments)
                case "ack":
                    consumer.ack(arguments[0])
                case "drain":  # take and ack in small bites until the queue is empty for so many seconds
                    result = []
                    while messages := consumer.receive(7, *arguments):
                        result += [message.body for message in messages]
                        consumer.ack([message.tag for message in messages])
                case "waiting":  # answers twice: as it begins to wait, and with what came
                    print(json.dumps("waiting"), flush=True)
                    result = consumer.receive(*arguments)
                case "close":
                    consumer.close()
        except SchedulerError as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)
    broker.close()


if __name__ == "__main__":
    main(sys.argv[1])
