"""`store init|check|repair|copy|prune|migrate`: looking after the store itself, while its box stands still.

`check` reads only, and may run beside a scheduler; `repair`, `copy`, `prune` and `migrate` take the leader's
lease, and are refused while a scheduler leads. 0: all is well. 1: something is wrong and was named.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from commands.operate import actor
from commands.site import Site
from commands.table import show
from scheduler.core.errors import ConfigError, InvalidRequest, StoreUnavailable
from settings import PASSWORD, add_options, overrides_of

if TYPE_CHECKING:
    from scheduler.clock import SystemClock
    from scheduler.core.audit import Finding
    from scheduler.core.ports import Store
    from scheduler.retention import Policy

HAS_ACTIONS = True
SHOWN_MAX = 200
Lines = Sequence[tuple[object, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One parser an action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("init", "make the schema and its indexes where they are absent, and say what was made"),
        ("check", "look at everything, name what is wrong and what repair would do; changes nothing"),
        ("repair", "set right what check names, so that nothing runs twice"),
        ("copy", "copy everything from one store into an empty one, and compare them"),
        ("prune", "let go of what is over and old, now"),
        ("migrate", "make a store of an older program one of this, after a backup; also done by start"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "repair":
            action.add_argument("--dry-run", action="store_true", help="say what would be done")
        if name == "copy":
            action.add_argument("source", metavar="SRC", help="URL of the store that has everything")
            action.add_argument("destination", metavar="DST", help="URL of an empty one")
        if name == "migrate":
            action.add_argument("--no-backup", action="store_true", help="there is one already")
        if name == "prune":
            for what in ("log", "uow", "event"):
                option = f"--{what}-days"
                action.add_argument(option, type=int, metavar="N", help=f"default: {what}_retention_days")
        action.add_argument("--json", action="store_true", help="for programs")
        add_options(action)


def run(args: argparse.Namespace) -> int:
    """Do it. Raises SchedulerError."""
    actions: dict[str, Callable[[argparse.Namespace, Site], int]] = {
        "init": _init,
        "check": _check,
        "repair": _repair,
        "copy": _copy,
        "prune": _prune,
        "migrate": _migrate,
    }
    return actions[args.action](args, Site(overrides_of(args)))


# -- what they share ----------------------------------------------------------------------------------------


class _Opened:
    """A store of ours, and a clock; closed at the end of the block. Nothing is made in it."""

    def __init__(self, site: Site, url: str) -> None:
        self._site, self._url = site, url
        self.shown = shown(url)

    def __enter__(self) -> tuple[Store, SystemClock]:
        from db import open_store
        from scheduler.clock import SystemClock, store_reader

        readers: list[Any] = []
        clock = SystemClock(lambda: readers[0]() if readers else None)
        self.store = open_store(self._url, clock=clock, synchronous=self._site.settings.sqlite_synchronous)
        readers.append(store_reader(self.store))
        return self.store, clock

    def __exit__(self, *_: object) -> None:
        self.store.close()


def shown(url: str) -> str:
    """A URL as it may be shown."""
    return PASSWORD.sub(lambda found: found["keep"] + "***", url.partition("?")[0])


class _Ticker:
    """What is done at this moment, for a terminal; nothing for a pipe, nor with --json."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._is_shown = sys.stderr.isatty() and not args.json
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Callable[[str, int], None]:
        if self._is_shown:
            from rich.console import Console
            from rich.status import Status

            self._status = Status("…", console=Console(stderr=True))
            self._status.start()
        return self._tick

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._status.stop()

    def _tick(self, what: str, rows: int) -> None:
        self._rows[what] = self._rows.get(what, 0) + rows
        if self._is_shown:
            self._status.update(f"{what}: {self._rows[what]:,} rows")


def holder() -> str:
    """Under which name this command leads."""
    return f"store@{socket.gethostname()}:{os.getpid()}"


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _policy(args: argparse.Namespace, site: Site) -> Policy:
    from scheduler.retention import Policy

    days = {}
    for what in ("log", "uow", "event"):
        given = getattr(args, f"{what}_days", None)
        if given is not None and given < 1:
            raise InvalidRequest(f"--{what}-days {given}: expected 1 or more")
        days[f"{what}_days"] = given or getattr(site.settings, f"{what}_retention_days")
    return Policy(**days)


# -- init ---------------------------------------------------------------------------------------------------


def _init(args: argparse.Namespace, site: Site) -> int:
    from scheduler.storekeeper import absent_of

    url = site.settings.store_url
    site.settings.ensure_state_folder()
    with _Opened(site, url) as (store, _clock):
        try:
            absent = absent_of(store)
        except StoreUnavailable:  # an embedded file is made by init
            absent = None
        store.init()
        still = absent_of(store)
        if still:
            store.complete()  # type: ignore[attr-defined]
        made = absent if absent is not None else ["everything"]
    if args.json:
        _print({"store": shown(url), "made": made})
    else:
        print(f"{shown(url)}: {f'made {_listed(made)}' if made else 'everything was there'}")
    return 0


def _listed(made: Sequence[str]) -> str:
    """`tables a, b; index c`."""
    parts = []
    for one, many in (("table", "tables"), ("index", "indexes")):
        names = [what.partition(" ")[2] for what in made if what.startswith(f"{one} ")]
        if names:
            parts.append(f"{many if len(names) > 1 else one} {', '.join(names)}")
    return "; ".join(parts) or ", ".join(made)


# -- check and repair ---------------------------------------------------------------------------------------


def _check(args: argparse.Namespace, site: Site) -> int:
    from db.migrations import require_current
    from scheduler.storekeeper import check

    url = site.settings.store_url
    with _Opened(site, url) as (store, clock), _Ticker(args) as progress:
        require_current(store, shown(url))
        checked = check(store, clock, policy=_policy(args, site), pause=time.sleep, progress=progress)
    if args.json:
        told = {"store": shown(url), "rows": checked.rows, "leader": checked.leader}
        _print({**told, "findings": [_told(finding) for finding in checked.findings]})
    else:
        _show(checked.findings)
        found = f"{len(checked.findings):,} findings" if checked.findings else "nothing is wrong"
        print(f"{shown(url)}: {checked.rows:,} rows looked at, {found}")
        if any(finding.remedy for finding in checked.findings):
            print("`launch.py store repair` does what is said; `--dry-run` shows it")
    return 1 if checked.findings else 0


def _repair(args: argparse.Namespace, site: Site) -> int:
    from db.migrations import require_current
    from scheduler.charge import charge
    from scheduler.storekeeper import Repaired, check, repair

    url, who = site.settings.store_url, actor()
    policy = _policy(args, site)
    with _Opened(site, url) as (store, clock):
        require_current(store, shown(url))
        if args.dry_run:
            with _Ticker(args) as progress:
                checked = check(store, clock, policy=policy, actor=who, pause=time.sleep, progress=progress)
            left = [finding for finding in checked.findings if not finding.remedy]
            done = Repaired(done=[finding for finding in checked.findings if finding.remedy], left=left)
        else:
            with charge(store, holder(), time.monotonic) as lead, _Ticker(args) as progress:

                def tick(what: str, rows: int) -> None:
                    lead.keep()
                    progress(what, rows)

                clock.refresh()
                findings = check(store, clock, policy=policy, actor=who, progress=tick).findings
                done = repair(lead, clock, findings, actor=who, progress=tick)
    if args.json:
        parts = {"repaired": done.done, "missed": done.missed, "left": done.left}
        told = {name: [_told(finding) for finding in findings] for name, findings in parts.items()}
        _print({"store": shown(url), "dry_run": args.dry_run, **told})
    else:
        _show([*done.done, *done.missed, *done.left])
        verb = "would be repaired" if args.dry_run else "repaired"
        rest = "".join(
            f", {len(findings):,} {what}"
            for what, findings in (
                ("changed meanwhile: repair again", done.missed),
                ("left to you", done.left),
            )
            if findings
        )
        print(f"{shown(url)}: {len(done.done):,} {verb}{rest}")
    return 1 if done.missed or done.left else 0


def _told(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "about": finding.about, "says": finding.says, "remedy": finding.remedy}


def _show(findings: Sequence[Finding]) -> None:
    if findings:
        rows = [(f.code, f.about, f.says, f.remedy or "nothing: look into it") for f in findings[:SHOWN_MAX]]
        show(("what", "of", "message", "repair"), rows)
        if len(findings) > SHOWN_MAX:
            print(f"… and {len(findings) - SHOWN_MAX:,} more; --json has all of them")


# -- copy ---------------------------------------------------------------------------------------------------


def _copy(args: argparse.Namespace, site: Site) -> int:
    from db.migrations import require_current
    from scheduler import moving
    from scheduler.charge import charge

    source, destination = _Opened(site, args.source), _Opened(site, args.destination)
    if args.source == args.destination:
        raise ConfigError(f"{source.shown}: source and destination are the same")
    with source as (ours, _clock), destination as (theirs, _), _Ticker(args) as progress:
        ours.count(moving.KINDS["facts"][0])  # it must be there already
        require_current(ours, source.shown)
        theirs.init()
        moving.refuse_if_used(theirs, destination.shown)
        with charge(ours, holder(), time.monotonic) as lead:
            moving.refuse_if_worked_on(ours, source.shown)
            moving.copy(ours, theirs, lead.keep, lambda name, rows: progress(f"copying {name}", rows))
            compared = lambda name, rows: progress(f"comparing {name}", rows)  # noqa: E731
            tables = moving.compare(ours, theirs, lead.keep, compared)
    wrong = [table for table in tables if not table.is_same]
    if args.json:
        told = [{**asdict(table), "is_same": table.is_same} for table in tables]
        _print({"source": source.shown, "destination": destination.shown, "same": not wrong, "tables": told})
    else:
        rows: Lines = [
            (t.name, f"{t.source_rows:,}", f"{t.rows:,}", t.hash[:16], "same" if t.is_same else "DIFFERENT")
            for t in tables
        ]
        show(("table", "source", "copy", "hash of the copy", ""), rows)
        end = f"{len(wrong)} tables differ: do not use the copy" if wrong else "the copy is the same"
        print(f"{source.shown} → {destination.shown}: {end}")
    return 1 if wrong else 0


# -- prune --------------------------------------------------------------------------------------------------


def _prune(args: argparse.Namespace, site: Site) -> int:
    from db.migrations import require_current
    from scheduler.charge import charge
    from scheduler.core.ports import Where
    from scheduler.core.records import Fact
    from scheduler.retention import Pruned, prune
    from scheduler.storekeeper import PRUNED

    url, policy, total = site.settings.store_url, _policy(args, site), Pruned()
    names = ("logs", "uows", "jobs", "events", "snapshots")
    with ExitStack() as ends:
        store, clock = ends.enter_context(_Opened(site, url))
        require_current(store, shown(url))
        lead = ends.enter_context(charge(store, holder(), time.monotonic))
        days = min(policy.uow_days, policy.event_days)
        before = (clock.real() - timedelta(days=days)).isoformat(timespec="milliseconds")
        with store.transaction(lead.lease) as tx:  # first: what is gone is no gap to a later check
            tx.delete(Fact, (Where("key", "=", PRUNED),))
            tx.insert([Fact(key=PRUNED, value={"before": before})])
        with _Ticker(args) as progress:
            total.more = True
            while total.more:
                done = prune(store, lead.lease, clock, policy)
                for name in names:
                    setattr(total, name, getattr(total, name) + getattr(done, name))
                total.more = done.more
                lead.keep()
                progress("pruned", sum(getattr(done, name) for name in names[:4]))
    removed = {name: getattr(total, name) for name in names}
    if args.json:
        _print({"store": shown(url), **removed})
    else:
        parts = [f"{count:,} {name}" for name, count in removed.items() if count and name != "snapshots"]
        made = f"; {total.snapshots:,} events became snapshots" if total.snapshots else ""
        print(f"{shown(url)}: {', '.join(parts) or 'nothing'} removed{made}")
    return 0


# -- migrate ------------------------------------------------------------------------------------------------


def _migrate(args: argparse.Namespace, site: Site) -> int:
    from commands import upgrade
    from db import migrations

    url = site.settings.store_url
    with _Opened(site, url) as (store, clock), _Ticker(args) as progress:
        done = upgrade.upgrade(
            store,
            clock,
            steps=migrations.STEPS,
            folder=site.settings.state_folder / upgrade.FOLDER,
            holder=holder(),
            shown=shown(url),
            progress=progress,
            backup=not args.no_backup,
        )
    if args.json:
        _print({"store": shown(url), "migrated": None if done is None else asdict(done)})
    else:
        print(f"{shown(url)}: there is nothing to migrate" if done is None else done.line(shown(url)))
    return 0
