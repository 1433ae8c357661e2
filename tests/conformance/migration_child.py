"""Processes that migrate a store: `python migration_child.py pause|upgrade <url> …`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

from commands.upgrade import upgrade
from db import open_store
from db.migrations import Migratable
from scheduler.core.errors import Refused
from tests.conformance.store_child import RealClock
from tests.conformance.test_store_migration import NEXT


def pause(store: Migratable, moves: str) -> None:
    """Stop in the middle, after so many moves, and wait to be killed."""
    left = int(moves)

    def tick(_what: str, _rows: int) -> None:
        nonlocal left
        if left == 0:
            print("paused", flush=True)
            time.sleep(600)
        left -= 1

    store.migrate(NEXT, tick)


def whole(store: Migratable, folder: str) -> None:
    """All of it."""
    try:
        done = upgrade(
            store,
            RealClock(),
            steps=NEXT,
            folder=Path(folder),
            holder=f"store@{id(store)}",
            shown="it",
            progress=lambda _what, _rows: None,
        )
        print("nothing" if done is None else "migrated", flush=True)
    except Refused:
        print("refused", flush=True)


if __name__ == "__main__":
    program, url, word = sys.argv[1:]
    opened = cast("Migratable", open_store(url, clock=RealClock()))
    (pause if program == "pause" else whole)(opened, word)
    opened.close()
