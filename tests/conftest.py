"""Fixtures for all tests."""

from __future__ import annotations

import pytest

from tests.servers import fresh, own_mongo_set, own_mongod, own_rabbitmq

__all__ = ["fresh", "own_mongo_set", "own_mongod", "own_rabbitmq"]

BOXES = {"browser", "integration"}  # folders: real processes, and pages in a browser
SERVERS = {"conformance"}  # folders: adapters on real servers


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a person may want of a test: more of it than a run has time for, or its traces written anew."""
    parser.addoption("--failovers", type=int, metavar="N", help="real fail-overs in a row, on every store")
    parser.addoption("--rewrite", action="store_true", help="write the traces of tests/scenario/traces anew")


@pytest.hookimpl(tryfirst=True)  # before xdist puts the group into the name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two groups, each one after another in one process: real processes; and real servers, so that one shares them."""
    for item in items:
        folders = set(item.path.relative_to(item.config.rootpath).parts)
        if folders & BOXES:
            item.add_marker(pytest.mark.xdist_group("boxes"))
        elif folders & SERVERS or item.get_closest_marker("servers"):
            item.add_marker(pytest.mark.xdist_group("servers"))
