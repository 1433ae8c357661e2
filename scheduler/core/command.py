"""The command: an act of an operator, a program or a worker, as a row. The rows are the audit.

Whoever wants something changed submits a command (`scheduler.control`); the leading scheduler takes
it, decides, and writes the outcome in the same transaction as what it changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PENDING, RUNNING, DONE, REFUSED, EXPIRED, DRAFT = "pending", "running", "done", "refused", "expired", "draft"

# verb -> what it is about
COMMAND_VERBS = {
    "reprocess": "job",
    "skip": "job",
    "mark_done": "job",
    "kill": "job",
    "retry": "job",
    "run_now": "job or process",
    "late_data": "job",
    "drop_late": "command",
    "narrow_late": "command",
    "hold": "scope",
    "release": "scope",
    "submit": "process",
    "schedule": "process",
    "suspend": "process",
    "resume": "process",
    "expire": "process",
    "delete": "process",
    "set_trigger": "process",
    "set_priority": "process",
    "set_max_active": "process",
    "set_tags": "process",
    "reset": "process",
    "set_clock": "clock",
    "worker_died": "worker",  # by a supervisor that saw it: nobody waits for its leases
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """One act. Its id is the idempotency key: submitting it twice is submitting it once."""

    id: str
    verb: str
    target: dict[str, Any] = field(default_factory=dict)
    # {"jobs": ["p@2013070400", …]} | {"process": "p"} | {"scope": "*" | "tree:t" | "process:p" | "job:p@t"}
    # | {"command": id}
    arguments: dict[str, Any] = field(default_factory=dict)  # {"trigger": "every 60"}, {"until": "…"}, …
    actor: str = "local"
    reason: str = ""
    seen: dict[str, str] = field(default_factory=dict)  # job id -> state the actor saw; other state → 409
    state: str = PENDING
    submitted_at: datetime  # by the store's clock; order of commands is (submitted_at, id)
    expires_at: datetime | None = None
    resolved_at: datetime | None = None
    status: int | None = None  # as HTTP would say it: 200, 400, 404, 409
    message: str = ""
    outcome: dict[str, Any] | None = None  # {"changed": true, "jobs": [{"job": …, "effect": …}, …]}
