"""`start` with a store or broker that is away."""

from __future__ import annotations

import pytest

from commands.start import WAIT_S, wait_for_servers
from scheduler.core.errors import BrokerUnavailable, ConfigError, StoreUnavailable


class Servers:
    """Store and broker, which answer after a number of tries."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.slept = [*errors], list[float]()

    def connect(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def test_servers_that_are_away_are_waited_for_in_few_words(capsys: pytest.CaptureFixture[str]) -> None:
    servers = Servers(*[StoreUnavailable("store x: nobody there")] * 9, BrokerUnavailable("broker y: no"))
    wait_for_servers(servers.connect, True, servers.slept.append)
    assert servers.slept[:3] == [WAIT_S[0], WAIT_S[0] * 2, WAIT_S[0] * 4]
    assert servers.slept[-1] == WAIT_S[1] and len(servers.slept) == 10
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == ["store x: nobody there", "broker y: no"]


def test_nobody_waits_who_is_told_not_to_nor_for_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for error, waits in ((StoreUnavailable("away"), False), (ConfigError("a standalone"), True)):
        servers = Servers(error)
        with pytest.raises(type(error)):
            wait_for_servers(servers.connect, waits, servers.slept.append)
        assert servers.slept == []
    assert capsys.readouterr().err == ""
