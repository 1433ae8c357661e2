"""The hunt: each mutant in a process of its own, killers one after another, the quickest first.

A killer is: an exploration (an invariant breaks, or its pinned numbers change), tests of the core, seeds of the
simulation. A mutant that none of them notices has survived, and is listed by name, unless `EQUIVALENT` says why
nobody could notice it. Needs a clone: the tests are not part of the wheel.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, NamedTuple

from scheduler.core.errors import Refused
from verify.equivalent import EQUIVALENT
from verify.mutants import ROOT, Mutant, install

CPU_S = 150  # of one killer; those that find nothing need a third of it
QUICK = ("tests/unit/test_lifecycle.py", "tests/unit/test_plan.py", "tests/scenario/test_machines.py")
TESTS = (
    "tests/scenario/test_time_and_discrete.py",
    "tests/scenario/test_recovery.py",
    "tests/scenario/test_commands.py",
    "tests/scenario/test_late.py",
    "tests/scenario/test_freerun_and_context.py",
    "tests/scenario/test_tally.py",
    "tests/scenario/test_batches_of_commands.py",
    "tests/scenario/test_blockers.py",
    "tests/scenario/test_cascades.py",
    "tests/scenario/test_holds.py",
    "tests/scenario/test_live_changes.py",
    "tests/scenario/test_loop.py",
    "tests/scenario/test_many_at_once.py",
    "tests/scenario/test_moved_start.py",
    "tests/scenario/test_one_at_a_time.py",
    "tests/scenario/test_process_states.py",
    "tests/scenario/test_relations.py",
    "tests/scenario/test_states_by_events.py",
    "tests/scenario/test_two_clocks.py",
    "tests/unit/test_worker_runner.py",
    "tests/unit/test_worker_runner_stops.py",
    "tests/unit/test_worker_runner_outages.py",
)
SEEDS = 6


class Fate(NamedTuple):
    """What became of a mutant: by whom it was killed, and with what words; nobody: it survived."""

    name: str
    killer: str
    words: str
    seconds: float


CONTROL = Mutant("", "", "", -1, 0)


class EndlessError(BaseException):
    """A killer used more of the processor than it needs without a mutant. Nothing may catch it."""


# -- in the mutant's process ----------------------------------------------------------------------------


@contextmanager
def _bounded() -> Iterator[None]:
    def over(*_: Any) -> None:
        raise EndlessError

    signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _explored(machine: str, blocking: str, together: int) -> str:
    from verify.explore import Explorer
    from verify.pins import PINS
    from verify.shape import BUDGET, built_in

    found = Explorer(built_in(machine, blocking, BUDGET.at_most(together))).run(most=100_000)
    if found.invariant is not None:
        return f"invariant {found.invariant}: {found.text}"
    counted = (found.states, found.edges, found.depth)
    pinned = PINS.get((machine, blocking, together), counted)
    return "" if counted == pinned else f"pinned numbers: {counted} instead of {pinned}"


def _tested(files: tuple[str, ...]) -> str:
    import pytest

    class Listener:
        failed = ""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed and not self.failed:
                self.failed = report.nodeid

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed and not self.failed:
                self.failed = f"{report.nodeid} cannot be imported"

    listener = Listener()
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-o", "timeout=0", "--deselect"]
    pytest.main([*options, "tests/scenario/test_chains.py", *files], plugins=[listener])
    return listener.failed


def _simulated() -> str:
    from simulation.run import run_seed

    for seed in range(SEEDS):
        result = run_seed(seed)
        if not result.ok:
            return f"seed {seed}, invariant {result.invariant}: {result.text}"
    return ""


def _killers() -> Iterator[tuple[str, Callable[[], str]]]:
    from verify.shape import CONFIGURATIONS

    kinds = [kind for kind in CONFIGURATIONS if kind[0] != "recomputing"]  # in all of this as continuous is
    yield from _explorations(kinds, 0)
    yield "tests", lambda: _tested(QUICK)
    yield from _explorations([kind for kind in kinds if kind[0] == "discrete" and kind[1] != "normal"], 1)
    yield "tests", lambda: _tested(TESTS)
    yield from _explorations([kind for kind in kinds if kind[0] == "continuous" and kind[1] != "normal"], 1)
    yield "simulation", _simulated
    yield from _explorations([kind for kind in kinds if kind[1] == "normal"], 1)


def _explorations(kinds: list[tuple[str, str]], together: int) -> Iterator[tuple[str, Callable[[], str]]]:
    for machine, blocking in kinds:

        def explore(m: str = machine, b: str = blocking) -> str:
            return _explored(m, b, together)

        yield "verify", explore


def hunt(name: str) -> tuple[str, str]:
    """Load the mutant in this process and let the killers at it: who killed it, and with what words."""
    try:
        if name:  # without a name: the control, which nobody may kill
            install(name)
        for killer, kill in _killers():
            with _bounded():
                words = kill()
            if words:
                return killer, words
    except EndlessError:
        return "endless", f"a killer runs for more than {CPU_S} s"
    except Exception as error:  # noqa: BLE001 - whatever a mutant breaks, it has shown itself
        return "error", f"{type(error).__name__}: {error}"
    return "", ""


# -- all of them ------------------------------------------------------------------------------------------


def hunt_one(mutant: Mutant) -> Fate:
    """The fate of one mutant, in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "verify.hunt", mutant.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1:] or ["{}"]
    try:
        told = json.loads(last[0])
        killer, words = told["killer"], told["words"]
    except (ValueError, KeyError):
        killer, words = "error", (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    return Fate(mutant.name, killer, words, time.monotonic() - began)


def hunted(mutants: list[Mutant], jobs: int, tell: Callable[[int, Fate], None]) -> list[Fate]:
    """The fates of these mutants, in their order. First the control: where nothing is removed, nobody may kill."""
    control = hunt_one(CONTROL)
    if control.killer:
        raise Refused(f"without any mutant {control.killer} fails: {control.words}; mend that first")
    fates: dict[str, Fate] = {}
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for future in as_completed([pool.submit(hunt_one, mutant) for mutant in mutants]):
            fate = future.result()
            fates[fate.name] = fate
            tell(len(fates), fate)
    return [fates[mutant.name] for mutant in mutants]


def report(fates: list[Fate]) -> list[str]:
    """The table of a hunt, and every survivor by name (Markdown)."""
    killers = ("verify", "tests", "simulation", "error", "endless")
    rows: dict[str, dict[str, int]] = {}
    for fate in fates:
        row = rows.setdefault(fate.name.partition(":")[0], dict.fromkeys((*killers, ""), 0))
        row[fate.killer] += 1
    lines = [
        "| file | mutants | killed | by verify | by tests | by simulation | it fails | it never ends | survived |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    total = {killer: sum(row[killer] for row in rows.values()) for killer in (*killers, "")}
    for path, row in (*rows.items(), ("all", total)):
        number = sum(row.values())
        shares = " | ".join(str(row[killer]) for killer in killers)
        lines.append(f"| {path} | {number} | {number - row['']} | {shares} | {row['']} |")
    survived = [fate.name for fate in fates if not fate.killer]
    lines += [
        "",
        f"{len(survived)} survived, of which {sum(n in EQUIVALENT for n in survived)} are equivalent:",
        "",
    ]
    lines += [f"* `{name}`" + (f": {EQUIVALENT[name]}" if name in EQUIVALENT else "") for name in survived]
    return lines


if __name__ == "__main__":
    killed_by, told_words = hunt(sys.argv[1])
    sys.stdout.write("\n" + json.dumps({"killer": killed_by, "words": told_words}) + "\n")
