"""The engine: one turn gathers, decides and applies.

A turn takes a batch of inputs, gathers the facts they need in a few indexed reads, lets the core
decide them one after another on one overlay, saves everything in one transaction whose last write is
the leader's lease, and only then publishes. It is the only writer of jobs and processes.

If the transaction did not happen (a compare-and-set missed, the store was away, the outcome is not
known), nothing that was decided counts: what is kept between turns is read anew, and the inputs are
decided again, one a transaction.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scheduler.core.command import PENDING, Command
from scheduler.core.commands import decide_command
from scheduler.core.decide import decide
from scheduler.core.due import due_items, next_due
from scheduler.core.errors import (
    Conflict,
    LeaseLost,
    StoreUnavailable,
)
from scheduler.core.event import Event
from scheduler.core.facts import LOOK, Absent
from scheduler.core.holds import lifted
from scheduler.core.known import Known
from scheduler.core.ports import (
    Broker,
    Clock,
    Store,
    Transaction,
    Where,
)
from scheduler.core.records import LEADER, Fact, Hold, Lease, ProcessRow
from scheduler.core.registry import TRIGGERS, reconcile
from scheduler.core.slice import SOURCE, Decision, Item, Slice
from scheduler.core.timetable import Timetable
from scheduler.core.uow import Uow
from scheduler.core.wait import thaw
from scheduler.gather import Gatherer
from scheduler.lease import hand_over, is_held, take
from scheduler.outbox import Outbox

log = logging.getLogger(__name__)

BATCH = 256  # reports and due units of work in one turn
DURATIONS = 100
PUT_OFF = timedelta(seconds=1)  # before an input is decided again whose second try missed too


@dataclass(slots=True)
class TurnReport:
    """What one turn did."""

    decided: int = 0
    writes: int = 0
    messages: int = 0
    events: list[Event] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)  # for the next turn


class Engine:
    """Decides and applies. Used by one thread; every time comes from the clock it is given."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        clock: Clock,
        timetable: Timetable,
        *,
        holder: str,
        leader_lease_s: float = 5.0,
        worker_lease_s: float = 60.0,
        sweep_s: float = 30.0,
        turn_limit: int = 1000,
        window: int = LOOK,
    ) -> None:
        self.store, self.broker, self.clock = store, broker, clock
        self.holder = holder
        self.leader_lease_s, self.worker_lease_s = leader_lease_s, worker_lease_s
        self.sweep_s, self.turn_limit, self.window = sweep_s, turn_limit, window
        self.known = Known(timetable)
        self.lease: Lease | None = None
        self.free_in_s = 0.0  # when `lead` said no: how long the other's lease lasts, unless it is renewed
        self.gatherer = Gatherer(store)
        self._stale = True
        self._since: datetime | None = None  # business instant up to which due instants were looked at
        self._lost_from: datetime | None = None  # real; before it nobody is called lost
        self._next_sweep: datetime | None = None
        self._renewed: datetime | None = None
        self.outbox = Outbox(broker, clock, self._real)
        self._durations: dict[str, list[int]] = {}
        self._later: list[Item] = []
        self._put_off: list[tuple[datetime, Item]] = []  # real; conflicted again and again
        self._skew = timedelta(0)  # store's clock minus this box's
        self.turns = 0

    # -- leadership -------------------------------------------------------------------------------

    def lead(self) -> bool:
        """Take the leader's lease if it is free or ours; True while it is ours. Raises StoreUnavailable."""
        if self.lease is not None:
            return True
        now = self.store.now()
        held = self.store.get(Lease, LEADER)
        if is_held(held, now) and held.holder != self.holder:
            self.free_in_s = (held.expires_at - now).total_seconds()
            return False
        try:
            self.lease = take(self.store, held, self.holder, self.leader_lease_s, now)
        except Conflict:
            return False
        self.outbox.forget()
        self._stale = True
        self._since = None
        self._lost_from = None
        self._next_sweep = None
        return True

    def step_down(self) -> None:
        """Hand the lease over at once, on a planned stop."""
        lease, self.lease = self.lease, None
        if lease is not None:
            hand_over(self.store, lease)

    def _reload(self) -> None:
        """Read anew what is kept between turns, and bring it in line with the context."""
        known = Known(self.known.timetable)
        known.rows = {row.name: row for row in self.store.find(ProcessRow)}
        known.holds = {hold.scope: hold for hold in self.store.find(Hold)}
        last = self.store.select(Event, ("seq",), (Where("source", "=", SOURCE),), ("-seq",), 1)
        known.seq = last[0][0] if last else 0
        known.crowded = set(known.rows)  # nobody knows yet; the first look finds out
        triggers = self.store.get(Fact, TRIGGERS)
        known.triggers = dict(triggers.value) if triggers is not None else {}
        self.known = known
        self._stale = False

    def begin(self) -> list[Item]:
        """After a take-over or an outage: read anew, reconcile, and name everything for a full sweep.

        Nobody is called lost for one lease: workers that could not renew meanwhile get their chance.
        """
        self._reload()
        self._measure()
        if self._lost_from is None:
            self._lost_from = self._real() + timedelta(seconds=self.worker_lease_s)
        s = self._slice()
        items = reconcile(s)
        self._apply(s.drain())
        self._since = self.clock.business()
        items += due_items(self.known, self._since - timedelta(milliseconds=1), self._since)
        return [*items, *self.sweep_items(full=True)]

    def outage(self) -> None:
        """The store was away: read everything anew, and call nobody lost for one lease."""
        self._stale = True
        self._lost_from = None

    def trust_leases(self) -> None:
        """Leases are believed at once: for a store that was never away (a fresh start, a simulation)."""
        self._lost_from = self._real()

    def reload_context(self, timetable: Timetable) -> list[Item]:
        """Put another context in force, wholly or not at all. Raises ConfigError and changes nothing."""
        begun = self.begin() if self._stale else []  # after an outage nobody is called lost at once
        before = self.known
        self.known = Known(timetable, before.rows, before.holds, before.seq, set(before.rows))
        self.known.triggers = before.triggers
        s = self._slice()
        try:
            items = reconcile(s)
            self._apply(s.drain())
        except Exception:
            self.known = before
            self._stale = True
            raise
        return [*begun, *items, *[Item("fill", name) for name in timetable.processes]]

    # -- what is due ------------------------------------------------------------------------------

    def due(self) -> list[Item]:
        """Everything that time, the store's rows or commands put before the engine now."""
        if self._stale or self._since is None:
            return self.begin()
        now, real = self.clock.business(), self._real()
        items = self._holds_ended(real)  # before anything is called overdue
        if now > self._since:
            items += due_items(self.known, self._since, now)
            self._since = now
        pending = (Where("state", "=", PENDING), Where("status", "null"))
        commands = self.store.find(Command, pending, ("submitted_at",), BATCH)
        items += [Item("command", command) for command in commands]
        due = (Where("due_at", "<=", real),)
        items += [Item("uow", row[0]) for row in self.store.select(Uow, ("id",), due, ("due_at",), BATCH)]
        ready = [id_ for id_, at in self.known.ask_again.items() if at <= real]
        for id_ in ready:
            del self.known.ask_again[id_]
            items.append(Item("job", id_))
        if self._next_sweep is None or real >= self._next_sweep:
            items += self.sweep_items()
        self._later += [item for at, item in self._put_off if at <= real]
        self._put_off = [(at, item) for at, item in self._put_off if at > real]
        return items + self.left()

    def left(self) -> list[Item]:
        """What the last turn left for the next one."""
        later, self._later = self._later, []
        return later

    def _holds_ended(self, real: datetime) -> list[Item]:
        over = [
            hold.scope for hold in self.known.holds.values() if hold.until is not None and hold.until <= real
        ]
        if not over:
            return []
        s = self._slice()
        items: list[Item] = []
        for scope in over:
            hold = self.known.holds[scope]
            s.set_hold(scope, None)
            s.emit("hold.end", "its time was over", data={"scope": scope})
            items += self._asked(s, thaw, hold)
            items += lifted(s, scope)
        self._apply(s.drain())
        return items

    def _asked(self, s: Slice, rule: Callable[[Slice, Any], list[Item]], what: Any) -> list[Item]:
        """Apply a rule outside a turn, gathering what it finds absent."""
        while True:
            mark = s.mark()
            try:
                return rule(s, what)
            except Absent as lack:
                s.back_to(mark)
                self.gatherer.gather(s, lack.wants)

    def sweep_items(self, *, full: bool = False) -> list[Item]:
        """The safety net: what a lost message, a lost wake-up or a crash may have left lying."""
        self._measure()
        real = self._real()
        self._next_sweep = real + timedelta(seconds=self.sweep_s)
        self._save_durations()
        items = [Item("scan", name) for name in self.known.rows]
        items += [
            Item("uow", row[0])
            for row in self.store.select(Uow, ("id",), (Where("dirty", "=", True),), limit=5000)
        ]
        if full:
            unmarked = (Where("state", "=", "requested"), Where("published_at", "null"))
            items += [Item("resend", row[0]) for row in self.store.select(Uow, ("id",), unmarked, limit=5000)]
        return items

    def sleep_s(self, longest: float = 1.0) -> float:
        """Seconds until something becomes due, at most `longest`."""
        if longest <= 0:
            return 0.0
        if self._later or self._stale or self._since is None:
            return 0.0 if self._later else min(longest, 0.05)
        waits = [longest, self.leader_lease_s / 3]
        send_at = self.outbox.waits_until()
        if send_at is not None:
            waits.append(send_at - self.clock.monotonic())
        real = self.clock.real()
        instant = next_due(self.known, self._since)
        if instant is not None:
            at = self.clock.real_for(instant)
            if at is not None:
                waits.append((at - real).total_seconds())
        first = self.store.select(Uow, ("due_at",), (Where("due_at", "notnull"),), ("due_at",), 1)
        if first:
            waits.append((first[0][0] - self._real()).total_seconds())
        known = self.known
        instants = [at for at, _ in self._put_off]
        instants += [hold.until for hold in known.holds.values() if hold.until is not None]
        instants += known.ask_again.values()
        if instants:
            waits.append((min(instants) - self._real()).total_seconds())
        return max(0.0, min(waits))

    # -- a turn -----------------------------------------------------------------------------------

    def turn(self, items: Sequence[Item]) -> TurnReport:
        """Decide a batch of inputs and apply what was decided. Raises LeaseLost, StoreUnavailable."""
        assert self.lease is not None, "only the leader turns"
        self.turns += 1
        if self._stale:
            items = [*items, *self.begin()]
        try:
            return self._turn(items)
        except Conflict:
            log.debug("a compare-and-set missed; %d inputs are decided again, one by one", len(items))
        except StoreUnavailable:
            self._stale = True
            raise
        report = TurnReport()
        for item in items:
            self._again(item, report)
        if self._stale:
            self._reload()
        return report

    def _again(self, item: Item, report: TurnReport) -> None:
        """One input in a transaction of its own; a second miss leaves it to a later turn."""
        self._reload()
        if item.kind == "command":
            fresh = self.store.get(Command, item.what.id)
            if fresh is None:
                return
            item = Item("command", fresh)
        try:
            one = self._turn([item], follow=False)
        except Conflict:
            log.warning("%s %s missed twice; it is decided again later", item.kind, item.what)
            if item.kind not in ("scan", "command"):  # the sweep and the store bring these again
                self._put_off.append((self._real() + PUT_OFF, item))
            return
        except StoreUnavailable:
            self._stale = True
            raise
        report.decided += one.decided
        report.writes += one.writes
        report.messages += one.messages
        report.events += one.events

    def _real(self) -> datetime:
        """Real time on the store's clock, by which leases are kept: no box trusts its own for them."""
        return self.clock.real() + self._skew

    def _measure(self) -> None:
        """How far the store's clock is from this box's, as of now; less than a tenth of a second is none."""
        skew = self.store.now() - self.clock.real()
        self._skew = skew if abs(skew) > timedelta(seconds=0.1) else timedelta(0)

    def _slice(self) -> Slice:
        real = self._real()
        return Slice(self.known, self.clock.business(), real, lost_from=self._lost_from)

    def _turn(self, items: Sequence[Item], *, follow: bool = True) -> TurnReport:
        s = self._slice()
        report = TurnReport()
        layer = list(dict.fromkeys(items)) if all(item.kind != "command" for item in items) else list(items)
        while layer:
            room = self.turn_limit - report.decided
            if room <= 0:
                self._later += layer
                break
            layer, rest = layer[:room], layer[room:]
            report.decided += len(layer)
            layer = [*rest, *self._layer(s, layer)]
            if not follow:  # what follows has a transaction of its own
                self._later += layer
                break
        decision = s.drain()
        self.outbox.reached(items)
        report.events = decision.events
        report.writes = self._apply(decision)
        report.messages = self.outbox.send(decision.messages)
        for name, took in s.durations:
            self._durations.setdefault(name, []).append(took)
        return report

    def _layer(self, s: Slice, layer: list[Item]) -> list[Item]:
        """Decide the items of one layer; what was absent is gathered for all of them at once."""
        self.gatherer.ahead(s, layer)
        following: dict[Any, Item] = {}
        waiting = layer
        rounds = 0
        while waiting:
            rounds += 1
            assert rounds < 1000, f"facts keep being absent for {waiting[:3]}"
            absent: list[tuple[Any, ...]] = []
            again: list[Item] = []
            waits = False  # a command that lacks facts holds up those after it: their order is a promise
            for item in waiting:
                mark = s.mark()
                try:
                    found = decide_command(s, item.what) if item.kind == "command" else decide(s, item)
                except Absent as lack:
                    absent += lack.wants
                    waits = waits or item.kind == "command"
                    found = None
                if found is None or (waits and item.kind == "command"):
                    s.back_to(mark)
                    again.append(item)
                    continue
                for other in found:
                    if other.after is not None:
                        self._later.append(other)
                    else:
                        following[other] = other
            self.gatherer.gather(s, absent)
            waiting = again
        return sorted(following.values(), key=_oldest_first)

    # -- applying ---------------------------------------------------------------------------------

    def _apply(self, decision: Decision) -> int:
        """Save, all or nothing, the lease last. Raises Conflict, LeaseLost, StoreUnavailable."""
        marks = self.outbox.marks()
        if decision.is_empty() and not marks:
            self.keep_lease()
            return 0
        try:
            with self.store.transaction(self.lease) as tx:
                writes = self._write(tx, decision)
                if decision.marks or marks:
                    tx.update([*decision.marks, *marks])
        except LeaseLost:
            self.lease = None
            self._stale = True
            raise
        except Exception:
            self._stale = True
            raise
        self._renewed = self.clock.real()
        if decision.facts:  # the clock was set: its leader is the first to go by it
            self.clock.refresh()
        return writes

    def _write(self, tx: Transaction, decision: Decision) -> int:
        for scope in decision.lifted:
            tx.delete(Hold, (Where("scope", "=", scope),))
        for fact in decision.facts:
            tx.delete(type(fact), (Where("key", "=", fact.key),))
        inserts = [*decision.inserts, *decision.facts, *decision.events]
        if inserts:
            tx.insert(inserts)
        changes = [*decision.changes, *decision.commands]
        if changes and tx.update(changes) != len(changes):
            raise Conflict
        return len(inserts) + len(changes)

    def keep_lease(self) -> None:
        """Renew the lease when a third of it has passed without a commit. Raises LeaseLost."""
        real = self.clock.real()
        if self._renewed is not None and real < self._renewed + timedelta(seconds=self.leader_lease_s / 3):
            return
        try:
            with self.store.transaction(self.lease):
                pass
        except LeaseLost:
            self.lease = None
            self._stale = True
            raise
        self._renewed = real

    def _save_durations(self) -> None:
        """Keep the last executions of each process: what its usual is measured by."""
        if not self._durations or self.lease is None:
            return
        s = self._slice()
        for name, new in self._durations.items():
            row = self.known.rows.get(name)
            if row is None:
                continue
            last = [*row.durations, *new][-DURATIONS:]
            ranked = sorted(last)
            p95 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))]
            s.change_row(row, durations=last, usual_ms=int(statistics.median(ranked)), usual_p95_ms=p95)
        self._durations = {}
        self._apply(s.drain())


def _oldest_first(item: Item) -> tuple[str, str]:
    """Within a layer, the oldest period of a process goes first: free places are its."""
    return (item.kind, item.what if isinstance(item.what, str) else "")
