"""`demo`: a year of real flights through the real scheduler, workers and supervisor, with the dashboard.

It back-fills from January to the last days of December as fast as the machine can, then plays the rest live, an hour
a second, until the new year; prints the year's totals beside an independent count, and serves the dashboard until
Ctrl-C. With --exit it ends there, and business time stands: 0 if the totals are equal and every job of the year is
processed (or noop).

The demo itself only prepares, turns the clock and looks: what is done is done by the same processes as in earnest.
Killing one of them is fine, the supervisor too. With --servers state and messages are on private MongoDB and RabbitMQ
servers instead of in files.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from commands import demo_servers
from commands.demo_box import ROOT, State, SupervisedBox, drain, free_port
from commands.site import Site
from scheduler.core.errors import ConfigError, SchedulerError, StoreUnavailable
from settings import load_settings

if TYPE_CHECKING:
    from commands.demo_show import Show
    from commands.demo_year import Year
    from examples.flights.landing import Landing
    from scheduler.clock import SystemClock
    from scheduler.core.ports import Broker, Store

T = TypeVar("T")

HOST = "127.0.0.1"
PORT = 5000
YEAR = datetime(2013, 1, 1, tzinfo=UTC)
NEW_YEAR = datetime(2014, 1, 1, tzinfo=UTC)
LIVE = datetime(2013, 12, 30, tzinfo=UTC)
RATE = 3600.0
AFTER_S = 3600.0  # business seconds after the new year in which the last hours close
LOOK_S = 0.25
STUCK_S = 180.0  # nothing moved for so long: it says what is in the way, and gives up
OUTAGE_S = 10.0  # a store that is away again after so long is said again
GRACE_S = 5.0
UP_S = 30.0
WRONG = 1
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C, TERM or HUP: everything is to end now."""


def instant(text: str) -> datetime:
    """`2013-12-30` or `2013-12-30T12`, in UTC, an hour of 2013. Raises ArgumentTypeError."""
    try:
        found = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a day or an hour, such as 2013-12-30T12"
        ) from None
    if not YEAR <= found < NEW_YEAR or found.minute or found.second or found.microsecond:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a full hour of 2013")
    return found


def number(text: str) -> float:
    """A rate of the clock. Raises ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 100000")
    return found


def port(text: str) -> int:
    """A TCP port. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 65535")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is played, how fast, and where."""
    parser.add_argument(
        "--exit", action="store_true", help="end with the year; non-zero if anything is wrong"
    )
    parser.add_argument("--keep", action="store_true", help="go on where an earlier demo ended")
    parser.add_argument(
        "--port", type=port, metavar="N", help=f"port of the dashboard; {PORT}, or the next free one"
    )
    parser.add_argument(
        "--state-folder", "--state", type=Path, metavar="FOLDER", help="default: .synergy/demo"
    )
    parser.add_argument(
        "--from", dest="since", type=instant, default=YEAR, metavar="DAY", help="begin later than in January"
    )
    parser.add_argument(
        "--live", type=instant, default=LIVE, metavar="HOUR", help=f"from here on live; {LIVE:%Y-%m-%dT%H}"
    )
    parser.add_argument(
        "--rate", type=number, default=RATE, metavar="N", help=f"business seconds a second; {RATE:g}"
    )
    demo_servers.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Play; the exit code. Raises SchedulerError."""
    from commands.demo_show import Show

    if args.since >= args.live:
        raise ConfigError(f"--from {args.since:%Y-%m-%dT%H}: expected before --live {args.live:%Y-%m-%dT%H}")
    folder = (args.state_folder or load_settings().state_folder / "demo").resolve()
    taken = free_port(HOST, PORT if args.port is None else args.port, is_given=args.port is not None)
    state = State(folder)
    stopping, urged, show = threading.Event(), threading.Event(), Show()
    with (
        contextlib.closing(state),
        listening(stopping, urged),
        demo_servers.urls_of(args, show.line) as urls,
    ):
        demo = Demo(args, state, taken, stopping, show, urls)
        try:
            return demo.play()
        except Interrupted:
            demo.show.line("stopping; once more to wait for nothing")
            return INTERRUPTED
        finally:
            demo.end(urged.is_set)


@contextlib.contextmanager
def listening(stopping: threading.Event, urged: threading.Event) -> Iterator[None]:
    """INT, TERM and HUP set `stopping`, the second one also `urged`; nothing is interrupted in the middle."""

    def on_signal(*_: object) -> None:
        (urged if stopping.is_set() else stopping).set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Demo:
    """One demo, from an empty folder to the totals."""

    def __init__(
        self,
        args: argparse.Namespace,
        state: State,
        port: int,
        stopping: threading.Event,
        show: Show,
        urls: Mapping[str, str],
    ) -> None:
        self.args, self.state, self.stopping, self.show = args, state, stopping, show
        folder = state.folder
        self.flights = folder / "flights"
        os.environ["FLIGHTS_STATE"] = str(self.flights)  # read by the context file, in all processes
        os.environ["FLIGHTS_START"] = f"{args.since:%Y%m%d%H}"
        for name in ("SYNERGY_SYNERGY_START_TIMEPERIOD", "SYNERGY_SETTINGS"):
            os.environ.pop(name, None)
        self.site = Site(
            {
                "context": str(ROOT / "process_context.py"),
                "state_folder": str(folder),
                "store_url": f"sqlite:///{folder}/synergy.sqlite",
                "broker_url": f"embedded://{folder}/synergy-queue.sqlite",
                "mx_host": HOST,
                "mx_port": str(port),
                "grace_s": str(GRACE_S),
                **urls,
            }
        )
        self.port = port
        self.box = SupervisedBox(self.site)
        self._moved = -1, 0.0  # how many jobs had ended, and since when it is that many

    # -- the play -------------------------------------------------------------------------------------

    def play(self) -> int:
        """All of it; the exit code. Raises Interrupted, SchedulerError."""
        left = drain(self.site)
        if left:
            raise SchedulerError(
                f"an earlier demo left {', '.join(left)} running, which could not be stopped"
            )
        if not self.args.keep:
            self.state.empty()
        self._prepare()
        self._patiently(self._freeze)
        self.box.start()
        year = self._patiently(self._year)
        self._patiently(self._announce)
        self._patiently(lambda: self._back_fill(year))
        self._patiently(lambda: self._live(year))
        self._patiently(lambda: self._settle(year))
        is_right = self._patiently(lambda: self._judge(year))
        if not self.args.exit:
            self._serve()
        return 0 if is_right else WRONG

    def _serve(self) -> None:
        """Until Ctrl-C, which is how this is meant to end."""
        self.show.line(f"reports of the months: {self.flights / 'reports'}")
        self.show.line(f"the dashboard stays at {self.address()} until Ctrl-C")
        with contextlib.suppress(Interrupted):
            while True:
                self._pause(1.0)

    def _prepare(self) -> None:
        from examples.flights.landing import DATA
        from examples.flights.prepare import prepare

        def progress(done: int, total: int) -> None:
            self._check()
            self.show.update(done, total)

        data = Path(os.environ.get("FLIGHTS_DATA") or DATA)
        with self.show.bar("landing raw rows", "rows"):
            prepare(self.flights, self.args.live, progress, data)

    def _freeze(self) -> None:
        """Business time stands, before anybody looks at it: at the beginning, or where an earlier demo ended."""
        from scheduler.clock import FACT, Mapping
        from scheduler.core.event import Event
        from scheduler.core.ports import Change
        from scheduler.core.records import Fact

        store, _broker, clock = self.connection()
        last = store.find(Event, (), ("-business_at",), 1) if self.args.keep else []
        fact = Mapping(clock.real(), max([self.args.live, *(e.business_at for e in last)]), 0).to_fact()
        with store.transaction() as tx:
            if not tx.update([Change(Fact, FACT, {}, {"value": fact.value})]):
                tx.insert([fact])
        clock.refresh()

    def _back_fill(self, year: Year) -> None:
        """Everything that was closed when the live part begins."""
        until = self.args.live - timedelta(seconds=self._lag_s())
        with self.show.bar("back-fill", "jobs"):
            while True:
                found = year.amount(until)
                self.show.update(found.ended, found.expected)
                if found.ended >= found.expected:
                    return
                self._pause(LOOK_S)
                self._check_stuck(year, until, found.ended)

    def _live(self, year: Year) -> None:
        """Business time runs until the last hour of the year is closed."""
        until = NEW_YEAR + timedelta(seconds=AFTER_S)
        _store, _broker, clock = self.connection()
        if clock.business() < until:
            self._set_rate(self.args.rate)
        total = (until - self.args.live).total_seconds() / 3600
        with self.show.bar("live", "hours"):
            while (now := clock.business()) < until:
                self.show.update(
                    (now - self.args.live).total_seconds() / 3600, total, f"{now:%Y-%m-%d %H:%M} UTC"
                )
                self._pause(LOOK_S)
            self.show.update(total, total, f"{now:%Y-%m-%d %H:%M} UTC")
        if self.args.exit:
            self._stand()
        else:
            self._set_rate(1.0)

    def _stand(self) -> None:
        """Business time stands, and the scheduler saw all that is due by then: it takes the second command in a later
        turn than the first, with whatever became due before. So a rest that is found lasts."""
        for _ in range(2):
            self._set_rate(0.0)

    def _settle(self, year: Year) -> None:
        """All rows have landed, all late ones were called for, and nothing of the year is left to do."""
        landing = self._landing()
        try:
            with self.show.bar("closing the year", "jobs"):
                while True:
                    has_landed = landing.settled(
                        int(NEW_YEAR.timestamp())
                    )  # first: then all commands are there
                    found = year.amount(NEW_YEAR)
                    self.show.update(found.ended, found.expected)
                    if has_landed and year.is_at_rest(NEW_YEAR):
                        hours, rows = landing.late()
                        self.show.line(f"{hours:,} closed hours were processed again for {rows:,} late rows")
                        return
                    self._pause(LOOK_S)
                    self._check_stuck(year, NEW_YEAR, found.ended)
        finally:
            landing.close()

    def _judge(self, year: Year) -> bool:
        """Print the totals; whether they are as counted and every job of the year is processed."""
        from examples.flights.prepare import Places
        from examples.flights.totals import compare

        found = compare(Places(self.flights).results, since=f"{self.args.since:%Y-%m-%dT%H}")
        self.show.table(found.table())
        for difference in found.differences():
            self.show.problem(difference)
        amount, problems = year.amount(NEW_YEAR), year.not_done(NEW_YEAR)
        for problem in problems:
            self.show.problem(problem)
        missing = amount.expected - sum(amount.states.values())
        if missing:
            self.show.problem(f"{missing:,} jobs of the year were never made")
        is_right = found.equal and not problems and not missing
        noop = amount.states.get("noop", 0)
        self.show.line(
            f"{amount.done:,} of {amount.expected:,} jobs of the year are done ({noop:,} had nothing to do);"
            f" the totals are {'equal' if found.equal else 'NOT equal'}"
        )
        return is_right

    # -- its parts ------------------------------------------------------------------------------------

    def connection(self) -> tuple[Store, Broker, SystemClock]:
        """The store of the box, and what is read of it."""
        return self.site.connect()

    def address(self) -> str:
        """Where the dashboard is, once it said so."""
        from scheduler.core.records import Fact

        store, _broker, _clock = self.connection()
        fact = store.get(Fact, f"mx:{self.site.settings.box}")
        return "" if fact is None else str(fact.value["url"])

    def _announce(self) -> None:
        """Say where the dashboard is, once it is there."""
        until = time.monotonic() + UP_S
        while not self._is_served() and time.monotonic() < until:
            self._pause(0.1)
        if self.args.port is None and self.port != PORT:
            self.show.line(f"port {PORT} is taken by another program, so it is {self.port or 'another one'}")
        self.show.line(f"dashboard: {self.address() or 'not up yet'}")

    def _is_served(self) -> bool:
        where = urlsplit(self.address())
        try:
            socket.create_connection((where.hostname or HOST, where.port or self.port), 1.0).close()
        except OSError:
            return False
        return bool(where.port)

    def _year(self) -> Year:
        from commands.demo_year import Year

        store, _broker, clock = self.connection()
        return Year(store, self.site.timetable, clock)

    def _landing(self) -> Landing:
        from examples.flights.landing import Landing
        from examples.flights.prepare import Places

        return Landing(Places(self.flights).landing)

    def _lag_s(self) -> float:
        return max(p.lag_s for p in self.site.project.context.processes.values() if p.kind == "managed")

    def _set_rate(self, rate: float) -> None:
        """By a command, as an operator would; a scheduler that is away takes it when it is back."""
        from scheduler.clock import mapping_command
        from scheduler.control import submit, wait
        from scheduler.core.command import DONE, PENDING, RUNNING

        store, broker, clock = self.connection()
        clock.refresh()
        value = mapping_command(clock.mapping, clock.real(), rate=rate).to_fact().value
        command = submit(
            store, broker, "set_clock", {}, actor="demo", arguments={"value": value}, expiry_s=None
        )
        while (found := wait(store, command, LOOK_S)).state in (PENDING, RUNNING):
            self._pause(0.0)
        if found.state != DONE:
            raise SchedulerError(f"the clock was not set: {found.message}")
        clock.refresh()

    # -- waiting --------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Interrupted

    def _pause(self, seconds: float) -> None:
        """Wait, and keep the supervisor running. Raises Interrupted."""
        self.stopping.wait(seconds)
        self._check()
        if self.box.watch():
            self.show.line("the supervisor died and was started again; it adopts what runs")

    def _patiently(self, phase: Callable[[], T]) -> T:
        """Do a phase, again from its beginning when the store was away: each one finds what is done. Raises
        StoreUnavailable if it stays away."""
        first = last = -math.inf
        while True:
            try:
                return phase()
            except StoreUnavailable as error:
                now = time.monotonic()
                if now - last > OUTAGE_S:
                    first = now
                    self.show.line(f"waiting for the store: {error}")
                last = now
                if self.args.exit and now - first > STUCK_S:
                    raise
                self._pause(LOOK_S)

    def _check_stuck(self, year: Year, until: datetime, ended: int) -> None:
        """With --exit: give up when nothing moves any more. Raises SchedulerError saying what is in the way."""
        now = time.monotonic()
        if ended != self._moved[0] or not self.args.exit:
            self._moved = ended, now
        elif now - self._moved[1] > STUCK_S:
            culprits = "; ".join(year.not_done(until)) or "rows that have not landed"
            raise SchedulerError(f"nothing moved for {STUCK_S:g} s: {culprits}")

    def end(self, is_urged: Callable[[], bool]) -> None:
        """Stop every process of the demo; nothing is left behind. May be called twice."""
        left = self.box.stop(is_urged)
        self.site.close()
        self.show.close()
        if left:
            print(f"still running: {', '.join(left)}", file=sys.stderr)
