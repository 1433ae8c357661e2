"""Where our folders are found: they are flat (`scheduler`, `supervisor`, `db` …), in a clone and in the wheel.

In the wheel they lie inside this package, so that nothing of ours is at the top of site-packages, where the PyPI
packages `supervisor` and `scheduler` may be. Whoever imports `synergy` gets our folder at the *end* of `sys.path`: a
name that is also somebody else's stays theirs (`import supervisor` is PyPI's). While our own modules are imported, and
in processes that are ours altogether (`python -m synergy`, the console script), it stands *first*, as it does in a
clone, where Python puts the script's folder there. Importing this file puts it first.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = str(HERE if (HERE / "scheduler").is_dir() else HERE.parent)
WAS_THERE = ROOT in sys.path  # a clone on the path stays where it is


def put_first() -> None:
    """Ours win."""
    while ROOT in sys.path:
        sys.path.remove(ROOT)
    sys.path.insert(0, ROOT)


def put_last() -> None:
    """Everybody else's win, what is imported already excepted."""
    if not WAS_THERE:
        put_first()
        sys.path.append(sys.path.pop(0))


put_first()
