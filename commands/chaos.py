"""`chaos`: the flights example on real processes, while random ones of them are killed, frozen and started again.

Each round is a whole `demo --exit` in a folder of its own; it must end with equal totals, leave no process behind, and
the events in its store must tell a history in which every invariant holds (`simulation.aftermath`). With --servers it
plays on private MongoDB and RabbitMQ servers, which are stopped, killed and started again as well. The seed decides who
is hit and when; the machine decides what they were just doing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.core.errors import ConfigError, InvalidRequest, SchedulerError
from supervisor.os_process import holder

if TYPE_CHECKING:
    from scripts.servers import Server

ROOT = Path(__file__).resolve().parent.parent
EXIT_BROKEN = 1
ROUND_LIMIT_S = 900.0
LOOK_S = 0.1
CALM_S = 3.0  # nobody is hit while a round sets its stage
HIT_S = (0.3, 5.0)  # between two hits
FROZEN_S = (0.5, 8.0)  # leases of the leader are 4 s
FREEZE = 0.2  # the share of hits that freeze instead of kill
SERVER = 0.25  # the share of hits that go to a server, if there are any
KILL = 0.5  # the share of servers' stops that are kill -9
AWAY_S = (0.5, 8.0)


@dataclass
class Score:
    """What was done to them, and what came of it."""

    seed: int
    rounds: int = 0
    events: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, how often, where."""
    parser.add_argument("--seconds", type=float, default=600.0, metavar="N", help="no new round after (600)")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="go on until so many were killed")
    parser.add_argument(
        "--stops", type=int, default=0, metavar="N", help="… and servers were stopped so often"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="who is hit when (random)")
    parser.add_argument(
        "--servers", action="store_true", help="on private MongoDB and RabbitMQ, which are hit as well"
    )
    parser.add_argument("--from", dest="since", default="2013-12-01", metavar="DAY", help="2013-12-01")
    parser.add_argument("--live", default="2013-12-30", metavar="HOUR", help="2013-12-30")
    parser.add_argument("--rate", default="3600", metavar="N", help="business seconds a second; 3600")
    parser.add_argument("--state-folder", type=Path, metavar="FOLDER", help="default: a temporary one")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Exit code 0: all rounds held; 1: one did not, and its folder is kept. Raises SchedulerError."""
    seed = args.seed if args.seed is not None else random.randrange(1_000_000)
    if args.stops and not args.servers:
        raise InvalidRequest("--stops: there are servers to stop with --servers only")
    score, dice = Score(seed), random.Random(seed)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    until = time.monotonic() + args.seconds
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(args.state_folder, score))
        say(f"seed {seed}; {args.seconds:g} s")
        servers = stack.enter_context(_servers(args.servers, folder))
        while not score.broken and (time.monotonic() < until or not _enough(args, score)):
            score.rounds += 1
            one = Round(args, folder / f"round-{score.rounds}", servers, dice, score)
            problem = one.play()
            if problem:
                score.broken.append(f"round {score.rounds}: {problem} (see {one.folder})")
            say(
                f"round {score.rounds}: {problem or 'holds'}; so far {score.kills.total()} kills,"
                f" {score.freezes.total()} freezes, {score.stops.total()} stops of servers,"
                f" {score.events:,} events judged"
            )
    _report(args, score)
    return EXIT_BROKEN if score.broken else 0


def _enough(args: argparse.Namespace, score: Score) -> bool:
    return bool(score.kills.total() >= args.kills and score.stops.total() >= args.stops)


@contextmanager
def _folder(wanted: Path | None, score: Score) -> Iterator[Path]:
    """Where the rounds are played; a temporary one is removed, unless something broke in it."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        if any(wanted.iterdir()):
            raise InvalidRequest(f"--state-folder {wanted}: expected a new or empty folder")
        yield wanted.resolve()
        return
    import shutil

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield folder
    if not score.broken:
        shutil.rmtree(folder)


@contextmanager
def _servers(is_wanted: bool, folder: Path) -> Iterator[list[Server]]:
    if not is_wanted:
        yield []
        return
    from scripts.servers import NotHere, ServerError, mongod, rabbitmq

    try:
        with mongod(folder) as store, rabbitmq(folder) as broker:
            yield [store, broker]
    except NotHere as error:
        raise ConfigError(f"--servers: {error}") from error
    except ServerError as error:
        raise SchedulerError(f"--servers: {error}") from error


class Round:
    """One demo, from its start to its verdict."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        servers: list[Server],
        dice: random.Random,
        score: Score,
    ) -> None:
        self.args, self.folder, self.servers, self.dice, self.score = args, folder, servers, dice, score
        self.state = folder / "state"
        for server in servers:
            server.await_ready()  # from the round before
        self.urls = {server.setting: server.fresh() for server in servers}
        self._frozen: dict[int, float] = {}  # pid -> when it goes on
        self._away: dict[int, float] = {}  # server -> when it comes back

    def play(self) -> str:
        """Empty if all holds, else what does not."""
        self.folder.mkdir(parents=True)
        output = self.folder / "output"
        with output.open("wb") as out:
            demo = subprocess.Popen(
                self._argv(), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=self._environment()
            )
        try:
            over = self._torment(demo)
        finally:
            self._let_go(time.monotonic() + 1e9)
            if demo.poll() is None:
                demo.terminate()
                demo.wait()
        if over:
            return f"it did not end within {ROUND_LIMIT_S:g} s"
        if demo.returncode != 0:
            words = output.read_text(errors="replace").strip().splitlines()[-3:]
            return f"exit code {demo.returncode}: {' | '.join(words)}"
        if left := self._names():
            return f"{', '.join(left)} were left behind"
        return self._judge()

    def _argv(self) -> list[str]:
        options = [
            "--from",
            self.args.since,
            "--live",
            self.args.live,
            "--rate",
            self.args.rate,
            "--port",
            "0",
        ]
        for setting, url in self.urls.items():
            options += [f"--{setting.partition('_')[0]}", url]
        launch = [sys.executable, "-m", "synergy", "demo", "--exit"]
        return [*launch, "--state-folder", str(self.state), *options]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    # -- hitting --------------------------------------------------------------------------------------

    def _torment(self, demo: subprocess.Popen[bytes]) -> bool:
        """Hit them until the demo ends; whether it took too long."""
        began = time.monotonic()
        hit_at: float | None = None
        while demo.poll() is None:
            now = time.monotonic()
            if now - began > ROUND_LIMIT_S:
                return True
            if hit_at is None:  # the supervisor runs: the stage is set
                hit_at = now + CALM_S if "supervisor" in self._names() else None
            elif now >= hit_at:
                self._hit(demo.pid, now)
                hit_at = now + self.dice.uniform(*HIT_S)
            self._let_go(now)
            time.sleep(LOOK_S)
        return False

    def _hit(self, demo: int, now: float) -> None:
        if self.servers and self.dice.random() < SERVER:
            at = self.dice.randrange(len(self.servers))
            if at not in self._away:
                server = self.servers[at]
                server.kill() if self.dice.random() < KILL else server.stop()
                self.score.stops[server.need.name] += 1
                self._away[at] = now + self.dice.uniform(*AWAY_S)
            return
        names = self._names()
        if not names:
            return
        name = self.dice.choice(names)
        found = holder(self.state / "run" / f"{name}.pid")
        if found is None or found.pid in (*self._frozen, demo):
            return  # the demo itself stops what a dead supervisor left, in its name
        kind = name.split(".")[0]
        try:
            if self.dice.random() < FREEZE:
                os.kill(found.pid, signal.SIGSTOP)
                self._frozen[found.pid] = now + self.dice.uniform(*FROZEN_S)
                self.score.freezes[kind] += 1
            else:
                os.kill(found.pid, signal.SIGKILL)
                self.score.kills[kind] += 1
        except ProcessLookupError:
            return  # it ended by itself, just now

    def _let_go(self, now: float) -> None:
        for pid in [pid for pid, at in self._frozen.items() if now >= at]:
            del self._frozen[pid]
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # its supervisor found it silent, and killed it
        for at in [at for at, back in self._away.items() if now >= back]:
            del self._away[at]
            self.servers[at].launch()

    def _names(self) -> list[str]:
        """The processes of the box that live, by name."""
        files = sorted((self.state / "run").glob("*.pid"))
        return [path.stem for path in files if holder(path) is not None]

    # -- judging --------------------------------------------------------------------------------------

    def _judge(self) -> str:
        from commands.site import Site
        from simulation.aftermath import judge
        from simulation.model import Broken

        os.environ["FLIGHTS_STATE"] = str(self.state / "flights")
        os.environ["FLIGHTS_START"] = f"{datetime.fromisoformat(self.args.since):%Y%m%d%H}"
        urls = {
            "store_url": f"sqlite:///{self.state}/synergy.sqlite",
            "broker_url": f"embedded://{self.state}/synergy-queue.sqlite",
            **self.urls,
        }
        site = Site({"context": str(ROOT / "process_context.py"), "state_folder": str(self.state), **urls})
        try:
            store, _broker, clock = site.connect()
            self.score.events += judge(store, site.project.context, clock)
        except Broken as broken:
            return str(broken)
        except SchedulerError as error:
            return f"its store could not be judged: {error}"
        finally:
            site.close()
        return ""


def _report(args: argparse.Namespace, score: Score) -> None:
    if args.json:
        found = {
            "seed": score.seed,
            "rounds": score.rounds,
            "events": score.events,
            "kills": dict(score.kills),
            "freezes": dict(score.freezes),
            "stops": dict(score.stops),
            "broken": score.broken,
        }
        print(json.dumps(found))
        return
    for title, counter in (
        ("killed -9", score.kills),
        ("frozen", score.freezes),
        ("stopped", score.stops),
    ):
        if counter:
            each = ", ".join(f"{name} {n}" for name, n in sorted(counter.items()))
            print(f"{title:<10} {counter.total():>4}   {each}")
    for line in score.broken:
        print(line, file=sys.stderr)
    verdict = "something broke" if score.broken else "the totals are right, and every invariant holds"
    print(f"{score.rounds} rounds, {score.events:,} events judged: {verdict} (seed {score.seed})")
