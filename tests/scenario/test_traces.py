"""Each scenario of `traces/` is played, and what happens must be what stands there (see `trace`).

`pytest tests/scenario/test_traces.py --rewrite` writes down what happens now: read the difference before it is kept.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario.trace import files, played


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_trace(path: Path, request: pytest.FixtureRequest) -> None:
    told = path.read_text(encoding="utf-8")
    found = played(told).rstrip("\n") + "\n"
    if request.config.getoption("--rewrite"):
        path.write_text(found, encoding="utf-8")
        return
    assert found == told


def test_there_are_traces() -> None:
    assert len(files()) >= 10
