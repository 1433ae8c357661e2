"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.worker_rig import MakeRig, Rig


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """Makes rigs in the folder of the test, and closes them at its end."""
    rigs: list[Rig] = []

    def make(context: str, code: str = "") -> Rig:
        rigs.append(Rig(tmp_path, context, code))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
