"""The hunt: each mutant in a process of its own, killers one after another, the quickest first.

A killer is: a test that executes the line of the guard (`verify.lines` recorded which), an exploration (an invariant
breaks, or its pinned numbers change), a seed of the simulation. A mutant that none of them notices has survived, and
is listed by name, unless `EQUIVALENT` says why nobody could notice it. Who needs more time than a mutant is given is
undecided, which is no kill. Needs a clone: the tests are not part of the wheel.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from scheduler.core.errors import Refused
from verify.equivalent import EQUIVALENT
from verify.lines import OPTIONS, recorded
from verify.mutants import ROOT, Mutant, install

CPU_S = 150  # of one killer; those that find nothing need a third of it
QUICK = ("tests/unit/test_lifecycle.py", "tests/unit/test_plan.py", "tests/scenario/test_machines.py")
FIRST = 15  # tests that are tried before the rest of those that execute the line
WALL_S = 240  # of one mutant by the clock: beyond it waits for ever
SEEDS = 6
UNDECIDED = "undecided"


class Fate(NamedTuple):
    """What became of a mutant: by whom it was killed, and with what words; nobody: it survived."""

    name: str
    killer: str
    words: str
    seconds: float


# Processes come from one that has imported what is not ours: half of a quick kill would be imports.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "sqlalchemy.dialects.sqlite", "werkzeug", "jinja2", "psutil"])
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


def _tested(files: Sequence[str]) -> str:
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
    pytest.main(["-x", *OPTIONS, *files], plugins=[listener])
    return listener.failed


def _simulated() -> str:
    from simulation.run import run_seed

    for seed in range(SEEDS):
        result = run_seed(seed)
        if not result.ok:
            return f"seed {seed}, invariant {result.invariant}: {result.text}"
    return ""


def _killers(tests: list[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    from verify.shape import CONFIGURATIONS

    kinds = [kind for kind in CONFIGURATIONS if kind[0] != "recomputing"]  # in all of this as continuous is
    if tests:
        yield "tests", lambda: _tested(tests[:FIRST])
    yield from _explorations(kinds, 0)
    if tests[FIRST:]:
        yield "tests", lambda: _tested(tests[FIRST:])
    yield from _explorations([kind for kind in kinds if kind[1] != "normal"], 1)
    yield "simulation", _simulated
    yield from _explorations([kind for kind in kinds if kind[1] == "normal"], 1)


def _explorations(kinds: list[tuple[str, str]], together: int) -> Iterator[tuple[str, Callable[[], str]]]:
    for machine, blocking in kinds:

        def explore(m: str = machine, b: str = blocking) -> str:
            return _explored(m, b, together)

        yield "verify", explore


def hunt(name: str, tests: list[str]) -> tuple[str, str]:
    """Load the mutant in this process and let the killers at it: who killed it, and with what words."""
    try:
        if name:  # without a name: the control, which nobody may kill
            install(name)
        for killer, kill in _killers(tests):
            with _bounded() if killer != "tests" else nullcontext():  # of tests each has a bound of its own
                words = kill()
            if words:
                return killer, words
    except EndlessError:
        return "endless", f"a killer runs for more than {CPU_S} s"
    except Exception as error:  # noqa: BLE001 - whatever a mutant breaks, it has shown itself
        return "error", f"{type(error).__name__}: {error}"
    return "", ""


# -- all of them ------------------------------------------------------------------------------------------


def _in_its_process(name: str, tests: list[str], told: Connection) -> None:
    """Load the mutant here, hunt it, tell who killed it. What is printed meanwhile is of no interest."""
    os.setpgid(0, 0)  # what it starts ends with it
    os.chdir(ROOT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    told.send(hunt(name, tests))


def hunt_one(mutant: Mutant, tests: Sequence[str] = ()) -> Fate:
    """The fate of one mutant, in a process of its own."""
    began = time.monotonic()
    ours, theirs = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_in_its_process, args=(mutant.name, list(tests), theirs))
    process.start()
    assert process.pid is not None
    theirs.close()
    try:
        if ours.poll(WALL_S if mutant.name else None):
            killer, words = ours.recv()
        else:
            killer, words = UNDECIDED, f"not decided within {WALL_S} s by the clock"
    except EOFError:
        process.join()
        killer, words = "error", f"its process ended with exit code {process.exitcode}"
    finally:
        ours.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return Fate(mutant.name, killer, words, time.monotonic() - began)


def _tests_of(mutant: Mutant, by_line: dict[str, list[str]]) -> list[str]:
    """Those that execute its line; the cells of the tables are read while a module is loaded, by no test's line."""
    return by_line.get(f"{mutant.path}:{mutant.line}", []) if mutant.line else list(QUICK)


def hunted(mutants: list[Mutant], jobs: int, tell: Callable[[int, Fate], None], lines: Path) -> list[Fate]:
    """The fates of these mutants, in their order. First the control: where nothing is removed, nobody may kill."""
    by_line = recorded(lines)
    some = sorted({tests[0] for tests in by_line.values()})  # all of them passed when they were recorded
    control = hunt_one(CONTROL, [*QUICK, *some])
    if control.killer:
        raise Refused(f"without any mutant {control.killer} fails: {control.words}; mend that first")
    fates: dict[str, Fate] = {}
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting = [pool.submit(hunt_one, mutant, _tests_of(mutant, by_line)) for mutant in mutants]
        for future in as_completed(waiting):
            fate = future.result()
            fates[fate.name] = fate
            tell(len(fates), fate)
    return [fates[mutant.name] for mutant in mutants]


def report(fates: list[Fate]) -> list[str]:
    """The table of a hunt, and every survivor by name (Markdown)."""
    killers = ("verify", "tests", "simulation", "error", "endless")
    rows: dict[str, dict[str, int]] = {}
    for fate in fates:
        row = rows.setdefault(fate.name.partition(":")[0], dict.fromkeys((*killers, UNDECIDED, ""), 0))
        row[fate.killer] += 1
    lines = [
        "| file | mutants | killed | by verify | by tests | by simulation | it fails | it never ends |"
        " undecided | survived |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    total = {killer: sum(row[killer] for row in rows.values()) for killer in (*killers, UNDECIDED, "")}
    for path, row in (*rows.items(), ("all", total)):
        number = sum(row.values())
        shares = " | ".join(str(row[killer]) for killer in killers)
        lines.append(
            f"| {path} | {number} | {number - row[UNDECIDED] - row['']} | {shares} | {row[UNDECIDED]} | {row['']} |"
        )
    survived = [fate.name for fate in fates if not fate.killer]
    lines += [
        "",
        f"{len(survived)} survived, of which {sum(n in EQUIVALENT for n in survived)} are equivalent:",
        "",
    ]
    lines += [f"* `{name}`" + (f": {EQUIVALENT[name]}" if name in EQUIVALENT else "") for name in survived]
    return lines
