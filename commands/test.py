"""`launch.py test`: format, lint, types, then all tests. The same here, in CI, and before every commit.

What a test needs and is not there is said before the first test, in one table with the command that gets it; nothing
is left out silently. The last line is pytest's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNKNOWN_ARGUMENTS = "pytest_arguments"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHECKS = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
)
KEPT = frozenset(
    {"SYNERGY_VENV", "SYNERGY_EXTRAS"}
)  # of our variables; the others would change what tests see


@dataclass(frozen=True, slots=True)
class Missing:
    """Something the tests need: what, why, and the command that gets it."""

    what: str
    why: str
    command: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Ours; the rest goes to pytest."""
    parser.epilog = "All other arguments go to pytest: -k NAME, -x, a file, a folder …"
    parser.add_argument("--fast", action="store_true", help="only the checks and tests/unit")
    parser.add_argument("--no-servers", action="store_true", help="leave out what needs a database or broker")
    parser.add_argument("--no-browser", action="store_true", help="leave out what needs Chromium")


def run(args: argparse.Namespace) -> int:
    """Check, then test. Returns 0 only if everything passed; 2 if something needed is not there."""
    rest: list[str] = list(args.pytest_arguments)
    if _needs_browser(args.fast, args.no_browser, rest):
        missing = _get_chromium()
        if missing is not None:
            _print_table(("needed", "why", "how to get it"), [(missing.what, missing.why, missing.command)])
            return 2
    if args.no_browser:
        print("Without a browser: the tests of the dashboard in Chromium are left out.")
    if args.no_servers:
        print("Without servers: the tests with RabbitMQ, MongoDB, PostgreSQL and MariaDB are left out.")
    passed = _check()
    without = [
        name for name, wanted in (("servers", args.no_servers), ("browser", args.no_browser)) if wanted
    ]
    command = [sys.executable, "-m", "pytest", *_selected(rest, without)]
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
        name: value for name, value in os.environ.items() if not name.startswith("SYNERGY_") or name in KEPT
    }


# -- what tests need --------------------------------------------------------------------------------------


def _needs_browser(fast: bool, no_browser: bool, rest: Sequence[str]) -> bool:
    if fast or no_browser or not any((ROOT / "tests" / "browser").glob("test_*.py")):
        return False
    paths = [text for text in rest if (ROOT / text.partition("::")[0]).exists()]
    return not paths or any("browser" in text or text.rstrip("/") in ("tests", ".") for text in paths)


def _get_chromium() -> Missing | None:
    """Find Chromium or install it; what is missing if neither works."""
    if any(shutil.which(name) for name in CHROMIUM):
        return None
    why = "the tests of the dashboard in tests/browser"
    as_root = _as_root()
    if as_root is not None and shutil.which("apt-get"):
        print("Installing Chromium for the browser tests (apt-get install chromium) …", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(
                [*as_root, "apt-get", "-qq", *step],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        if any(shutil.which(name) for name in CHROMIUM):
            return None
    return Missing("Chromium", why, "apt install chromium, or leave them out: ./launch.py test --no-browser")


def _as_root() -> list[str] | None:
    """What to put before a command that only root may run; None if we may not."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n"]
    return None


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, tuple("-" * width for width in widths), *rows):
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(),
            flush=True,
        )
    print(flush=True)
