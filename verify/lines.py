"""Which test executes which line of the files with guards: recorded once, with nothing removed.

A mutant of a line is noticed by a test only if the test executes the line; the hunt runs those, the quickest first.
A plugin of pytest that traces lines in all threads; it must not change what a test does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOUND = (
    "tests/scenario/test_*.py",
    "tests/unit/test_[lpw]*.py",
    "tests/conformance/test_store_[rtw]*.py",
)
NOT = (
    "test_chains.py",
    "test_worker_daemon.py",
    "test_worker_child.py",
)  # long, or with processes of their own
QUICK_S = 0.5
IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # by pytest.main before: it is called twice
OPTIONS = ("-q", "-p", "no:cacheprovider", "--no-header", "-m", "not servers", "-o", "timeout=60", *IMPORTED)


class Lines:
    """Seconds and executed lines, `path:line`, by test."""

    def __init__(self, paths: set[str]) -> None:
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self._paths = {str(ROOT / path): path for path in paths}
        self._now: set[tuple[str, int]] = set()

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._paths else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._now.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test with its fixtures."""
        self._now, began = set(), time.monotonic()
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            lines = sorted(f"{self._paths[path]}:{line}" for path, line in self._now)
            self.tests[item.nodeid] = (round(time.monotonic() - began, 3), lines)


def recorded(kept: Path) -> dict[str, list[str]]:
    """The tests by the line they execute, the most likely to notice first; from the file, or recorded into it now.

    That is: the quick ones, and of these whoever executes the fewest lines, for it is about them.
    """
    if not kept.exists():
        subprocess.run([sys.executable, "-m", "verify.lines", str(kept)], cwd=ROOT, check=True)
    tests: dict[str, tuple[float, list[str]]] = json.loads(kept.read_text(encoding="utf-8"))
    by_line: dict[str, list[str]] = {}
    for test in sorted(tests, key=lambda name: (tests[name][0] > QUICK_S, len(tests[name][1]))):
        for line in tests[test][1]:
            by_line.setdefault(line, []).append(test)
    return by_line


def main(kept: str) -> int:
    """Record all of it; what fails with nothing removed must not be called a killer."""
    from verify.mutants import enumerated

    lines = Lines({mutant.path for mutant in enumerated()})
    files = [str(path) for pattern in FOUND for path in sorted(ROOT.glob(pattern)) if path.name not in NOT]
    code = pytest.main([*OPTIONS, *files], plugins=[lines])
    if code == 0:
        Path(kept).write_text(json.dumps(lines.tests), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
