"""Fixtures for all tests."""

from __future__ import annotations

from tests.servers import fresh, own_mongo_set, own_mongod, own_rabbitmq

__all__ = ["fresh", "own_mongo_set", "own_mongod", "own_rabbitmq"]
