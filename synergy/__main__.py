"""`python -m synergy` and the console script `synergy`: the commands of `launch.py`, where the wheel is installed."""

from __future__ import annotations

import sys

from synergy import _path


def main() -> int:
    """Run one command; returns the exit code."""
    _path.put_first()
    from commands import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
