"""The year's totals as every level of the pyramid has them, beside the count straight from the raw file.

The count is a program of its own (`count.py`), run as one: it shares no code and no table with the workers.

    python -m examples.flights.totals FOLDER [flights.csv.gz]        exit 0: all equal, 1: not
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.flights import results
from examples.flights.landing import DATA
from examples.flights.prepare import Places

LEVELS = ("flights_hourly", "flights_daily", "flights_monthly", "flights_yearly")
YEAR = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2014, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was counted, and what each level says of it."""

    counted: Mapping[str, int]
    levels: Mapping[str, Mapping[str, int]]

    @property
    def equal(self) -> bool:
        """Whether every level has exactly the totals that were counted."""
        return all(level[name] == n for level in self.levels.values() for name, n in self.counted.items())

    def differences(self) -> list[str]:
        """One line for every total that is not as counted."""
        return [
            f"{process}: {name} is {level[name]:,}, counted were {n:,} ({level[name] - n:+,})"
            for process, level in self.levels.items()
            for name, n in self.counted.items()
            if level[name] != n
        ]

    def table(self) -> Table:
        """Side by side, in 80 columns: the count, the year's result, and whether the levels below agree."""
        *below, top = self.levels
        made = Table(title="The year 2013 (UTC)", title_justify="left")
        made.add_column("total", no_wrap=True)
        made.add_column("raw file", justify="right", no_wrap=True)
        made.add_column("workers", justify="right", no_wrap=True)
        for process in below:
            made.add_column(process.removeprefix("flights_"), justify="right", no_wrap=True)
        for name, n in self.counted.items():
            cells = [self._cell(process, name, "=") for process in below]
            made.add_row(name.replace("_", " "), f"{n:,}", self._cell(top, name, f"{n:,}"), *cells)
        return made

    def _cell(self, process: str, name: str, if_equal: str) -> str:
        found = self.levels[process][name]
        return if_equal if found == self.counted[name] else f"[red]{found:,}[/red]"


def compare(results_file: Path, raw: Path = DATA / "flights.csv.gz", since: str = "2013-01-01") -> Comparison:
    """Count the raw file and read the totals of every level; `since` is the day the results begin with.

    Raises CalledProcessError if the count fails. It is out of reach of a terminal's Ctrl-C: it ends by itself.
    """
    command = [sys.executable, str(Path(__file__).with_name("count.py")), str(raw), since]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, process_group=0)
    counted = json.loads(found.stdout)
    with closing(sqlite3.connect(results_file, timeout=results.BUSY_S, isolation_level=None)) as sink:
        sink.execute("BEGIN")  # all levels from one snapshot
        levels = {process: results.totals(sink, "flights", process, *YEAR) for process in LEVELS}
    return Comparison(counted, levels)


def main(arguments: list[str]) -> int:
    """Print both and say whether they are equal, as the exit code."""
    raw = Path(arguments[1]) if len(arguments) > 1 else DATA / "flights.csv.gz"
    comparison = compare(Places(Path(arguments[0])).results, raw)
    Console().print(comparison.table())
    for line in comparison.differences():
        print(line, file=sys.stderr)
    return 0 if comparison.equal else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
