"""Migrating a store of an older version: who may, in which order. `store migrate` and `start` do it by this.

Nobody else may be at work: no process was seen alive lately on any box, no scheduler leads, no worker holds
anything. Then we lead ourselves, so a scheduler that is started meanwhile stands by. The backup comes before the
first change; if it fails nothing was changed. A migration that was killed is repeated by whoever comes next.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scheduler.core.errors import Refused, SchedulerError

if TYPE_CHECKING:
    from commands.site import Site
    from db.migrations import Migratable, Step
    from scheduler.charge import Charge
    from scheduler.core.ports import Clock, Store

ALIVE_S = 20.0  # whoever was seen so lately may still run: supervisors are seen every few seconds
FOLDER = "backups"  # of the state folder: for what has no file of its own
TOLD_EVERY_S = 2.0
RENEW_S = 5.0
Progress = Callable[[str, int], None]

log = logging.getLogger("synergy.upgrade")


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was done."""

    old: int
    new: int
    backup: Path | None

    def line(self, shown: str) -> str:
        """For people."""
        kept = f"; as it was before: {self.backup}" if self.backup else ""
        return f"{shown}: migrated from schema version {self.old} to {self.new}{kept}"


def upgrade(
    store: Store,
    clock: Clock,
    *,
    steps: Sequence[Step],
    folder: Path,
    holder: str,
    shown: str,
    progress: Progress,
    backup: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> Upgraded | None:
    """Migrate an opened store; None if there is nothing to do. `folder` is for the backup of a server's.

    Raises Refused (somebody is at work), ConfigError (newer, or not ours), StoreUnavailable (also if the backup
    cannot be written), LeaseLost (we were stopped for so long that somebody took the lead before the first change).
    """
    from db.backup import file_of
    from db.migrations import due, judge, latest, version_of
    from scheduler import moving
    from scheduler.charge import charge

    old, new = version_of(store), latest(steps)
    if old is None or old == new:  # None: nothing was made there yet
        return None
    if old > new:
        judge(old, new, shown)
    refuse_if_alive(store)
    with charge(store, holder, monotonic) as lead:
        if version_of(store) == new:  # somebody did it between our look and our lead
            return None
        moving.refuse_if_worked_on(store, shown)
        kept = _back_up(lead, clock, due(steps, old), folder, old, progress) if backup else None
        with store.transaction(lead.lease):
            pass  # the last moment at which nothing was changed: we still lead, and for a full lease
        with (
            renewing(lead) if file_of(store) is None else nullcontext()
        ):  # in a file nobody else can write meanwhile
            cast("Migratable", store).migrate(steps, progress)
    return Upgraded(old, new, kept)


@contextmanager
def renewing(lead: Charge, every_s: float = RENEW_S) -> Iterator[None]:
    """Keep the lead while one statement takes longer than a lease: nobody may begin on half a migration."""
    ending = threading.Event()

    def renew() -> None:
        try:
            while not ending.wait(every_s):
                lead.keep()
        except SchedulerError as error:  # what was begun goes on: stopping half-way would help nobody
            log.warning("the lead was not kept during the migration: %s", error)

    thread = threading.Thread(target=renew, name="renewal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def refuse_if_alive(store: Store) -> None:
    """Raises Refused while processes of a box are seen alive: they are of the older program."""
    from scheduler.core.ports import Where
    from scheduler.core.records import BoxProcess

    up = (Where("state", "in", ("STARTING", "RUNNING", "STOPPING")), Where("seen_at", "notnull"))
    now, alive = store.now(), []
    for id_, seen in store.select(BoxProcess, ("id", "seen_at"), up, ("id",)):
        if (now - seen).total_seconds() < ALIVE_S:
            alive.append((id_, (now - seen).total_seconds()))
    if alive:
        names = ", ".join(id_ for id_, _ in alive[:3]) + (" …" if len(alive) > 3 else "")
        age = min(seen for _, seen in alive)
        raise Refused(
            f"{names} ran {age:.0f} s ago: stop every box before the store is migrated (launch.py stop);"
            f" what was killed counts as running for {ALIVE_S:.0f} s"
        )


def _back_up(
    lead: Charge, clock: Clock, steps: Sequence[Step], folder: Path, version: int, progress: Progress
) -> Path:
    from db import backup
    from db.migrations import added
    from scheduler import moving
    from scheduler.core.errors import StoreUnavailable

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")

    def tick(what: str, rows: int) -> None:
        lead.keep()
        progress(what, rows)

    file = backup.file_of(lead.store)
    if file is not None:
        target = file.with_name(f"{file.name}.v{version}-{stamp}.bak")
        backup.of_file(file, target, tick)
        return target
    target, without = folder / f"store.v{version}-{stamp}.bak", added(steps)

    def write(copy: Store) -> None:
        moving.copy(lead.store, copy, lead.keep, lambda name, rows: tick(f"backup of {name}", rows), without)
        compared = moving.compare(
            lead.store, copy, lead.keep, lambda name, rows: tick(f"comparing {name}", rows), without
        )
        wrong = [table.name for table in compared if not table.is_same]
        if wrong:
            raise StoreUnavailable(
                f"backup {target}: {', '.join(wrong)} differ from the store: somebody writes there, stop it"
            )

    backup.of_records(target, clock, version, steps, write)
    return target


def at_start(site: Site) -> None:
    """Before a box starts: migrate its store if it is older, and say so. Raises as `upgrade`, and Unavailable."""
    if not site.has_store():
        return
    from commands.store import holder, shown
    from db import migrations, open_store
    from scheduler.clock import SystemClock

    url, clock = site.settings.store_url, SystemClock(lambda: None)
    store = open_store(url, clock=clock, synchronous=site.settings.sqlite_synchronous)
    try:
        done = upgrade(
            store,
            clock,
            steps=migrations.STEPS,
            folder=site.settings.state_folder / FOLDER,
            holder=holder(),
            shown=shown(url),
            progress=Teller(lambda line: print(line, file=sys.stderr, flush=True)),
        )
        if done is not None:
            print(done.line(shown(url)), file=sys.stderr)
    finally:
        store.close()


class Teller:
    """What is done, a line now and then: for what takes long and nobody's terminal can show."""

    def __init__(
        self, tell: Callable[[str], object], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._monotonic = tell, monotonic
        self._told_at, self._rows = monotonic(), 0

    def __call__(self, what: str, rows: int) -> None:
        self._rows += rows
        if self._monotonic() >= self._told_at + TOLD_EVERY_S:
            self._told_at = self._monotonic()
            self._tell(f"migrating the store: {what}, {self._rows:,} rows so far")
