"""Fixtures of the integration tests."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.flights.landing import DATA
from tests.integration.worker_rig import MakeRig, Rig


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw rows of the flights example from 15 December on: landing all of the year takes seconds."""
    folder = tmp_path_factory.mktemp("raw")
    for name in ("flights.csv.gz", "weather.csv.gz"):
        with gzip.open(DATA / name, "rb") as file, gzip.open(folder / name, "wb", 1) as cut:
            cut.write(next(file))
            cut.writelines(line for line in file if line >= b"2013-12-15")
    return folder


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
