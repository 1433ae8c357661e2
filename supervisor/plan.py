"""What a supervisor does next, as a pure function: `plan(desired, observed, now) -> actions`.

No clock, no process, no store is touched here. All times are seconds of one monotonic clock. The life
of a supervised process, and who causes each arrow:

    STOPPED ──wanted──► STARTING ──alive for START_S──► RUNNING ──unwanted, restart──► STOPPING ──► STOPPED
                 ▲          │ died                         │ died        (TERM, grace, KILL)
                 │          └────────► EXITED ◄────────────┘
        delay is over                     │
              BACKOFF ◄───────────────────┴──── `deaths_max` quick deaths in a row ───► FATAL ──asked──► STARTING

* A death is quick when it comes within STEADY_S of the start. Each doubles the delay, from DELAY_S to
  DELAY_MAX_S; a steady run puts the count back to nothing. FATAL stays until somebody asks (a restart).
* Starts go in the order scheduler, mx, workers, daemons. Nobody waits there: whatever a process needs
  it finds in the store, and else it waits for it itself.
* Stops go the other way and do wait: a process gets its TERM when everything that is to stop before it
  is gone. So workers drain while the scheduler still decides what they report.
* Nothing is ever started while it is alive: `start` is planned for dead processes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

START_S = 1.0
STEADY_S = 60.0
DELAY_S = 0.25
DELAY_MAX_S = 60.0

START_ORDER = ("supervisor", "scheduler", "mx", "worker", "daemon")


class State(StrEnum):
    """Where a supervised process stands, in the words of its field."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"


class Verb(StrEnum):
    """What a supervisor can do to a process. `note` only writes down a new state."""

    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What is wanted of one process. `restart` is asked once, and taken back when it was started again."""

    name: str
    kind: str
    is_on: bool = True
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of one process. `since` is when it got into `state`."""

    name: str
    kind: str
    state: State = State.STOPPED
    alive: bool = False
    since: float = 0.0
    started: float | None = None  # when it was started last
    deaths: int = 0  # quick deaths in a row
    killed: bool = False  # KILL was sent
    silent: bool = False  # alive, and does not do what it should: the scheduler without its lease
    exit_code: int | None = None
    last_words: str = ""  # what it said before it ended


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: `verb` to process `name`, which brings it to `state`."""

    verb: Verb
    name: str
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers of the plan. Seconds."""

    grace_s: float = 10.0  # between TERM and KILL
    deaths_max: int = 10
    start_s: float = START_S
    steady_s: float = STEADY_S
    delay_s: float = DELAY_S
    delay_max_s: float = DELAY_MAX_S


DEFAULT_LIMITS = Limits()


def delay_of(deaths: int, limits: Limits = DEFAULT_LIMITS) -> float:
    """How long to wait before the next start, after so many quick deaths in a row."""
    return float(min(limits.delay_max_s, limits.delay_s * 2.0 ** min(max(deaths - 1, 0), 30)))


def plan(
    desired: Mapping[str, Desired],
    observed: Mapping[str, Observed],
    now: float,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Action]:
    """What to do now, in order; at most one action a process.

    A process that is observed and not desired is stopped. One that is desired and was never observed
    counts as STOPPED.
    """
    actions = []
    for name in sorted({*desired, *observed}):
        want = desired.get(name)
        seen = observed.get(name)
        if want is None:
            assert seen is not None
            want = Desired(name=name, kind=seen.kind, is_on=False)
        action = _next(want, seen or Observed(name=name, kind=want.kind), now, limits)
        if action is not None and not (action.verb is Verb.TERMINATE and _must_wait(want, desired, observed)):
            actions.append((_rank(want.kind, action.verb), action))
    return [action for _, action in sorted(actions, key=lambda pair: (pair[0], pair[1].name))]


def after(seen: Observed, action: Action, now: float, limits: Limits = DEFAULT_LIMITS) -> Observed:
    """What is known of a process once `action` was carried out at `now`."""
    if action.verb is Verb.START:
        deaths = seen.deaths if seen.state is State.BACKOFF else 0  # FATAL and asked: all is forgiven
        return replace(
            seen,
            state=State.STARTING,
            alive=True,
            since=now,
            started=now,
            deaths=deaths,
            killed=False,
            silent=False,
        )
    if action.verb is Verb.KILL:
        since = seen.since if seen.state is State.STOPPING else now
        return replace(seen, state=State.STOPPING, killed=True, since=since)
    if action.state is State.EXITED:
        steady = seen.started is not None and now - seen.started >= limits.steady_s
        return replace(seen, state=State.EXITED, since=now, deaths=1 if steady else seen.deaths + 1)
    if action.state is State.STOPPED:
        return replace(seen, state=State.STOPPED, since=now, deaths=0, killed=False, silent=False)
    return replace(seen, state=action.state, since=now)


def settled(desired: Mapping[str, Desired], observed: Mapping[str, Observed]) -> bool:
    """Everything is as it is wanted: what is on runs, what is off is gone."""
    on = {name for name, want in desired.items() if want.is_on}
    return all(name in observed and observed[name].state is State.RUNNING for name in on) and not any(
        seen.alive for name, seen in observed.items() if name not in on
    )


def _next(want: Desired, seen: Observed, now: float, limits: Limits) -> Action | None:
    """The next action of one process alone: a row of the table in the module's docstring."""
    name, state = seen.name, seen.state
    if seen.alive:
        return _next_alive(want, seen, now, limits)
    start = Action(Verb.START, name, State.STARTING, "asked to restart" if want.restart else "wanted")
    match state:
        case State.STARTING | State.RUNNING:
            return Action(Verb.NOTE, name, State.EXITED, _obituary(seen))
        case State.STOPPING:
            return Action(Verb.NOTE, name, State.STOPPED, _obituary(seen))
        case _ if not want.is_on:
            return None if state is State.STOPPED else Action(Verb.NOTE, name, State.STOPPED, "not wanted")
        case State.STOPPED:
            return start
        case _ if want.restart:
            return start
        case State.EXITED if seen.deaths >= limits.deaths_max:
            return Action(
                Verb.NOTE,
                name,
                State.FATAL,
                f"crash loop: died {seen.deaths} times in a row soon after its start",
            )
        case State.EXITED:
            delay = delay_of(seen.deaths, limits)
            return Action(
                Verb.NOTE, name, State.BACKOFF, f"{_obituary(seen)}; starts again after {delay:g} s"
            )
        case State.BACKOFF if now - seen.since >= delay_of(seen.deaths, limits):
            return Action(Verb.START, name, State.STARTING, "the delay is over")
    return None


def _next_alive(want: Desired, seen: Observed, now: float, limits: Limits) -> Action | None:
    name, state = seen.name, seen.state
    if state is State.STOPPING:
        if not seen.killed and now - seen.since >= limits.grace_s:
            return Action(Verb.KILL, name, State.STOPPING, f"still there {limits.grace_s:g} s after TERM")
        return None
    if not want.is_on:
        return Action(Verb.TERMINATE, name, State.STOPPING, "not wanted")
    if want.restart:
        return Action(Verb.TERMINATE, name, State.STOPPING, "asked to restart")
    if seen.silent and not seen.killed:
        return Action(Verb.KILL, name, State.STOPPING, "silent for two leases")
    if state is State.STARTING and now - seen.since >= limits.start_s:
        return Action(Verb.NOTE, name, State.RUNNING, "")
    if state not in (State.STARTING, State.RUNNING):
        return Action(Verb.NOTE, name, State.RUNNING, "found alive")
    return None


def _must_wait(want: Desired, desired: Mapping[str, Desired], observed: Mapping[str, Observed]) -> bool:
    """Something that stops before this one is still there and is to stop for good."""
    rank = START_ORDER.index(want.kind)
    if want.is_on:  # a restart waits for nobody
        return False
    return any(
        other.alive and START_ORDER.index(other.kind) > rank and not (name in desired and desired[name].is_on)
        for name, other in observed.items()
    )


def _rank(kind: str, verb: Verb) -> int:
    rank = START_ORDER.index(kind)
    return rank if verb is Verb.START else -rank


def _obituary(seen: Observed) -> str:
    code = seen.exit_code
    if code is None:
        return "is gone"
    if code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}" + (f" ({seen.last_words})" if code and seen.last_words else "")
