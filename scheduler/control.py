"""Control: submit a command, wait for its outcome, and explain a job.

The way in for everybody who is not the leader: `launch.py` on the box, the dashboard, the workers'
late data. It writes one row and wakes the leader; it never changes a job.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from scheduler.core.command import COMMAND_VERBS, PENDING, RUNNING, Command
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.explain import Explanation, explain
from scheduler.core.facts import Absent
from scheduler.core.known import Known
from scheduler.core.plan import Effect, plan_reprocess, plan_skip
from scheduler.core.ports import REPORT_QUEUE, Broker, Clock, Store
from scheduler.core.records import Hold, ProcessRow
from scheduler.core.slice import Slice
from scheduler.core.timetable import Timetable
from scheduler.gather import Gatherer

EXPIRY_S = 600.0
POLL_S = 0.02


def submit(
    store: Store,
    broker: Broker,
    verb: str,
    target: Mapping[str, Any],
    *,
    actor: str,
    arguments: Mapping[str, Any] | None = None,
    reason: str = "",
    seen: Mapping[str, str] | None = None,
    key: str | None = None,
    expiry_s: float | None = EXPIRY_S,
) -> str:
    """Write a command and wake the leader; returns its id. The same `key` twice is one command.

    Raises InvalidRequest for an unknown verb, StoreUnavailable.
    """
    if verb not in COMMAND_VERBS:
        raise InvalidRequest(f"there is no verb {verb!r}; use one of {', '.join(COMMAND_VERBS)}")
    now = store.now()
    command = Command(
        id=key or uuid.uuid4().hex,
        verb=verb,
        target=dict(target),
        arguments=dict(arguments or {}),
        actor=actor,
        reason=reason,
        seen=dict(seen or {}),
        submitted_at=now,
        expires_at=now + timedelta(seconds=expiry_s) if expiry_s is not None else None,
    )
    with store.transaction() as tx:
        tx.insert([command], ignore=True)
    broker.nudge(REPORT_QUEUE)
    return command.id


def wait(store: Store, command: str, timeout_s: float = 2.0) -> Command:
    """The command once it is resolved, or as it is after `timeout_s` seconds. Raises NotFound."""
    until = time.monotonic() + timeout_s
    while True:
        found = store.get(Command, command)
        if found is None:
            raise NotFound(f"there is no command {command!r}")
        if found.state not in (PENDING, RUNNING) or time.monotonic() >= until:
            return found
        time.sleep(POLL_S)


class Reader:
    """Looks at the store through the core's eyes, without changing anything."""

    def __init__(self, store: Store, timetable: Timetable, clock: Clock) -> None:
        self.store, self.timetable, self.clock = store, timetable, clock

    def _known(self) -> Known:
        known = Known(self.timetable)
        known.rows = {row.name: row for row in self.store.find(ProcessRow)}
        known.holds = {hold.scope: hold for hold in self.store.find(Hold)}
        return known

    def _ask(self, question: Any) -> Any:
        """Answer a question of the core, gathering what it finds absent."""
        s = Slice(self._known(), self.clock.business(), self.clock.real())
        gatherer = Gatherer(self.store)
        gatherer.ahead(s, ())
        for _ in range(10_000):
            mark = s.mark()
            try:
                return question(s)
            except Absent as lack:
                s.back_to(mark)
                gatherer.gather(s, lack.wants)
        raise AssertionError("facts keep being absent")

    def explain(self, job: str) -> Explanation:
        """Why a job is not done: the decision's own reasons, down to their roots. Raises NotFound."""
        found: Explanation = self._ask(lambda s: explain(s, job))
        return found

    def plan(self, verb: str, jobs: Sequence[str]) -> list[Effect]:
        """What `reprocess` or `skip` would do, job by job. Raises NotFound, Refused, InvalidRequest."""
        rule = {"reprocess": plan_reprocess, "skip": plan_skip}.get(verb)
        if rule is None:
            raise InvalidRequest(f"there is no plan for {verb!r}; use reprocess or skip")

        def question(s: Slice) -> list[Effect]:
            missing = [("job", id_) for id_ in jobs if id_ not in s.jobs]
            if missing:
                raise Absent(*missing)
            roots = []
            for id_ in jobs:
                job = s.job(id_)
                if job is None:
                    raise NotFound(f"there is no job {id_!r}")
                roots.append(job)
            return rule(s, roots)

        effects: list[Effect] = self._ask(question)
        return effects
