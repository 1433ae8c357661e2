"""What a forked process is told when its broker cannot be made anew."""

from __future__ import annotations

import logging

import pytest

from mq import rabbit


class _Broker:
    def __init__(self, error: OSError | None) -> None:
        self.error = error
        self.is_anew = False

    def _after_fork(self) -> None:
        if self.error is not None:
            raise self.error
        self.is_anew = True


def test_a_broker_that_cannot_be_made_anew_after_a_fork_is_told_and_the_others_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = _Broker(OSError("too many open files")), _Broker(None)
    monkeypatch.setattr(rabbit, "_brokers", [broken, sound])
    with caplog.at_level(logging.ERROR, "synergy.mq"):
        rabbit._after_fork()
    assert sound.is_anew
    assert "cannot use its broker" in caplog.text
    assert "too many open files" in caplog.text
