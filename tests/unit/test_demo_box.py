"""The supervisor of the demo, watched: which of its ends it is started again after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from commands.demo_box import SupervisedBox
from scheduler.core.errors import SchedulerError, Unavailable


class Watched(SupervisedBox):
    """One whose supervisor ended with `code`."""

    def __init__(self, code: int | None, has_ended: bool = True) -> None:
        super().__init__(cast(Any, None))
        self._child = cast(Any, SimpleNamespace(has_ended=lambda: has_ended, exit_code=code))
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def last_words(self) -> str:
        return "its last words"


def test_a_killed_one_is_started_again_and_told_of() -> None:
    box = Watched(-9)
    assert box.watch() and box.started == 1


def test_one_that_found_its_store_away_is_started_until_it_is_there() -> None:
    box = Watched(Unavailable.exit_code)
    assert not box.watch() and box.started == 1


def test_one_that_runs_is_left_alone() -> None:
    box = Watched(None, has_ended=False)
    assert not box.watch() and box.started == 0


@pytest.mark.parametrize(
    ("code", "text"), [(0, "stopped by somebody else"), (1, "exit code 1: its last words")]
)
def test_one_that_gave_up_ends_the_demo(code: int, text: str) -> None:
    box = Watched(code)
    with pytest.raises(SchedulerError, match=text):
        box.watch()
    assert box.started == 0
