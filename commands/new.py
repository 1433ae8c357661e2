"""`new FOLDER`: a small project of the user's own, that runs as it is: two workers, a tree, settings, a test."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

from scheduler.core.errors import ConfigError, Refused
from settings import ROOT

CONTEXT = '''\
"""What runs, and when: an hourly process, and a daily one that stands on its hours."""

from synergy import Retry, managed, tree

synergy_start_timeperiod = "$start"  # the first hour there is

process_context = [
    managed(
        "meter_hourly",
        "workers:read_meter",
        "hourly",
        trigger="every 60",
        max_active=4,
        lag_s=60,
        retry=Retry(max_retries=3, delay_s=5),
        description="Reads the meter of an hour.",
    ),
    managed(
        "meter_daily",
        "workers:add_up",
        "daily",
        blocking="children",
        description="Adds up the hours of a day.",
    ),
]

timetable_context = [tree("meter", ["meter_hourly", "meter_daily"], title="The meter")]
'''

WORKERS = '''\
"""The work itself: plain functions that get one unit of work.

Each writes one file for its period, whole or not at all, so that running it again replaces what was there.
"""

import json
import os
import random
from datetime import timedelta
from pathlib import Path

from synergy import Noop

DATA = Path(__file__).resolve().parent / "data"


def file_of(process, start):
    return DATA / process / f"{start:%Y%m%d%H}.json"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    half.write_text(json.dumps(value))
    half.replace(path)


def read_meter(task):
    """One hour. Replace this by whatever reads your source between task.start and task.end."""
    used = random.Random(task.timeperiod).randint(10, 99)
    write(file_of("meter_hourly", task.start), {"used": used})
    print(f"read {used} units for {task.timeperiod}")  # is shown as the job's log
    return {"used": used}


def add_up(task):
    """One day: the sum of its hours, which are all finished when this is called."""
    hours = [task.start + timedelta(hours=n) for n in range(24)]
    files = [file_of("meter_hourly", hour) for hour in hours]
    values = [json.loads(path.read_text())["used"] for path in files if path.exists()]
    if not values:
        raise Noop("no hour of this day was read")
    write(file_of("meter_daily", task.start), {"used": sum(values), "hours": len(values)})
    return {"used": sum(values), "hours": len(values)}
'''

SETTINGS = """\
# Settings of this project; docs/settings.md lists them all. The environment (SYNERGY_<NAME>) wins over this file.
context = "."
# mx_port = 5000          # the dashboard
# state_folder = ".synergy"
"""

TEST = '''\
"""Try the workers without a scheduler: a worker is a function, and a task is a value."""

import sys
import tempfile
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.append($root)  # where Synergy Scheduler lies, if it is not installed

import workers  # noqa: E402
from synergy import Noop, Task  # noqa: E402

DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


def task(process, start, hours):
    end = start + timedelta(hours=hours)
    return Task(process=process, timeperiod=f"{start:%Y%m%d%H}", start=start, end=end)


class TheMeter(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, workers, "DATA", workers.DATA)
        workers.DATA = Path(folder.name)

    def test_a_day_is_the_sum_of_its_hours(self):
        hours = [workers.read_meter(task("meter_hourly", DAY + timedelta(hours=n), 1)) for n in range(24)]
        day = workers.add_up(task("meter_daily", DAY, 24))
        self.assertEqual(day, {"used": sum(hour["used"] for hour in hours), "hours": 24})

    def test_reading_an_hour_again_gives_the_same(self):
        hour = task("meter_hourly", DAY, 1)
        self.assertEqual(workers.read_meter(hour), workers.read_meter(hour))

    def test_a_day_without_hours_has_nothing_to_do(self):
        with self.assertRaises(Noop):
            workers.add_up(task("meter_daily", DAY, 24))


if __name__ == "__main__":
    unittest.main()
'''

README = """\
# $title

A project for Synergy Scheduler: `meter_hourly` reads a meter for every hour, `meter_daily` adds up the hours of a day.

| file | what it is |
|---|---|
| `process_context.py` | what runs, and when |
| `workers.py` | the work itself |
| `test_workers.py` | the workers, tried without a scheduler |
| `synergy.toml` | settings |

```
$launch check --context $folder
$launch start --context $folder
$launch status --context $folder
$launch stop --context $folder
```

`start` prints where the dashboard is. In this folder `--context` can be left out. After a change of
`process_context.py` or `workers.py`: `reload`.

The test: `$python -m unittest -b` in this folder.
"""

FILES = {
    "process_context.py": CONTEXT,
    "workers.py": WORKERS,
    "synergy.toml": SETTINGS,
    "test_workers.py": TEST,
    "README.md": README,
    ".gitignore": ".synergy/\ndata/\n__pycache__/\n",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`FOLDER`."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to; it is made, or must be empty")


def run(args: argparse.Namespace) -> int:
    """Write the project. Raises Refused for a folder with something in it, ConfigError if it cannot be written."""
    folder: Path = args.folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} is there and not empty; name a new folder")
    launch = _quoted(str(ROOT / "launch.py")) if (ROOT / "launch.py").exists() else "synergy"
    yesterday = datetime.now(UTC) - timedelta(days=1)
    values = {
        "start": f"{yesterday:%Y%m%d}00",
        "title": folder.name,
        "folder": _quoted(str(folder)),
        "launch": launch,
        "python": _quoted(sys.executable),
        "root": repr(str(ROOT)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(Template(text).substitute(values), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    print(f"wrote {', '.join(FILES)} in {folder}")
    print(f"next: {launch} start --context {values['folder']}")
    return 0


def _quoted(path: str) -> str:
    """As a shell wants it."""
    return path if re.fullmatch(r"[\w./+-]+", path) else "'" + path.replace("'", "'\\''") + "'"
