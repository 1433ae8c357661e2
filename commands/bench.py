"""`bench throughput|chain|turn`: what the design costs on this machine, beside the floor in the same run.

The floor is a small program that makes the design's durable writes and nothing else (bench/floor.py). Nothing is
judged here: numbers are printed, and bench/README.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands.table import show

Tell = Callable[[int], None]
Line = tuple[object, ...]
Headers = tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and how much of it."""
    parser.add_argument("what", choices=("throughput", "chain", "turn"))
    parser.add_argument(
        "--jobs", type=_count, help="jobs a round; for turn: finished jobs in the long history"
    )
    parser.add_argument("--rounds", type=_count, help="rounds of floor and box; for turn: turns")
    parser.add_argument("--slots", type=_count, help="slots of each of the two workers")
    parser.add_argument(
        "--synchronous", choices=("NORMAL", "FULL"), default="NORMAL", help="of the store file"
    )
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is meant (default: the temporary folder)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with every round")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench.machine import machine

    given: dict[str, Any] = {"synchronous": args.synchronous, "folder": args.folder}
    if args.what == "turn":
        from bench import turn

        given |= _only(many=args.jobs, turns=args.rounds)
        measure: Any = turn.measure
        total = given.get("turns", turn.TURNS)
    else:
        from bench import chain, throughput

        module: Any = {"throughput": throughput, "chain": chain}[args.what]
        given |= _only(jobs=args.jobs, rounds=args.rounds, slots=args.slots)
        measure = module.measure
        total = given.get("jobs", module.JOBS) * given.get("rounds", module.ROUNDS)
    with _progress(args.what, total) as tell:
        found = measure(tell=tell, **given)
    found["machine"] = machine()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def _only(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def _progress(title: str, total: int) -> Iterator[Tell]:
    """A bar on stderr, in a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.update(bar, completed=done)


def _print(found: dict[str, Any]) -> None:
    headers, lines = {"throughput": _throughput, "chain": _chain, "turn": _turn}[found["bench"]](found)
    show(headers, lines)
    machine = found["machine"]
    print(
        f"synchronous={found['synchronous']}; {machine['cpus']} CPUs, load {machine['load']} at the end,"
        f" Python {machine['python']}, SQLite {machine['sqlite']}"
    )


def _throughput(found: dict[str, Any]) -> tuple[Headers, list[Line]]:
    lines: list[Line] = [
        (who, found[who]["jobs_per_second"], *_costs(found[who])) for who in ("floor", "box")
    ]
    lines.append(("ratio", found["ratio"]))
    return ("", "jobs/s", *COSTS), [_filled(line, 2 + len(COSTS)) for line in lines]


def _chain(found: dict[str, Any]) -> tuple[Headers, list[Line]]:
    lines: list[Line] = [
        (who, found[who]["gap_ms_median"], found[who]["gap_ms_p95"], *_costs(found[who]))
        for who in ("floor", "box")
    ]
    lines.append(("ratio", found["ratio"]))
    return ("", "gap ms", "p95 ms", *COSTS), [_filled(line, 3 + len(COSTS)) for line in lines]


def _turn(found: dict[str, Any]) -> tuple[Headers, list[Line]]:
    lines: list[Line] = [
        (who, found[who]["finished"], found[who]["turn_ms_median"], found[who]["queries"])
        for who in ("few", "many")
    ]
    return ("", "finished jobs", "ms a turn", "queries a turn"), [*lines, ("ratio", "", found["ratio"], "")]


COSTS = (
    "store commits/job",
    "queries/job",
    "writes/job",
    "queue commits/job",
    "CPU ms/job: scheduler",
    "workers",
    "children",
)


def _costs(side: dict[str, Any]) -> Line:
    """Of the middle round, by speed: what a job cost."""
    one = sorted(side["rounds"], key=lambda r: r["seconds"])[len(side["rounds"]) // 2]
    cpu = one["cpu_ms_per_job"]
    return (
        one.get("transactions_per_job", one.get("store_commits_per_job")),
        one.get("queries_per_job", ""),
        one.get("writes_per_job", ""),
        one["queue_commits_per_job"],
        *(cpu.get(part, "") for part in ("scheduler", "workers", "children")),
    )


def _filled(line: Line, width: int) -> Line:
    return (*line, *[""] * (width - len(line)))
