"""The supervisor's plan: every state × what is wanted × alive or not, its order, and what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.plan import Action, Desired, Limits, Observed, State, Verb, after, delay_of, plan, settled

Next = tuple[str, str] | None
LIMITS = Limits(grace_s=10, deaths_max=10)
NOW = 1000.0


def step(state: State, *, wanted: str, alive: bool, **known: object) -> Next:
    """The one action for a process in `state` since NOW, as (verb, next state)."""
    seen = Observed(name="p", kind="worker", state=state, alive=alive, since=NOW, **known)  # type: ignore[arg-type]
    want = Desired(name="p", kind="worker", is_on=wanted != "off", restart=wanted == "restart")
    actions = plan({"p": want}, {"p": seen}, NOW, LIMITS)
    assert len(actions) <= 1
    return (str(actions[0].verb), str(actions[0].state)) if actions else None


DEAD: list[tuple[State, Next, Next, Next]] = [  # state, on, off, restart
    (State.STOPPED, ("start", "STARTING"), None, ("start", "STARTING")),
    (State.STARTING, ("note", "EXITED"), ("note", "EXITED"), ("note", "EXITED")),
    (State.RUNNING, ("note", "EXITED"), ("note", "EXITED"), ("note", "EXITED")),
    (State.BACKOFF, None, ("note", "STOPPED"), ("start", "STARTING")),
    (State.STOPPING, ("note", "STOPPED"), ("note", "STOPPED"), ("note", "STOPPED")),
    (State.EXITED, ("note", "BACKOFF"), ("note", "STOPPED"), ("start", "STARTING")),
    (State.FATAL, None, ("note", "STOPPED"), ("start", "STARTING")),
]
ALIVE: list[tuple[State, Next, Next, Next]] = [
    (State.STOPPED, ("note", "RUNNING"), ("terminate", "STOPPING"), ("terminate", "STOPPING")),
    (State.STARTING, None, ("terminate", "STOPPING"), ("terminate", "STOPPING")),
    (State.RUNNING, None, ("terminate", "STOPPING"), ("terminate", "STOPPING")),
    (State.BACKOFF, ("note", "RUNNING"), ("terminate", "STOPPING"), ("terminate", "STOPPING")),
    (State.STOPPING, None, None, None),
    (State.EXITED, ("note", "RUNNING"), ("terminate", "STOPPING"), ("terminate", "STOPPING")),
    (State.FATAL, ("note", "RUNNING"), ("terminate", "STOPPING"), ("terminate", "STOPPING")),
]


@pytest.mark.parametrize(("state", "on", "off", "restart"), DEAD, ids=str)
def test_every_state_of_a_dead_process(state: State, on: Next, off: Next, restart: Next) -> None:
    assert step(state, wanted="on", alive=False, deaths=1) == on
    assert step(state, wanted="off", alive=False, deaths=1) == off
    assert step(state, wanted="restart", alive=False, deaths=1) == restart


@pytest.mark.parametrize(("state", "on", "off", "restart"), ALIVE, ids=str)
def test_every_state_of_a_living_process(state: State, on: Next, off: Next, restart: Next) -> None:
    assert step(state, wanted="on", alive=True) == on
    assert step(state, wanted="off", alive=True) == off
    assert step(state, wanted="restart", alive=True) == restart


def test_the_tables_name_every_state() -> None:
    assert [row[0] for row in DEAD] == [row[0] for row in ALIVE] == list(State)


def alone(seen: Observed, now: float, *, on: bool = True, restart: bool = False) -> list[Action]:
    want = Desired(name=seen.name, kind=seen.kind, is_on=on, restart=restart)
    return plan({seen.name: want}, {seen.name: seen}, now, LIMITS)


def test_started_counts_as_running_after_a_second() -> None:
    seen = Observed(name="p", kind="mx", state=State.STARTING, alive=True, since=NOW)
    assert alone(seen, NOW + 0.9) == []
    (action,) = alone(seen, NOW + 1)
    assert (action.verb, action.state) == (Verb.NOTE, State.RUNNING)


def test_kill_comes_once_and_after_the_grace() -> None:
    seen = Observed(name="p", kind="mx", state=State.STOPPING, alive=True, since=NOW)
    assert alone(seen, NOW + 9.9, on=False) == []
    (action,) = alone(seen, NOW + 10, on=False)
    assert action.verb is Verb.KILL
    killed = after(seen, action, NOW + 10)
    assert killed.killed and alone(killed, NOW + 30, on=False) == []


def test_a_silent_scheduler_is_killed_and_started_again() -> None:
    seen = Observed(
        name="scheduler", kind="scheduler", state=State.RUNNING, alive=True, silent=True, since=NOW
    )
    (action,) = alone(seen, NOW)
    assert action.verb is Verb.KILL
    seen = replace(after(seen, action, NOW), alive=False)
    (action,) = alone(seen, NOW)
    seen = after(seen, action, NOW)
    (action,) = alone(seen, NOW)
    assert action.verb is Verb.START


def test_the_delay_doubles_up_to_a_minute() -> None:
    assert [delay_of(n) for n in (1, 2, 3, 6, 7, 8, 1000)] == [0.25, 0.5, 1, 8, 16, 32, 60]


def lives(count: int, length: float) -> Observed:
    """A process that was started `count` times and died `length` seconds after each start."""
    seen, now = Observed(name="p", kind="worker"), NOW
    for _ in range(count):
        while not seen.alive:
            now += 0.5
            for action in alone(seen, now):
                seen = after(seen, action, now, LIMITS)
            if seen.state is State.FATAL:
                return seen
        now += length
        seen = replace(seen, alive=False, exit_code=1)
        (action,) = alone(seen, now)
        assert action.state is State.EXITED
        seen = after(seen, action, now, LIMITS)
    return seen


def test_scenario_43_a_crash_loop_ends_in_fatal_until_asked() -> None:
    seen = lives(10, 0.2)
    assert (seen.state, seen.deaths) == (State.EXITED, 10)
    (action,) = alone(seen, NOW + 100)
    assert action.state is State.FATAL and "crash loop" in action.reason
    fatal = after(seen, action, NOW + 100)
    assert alone(fatal, NOW + 1e9) == []
    (action,) = alone(fatal, NOW + 1e9, restart=True)
    assert action.verb is Verb.START
    assert after(fatal, action, NOW + 1e9).deaths == 0


def test_a_steady_run_is_no_crash_loop() -> None:
    assert lives(50, 60.0).deaths == 1


def box(**on: bool) -> tuple[dict[str, Desired], dict[str, Observed]]:
    kinds = {"scheduler": "scheduler", "mx": "mx", "worker.a.1": "worker", "feed": "daemon"}
    desired = {name: Desired(name=name, kind=kind, is_on=on.get(name, True)) for name, kind in kinds.items()}
    observed = {name: Observed(name=name, kind=kind) for name, kind in kinds.items()}
    return desired, observed


def test_start_order_is_scheduler_mx_workers_daemons() -> None:
    desired, observed = box()
    assert [action.name for action in plan(desired, observed, NOW)] == [
        "scheduler",
        "mx",
        "worker.a.1",
        "feed",
    ]


def test_stop_order_is_the_reverse_and_waits() -> None:
    desired, observed = box()
    desired = {name: replace(want, is_on=False) for name, want in desired.items()}
    observed = {
        name: replace(seen, state=State.RUNNING, alive=True, since=NOW) for name, seen in observed.items()
    }
    order = []
    for turn in range(12):
        for action in plan(desired, observed, NOW + turn):
            if action.verb is Verb.TERMINATE:
                order.append(action.name)
            observed[action.name] = after(observed[action.name], action, NOW + turn)
        gone = [name for name, seen in observed.items() if seen.state is State.STOPPING]
        assert len(gone) <= 1, "one kind at a time"
        observed.update({name: replace(observed[name], alive=False, exit_code=0) for name in gone})
    assert order == ["feed", "worker.a.1", "mx", "scheduler"]
    assert settled(desired, observed)


def test_one_process_alone_stops_at_once() -> None:
    desired, observed = box(scheduler=False)
    observed = {
        name: replace(seen, state=State.RUNNING, alive=True, since=NOW) for name, seen in observed.items()
    }
    (action,) = plan(desired, observed, NOW)
    assert (action.verb, action.name) == (Verb.TERMINATE, "scheduler")


def test_a_process_nobody_registered_any_more_is_stopped() -> None:
    seen = Observed(name="old", kind="daemon", state=State.RUNNING, alive=True, since=NOW)
    (action,) = plan({}, {"old": seen}, NOW)
    assert action.verb is Verb.TERMINATE


# -- what never happens, whatever comes ------------------------------------------------------------

HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(("wait", "long", "die", "on", "off", "restart", "silent", "forget")),
        st.integers(0, 3),
    ),
    max_size=60,
)
NAMES = ("scheduler", "mx", "worker.a.1", "feed")


class World:
    """Processes that obey, die and are wanted at random; it counts what would be wrong."""

    def __init__(self) -> None:
        self.desired, self.observed = box()
        self.now = NOW

    def happen(self, what: str, name: str) -> None:
        self.now += {"wait": 0.3, "long": 70.0}.get(what, 0.0)
        seen, want = self.observed[name], self.desired[name]
        if what == "die" and seen.alive:
            self.observed[name] = replace(seen, alive=False, exit_code=-9)
        elif what == "silent" and seen.alive:
            self.observed[name] = replace(seen, silent=True)
        elif what in ("on", "off", "restart"):
            self.desired[name] = replace(want, is_on=what != "off", restart=what == "restart")
        elif what == "forget":  # a supervisor that begins anew knows only who is alive
            self.observed[name] = Observed(name=name, kind=seen.kind, alive=seen.alive)

    def act(self) -> None:
        actions = plan(self.desired, self.observed, self.now, LIMITS)
        assert len({action.name for action in actions}) == len(actions), "one action a process"
        for action in actions:
            seen, want = self.observed[action.name], self.desired[action.name]
            if action.verb is Verb.START:
                assert not seen.alive, "never two starts of one process"
                assert want.is_on, "stopped stays stopped"
                self.desired[action.name] = replace(want, restart=False)
            if action.verb in (Verb.TERMINATE, Verb.KILL):
                assert seen.alive, "no signal to the dead: the pid may be a stranger's"
            self.observed[action.name] = after(seen, action, self.now, LIMITS)


@settings(deadline=None, max_examples=150)
@given(HAPPENINGS)
def test_never_two_starts_and_stopped_stays_stopped(happenings: list[tuple[str, int]]) -> None:
    world = World()
    for what, index in happenings:
        world.happen(what, NAMES[index])
        world.act()
    # left alone, it comes to rest: what is on runs or is FATAL, what is off is gone
    for _ in range(200):
        world.happen("long", NAMES[0])
        for name, seen in world.observed.items():
            if seen.state is State.STOPPING:
                world.observed[name] = replace(seen, alive=False)
        world.act()
    for name, want in world.desired.items():
        seen = world.observed[name]
        assert (
            (seen.state is State.RUNNING and seen.alive)
            if want.is_on and seen.state is not State.FATAL
            else not seen.alive
        )
