"""`launch.py simulate`: play seeds of a faulty world, or a context of your own between two dates.

Without a context: every seed draws a context, faults, operators and clocks, and checks all invariants. A seed that
fails is printed with its story and plays again with `--seed`. With `--from` and `--to`: a rehearsal of the
context in force with virtual workers, without faults but `--fail`. With `--years`: a pyramid from hours to years for so
long, with everything looked at once a simulated day. With `--failovers`: the leader is struck so many times in a row.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scheduler.core.errors import InvalidRequest

if TYPE_CHECKING:
    from simulation.report import Report
    from simulation.run import Result

NAME = "simulate"
HELP = "run the scheduler on a virtual clock with faults"
EXIT_BROKEN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Seeds, or a rehearsal."""
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many seeds to play (20)")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="play this one alone, and tell its story if it fails"
    )
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first of the seeds (0)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (all cores)"
    )
    parser.add_argument(
        "--store", metavar="URL", help="play on this store, one seed after another, each on it emptied"
    )
    parser.add_argument(
        "--broker", metavar="URL", help="play over this broker, one seed after another, its queues emptied"
    )
    parser.add_argument(
        "--years",
        type=float,
        metavar="N",
        help="play hours, days, months and years for so long, from --from on",
    )
    parser.add_argument("--failovers", type=int, metavar="N", help="force so many fail-overs in a row")
    parser.add_argument("--context", metavar="F", help="rehearse this context file or folder")
    parser.add_argument("--from", dest="begin", metavar="DATE", help="rehearse from here, such as 2026-01-01")
    parser.add_argument("--to", dest="end", metavar="DATE", help="… to here (UTC)")
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="how long each unit of work takes (about 60)"
    )
    parser.add_argument(
        "--fail", type=float, default=0.0, metavar="P", help="the share of attempts that fail (0)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Exit code 0: nothing was broken; 1: an invariant was."""
    if args.years is not None:
        return _years(args)
    if args.failovers is not None:
        return _fail_over(args)
    if args.begin or args.end or args.context:
        return _rehearse(args)
    seeds = [args.seed] if args.seed is not None else list(range(args.first, args.first + max(1, args.seeds)))
    results = []
    with _bar(not args.json and len(seeds) > 1, len(seeds)) as advance:
        for result in _play(seeds, args.jobs, args.store, args.broker):
            results.append(result)
            advance(1)
            if not result.ok and not args.json:
                _tell(result)
    return _sum_up(results, args.json)


def _play(seeds: list[int], jobs: int, store: str | None, broker: str | None) -> Iterator[Result]:
    from simulation.run import run_seed
    from simulation.world import IN_MEMORY, MEMORY

    if store is not None or broker is not None:
        yield from (run_seed(seed, store or MEMORY, broker or IN_MEMORY) for seed in seeds)
        return
    if len(seeds) == 1 or jobs < 2:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(seeds))) as pool:
        yield from pool.imap(run_seed, seeds)


def _tell(result: Result) -> None:
    print(f"seed {result.seed}: invariant {result.invariant} is broken: {result.text}")
    for line in result.story:
        print(f"    {line}")
    print(f"    again: launch.py simulate --seed {result.seed}")


def _sum_up(results: list[Result], as_json: bool) -> int:
    broken = [result for result in results if not result.ok]
    total: dict[str, int] = {}
    for result in results:
        for what, number in result.counts.items():
            total[what] = total.get(what, 0) + number
    if as_json:
        rows = [
            {"seed": r.seed, "ok": r.ok, "hash": r.digest, "events": r.events, "jobs": r.jobs, "text": r.text}
            for r in results
        ]
        print(json.dumps({"seeds": rows, "totals": total, "broken": [r.seed for r in broken]}, indent=2))
    else:
        if len(results) == 1:
            only = results[0]
            print(f"seed {only.seed}: {only.jobs} jobs, {only.events:,} events, hash {only.digest}")
        print(", ".join(f"{number:,} {what}" for what, number in sorted(total.items())))
        print(f"{len(results)} seeds, {len(broken)} broken" + "".join(f" {r.seed}" for r in broken))
    return EXIT_BROKEN if broken else 0


# -- years, and fail-overs ------------------------------------------------------------------------


def _years(args: argparse.Namespace) -> int:
    from simulation.years import Years

    days = round(args.years * 365.25)
    if not 1 <= days <= 36525 or args.end or args.context:
        raise InvalidRequest(f"--years {args.years:g}: expected 0.003 to 100, and neither --to nor --context")
    begin = _instant("--from", args.begin or "2010-01-01")
    with _bar(not args.json, days) as advance:
        found = Years(begin, days, args.seed or 0).play_all(lambda day: advance(1))
    if args.json:
        print(json.dumps(found.as_json(), indent=2))
        return EXIT_BROKEN if found.broken else 0
    print(
        f"{found.begin:%Y-%m-%d} to {found.end:%Y-%m-%d}: {found.jobs:,} jobs, {found.uows:,} units of work,"
        f" {found.events:,} events, hash {found.digest}"
    )
    print(f"everything was looked at {found.looks:,} times, {found.rows:,} rows compared")
    print(", ".join(f"{number:,} {what}" for what, number in sorted(found.counts.items())))
    print(f"{found.seconds:.0f} s, {found.cpu_s:.0f} s of them on the processor", end="")
    print(f", {1000 * found.seconds / max(1, found.jobs):.1f} ms a job")
    return _verdict(found.broken, found.story)


def _fail_over(args: argparse.Namespace) -> int:
    from simulation.failovers import fail_over

    if not 1 <= args.failovers <= 100_000:
        raise InvalidRequest(f"--failovers {args.failovers}: expected 1 to 100000")
    with _bar(not args.json, args.failovers) as advance:
        found = fail_over(args.failovers, args.seed or 0, lambda n: advance(1))
    if args.json:
        print(json.dumps(found.as_json(), indent=2))
        return 0 if found.ok else EXIT_BROKEN
    print(
        f"{found.done} fail-overs in {found.hours:.0f} simulated hours: {found.deaths} deaths, {found.freezes} freezes;"
        f" the next one led after {found.slowest_s:.1f} s at most (lease {found.lease_s:g} s, look {found.look_s:g} s)"
    )
    print(f"{found.jobs} jobs, {found.executions} executions, {found.ticks} ticks", end=": ")
    print(f"{len(found.missed)} missed, {len(found.doubled)} doubled")
    wrong = [*(f"missed: {what}" for what in found.missed), *(f"doubled: {what}" for what in found.doubled)]
    return _verdict(
        found.broken or (None if found.ok else "; ".join(wrong) or "a fail-over came too late"), found.story
    )


def _verdict(broken: str | None, story: list[str]) -> int:
    if broken is None:
        print("no invariant is broken")
        return 0
    print(broken)
    for line in story:
        print(f"    {line}")
    return EXIT_BROKEN


# -- a rehearsal ----------------------------------------------------------------------------------


def _rehearse(args: argparse.Namespace) -> int:
    from commands.context_file import load_project
    from simulation.report import rehearse

    if not (args.begin and args.end):
        raise InvalidRequest(
            "a rehearsal needs both --from and --to, such as --from 2026-01-01 --to 2026-01-08"
        )
    if not 0.0 <= args.fail <= 1.0:
        raise InvalidRequest(f"--fail {args.fail}: expected a share between 0 and 1")
    where = args.context or os.environ.get("SYNERGY_CONTEXT")
    context = load_project(where).context
    begin, end = _instant("--from", args.begin), _instant("--to", args.end)
    done = 0.0
    with _bar(not args.json, 1000) as advance:

        def progress(share: float) -> None:
            nonlocal done
            advance((share - done) * 1000)
            done = share

        report = rehearse(
            context,
            begin,
            end,
            duration_s=args.duration,
            fail=args.fail,
            seed=args.seed or 0,
            progress=progress,
        )
    if args.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _show(report)
    return EXIT_BROKEN if report.violations else 0


def _show(report: Report) -> None:
    from commands.table import show, span

    def late(seconds: float | None) -> str:
        return "" if seconds is None else span(seconds)

    rows = [
        (
            line.process,
            ", ".join(f"{number} {state}" for state, number in sorted(line.jobs.items())),
            line.uows,
            line.failures,
            late(line.late_median_s),
            late(line.late_most_s),
        )
        for line in report.lines
    ]
    show(("process", "jobs", "units of work", "failures", "late (median)", "late (most)"), rows)
    for violation in report.violations:
        print(violation)
    print(
        f"{report.begin:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC, {len(report.violations)} violations"
    )


def _instant(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{option} {text!r} is no date; expected 2026-01-01 or 2026-01-01T06:00"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class _bar:  # noqa: N801 - a context manager that reads as a verb
    """A progress bar on stderr, where there is somebody to see it."""

    def __init__(self, wanted: bool, total: float) -> None:
        self._wanted, self._total = wanted and sys.stderr.isatty(), total
        self._progress: Any = None

    def __enter__(self) -> Any:
        if not self._wanted:
            return lambda by: None
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._progress.start()
        task = self._progress.add_task("simulating", total=self._total)
        return lambda by: self._progress.advance(task, by)

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
