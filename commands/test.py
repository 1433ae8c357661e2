"""`launch.py test`: format, lint, types, then all tests. The same here, in CI, and before every commit.

What a test needs and is not there is installed, where that is allowed (`needs`), or said before the first test, in one
table with the command that gets it; nothing is left out silently. The last line is pytest's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands import needs

if TYPE_CHECKING:
    from scripts.servers import Need

ROOT = Path(__file__).resolve().parent.parent
UNKNOWN_ARGUMENTS = "pytest_arguments"
MISSING = 2
TESTED = ("mongod", "rabbitmq", "postgres", "mariadb", "redis")  # the servers that tests use
SERVER_FOLDERS = ("conformance", "integration", "simulation")  # where the tests with the mark `servers` are
CHECKS = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
)
WATCHED = ("-s", "--pdb", "--trace")  # of pytest's options: they need its terminal
# of our variables; the others would change what tests see
KEPT = frozenset({"SYNERGY_VENV", "SYNERGY_EXTRAS"})
KEPT_PREFIX = "SYNERGY_TEST_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Ours; the rest goes to pytest."""
    parser.epilog = "All other arguments go to pytest: -k NAME, -x, a file, a folder …"
    parser.add_argument("--fast", action="store_true", help="only the checks and tests/unit")
    parser.add_argument("--no-servers", action="store_true", help="leave out what needs a database or broker")
    parser.add_argument("--no-browser", action="store_true", help="leave out what needs Chromium")


def run(args: argparse.Namespace) -> int:
    """Check, then test. Returns 0 only if everything passed; 2 if something needed is not there."""
    rest: list[str] = list(args.pytest_arguments)
    servers = _needed_servers(args, rest)
    missing = needs.get_servers(servers)
    if servers and (openssl := needs.get_openssl()):
        missing.append(openssl)
    if _needs_browser(args.fast, args.no_browser, rest) and (chromium := needs.get_chromium()):
        missing.append(chromium)
    if missing:
        _print_table(
            ("needed", "why", "how to get it"), [(one.what, one.why, one.command) for one in missing]
        )
        if any(one.what != "Chromium" for one in missing):
            print("Or leave out what needs servers: ./launch.py test --no-servers", flush=True)
        return MISSING
    if args.no_browser:
        print("Without a browser: the tests of the dashboard in Chromium are left out.")
    if args.no_servers:
        print("Without servers: the tests with RabbitMQ, MongoDB, PostgreSQL and MariaDB are left out.")
    passed = _check()
    without = [
        name for name, wanted in (("servers", args.no_servers), ("browser", args.no_browser)) if wanted
    ]
    command = [sys.executable, "-m", "pytest", *_processes(rest), *_selected(rest, without)]
    if args.no_browser:
        command.append("--ignore=tests/browser")
    if args.fast:
        command.append("tests/unit")
    code = subprocess.run(command, cwd=ROOT, env=_environment()).returncode
    return code or (0 if passed else 1)


def _check() -> bool:
    """Run the checks; what a failed one says comes first, then the table."""
    rows = []
    for name, command in CHECKS:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=_environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            print(done.stdout + done.stderr, flush=True)
        verdict = "ok" if done.returncode == 0 else "FAILED"
        rows.append((name, " ".join(command), verdict, f"{time.monotonic() - began:.1f} s"))
    _print_table(("check", "command", "result", "time"), rows)
    return all(row[2] == "ok" for row in rows)


def _processes(rest: Sequence[str]) -> list[str]:
    """Two processes for a whole run, each with the next test when it is free; one for what somebody looks at."""
    looks_at = any(text in WATCHED or not text.startswith("-") for text in rest)
    return [] if looks_at or (os.cpu_count() or 1) < 2 else ["-n", "2", "--maxschedchunk", "1"]


def _selected(rest: list[str], without: list[str]) -> list[str]:
    """pytest's arguments, with the marks in `without` left out on top of the user's own -m."""
    if not without:
        return rest
    expression = " and ".join(f"not {name}" for name in without)
    if "-m" in rest[:-1]:
        place = rest.index("-m") + 1
        return [*rest[:place], f"({rest[place]}) and {expression}", *rest[place + 1 :]]
    return [*rest, "-m", expression]


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SYNERGY_") or name in KEPT or name.startswith(KEPT_PREFIX)
    }


# -- what tests need --------------------------------------------------------------------------------------


def _needs_browser(fast: bool, no_browser: bool, rest: Sequence[str]) -> bool:
    if fast or no_browser or not any((ROOT / "tests" / "browser").glob("test_*.py")):
        return False
    return _takes(rest, ("browser",))


def _needed_servers(args: argparse.Namespace, rest: Sequence[str]) -> list[Need]:
    """The servers that tests of this run want; none where only tests are named that use none."""
    from scripts.servers import NEEDS

    if args.fast or args.no_servers or not _takes(rest, SERVER_FOLDERS):
        return []
    return [need for need in NEEDS if need.name in TESTED]


def _takes(rest: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether pytest's arguments leave any of these folders of tests/ in."""
    paths = [text for text in rest if (ROOT / text.partition("::")[0]).exists()]
    whole = any(text.rstrip("/") in ("tests", ".") for text in paths)
    return not paths or whole or any(folder in text for text in paths for folder in folders)


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, tuple("-" * width for width in widths), *rows):
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(),
            flush=True,
        )
    print(flush=True)
