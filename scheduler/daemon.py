"""The scheduler's process: leader's loop, listener, and what happens when store or broker are away.

Several may run; one leads. A standby looks at the lease and does nothing else. The loop sleeps until
the earliest of the next due instant and one second; the tick of one second only notices clock jumps
and wake-ups that were lost.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable

from scheduler.core.errors import ConfigError, Conflict, LeaseLost, StoreUnavailable
from scheduler.core.ports import Broker, Clock, Store
from scheduler.core.records import Fact
from scheduler.core.slice import Item
from scheduler.core.timetable import Timetable
from scheduler.engine import Engine
from scheduler.eventlog import EventLog
from scheduler.listener import Listener
from scheduler.moving import SCHEMA
from scheduler.retention import Policy, prune

log = logging.getLogger(__name__)

AFTER_LEASE_S = 0.01  # a standby looks again so soon after a lease ended
BACKOFF_S = (0.1, 5.0)
GC_THRESHOLD = 20_000  # objects
LOOK_EVERY_S = 0.05  # while reports flow, the store is asked no more often what else is due
PRUNE_EVERY_S = 60.0
PRUNE_AGAIN_S = 0.05  # after a pass that was full, if nothing else is to do
# where there always is something else to do: so long after it was due, so many passes, and no longer than this
PRUNE_LATE_S = 1.0
PRUNE_LATE_PASSES = 4
PRUNE_LATE_TAKES_S = 0.02


class Daemon:
    """Runs one engine until told to stop. `run` blocks; `stop` and `reload` may come from any thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        tick_s: float = 1.0,
        look_every_s: float = LOOK_EVERY_S,
        load_timetable: Callable[[], Timetable] | None = None,
        reload: threading.Event | None = None,
        retention: Policy | None = None,
    ) -> None:
        self.engine = engine
        self.retention = retention  # None: nothing is pruned
        self._prune_at = 0.0  # monotonic
        self._prunes_on = False  # the last pass was full
        self.tick_s = tick_s
        self.look_every_s = look_every_s
        self.listener = Listener(engine.broker, engine.clock)
        self._look_at = 0.0  # monotonic: when the engine is asked next what is due
        self.eventlog = EventLog()
        self._load_timetable = load_timetable
        self._stopping = threading.Event()
        self._reload = reload or threading.Event()
        self.leading = threading.Event()
        self._schema: Fact | None = None  # of the store, as it was when we began

    def stop(self) -> None:
        """End the loop after the current turn; the lease is handed over at once."""
        self._stopping.set()
        self.listener.wake()

    def reload(self) -> None:
        """Load the context anew before the next turn."""
        self._reload.set()
        self.listener.wake()

    def run(self) -> None:
        """Lead when the lease is free, until `stop`. Raises ConfigError if the context cannot be in force."""
        delay = BACKOFF_S[0]
        away = False
        try:
            while not self._stopping.is_set():
                try:
                    self._step()
                    if away:
                        log.info("the store is back")
                    delay, away = BACKOFF_S[0], False
                except StoreUnavailable as error:
                    self.engine.outage()
                    if not away:
                        log.warning("the store is away: %s", error)
                        away = True
                    self._stopping.wait(delay)
                    delay = min(delay * 2, BACKOFF_S[1])
                except LeaseLost:
                    log.warning("another scheduler leads now; standing by")
                    self._stand_by()
        finally:
            self.listener.stop()
            self.leading.clear()
            self._hand_over()

    def _step(self) -> None:
        engine = self.engine
        if self._schema is None:
            self._schema = engine.store.get(Fact, SCHEMA)
        if not engine.lead():
            self._stand_by()
            self._stopping.wait(min(self.tick_s, engine.leader_lease_s / 4, engine.free_in_s + AFTER_LEASE_S))
            return
        if not self.leading.is_set():
            self._refuse_if_migrated()
            log.info("leading as %s", engine.holder)
            self.leading.set()
            self._look_at = 0.0
            self.listener.start()
        try:
            items = self._inputs()
        except Conflict:  # somebody else wrote, and leads perhaps: the next round reads anew, and sees
            return
        if items:
            report = engine.turn(items)
            self.eventlog.write(report.events)
            self._prune_under_load()
        else:
            self._prune()
            engine.keep_lease()
        engine.outbox.flush()

    def _refuse_if_migrated(self) -> None:
        """A newer program migrated the store while we stood by: it is not for us any more. Raises ConfigError."""
        schema = self.engine.store.get(Fact, SCHEMA)
        if schema is not None and schema != self._schema:
            raise ConfigError(
                f"the store was migrated to schema version {schema.value.get('version')} while this scheduler stood by:"
                " restart it, with the program that did it"
            )

    def _prune(self) -> None:
        """One pass of retention, in a round in which there was nothing else to do."""
        engine, now = self.engine, self.engine.clock.monotonic()
        if self.retention is None or now < self._prune_at:
            return
        try:
            pruned = prune(engine.store, engine.lease, engine.clock, self.retention)
        except LeaseLost:
            engine.lease = None
            raise
        self._prunes_on = pruned.more
        self._prune_at = now if pruned.more else now + PRUNE_EVERY_S
        log.debug("retention: %s", pruned)

    def _prune_under_load(self) -> None:
        """No round was idle for long: a few passes all the same, each in its own transaction, 2 % of the time."""
        clock = self.engine.clock
        begin = clock.monotonic()
        if begin < self._prune_at + PRUNE_LATE_S:
            return
        for _ in range(PRUNE_LATE_PASSES):
            self._prune()
            if not self._prunes_on or clock.monotonic() >= begin + PRUNE_LATE_TAKES_S:
                return

    def _inputs(self) -> list[Item]:
        """What is due, and what was reported; sleeps if there is neither.

        After a turn, and when the sleep ended without a report (it was over, or somebody nudged the leader), the
        store is asked what is due; not more often while reports flow.
        """
        engine, clock = self.engine, self.engine.clock
        items = self._reloaded()
        now = clock.monotonic()
        if now >= self._look_at:
            items += engine.due()
            self._look_at = now + (self.look_every_s if items else engine.sleep_s(self.tick_s))
        else:
            items += engine.left()
        longest_s = PRUNE_AGAIN_S if self._prunes_on else self.tick_s
        reported = self.listener.take(0.0 if items else max(0.0, min(self._look_at - now, longest_s)))
        if items or reported:
            self._look_at = min(self._look_at, clock.monotonic() + self.look_every_s)
        else:
            self._look_at = 0.0
        return items + reported

    def _reloaded(self) -> list[Item]:
        if not self._reload.is_set() or self._load_timetable is None:
            return []
        try:
            items = self.engine.reload_context(self._load_timetable())
        except ConfigError as error:
            log.error("the context was not reloaded, the old one stays in force: %s", error)
            items = []
        self._reload.clear()  # not before: if the store is away now, it is asked for still
        return items

    def _stand_by(self) -> None:
        if self.leading.is_set():
            self.leading.clear()
            self.listener.stop()

    def _hand_over(self) -> None:
        try:
            self.engine.step_down()
        except StoreUnavailable as error:
            log.warning("the lease could not be handed over, it ends by itself: %s", error)


def run(
    store: Store,
    broker: Broker,
    clock: Clock,
    timetable: Timetable,
    stopping: threading.Event,
    *,
    holder: str,
    leader_lease_s: float = 5.0,
    worker_lease_s: float = 60.0,
    sweep_s: float = 30.0,
    tick_s: float = 1.0,
    turn_limit: int = 1000,
    reload: threading.Event | None = None,
    load_timetable: Callable[[], Timetable] | None = None,
    retention: Policy | None = None,
) -> int:
    """Run a scheduler until `stopping` is set; what `process_starter.py scheduler` calls."""
    engine = Engine(
        store,
        broker,
        clock,
        timetable,
        holder=holder,
        leader_lease_s=leader_lease_s,
        worker_lease_s=worker_lease_s,
        sweep_s=sweep_s,
        turn_limit=turn_limit,
    )
    daemon = Daemon(engine, tick_s=tick_s, load_timetable=load_timetable, reload=reload, retention=retention)

    def watch() -> None:
        stopping.wait()
        daemon.stop()

    threading.Thread(target=watch, name="stop", daemon=True).start()
    gc.freeze()  # what is loaded stays; a turn makes many records and no cycles: look for those seldom
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    daemon.run()
    return 0
