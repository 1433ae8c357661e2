"""Words of the broker suite: messages by number, and a process that uses the broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scheduler.core.ports import Message, Outgoing

LONG = 20.0  # seconds: as long as something that must come may take; never waited for when all is well
ROOT = Path(__file__).parents[3]


class Client:
    """A `broker_client` process."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.broker_client", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def tell(self, *request: Any) -> None:
        """Ask without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """The next answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *request: Any) -> Any:
        """Ask, and wait for the answer."""
        self.tell(*request)
        return self.answer()

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()


def uow(n: int, process: str = "hourly") -> str:
    """The nth unit of work of a period."""
    return f"{process}@2013070400#{n}"


def out(*numbers: int, queue: str = "work", priority: int = 5) -> list[Outgoing]:
    """Messages by their numbers."""
    return [Outgoing(queue, uow(n), priority) for n in numbers]


def bodies(messages: list[Message]) -> list[str]:
    """What messages say."""
    return [message.body for message in messages]


def uows(*numbers: int) -> list[str]:
    """Units of work by their numbers."""
    return [uow(n) for n in numbers]
