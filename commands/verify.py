"""`launch.py verify`: explore every interleaving of a small timetable, and check every invariant in each state.

Two hours under a day, and a day that depends on it, for every machine and blocking type; or a context of your own,
cut down to a few periods. What is broken is told as the shortest story that leads there. Reaching a bound before
everything is explored is a failure. `--mutants` removes the guards of the core one at a time and hunts them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from scheduler.core.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from verify.explore import Found
    from verify.shape import Shape

NAME = "verify"
HELP = "explore every interleaving of a small timetable"
EXIT_BROKEN = 1
STATES = 2_000_000
SHARE_MAX = 0.02  # of the mutants may be called equivalent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is explored, how far, and how it is told."""
    parser.add_argument("--machine", metavar="M", help="only this state machine (all three)")
    parser.add_argument("--blocking", metavar="B", help="only this blocking type (all three)")
    parser.add_argument("--context", metavar="F", help="explore this context file or folder, cut down")
    parser.add_argument(
        "--periods", type=int, default=2, metavar="N", help="… to N of its finest periods (2)"
    )
    parser.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="how many of one reprocess (or late data), one skip, one failure and two faults may meet on one"
        " path: 1 to 5 (1; 2 where a minute is enough for it)",
    )
    parser.add_argument(
        "--states", type=int, default=STATES, metavar="N", help=f"fail beyond N states ({STATES:,})"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (all cores)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--mutants", action="store_true", help="remove each guard of the core, one at a time, and hunt it"
    )
    parser.add_argument("--only", metavar="TEXT", help="with --mutants: those whose name contains TEXT")
    parser.add_argument("--out", metavar="FILE", help="with --mutants: write the report (Markdown) here")
    parser.add_argument(
        "--lines",
        metavar="FILE",
        help="with --mutants: which test executes which line; recorded into this file if it is not there",
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 0: all explored, nothing broken; 1: an invariant is broken, or a bound was reached."""
    if args.mutants:
        return _hunt(args.only, args.jobs, args.out, args.lines)
    found = []
    for one in _explored(_shapes(args), args):
        found.append(one)
        if not args.json:
            _show(one, args.states)
    if args.json:
        print(json.dumps([_row(one) for one in found], indent=2))
    elif len(found) > 1:
        broken = [one.name for one in found if not one.ok]
        print(f"{len(found)} explored, {len(broken)} not passed" + "".join(f"; {name}" for name in broken))
    return 0 if found and all(one.ok for one in found) else EXIT_BROKEN


def _hunt(only: str | None, jobs: int, out: str | None, lines_kept: str | None) -> int:
    if find_spec("pytest") is None:
        raise ConfigError(
            "--mutants needs the test tools in this environment: SYNERGY_EXTRAS=test ./launch.py verify …"
        )
    from verify.equivalent import EQUIVALENT
    from verify.hunt import UNDECIDED, Fate, hunted, report
    from verify.mutants import enumerated

    everyone = enumerated()
    chosen = [m for m in everyone if only is None or only in m.name]
    print(
        f"{len(everyone)} guards in the source, {len(chosen)} of them are removed, one at a time", flush=True
    )

    def tell(number: int, fate: Fate) -> None:
        by = f"killed by {fate.killer}: {fate.words}" if fate.killer else "SURVIVED"
        by = fate.words if fate.killer == UNDECIDED else by
        print(f"{number}/{len(chosen)} {fate.name}\n    {by} ({fate.seconds:.0f} s)", flush=True)

    with TemporaryDirectory() as folder:
        fates = hunted(chosen, jobs, tell, Path(lines_kept or f"{folder}/lines.json"))
    lines = report(fates)
    print("\n".join(lines))
    if out is not None:
        Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    unknown = sorted(EQUIVALENT.keys() - {m.name for m in everyone})
    for name in unknown:
        print(f"called equivalent, and not there any more: {name}", file=sys.stderr)
    survived = [fate for fate in fates if fate.killer in ("", UNDECIDED) and fate.name not in EQUIVALENT]
    too_many = len(EQUIVALENT) > SHARE_MAX * len(everyone)
    return EXIT_BROKEN if survived or unknown or too_many or not fates else 0


def _shapes(args: argparse.Namespace) -> list[Shape]:
    from verify.shape import BUDGET, CONFIGURATIONS, built_in, cut, together

    if args.together is not None and not 1 <= args.together <= BUDGET.all:
        raise InvalidRequest(f"--together {args.together}: expected 1 to {BUDGET.all}")
    if args.context:
        from commands.context_file import load_project

        budget = BUDGET.at_most(args.together or 1)
        return [cut(load_project(args.context).context, args.periods, budget, name=args.context)]
    chosen = [(m, b) for m, b in CONFIGURATIONS if args.machine in (None, m) and args.blocking in (None, b)]
    if not chosen:
        known = ", ".join(f"{m} × {b}" for m, b in CONFIGURATIONS)
        raise InvalidRequest(
            f"there is no {args.machine or 'any'} × {args.blocking or 'any'}; there are {known}"
        )
    return [built_in(m, b, BUDGET.at_most(args.together or together(m, b))) for m, b in chosen]


def _explored(shapes: list[Shape], args: argparse.Namespace) -> Iterator[Found]:
    work = [(shape, args.states) for shape in shapes]
    if len(work) == 1 or args.jobs < 2:
        for shape, most in work:
            yield _explore((shape, most, not args.json and sys.stderr.isatty()))
        return
    with multiprocessing.get_context("spawn").Pool(min(args.jobs, len(work))) as pool:
        yield from pool.imap(_explore, [(*one, False) for one in work])


def _explore(work: tuple[Shape, int, bool]) -> Found:
    from verify.explore import Explorer

    shape, most, tells = work

    def tell(states: int, coming: int) -> None:
        print(f"\r{shape.name}: {states:,} states, {coming:,} to come ", end="", file=sys.stderr, flush=True)

    found = Explorer(shape).run(most, tell if tells else None)
    if tells:
        print(file=sys.stderr)
    return found


def _show(found: Found, most: int) -> None:
    from verify.story import story

    print(
        f"{found.name}, {found.together} together: {found.states:,} states, {found.edges:,} edges, depth {found.depth},"
        f" {found.seconds:.1f} s of one core"
    )
    for line in story(found):
        print(line)
    if not found.closed and found.invariant is None:
        print(f"not explored to the end: the bound of {most:,} states was reached (see --states)")


def _row(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "together": found.together,
        "states": found.states,
        "edges": found.edges,
        "depth": found.depth,
        "seconds": round(found.seconds, 1),
        "closed": found.closed,
        "invariant": found.invariant,
        "text": found.text,
        "story": [words for words, _ in found.story],
    }
