"""Fixtures for all tests."""

from __future__ import annotations

import pytest

from tests.servers import fresh, own_mongo_set, own_mongod, own_rabbitmq

__all__ = ["fresh", "own_mongo_set", "own_mongod", "own_rabbitmq"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the long ones are, for whoever wants more than a test run has time for."""
    parser.addoption("--failovers", type=int, metavar="N", help="real fail-overs in a row, on every store")
