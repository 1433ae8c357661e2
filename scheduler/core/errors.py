"""Every error this program raises on purpose, in one file.

The docstring of a class is its default message. One place maps classes to exit codes (`exit_code`)
and HTTP statuses (`http_status`). Bugs are assertions, never these classes::

    SchedulerError
    ├── ConfigError            settings or process_context is wrong                    exit 2
    ├── NotFound               no such process, job, uow                               404, exit 4
    ├── InvalidRequest         a malformed argument                                    400, exit 2
    ├── InvalidTransition      (entity, state, verb, allowed)                          409, exit 5
    ├── Refused                a limit or rule refuses a well-formed command           409, exit 5
    ├── Conflict               a compare-and-set missed: gather and decide again       (never shown)
    ├── LeaseLost              somebody else is in charge; stop at once                exit 6
    ├── Unavailable
    │   ├── StoreUnavailable   the store cannot be reached                             503, exit 3
    │   └── BrokerUnavailable  the broker cannot be reached                            503, exit 3
    └── WorkError              raised by or about work
        ├── Permanent          the work failed and a retry would fail too
        └── DeadlineExceeded   the work ran into its time-out
"""

from __future__ import annotations

from collections.abc import Iterable


class SchedulerError(Exception):
    """Something the scheduler was asked for cannot be done."""

    exit_code = 1
    http_status = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().split("\n")[0])


class ConfigError(SchedulerError):
    """The settings or the process context are wrong."""

    exit_code = 2
    http_status = 400


class NotFound(SchedulerError):
    """There is no such process, job or unit of work."""

    exit_code = 4
    http_status = 404


class InvalidRequest(SchedulerError):
    """An argument is malformed."""

    exit_code = 2
    http_status = 400


class InvalidTransition(SchedulerError):
    """The verb is not allowed in this state."""

    exit_code = 5
    http_status = 409

    def __init__(self, entity: str, state: str, verb: str, allowed: Iterable[str]) -> None:
        self.entity, self.state, self.verb, self.allowed = entity, state, verb, tuple(allowed)
        choices = ", ".join(self.allowed) or "nothing"
        super().__init__(f"{entity} is {state}: {verb} is not allowed there; allowed: {choices}")


class Refused(SchedulerError):
    """A limit or a rule refuses this command."""

    exit_code = 5
    http_status = 409


class Conflict(SchedulerError):
    """A compare-and-set of a state change missed; what was read is out of date."""

    http_status = 409


class LeaseLost(SchedulerError):
    """The lease was lost: somebody else is in charge now."""

    exit_code = 6
    http_status = 409


class Unavailable(SchedulerError):
    """A server this program stands on cannot be reached."""

    exit_code = 3
    http_status = 503


class StoreUnavailable(Unavailable):
    """The store cannot be reached."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached."""


class WorkError(SchedulerError):
    """The work failed."""


class Permanent(WorkError):
    """The work failed, and a retry would fail too."""


class DeadlineExceeded(WorkError):
    """The work ran into its time-out."""
