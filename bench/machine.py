"""The machine a benchmark ran on: no number means anything without it."""

from __future__ import annotations

import os
import platform
import sqlite3
from typing import Any


def machine() -> dict[str, Any]:
    """Processors, their load over the last minute, and the versions that matter."""
    return {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release()}",
    }
