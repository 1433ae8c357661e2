"""What the operator's verbs share: who acts, on what, and how the outcome is told.

A verb submits a command and waits for the leading scheduler to carry it out or refuse it; nothing here changes a job.
A refusal is one line on stderr and the exit code of its kind: 2 what was asked makes no sense, 4 it is not there,
5 it is not lawful now. 3: no scheduler has taken it yet. With --json the command as it stands is printed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import pwd
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from commands.site import Site
from commands.table import show
from scheduler.control import EXPIRY_S, Reader, submit, wait
from scheduler.core import plan
from scheduler.core.command import DONE, PENDING, RUNNING, Command
from scheduler.core.errors import InvalidRequest, NotFound, Refused, Unavailable
from scheduler.core.job import job_id
from scheduler.core.ports import Broker, Clock, Store, Where
from scheduler.core.records import ProcessRow
from scheduler.core.timeperiod import Qualifier, Timeperiod, timeperiod_of, timeperiods_between
from scheduler.core.uow import job_of
from settings import add_options, overrides_of

WAIT_S = 2.0
NOT_TAKEN = Unavailable.exit_code
EXIT_CODES = {400: InvalidRequest.exit_code, 404: NotFound.exit_code, 409: Refused.exit_code}
SHOWN_MAX = 200
SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>s|min|m|h|d)")
UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


class Desk:
    """An operator's place: the store, and what it says."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises Unavailable if there is no store yet, ConfigError."""
        self.args = args
        self.site = Site(overrides_of(args))
        if not self.site.has_store():
            raise Unavailable(f"box {self.site.settings.box} was never started; `launch.py start` does")
        self.timetable = self.site.timetable
        found = self.site.connect()
        self.store: Store = found[0]
        self.broker: Broker = found[1]
        self.clock: Clock = found[2]
        self.reader = Reader(self.store, self.timetable, self.clock)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.site.close()

    # -- what is meant --------------------------------------------------------------------------------

    def process(self, name: str) -> str:
        """`name`, if such a process is or was registered. Raises NotFound with the nearest name."""
        if name in self.timetable.processes:
            return name
        known = {row.name for row in self.store.find(ProcessRow)} | set(self.timetable.processes)
        if name in known:
            return name
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(known))}"
        raise NotFound(f"there is no process {name!r}; {hint}")

    def periods(self, process: str, text: str) -> list[str]:
        """The labels that `text` means: a label, a date, or two of them with `..` between. Raises InvalidRequest."""
        definition = self.timetable.processes.get(self.process(process))
        if definition is None or definition.qualifier is Qualifier.INSTANT:
            return [text]
        first, dots, last = text.partition("..")
        begin = period_of(first, definition.qualifier, definition.grouping)
        if not dots:
            return [begin.label]
        end = period_of(last, definition.qualifier, definition.grouping)
        found = timeperiods_between(begin.start, end.end, definition.qualifier, definition.grouping)
        labels = []
        for period in found:
            labels.append(period.label)
            if len(labels) > plan.CASCADE_MAX:
                raise InvalidRequest(f"{text}: more than {plan.CASCADE_MAX:,} periods; narrow it")
        if not labels:
            raise InvalidRequest(f"{text}: its end is before its beginning")
        return labels

    def names_jobs(self) -> bool:
        """Whether the words are of jobs, and not a process alone or nothing."""
        return bool(self.args.period) or "@" in (self.args.process or "")

    def jobs(self) -> list[str]:
        """The jobs that PROCESS and PERIOD… name, or ids of jobs. Raises InvalidRequest, NotFound."""
        words = [self.args.process, *_words(self.args.period)]
        if "@" in words[0]:
            named = list(map(_id_parts, words))
        elif len(words) > 1:
            named = [(words[0], text) for text in words[1:]]
        else:
            raise InvalidRequest(
                f"{words[0]}: which period? Such as {words[0]} 2020-07-04, or the id {words[0]}@20200704"
            )
        return list(
            dict.fromkeys(job_id(name, label) for name, text in named for label in self.periods(name, text))
        )

    def job(self) -> str:
        """The one job that PROCESS and PERIOD name, or its id. Raises InvalidRequest if these are several."""
        found = self.jobs()
        if len(found) > 1:
            text = self.args.period or self.args.process
            raise InvalidRequest(f"{text}: one period is meant, these are {len(found)}")
        return found[0]

    def scope(self, text: str) -> str:
        """A hold's scope; a bare name is that of a tree or a process. Raises NotFound."""
        if text in ("all", "*"):
            return "*"
        if ":" in text or "@" in text:
            return text if ":" in text else f"job:{text}"
        if text in self.timetable.trees:
            return f"tree:{text}"
        return f"process:{self.process(text)}"

    # -- acting ---------------------------------------------------------------------------------------

    def act(self, verb: str, target: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> int:
        """Submit, wait, tell; the exit code."""
        command = submit(
            self.store,
            self.broker,
            verb,
            target,
            actor=actor(),
            arguments=arguments,
            reason=getattr(self.args, "reason", None) or "",
        )
        return self.tell(wait(self.store, command, self.args.wait))

    def tell(self, command: Command) -> int:
        """Say what became of a command; the exit code."""
        if self.args.json:
            keys = (
                "id",
                "verb",
                "target",
                "arguments",
                "actor",
                "reason",
                "state",
                "status",
                "message",
                "outcome",
            )
            print(json.dumps({key: getattr(command, key) for key in keys}, indent=2))
        if command.state in (PENDING, RUNNING):
            print(
                f"accepted as {command.id}, and no scheduler has taken it within {self.args.wait:g} s;"
                f" it is carried out when one leads, within {EXPIRY_S / 60:g} min",
                file=sys.stderr,
            )
            return NOT_TAKEN
        outcome = command.outcome or {}
        if command.state != DONE:
            print(f"{command.verb} {command.state}: {command.message}", file=sys.stderr)
            return EXIT_CODES.get(command.status or 409, 1)
        if not self.args.json:
            rows = [(row["job"], row["effect"], row["state"]) for row in outcome.get("jobs") or ()]
            show_effects(rows)
            print(command.message)
        return 0


def _words(given: str | list[str] | None) -> list[str]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _id_parts(text: str) -> tuple[str, str]:
    """Process and period of a job's id. Raises InvalidRequest."""
    name, sign, period = text.partition("@")
    if not sign or not name or not period:
        raise InvalidRequest(f"{text!r}: expected a job's id such as hourly@2013070400")
    if "#" in period:
        raise InvalidRequest(f"{text!r} is a run of {job_of(text)}: name the job")
    return name, period


def show_effects(rows: Sequence[tuple[str, str, str]]) -> None:
    """What happens, or happened, to each job; the first ones of many."""
    if not rows:
        return
    show(("job", "effect", "was"), rows[:SHOWN_MAX])
    if len(rows) > SHOWN_MAX:
        print(f"… and {len(rows) - SHOWN_MAX:,} more")


def actor() -> str:
    """Who acts: the OS user's name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def period_of(text: str, qualifier: Qualifier, grouping: int) -> Timeperiod:
    """The period that a label or a date names: 2013070400, 2013-07-04, 2013-07. Raises InvalidRequest."""
    try:
        return timeperiod_of(text, qualifier, grouping)
    except InvalidRequest:
        digits = re.sub(r"[-T: ]", "", text)
        width = 12 if qualifier is Qualifier.MINUTELY else 10
        if (digits == text and len(text) >= width) or not digits.isdecimal() or len(digits) > width:
            raise
        return timeperiod_of(digits.ljust(width, "0"), qualifier, grouping)


def instant_of(text: str, now: datetime) -> datetime:
    """`2026-01-01T06:00` (in UTC if it names no zone), or a time from now: 30m, 2h, 1d. Raises InvalidRequest."""
    length = SPAN.fullmatch(text)
    if length is not None:
        return now + timedelta(seconds=float(length["number"]) * UNITS[length["unit"]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r}: expected an instant such as 2026-01-01T06:00, or 30m, 2h, 1d"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def seconds_of(text: str) -> float:
    """A length of time, maybe negative: 90s, -2h, 1d; a bare number is seconds. Raises InvalidRequest."""
    sign, bare = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    found = SPAN.fullmatch(bare if not bare.replace(".", "", 1).isdigit() else f"{bare}s")
    if found is None:
        raise InvalidRequest(f"{text!r}: expected a length of time such as 90s, 30m, 2h or 1d")
    return sign * float(found["number"]) * UNITS[found["unit"]]


def spoken(at: datetime | None) -> str:
    """An instant in a table."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


# -- command lines --------------------------------------------------------------------------------------


def add_acting(parser: argparse.ArgumentParser, *, reason: bool = True) -> None:
    """What every acting verb takes: --reason, --wait, --json and the settings."""
    if reason:
        parser.add_argument("--reason", metavar="TEXT", help="why; it is kept with the command")
    parser.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="SECONDS", help=f"for its outcome; {WAIT_S:g}"
    )
    add_reading(parser)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What every verb takes: --json and the settings."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_options(parser)


def add_job(parser: argparse.ArgumentParser) -> None:
    """PROCESS PERIOD, or the job's id"""
    parser.add_argument("process", help="name of the process; or the job's id, hourly@2013070400")
    parser.add_argument("period", nargs="?", help="a label or a date: 2013070400, 2013-07-04")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """PROCESS PERIOD…, or ids of jobs"""
    parser.add_argument(
        "process", help="name of the process; or a job's id, hourly@2013070400, and more of them"
    )
    parser.add_argument(
        "period", nargs="*", help="labels or dates: 2013070400, 2013-07-04, 2013-07-01..2013-07-04"
    )


def jobs_verb(verb: str, *, has_plan: bool = False) -> tuple[AddArguments, Run]:
    """A verb about jobs: `VERB PROCESS PERIOD… [--reason] [--plan]`."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_jobs(parser)
        if has_plan:
            parser.add_argument("--plan", action="store_true", help="only show what would happen")
        add_acting(parser)

    def run(args: argparse.Namespace) -> int:
        with Desk(args) as desk:
            jobs = desk.jobs()
            if getattr(args, "plan", False):
                return show_plan(desk, verb, jobs)
            return desk.act(verb, {"jobs": jobs})

    return add_arguments, run


def show_plan(desk: Desk, verb: str, jobs: list[str]) -> int:
    """What would happen, and nothing else. Raises NotFound, Refused."""
    effects = desk.reader.plan(verb, jobs)
    rows = [(effect.job, effect.effect, effect.state) for effect in effects]
    if desk.args.json:
        print(json.dumps([dict(zip(("job", "effect", "state"), row, strict=True)) for row in rows], indent=2))
        return 0
    show_effects(rows)
    changed = sum(effect != "none" for _, effect, _ in rows)
    print(f"{changed:,} jobs would change; nothing was changed")
    return 0


def process_verb(verb: str) -> tuple[AddArguments, Run]:
    """A verb about a process: `VERB PROCESS [--reason]`."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("process", help="name of the process")
        add_acting(parser)

    def run(args: argparse.Namespace) -> int:
        with Desk(args) as desk:
            return desk.act(verb, {"process": desk.process(args.process)})

    return add_arguments, run


def where_of(**conditions: Any) -> list[Where]:
    """Equalities of those that are given."""
    return [Where(name, "=", value) for name, value in conditions.items() if value is not None]
