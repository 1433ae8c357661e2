"""Fixtures for all tests."""

from __future__ import annotations

import pytest

from tests.servers import fresh, own_mongo_set, own_mongod, own_rabbitmq

__all__ = ["fresh", "own_mongo_set", "own_mongod", "own_rabbitmq"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a person may want of a test: more of it than a run has time for, or its traces written anew."""
    parser.addoption("--failovers", type=int, metavar="N", help="real fail-overs in a row, on every store")
    parser.addoption("--rewrite", action="store_true", help="write the traces of tests/scenario/traces anew")
