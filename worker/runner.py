"""The worker's loop: what is accepted, executed, finished and told, as passes over store, broker and executor.

`step` is one pass and returns what it did; `renew` is one renewal of all leases. Production calls `step` in a
loop and `renew` from a thread (`leases.py`); the simulation calls both on a virtual clock, with an executor of
its own. Nothing here knows threads, processes or files.

One pass: take what ended → look again at what somebody else changed → take messages for the free slots → ONE
store transaction with all finishes, accepts, log pieces, progress and late data → start → ack → report.

Four things make it safe. An accept is a compare-and-set on (requested, version), every later write one on
(state, our token). After a miss or an error the units of work are read again: what bears our token is ours.
The lease is measured on our own clock from before it was written, and its end ends the execution. And a
message only wakes: losing or doubling it changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from scheduler.core.errors import Conflict, StoreUnavailable
from scheduler.core.lifecycle import UowState
from scheduler.core.ports import Broker, Clock, Store, Where
from scheduler.core.process import Process
from scheduler.core.uow import Uow
from worker import changes
from worker.executions import PROGRESS_EVERY_S, Execution, Executions
from worker.executor import Executor, LateData, LogText, Outcome, ProgressNote
from worker.intents import Intent, accepting, ending, is_ours, late_data, timeout_s
from worker.mailbox import Mailbox
from worker.outage import Outage

log = logging.getLogger("synergy.worker")

GATHER_S = 0.001  # for more that end, after several ended at once
BLIND_WAIT_S = 0.02  # between looks at a consumer that has no descriptor to wait on
GIVE_UP_AFTER_S = 10.0  # a drain that cannot write its releases: the leases will lapse


@dataclass(slots=True)
class Did:
    """What one pass did, as ids of units of work."""

    accepted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  # canceled ones that were let go of
    dropped: list[str] = field(default_factory=list)  # messages for nothing (doubles, or withdrawn)
    lost: list[str] = field(default_factory=list)  # executions whose lease was gone

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


class Runner:
    """One worker: consumes `queues`, executes in `executor`, writes to `store`, reports over `broker`.

    `owner` names this worker instance (its control queue is named after it); `lease_s` is how long an accept
    holds without renewal; `grace_s` how long running work may take after `drain`. All seconds. `processes` may
    be replaced while it runs (a reload).
    """

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        clock: Clock,
        executor: Executor,
        processes: Mapping[str, Process],
        queues: Sequence[str],
        owner: str,
        box: str,
        lease_s: float = 60.0,
        grace_s: float = 30.0,
        new_token: Callable[[], str] = lambda: token_hex(16),
    ) -> None:
        self.store, self.clock, self.executor = store, clock, executor
        self.processes = processes
        self.owner, self.box = owner, box
        self.lease_s, self.grace_s = lease_s, grace_s
        self.margin_s = min(3.0, lease_s * 0.1)  # to end the work in, before the lease ends
        self._new_token = new_token
        self._mail = Mailbox(broker, clock, queues, owner, executor.capacity)
        self._executions = Executions()
        self._doubtful: list[Intent] = []  # accepts whose commit has an unknown outcome
        self._look_again: set[str] = set()
        self._outage = Outage("store")
        self._drain = False
        self._drain_hard = False
        self._drain_ends: float | None = None

    # ------------------------------------------------------------------ what others call

    @property
    def is_done(self) -> bool:
        """Drained: nothing runs, and all that could be written is."""
        if self._drain_ends is None:
            return False
        if not len(self._executions) and not self._doubtful:
            return not self._mail.has_reports or self._mail.outage.since is not None
        given_up = self.clock.monotonic() > self._drain_ends + GIVE_UP_AFTER_S
        return given_up and not self._executions.running()

    @property
    def running(self) -> list[str]:
        """The units of work whose code runs now."""
        return [execution.uow.id for execution in self._executions.running()]

    def drain(self, *, now: bool = False) -> None:
        """Accept nothing any more; running work gets `grace_s`, or (`now`) nothing, and is then released.

        May be called from a signal handler and more than once.
        """
        self._drain = True
        self._drain_hard = self._drain_hard or now
        self.executor.wake()

    def close(self) -> None:
        """Give back what was not accepted. Store, broker and executor belong to the caller."""
        self._mail.close()

    # ------------------------------------------------------------------ one pass

    def step(self, timeout_s: float) -> Did:
        """One pass; waits `timeout_s` at most for something to do. Outages are kept, never raised."""
        did = Did()
        descriptors, _ = self._mail.descriptors(self._free() > 0)
        outcomes = self.executor.poll(self._patience(timeout_s), descriptors)
        if len(outcomes) > 1:  # short work in many slots: who ends within the same breath shares the commit
            outcomes += self.executor.poll(GATHER_S, descriptors)
        self._take_outcomes(outcomes)
        self._enforce(did)
        self._look_again.update(self._mail.control(self.executor.is_ready))
        if not self._outage.is_open(self.clock.monotonic()):
            try:
                self._mail.receive(self._free())
                self._settle_doubts(did)
                self._reconcile(did)
                self._commit(did)
                self._outage.answered(self.clock.monotonic())
            except (StoreUnavailable, Conflict) as error:  # Conflict: another wrote the same for too long
                self._outage.failed(error, self.clock.monotonic())
        self._mail.send()
        if did.accepted:  # acks that a broker keeps until the next look are written while the work runs
            self._mail.receive(self._free())
        return did

    def renew(self) -> int:
        """Prolong all leases in one transaction; how many. Raises StoreUnavailable.

        Whatever was missed is looked at again by the next pass, which is woken.
        """
        held = [e for e in self._executions.running() if e.stop is None]
        if not held:
            return 0
        asked = self.clock.monotonic()
        now = self.store.now()
        with self.store.transaction() as transaction:
            hits = transaction.update([changes.renew(e.uow, now=now, lease_s=self.lease_s) for e in held])
        if hits < len(held):
            found = self._read(e.uow.id for e in held)
            missed = [e for e in held if not is_ours(e, found.get(e.uow.id))]
            held = [e for e in held if e not in missed]
            self._look_again.update(e.uow.id for e in missed)
            self.executor.wake()
        for execution in held:
            execution.lease_ends = max(execution.lease_ends, asked + self.lease_s - self.margin_s)
            self._tell_lease(execution)
        return len(held)

    # ------------------------------------------------------------------ waiting

    def _patience(self, timeout_s: float) -> float:
        """How long this pass may wait: until the next thing that has a time."""
        now = self.clock.monotonic()
        if self._look_again or (self._drain and self._drain_ends is None):
            return 0.0
        until = [now + timeout_s]
        for execution in self._executions.all():
            if execution.is_running:
                if execution.stop is None:
                    until.append(execution.lease_ends)
                    until += [] if execution.times_out is None else [execution.times_out]
                until += [execution.progress_after] if execution.progress else []
            elif self._outage.since is None:
                return 0.0  # something waits to be written
        if self._mail.waiting and self._outage.since is None and self._slots() > 0:
            return 0.0
        until += [o.again_at for o in (self._outage, self._mail.outage) if o.since is not None]
        if self._drain_ends is not None:
            until.append(max(self._drain_ends, now + 0.05))
        if self._mail.descriptors(self._free() > 0)[1]:
            until.append(now + BLIND_WAIT_S)
        return max(0.0, min(until) - now)

    def _slots(self) -> int:
        """How many executions could be started now."""
        return 0 if self._drain else self.executor.capacity - len(self._executions.running())

    def _free(self) -> int:
        """How many messages to take: for the slots that no message waits for yet."""
        return self._slots() - len(self._mail.waiting)

    # ------------------------------------------------------------------ what ended, what must end

    def _take_outcomes(self, outcomes: list[Outcome]) -> None:
        for note in self.executor.notes():
            execution = self._executions.get(note.token)
            if execution is None:
                continue
            if isinstance(note, LogText):
                execution.log.append(note.text)
            elif isinstance(note, ProgressNote):
                execution.progress = {"done": note.done, "total": note.total, "note": note.note}
            elif isinstance(note, LateData):
                execution.late_data.append((note.process, note.timeperiod, note.reason))
        for outcome in outcomes:
            execution = self._executions.get(outcome.token)
            if execution is not None and execution.outcome is None:
                execution.outcome = outcome
                if outcome.verb == "fail" and self.clock.monotonic() >= execution.lease_ends:
                    execution.stop = "lost"  # ended by the guard while this worker was stopped: no failure

    def _enforce(self, did: Did) -> None:
        """Leases that ended on our own clock, time-outs, and the end of a drain."""
        now = self.clock.monotonic()
        if self._drain and self._drain_ends is None:
            self._drain_ends = now + self.grace_s
            self._mail.stop_work()
        is_over = self._drain_hard or (self._drain_ends is not None and now >= self._drain_ends)
        for execution in self._executions.all():
            if execution.is_running:
                if now >= execution.lease_ends and execution.stop != "lost":
                    self._stop(execution, "lost", hard=True)
                elif (
                    execution.stop is None and execution.times_out is not None and now >= execution.times_out
                ):
                    self._stop(execution, "time-out")
                elif is_over and execution.stop is None:
                    self._stop(execution, "drain", hard=self._drain_hard)
                elif self._drain_hard and execution.stop is not None and not execution.hard:
                    self._stop(execution, execution.stop, hard=True)
            elif execution.stop == "lost":
                did.lost.append(execution.uow.id)
                self._executions.forget(execution)
                log.warning("%s: its lease is gone; nothing of it is written", execution.uow.id)

    def _stop(self, execution: Execution, reason: str, *, hard: bool = False) -> None:
        execution.stop = reason
        execution.hard = execution.hard or hard
        if execution.is_running:
            self.executor.stop(execution.token, hard=hard)

    # ------------------------------------------------------------------ what somebody else changed

    def _reconcile(self, did: Did) -> None:
        """Look again at the units of work we were told of, or whose renewal missed."""
        if not self._look_again:
            return
        ids = list(self._look_again)
        found = self._read(uow_id for uow_id in ids if self._executions.of(uow_id))
        self._look_again.difference_update(ids)
        for uow_id in ids:
            for execution in self._executions.of(uow_id):
                self._compare(execution, found.get(uow_id), did)

    def _compare(self, execution: Execution, stored: Uow | None, did: Did) -> None:
        """What an execution is worth, seen from the store."""
        if is_ours(execution, stored) or execution.stop == "lost":
            return
        if stored is not None and stored.token == execution.token:
            if stored.state == UowState.CANCELED and stored.stopped_at is None:
                if execution.stop != "canceled":
                    self._stop(execution, "canceled", hard=execution.hard)
                return  # once it is gone, `stopped` is written
            if not execution.is_running:  # it ended there too, whoever wrote it
                self._mail.report(stored.id)
                did.finished.append(stored.id)
                self._executions.forget(execution)
                return
        self._stop(execution, "lost", hard=True)

    def _settle_doubts(self, did: Did) -> None:
        """Accepts whose commit was unknown: what bears our token is ours, and starts now."""
        if not self._doubtful:
            return
        found = self._read(intent.execution.uow.id for intent in self._doubtful)
        doubts, self._doubtful = self._doubtful, []
        for intent in doubts:
            if intent.is_written(found.get(intent.execution.uow.id)):
                self._accepted(intent, did)

    # ------------------------------------------------------------------ the one transaction

    def _commit(self, did: Did) -> None:
        """Finishes, accepts, logs, progress and late data, in one transaction; then start what was accepted."""
        asked = self.clock.monotonic()
        living = [e for e in self._executions.all() if e.stop != "lost"]
        ended = [e for e in living if not e.is_running]
        spoke = [e for e in living if e.log or e.taken or e.late_data]
        told = [e for e in living if e.progress and (not e.is_running or asked >= e.progress_after)]
        requested = self._requested(did) if self._mail.waiting else []
        if not (ended or spoke or told or requested):
            return
        now = self.store.now()
        intents = [ending(execution, now) for execution in ended]
        intents += [
            accepting(
                uow,
                self.processes,
                owner=self.owner,
                box=self.box,
                token=self._new_token(),
                now=now,
                lease_s=self.lease_s,
                lease_ends=asked + self.lease_s - self.margin_s,
            )
            for uow in requested
        ]
        commands = [command for e in spoke for command in late_data(e, now)]
        logs = [chunk for e in spoke for chunk in e.take_log(now)]
        try:
            with self.store.transaction() as transaction:
                if logs or commands:
                    transaction.insert([*logs, *commands], ignore=True)
                if told:
                    transaction.update([changes.progress(e.uow, e.progress) for e in told if e.progress])
                hits = transaction.update([intent.change for intent in intents]) if intents else 0
        except (StoreUnavailable, Conflict):
            self._doubtful += [intent for intent in intents if intent.verb == "accept"]
            raise
        for execution in spoke:
            execution.wrote_log()
            execution.late_sent += len(execution.late_data)
            execution.late_data.clear()
        for execution in told:
            execution.progress, execution.progress_after = None, asked + PROGRESS_EVERY_S
        if commands:
            self._mail.nudge()
        self._committed(intents, hits, did)

    def _requested(self, did: Did) -> list[Uow]:
        """The units of work, of those that messages wait for, that can be accepted now; doubles are dropped."""
        found = self._read(self._mail.waiting)
        requested: list[Uow] = []
        slots = self._slots()
        for uow_id in list(self._mail.waiting):
            uow = found.get(uow_id)
            if uow is None or uow.state != UowState.REQUESTED:
                did.dropped.append(uow_id)
                self._mail.done(uow_id)
            elif len(requested) < slots and not any(e.is_running for e in self._executions.of(uow_id)):
                requested.append(uow)
        return requested

    def _committed(self, intents: list[Intent], hits: int, did: Did) -> None:
        """Follow what was written; after a miss, what the store shows."""
        found = None if hits == len(intents) else self._read(i.execution.uow.id for i in intents)
        done = {"finish": did.finished, "release": did.released, "stopped": did.stopped}
        for intent in intents:
            execution = intent.execution
            stored = None if found is None else found.get(execution.uow.id)
            if found is None or intent.is_written(stored):
                if intent.verb == "accept":
                    self._accepted(intent, did)
                else:
                    done[intent.verb].append(execution.uow.id)
                    self._mail.report(execution.uow.id)
                    self._executions.forget(execution)
            elif intent.verb != "accept":  # of an accept the message waits, and is dropped or tried again
                self._compare(execution, stored, did)

    def _accepted(self, intent: Intent, did: Did) -> None:
        """It is ours: start it, unless the answer came so late that it is not ours any more."""
        execution = intent.execution
        uow, process = execution.uow, execution.process
        if self.clock.monotonic() >= execution.lease_ends:
            did.lost.append(uow.id)
            self._mail.done(uow.id)
            return
        self._executions.add(execution)
        did.accepted.append(uow.id)
        if self._drain:
            execution.stop = "drain"
            execution.outcome = Outcome(uow_id=uow.id, token=execution.token, verb="stopped")
        elif process is None or (uow.kind == "check" and process.readiness is None):
            what = "process" if process is None else "readiness predicate of process"
            self._fail(
                execution,
                f"the {what} {uow.definition or uow.process!r} is not in this worker's context; reload it",
            )
        else:
            limit = timeout_s(uow, process)
            execution.times_out = None if limit is None else self.clock.monotonic() + limit
            try:
                self.executor.start(uow, process)
                self._tell_lease(execution)
            except Exception as error:  # a child or its request cannot be made: this attempt failed
                log.exception("%s could not be started", uow.id)
                self._fail(execution, f"could not be started: {type(error).__name__}: {error}")
        self._mail.done(uow.id)

    # ------------------------------------------------------------------ small things

    @staticmethod
    def _fail(execution: Execution, error: str) -> None:
        uow_id = execution.uow.id
        execution.outcome = Outcome(uow_id=uow_id, token=execution.token, verb="fail", error=error)

    def _read(self, ids: Iterable[str]) -> dict[str, Uow]:
        wanted = sorted(set(ids))
        return {uow.id: uow for uow in self.store.find(Uow, [Where("id", "in", wanted)])} if wanted else {}

    def _tell_lease(self, execution: Execution) -> None:
        self.executor.lease(execution.token, execution.lease_ends - self.clock.monotonic())
