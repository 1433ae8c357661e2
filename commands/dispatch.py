"""The commands of `launch.py`: one table, one module a verb, imported when its verb is typed.

A verb module has `add_arguments(parser)` and `run(args) -> int` (the exit code); `UNKNOWN_ARGUMENTS = "name"` collects
what the parser does not know under that name instead of refusing it; `HAS_ACTIONS = True` says that it has a parser for
each of its actions. Options may stand anywhere among the words. This file is imported before .venv exists, so it
and what it imports stay within the standard library. Here alone errors become exit codes.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from scheduler.core.errors import SchedulerError

HERE = Path(__file__).resolve().parent

# verb, one line of help; the module bears the verb's name with _ for -
VERBS = (
    ("demo", "play a year of real flights through the scheduler, with the dashboard"),
    ("new", "write a small project of your own into a folder"),
    ("check", "say whether settings and context are right; changes nothing"),
    ("start", "start this box, or one process of it"),
    ("stop", "stop this box, or one process of it"),
    ("restart", "stop and start this box, or one process of it"),
    ("reload", "let the running processes read the context anew"),
    ("status", "what runs on this box"),
    ("list", "the registered processes, trees and queues"),
    ("jobs", "jobs of a process, by state and timeperiod"),
    ("job", "one job: state, reason, runs and attempts"),
    ("explain", "why a job does not run, and what would unblock it"),
    ("events", "what happened, newest last"),
    ("log", "what a job's runs have written"),
    ("reprocess", "process finished jobs again, and what stands on them"),
    ("skip", "give up jobs, and what cannot be without them"),
    ("mark-done", "declare skipped jobs done"),
    ("retry", "try a failed unit of work again now"),
    ("kill", "end what runs for a job"),
    ("hold", "start nothing new for a job, a process, a tree or at all"),
    ("release", "lift a hold"),
    ("late", "late data that waits because too much stands on it: list, narrow or drop it"),
    ("run-now", "run a process now, whatever its trigger says"),
    ("submit", "run a freerun process once, or make a new entry of it"),
    ("suspend", "start nothing new of a process until it is resumed"),
    ("resume", "let a suspended process go on"),
    ("schedule", "put a new process on the timetable"),
    ("expire", "end a process: nothing runs, and nobody waits for it any more"),
    ("delete", "forget a process, or an entry"),
    ("set", "change trigger, priority, max_active or tags of a process"),
    ("reset", "forget what was set by hand: as the context says again"),
    ("clock", "show the business clock, or shift or scale it"),
    ("simulate", "run the scheduler on a virtual clock with faults"),
    ("verify", "explore every interleaving of a small timetable"),
    ("chaos", "play the example while its processes and servers are killed and frozen"),
    ("bench", "measure throughput and latency beside the floor"),
    ("store", "make, check, repair, copy or prune the store"),
    ("shell", "a Python prompt with store, broker and timetable at hand"),
    ("test", "all checks and tests of this project"),
)


class Parser(argparse.ArgumentParser):
    """Complains in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, exit 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; a refusal is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except SchedulerError as error:
        print(f"{_program()}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough: `launch.py events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(argv: list[str]) -> int:
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb in ("-V", "--version"):
        print(f"synergy-scheduler {_version()}")
        return 0
    known = available()
    if verb not in known:
        return _unknown(verb, known)
    module = import_module(f"commands.{verb.replace('-', '_')}")
    parser = Parser(prog=f"{_program()} {verb}", description=_sentence(known[verb]), allow_abbrev=False)
    module.add_arguments(parser)
    collects = getattr(module, "UNKNOWN_ARGUMENTS", None)
    if collects is None:
        has_actions = getattr(module, "HAS_ACTIONS", False)  # argparse cannot do both
        args = (parser.parse_args if has_actions else parser.parse_intermixed_args)(argv[1:])
    else:
        args, rest = parser.parse_known_args(argv[1:])
        setattr(args, collects, rest)
    return int(module.run(args) or 0)


def available() -> dict[str, str]:
    """Verbs whose module is there, with their help."""
    return {verb: text for verb, text in VERBS if (HERE / f"{verb.replace('-', '_')}.py").exists()}


def is_answered_alone(argv: Sequence[str]) -> bool:
    """Whether `argv` needs nothing installed: help, version, and verbs that do not exist."""
    return not argv or argv[0] not in available()


def extras_of(argv: Sequence[str]) -> tuple[str, ...]:
    """The optional dependencies that this command needs."""
    if argv[:1] == ["test"]:
        return ("test",)
    return ("servers",) if "--servers" in argv else ()


def _unknown(verb: str, known: dict[str, str]) -> int:
    close = difflib.get_close_matches(verb, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    print(f"{_program()}: there is no command {verb!r}; {hint}there are: {', '.join(known)}", file=sys.stderr)
    return 2


def _help() -> str:
    known = available()
    width = max(map(len, known), default=0)
    lines = [f"  {verb:<{width}}  {text}" for verb, text in known.items()]
    return "\n".join(
        [
            f"usage: {_program()} COMMAND [options]",
            "",
            "A scheduler for periodic data processing: one job for every process and every timeperiod.",
            "",
            *lines,
            "",
            f"{_program()} COMMAND --help says more about one. Settings: docs/settings.md",
        ]
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _program() -> str:
    """What was typed: launch.py in a clone, synergy where it is installed."""
    return "synergy" if Path(sys.argv[0]).name in ("synergy", "__main__.py") else "launch.py"


def _version() -> str:
    pyproject = HERE.parent / "pyproject.toml"
    if pyproject.exists():
        import tomllib

        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])
    from importlib.metadata import version

    return version("synergy-scheduler")
