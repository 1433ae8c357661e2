"""Scenarios as text: a block of commands, `----`, and what happens, as a trace; until an empty line.

    managed h hourly retry.delay_s=10
    begin 2020-05-01T01:10 start=2020050100
    ----
    01:10:00 process.schedule h: registered
    …

    fail h@2020050100
    ----
    …

Lines with `#` are for people; the first one names the acceptance scenarios that the file is about. What a block prints
are the events of the scheduler that it led to, in order, or the answer to a question. Commands:

* `managed NAME QUALIFIER key=value …`, `freerun NAME …`, `tree NAME PROCESS …`, `begin INSTANT …`: the world
* `go INSTANT`, `wait SECONDS`, `restart` (another scheduler takes over): what passes
* `accept UOW [lease_s=…]`, `succeed|no_data|cancel|fail JOB-or-UOW [key=value …]`, `stopped UOW`: what a worker does
* `states PROCESS`, `explain JOB`, `messages QUEUE`: what one may ask
* any other word is an operator's verb: `skip JOB …`, `hold scope=*`, `set_max_active process=h value=2`
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scheduler.core.event import Event
from scheduler.core.process import Process, Readiness, Retry, Tree, freerun, managed, tree
from tests.world import World

BAR = "----"
OF_A_WORKER = ("succeed", "no_data", "cancel", "fail")
TARGETS = ("process", "tree", "scope")  # of an operator's verb; the other words are its arguments
PARTS: dict[str, Callable[..., Any]] = {"retry": Retry, "readiness": Readiness}


def played(text: str) -> str:
    """The same text with the traces as they are now."""
    stage = _Stage()
    return "".join(stage.play(block) for block in _blocks(text))


def _blocks(text: str) -> Iterator[list[str]]:
    """Commands and comments of each block; the empty lines between blocks are blocks of nothing."""
    block: list[str] = []
    is_trace = False
    for line in [*text.splitlines(), ""]:
        if not line:
            if block:
                yield block
            block, is_trace = [], False
        elif line == BAR:
            is_trace = True
        elif not is_trace:
            block.append(line)


class _Stage:
    """What the commands of one file act on."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.trees: list[Tree] = []
        self.world: World | None = None
        self.seen = 0  # the last event that was printed

    def play(self, block: list[str]) -> str:
        """The block with its trace."""
        commands = [line for line in block if not line.startswith("#")]
        if not commands:
            return "\n".join(block) + "\n\n"
        answers = [answer for line in commands for answer in self._do(line)]
        return "\n".join([*block, BAR, *answers, *self._happened()]) + "\n\n"

    def _do(self, line: str) -> list[str]:
        word, *rest = shlex.split(line)
        given = [part for part in rest if "=" not in part]
        named = _named(part for part in rest if "=" in part)
        match word:
            case "managed":
                self.processes.append(managed(given[0], "work:run", given[1], **named))
            case "freerun":
                self.processes.append(freerun(given[0], "work:run", **named))
            case "tree":
                self.trees.append(tree(given[0], given[1:], **named))
            case "begin":
                self.world = World(self.processes, self.trees, now=given[0], **named)
            case _:
                assert self.world is not None, f"{line!r} before the world began"
                return self._act(self.world, word, given, named)
        return []

    def _act(self, world: World, word: str, given: list[str], named: dict[str, Any]) -> list[str]:
        match word:
            case "go":
                world.go(given[0])
            case "wait":
                world.wait(float(given[0]))
            case "restart":
                world.restart()
            case "accept":
                world.accept(given[0], **named)
            case "stopped":
                world.stopped(given[0])
            case "states":
                return [f"{job.timeperiod} {job.state}" for job in world.jobs(given[0])]
            case "messages":
                return world.messages(given[0])
            case "explain":
                found = world.explain(given[0])
                return [blocker.sentence for blocker in found.own] or ["nothing is in its way"]
            case _ if word in OF_A_WORKER:
                world.work(given[0], word, **named)
            case _:
                return self._ask(world, word, given, named)
        return []

    def _ask(self, world: World, verb: str, jobs: list[str], named: dict[str, Any]) -> list[str]:
        target: dict[str, Any] = {key: named.pop(key) for key in TARGETS if key in named}
        if jobs:
            target["jobs"] = jobs
        answer = world.command(verb, target, arguments=named)
        return [f"refused: {answer.message}"] if answer.state == "refused" else []

    def _happened(self) -> list[str]:
        if self.world is None:
            return []
        fresh = [event for event in self.world.events() if event.seq > self.seen]
        self.seen = max([self.seen, *(event.seq for event in fresh)])
        return [_told(event) for event in fresh]


def _told(event: Event) -> str:
    about = event.uow or (f"{event.process}@{event.timeperiod}" if event.timeperiod else event.process or "")
    words = [f"{event.at:%H:%M:%S}", event.kind, *([about] if about else [])]
    data = event.data or {}
    if event.kind.startswith(("job.", "uow.")) and "state" in data:
        words.append(f"-> {data['state']}")
        words += [f"({data['reason']})"] if data.get("reason") else []
    words += [str(data["scope"])] if "scope" in data else []
    if event.actor != "scheduler":
        words.append(f"by {event.actor}")
    return " ".join(words) + (f": {event.message}" if event.message else "")


def _named(parts: Iterator[str]) -> dict[str, Any]:
    """`max_active=3 retry.delay_s=10 depends_on=a,b` as arguments."""
    found: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for part in parts:
        name, _, text = part.partition("=")
        outer, dot, field = name.partition(".")
        if dot:
            inner.setdefault(outer, {})[field] = _value(text)
        else:
            found[name] = text.split(",") if name in ("depends_on", "tags") else _value(text)
    return found | {name: PARTS[name](**values) for name, values in inner.items()}


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text) if len(text) < 9 else text  # longer ones are periods
    except ValueError:
        return text


def files() -> list[Path]:
    """All scenarios, by name."""
    return sorted((Path(__file__).parent / "traces").glob("*.txt"))
