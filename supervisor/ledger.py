"""What a supervisor writes to the store, and what it reads there: the rows of its box, its events, its obituaries.

It must not decide. Everything to be written is kept until the store took it: an outage delays, and loses
nothing (except events beyond `KEPT_EVENTS`, which are counted). Rows are written when they change.

Events stand under the source `box:<id>`, numbered without gaps; their only writer is this box's supervisor.
Numbers are given when they are written, so what waits in an outage has none yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.core.command import Command
from scheduler.core.errors import BrokerUnavailable, Conflict, StoreUnavailable
from scheduler.core.event import Event
from scheduler.core.ports import REPORT_QUEUE, Broker, Change, Clock, Store, Where
from scheduler.core.records import LEADER, BoxProcess, Lease
from supervisor.roster import SUPERVISOR, Registered

KEPT_EVENTS = 1000

logger = logging.getLogger("supervisor")


@dataclass(frozen=True, slots=True)
class _Draft:
    """An event that has no number yet."""

    kind: str
    process: str | None
    severity: str
    message: str
    data: dict[str, Any] | None
    at: datetime
    business_at: datetime


def row_id(box: str, name: str) -> str:
    """The key of a process's row."""
    return f"{box}/{name}"


def owner_of(box: str, name: str, instance: str) -> str:
    """Under which name one run of a process owns leases. Never used again by a later run."""
    return f"{box}/{name}/{instance}"


class Ledger:
    """The store's side of one supervisor. Used by one thread."""

    def __init__(
        self,
        box: str,
        store: Store,
        broker: Broker,
        clock: Clock,
        speak: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """`speak` is given each event that was written: whoever makes log lines of them."""
        self.box, self._store, self._broker, self._clock, self._speak = box, store, broker, clock, speak
        self.source = f"box:{box}"
        self._seq: int | None = None
        self._changes: dict[str, dict[str, Any]] = {}
        self._inserts: dict[str, BoxProcess] = {}
        self._deletes: set[str] = set()
        self._done_restarts: set[str] = set()
        self._events: list[_Draft] = []
        self._dropped = 0
        self._dead: dict[str, str] = {}  # owner -> why
        self._is_down = False

    # -- reading ----------------------------------------------------------------------------------

    def rows(self) -> dict[str, BoxProcess]:
        """The rows of this box by name, without what waits to be written. Raises StoreUnavailable."""
        return {row.name: row for row in self._store.find(BoxProcess, [Where("box", "=", self.box)])}

    def leader(self) -> Lease | None:
        """The lease of the leading scheduler. Raises StoreUnavailable."""
        return self._store.get(Lease, LEADER)

    def now(self) -> datetime:
        """Real time, for what is shown to people."""
        return self._clock.real()

    # -- what is to be written ------------------------------------------------------------------------

    def register(self, items: Iterable[Registered], rows: Mapping[str, BoxProcess]) -> None:
        """Make rows for processes that have none."""
        for item in items:
            if item.name not in rows:
                key = row_id(self.box, item.name)
                desired = "on" if item.is_on else "off"
                self._inserts[key] = BoxProcess(
                    id=key, box=self.box, name=item.name, kind=item.kind, desired=desired, since=self.now()
                )

    def set(self, name: str, **fields: Any) -> None:
        """Change fields of a row."""
        self._changes.setdefault(row_id(self.box, name), {}).update(fields)

    def restarted(self, name: str) -> None:
        """The restart that was asked for is carried out."""
        self._done_restarts.add(row_id(self.box, name))

    def forget(self, name: str) -> None:
        """Remove the row of a process that is not registered any more."""
        self._deletes.add(row_id(self.box, name))

    def emit(
        self,
        kind: str,
        message: str,
        *,
        process: str | None = None,
        severity: str = "info",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Append an event."""
        if len(self._events) >= KEPT_EVENTS:
            self._events.pop(0)
            self._dropped += 1
        self._events.append(
            _Draft(kind, process, severity, message, data, self._clock.real(), self._clock.business())
        )

    def worker_died(self, owner: str, why: str) -> None:
        """Tell the leader that what `owner` held is free: nobody needs to wait for its leases."""
        self._dead[owner] = why

    # -- writing --------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Write all that waits, in one transaction; False if the store cannot be reached now."""
        waits = (
            self._changes
            or self._inserts
            or self._deletes
            or self._events
            or self._dead
            or self._done_restarts
        )
        if not waits:
            return True
        try:
            written = self._write()
        except Conflict:  # somebody wrote under our source: number anew
            self._seq = None
            return False
        except StoreUnavailable as error:
            if not self._is_down:
                logger.warning(
                    "%s; processes are watched on, rows and events are written when it is back", error
                )
            self._is_down, self._seq = True, None  # the outcome may be unknown: read the last number again
            return False
        self._is_down = False
        self._changes, self._inserts, self._deletes, self._done_restarts = {}, {}, set(), set()
        self._events, self._dropped = [], 0
        for event in written:
            self._speak(event)
        if self._dead:
            self._dead = {}
            self._nudge()
        return True

    def _write(self) -> list[Event]:
        if self._seq is None:
            last = self._store.find(Event, [Where("source", "=", self.source)], ["-seq"], 1)
            self._seq = last[0].seq if last else 0
        events = [self._event(self._seq + n, draft) for n, draft in enumerate(self._events, 1)]
        now = self._store.now()
        changes = [Change(BoxProcess, key, {}, fields) for key, fields in self._changes.items()]
        restarts = [
            Change(BoxProcess, key, {"desired": "restart"}, {"desired": "on"}) for key in self._done_restarts
        ]
        deaths = [self._obituary(owner, why, now) for owner, why in self._dead.items()]
        with self._store.transaction() as transaction:
            transaction.insert([*self._inserts.values(), *deaths], ignore=True)
            transaction.update([*changes, *restarts])
            for key in self._deletes:
                transaction.delete(BoxProcess, [Where("id", "=", key)])
            transaction.insert(events)
        self._seq += len(events)
        return events

    def _event(self, seq: int, draft: _Draft) -> Event:
        return Event(
            source=self.source,
            seq=seq,
            at=draft.at,
            business_at=draft.business_at,
            kind=draft.kind,
            process=draft.process,
            actor=self.source,
            severity=draft.severity,
            message=draft.message,
            data=draft.data,
        )

    def _obituary(self, owner: str, why: str, now: datetime) -> Command:
        return Command(
            id=f"worker_died:{owner}",
            verb="worker_died",
            target={"owner": owner, "box": self.box},
            actor=self.source,
            reason=why,
            submitted_at=now,
        )

    def _nudge(self) -> None:
        try:
            self._broker.nudge(REPORT_QUEUE)
        except BrokerUnavailable as error:
            logger.info("the leader was not woken (%s); it finds the command by itself", error)


def own_row(box: str, pid: int, started: float, now: datetime, data: dict[str, Any]) -> BoxProcess:
    """The row of the supervisor itself."""
    return BoxProcess(
        id=row_id(box, SUPERVISOR),
        box=box,
        name=SUPERVISOR,
        kind=SUPERVISOR,
        state="RUNNING",
        pid=pid,
        pid_started=started,
        since=now,
        seen_at=now,
        data=data,
    )
