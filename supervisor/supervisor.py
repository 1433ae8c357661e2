"""The loop of one box: looks, plans, acts, writes down. The only parent of the box's processes.

What is to run is computed from the context (`roster`) and from the box's rows in the store, where people write
what they want (`desired`); `plan` says what follows; `os_process` carries it out; `ledger` writes the rest back.

A supervisor that dies by -9 leaves its children at work. The next one finds them by their locked pid files and
adopts them; it never starts a second one, because the first still holds the lock. One supervisor a box: its own
pid file. While the store is away it goes on with what was wanted last.

Signals: TERM and INT stop the box (a second one without patience), HUP loads the context anew, USR1 makes it look
at the rows at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scheduler.core.errors import ConfigError, Refused, SchedulerError, StoreUnavailable
from scheduler.core.records import BoxProcess
from supervisor.ledger import Ledger, owner_of, row_id
from supervisor.os_process import Identity, PidFile, Running, holder, is_alive, reap_orphans, rotate
from supervisor.plan import Action, Desired, Limits, Observed, State, Verb, after, plan
from supervisor.roster import SUPERVISOR, Registered, kind_of
from supervisor.silence import Silence
from supervisor.wakeup import Wakeup

LOOK_S = 1.0  # between two looks at the rows, when nobody wakes us
RESTLESS_S = 0.1  # between two turns while something starts, stops or waits
HEARTBEAT_S = 5.0
STALE_S = 20.0  # another host's supervisor of this box that was not seen for so long is gone
ROUNDS = 5  # plans in one turn: died, noted, started again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
RESTLESS = (State.STARTING, State.STOPPING, State.BACKOFF)

logger = logging.getLogger("supervisor")


class Supervisor:
    """One box. `run` blocks until it is told to stop, and returns the exit code."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        load: Callable[[], Mapping[str, Registered]],
        launch: Callable[[Registered, str], Running],
        folder: Path,
        limits: Limits,
        leader_lease_s: float,
        last_words: Callable[[str], str] = lambda name: "",
        hang_up_stops: bool = False,
    ) -> None:
        """`load` computes what belongs on this box (raises ConfigError); `launch` starts one process, given the
        name of this run of it; `folder` holds the pid files and the logs;
        `last_words` tells what a process said last; `hang_up_stops`: HUP means TERM."""
        self.ledger, self.box = ledger, ledger.box
        self._load, self._launch, self._last_words = load, launch, last_words
        self._run_folder, self._log_folder = folder / "run", folder / "logs"
        self._folder = folder
        self._limits, self._hang_up_stops = limits, hang_up_stops
        self._roster: dict[str, Registered] = {}
        self._desired: dict[str, Desired] = {}
        self._seen: dict[str, Observed] = {}
        self._running: dict[str, Running] = {}
        self._restarts: dict[str, int] = {}
        self._to_reload: set[str] = set()  # these run with a context of before the last reload
        self._silence = Silence(row_id(self.box, "scheduler"), leader_lease_s)
        self._look_s = min(LOOK_S, leader_lease_s / 4)
        self._look_at = self._beat_at = 0.0
        self._stopping = self._hurry = self._reload = self._look = False
        self._pid_file = PidFile(self._run_folder / f"{SUPERVISOR}.pid")

    # -- life -----------------------------------------------------------------------------------------

    def run(self, *, drain: bool = False) -> int:
        """Keep the box running until TERM or INT; `drain` only stops what is there. Returns the exit code.

        Raises Refused if the box has a supervisor, ConfigError, StoreUnavailable (at the start only).
        """
        with Wakeup(self._on_signal, SIGNALS) as wakeup:
            me = self._pid_file.take()
            try:
                self._roster = {} if drain else dict(self._load())
                self._begin(me)
                self._stopping = self._stopping or drain
                while self.turn(time.monotonic()):
                    wakeup.wait(self._patience(), self._descriptors())
                self._end()
            finally:
                for running in self._running.values():
                    running.close()
                self._pid_file.close()
        return 0

    def turn(self, now: float) -> bool:
        """One pass: look, plan, act, write. False when the box is stopped and all is gone."""
        if self._reload and not self._stopping:
            self._reload_roster()
        self._read_rows(now)
        self._observe()
        limits = replace(self._limits, grace_s=0.0) if self._hurry else self._limits
        for _round in range(ROUNDS):
            actions = plan(self._wanted(), self._seen, now, limits)
            for action in actions:
                self._act(action, now)
            if not actions:
                break
        self._forget_unregistered()
        self._hang_up()
        self._beat(now)
        self.ledger.flush()
        return not self._stopping or any(seen.alive for seen in self._seen.values())

    def _begin(self, me: Identity) -> None:
        rows = self.ledger.rows()
        self._refuse_second(rows.get(SUPERVISOR), me)
        self.ledger.register([Registered(SUPERVISOR, SUPERVISOR), *self._roster.values()], rows)
        where = {"host": socket.gethostname(), "state": str(self._folder)}
        self._write(SUPERVISOR, State.RUNNING, me, data=where, exit_code=None)
        self.ledger.emit(
            "supervisor.start", f"supervisor of box {self.box} started, pid {me.pid}", data=where
        )
        files = {path.stem for path in self._run_folder.glob("*.pid")} - {SUPERVISOR}
        for name in sorted({*self._roster, *rows, *files} - {SUPERVISOR}):
            row = rows.get(name)
            kind = self._roster[name].kind if name in self._roster else row.kind if row else kind_of(name)
            self._seen[name] = Observed(name=name, kind=kind, since=time.monotonic())
            if not self._adopt(name) and row is not None:
                self._mourn_stranger(row)
        self._take_desired(rows)

    def _refuse_second(self, row: BoxProcess | None, me: Identity) -> None:
        """The pid file guards one state folder; the row guards the box's name against another folder or host."""
        if row is None or row.state != State.RUNNING or row.pid is None or row.pid_started is None:
            return
        where = row.data or {}
        host, folder = str(where.get("host")), str(where.get("state"))
        if host == socket.gethostname():
            is_there = folder != str(self._folder) and is_alive(Identity(row.pid, row.pid_started))
        else:
            seen = row.seen_at
            is_there = seen is not None and abs((self.ledger.now() - seen).total_seconds()) < STALE_S
        if is_there and row.pid != me.pid:
            raise Refused(
                f"box {self.box!r} has a supervisor already: pid {row.pid} on {host}, state folder {folder};"
                " give this one another box name (SYNERGY_BOX)"
            )

    def _end(self) -> None:
        self.ledger.emit("supervisor.stop", f"supervisor of box {self.box} stopped")
        self._write(SUPERVISOR, State.STOPPED, None)
        if not self.ledger.flush() and not self.ledger.flush():
            logger.warning("stopped, but the store could not be told")

    # -- looking --------------------------------------------------------------------------------------

    def _read_rows(self, now: float) -> None:
        if now < self._look_at and not self._look:
            return
        self._look, self._look_at = False, now + self._look_s
        try:
            self._take_desired(self.ledger.rows())
            scheduler = self._seen.get("scheduler")
            if scheduler is not None:
                silent = self._silence.look(self.ledger.leader(), now) and scheduler.alive
                self._seen["scheduler"] = replace(scheduler, silent=silent)
        except StoreUnavailable as error:
            logger.debug("going on with what was wanted last: %s", error)

    def _take_desired(self, rows: Mapping[str, BoxProcess]) -> None:
        for name, item in self._roster.items():
            row = rows.get(name)
            wish = row.desired if row is not None else "on" if item.is_on else "off"
            self._desired[name] = Desired(
                name=name, kind=item.kind, is_on=wish != "off", restart=wish == "restart"
            )

    def _wanted(self) -> dict[str, Desired]:
        if self._stopping:
            return {name: replace(want, is_on=False, restart=False) for name, want in self._desired.items()}
        return self._desired

    def _observe(self) -> None:
        for name, running in list(self._running.items()):
            if running.has_ended():
                seen = self._seen[name]
                words = self._last_words(name) if running.exit_code else ""
                self._seen[name] = replace(seen, alive=False, exit_code=running.exit_code, last_words=words)
                del self._running[name]
                if seen.kind == "worker" and not (running.exit_code == 0 and seen.state is State.STOPPING):
                    self._mourn(name, running.identity.instance, running.exit_code)
        if os.getpid() == 1:
            reap_orphans(frozenset(running.identity.pid for running in self._running.values()))

    def _adopt(self, name: str) -> bool:
        """Whether this process runs already, started by an earlier supervisor or by hand; then it is ours now."""
        found = holder(self._run_folder / f"{name}.pid")
        if found is None:
            return False
        self._running[name] = Running(found)
        now = time.monotonic()
        self._seen[name] = replace(
            self._seen[name], alive=True, state=State.RUNNING, since=now, started=now, exit_code=None
        )
        self._write(name, State.RUNNING, found, data={"instance": found.instance}, message="adopted")
        self.ledger.emit("os_process.adopt", f"{name} was found alive, pid {found.pid}", process=name)
        return True

    def _mourn_stranger(self, row: BoxProcess) -> None:
        """A row says that it runs, and it does not: it died while no supervisor watched."""
        if row.pid is None:
            return
        instance = str((row.data or {}).get("instance", ""))
        if row.kind == "worker" and instance:
            self._mourn(row.name, instance, None)
        self._write(row.name, State.STOPPED, None, message="died while no supervisor watched")

    def _mourn(self, name: str, instance: str, code: int | None) -> None:
        why = f"worker {name} of box {self.box} died" + ("" if code is None else f", {_code(code)}")
        self.ledger.worker_died(owner_of(self.box, name, instance), why)

    # -- acting ---------------------------------------------------------------------------------------

    def _act(self, action: Action, now: float) -> None:
        name, seen = action.name, self._seen.get(action.name)
        if seen is None:
            seen = Observed(name=name, kind=self._roster[name].kind)
        if action.verb is Verb.START:
            self._seen[name] = seen
            self._start(action, now)
            return
        running = self._running.get(name)
        if action.verb is Verb.TERMINATE and running is not None:
            running.terminate()
        if action.verb is Verb.KILL and running is not None:
            running.kill()
            self.ledger.emit("os_process.kill", f"{name}: {action.reason}", process=name, severity="warning")
        self._seen[name] = seen = after(seen, action, now, self._limits)
        identity = running.identity if running is not None else None
        self._write(name, action.state, identity, message=action.reason, exit_code=seen.exit_code)
        if action.verb is Verb.NOTE and action.state in (State.EXITED, State.FATAL):
            severity = "critical" if action.state is State.FATAL else "error"
            verb = "os_process.fatal" if action.state is State.FATAL else "os_process.die"
            self.ledger.emit(verb, f"{name}: {action.reason}", process=name, severity=severity)
        elif action.verb is Verb.NOTE and action.state is State.STOPPED:
            self.ledger.emit("os_process.stop", f"{name}: {action.reason}", process=name)

    def _start(self, action: Action, now: float) -> None:
        name, item = action.name, self._roster[action.name]
        want = self._desired[name]
        if want.restart:
            self._desired[name] = replace(want, restart=False)
            self.ledger.restarted(name)
        if self._adopt(name):
            return
        instance = secrets.token_hex(4)
        is_again = self._seen[name].started is not None
        self._seen[name] = seen = after(self._seen[name], action, now, self._limits)
        if item.kind == "scheduler":
            self._silence.forget()
        try:
            running = self._launch(item, instance)
        except SchedulerError as error:
            logger.error("%s", error)
            self._seen[name] = replace(seen, alive=False)
            self._write(name, State.STARTING, None, message=str(error))
            return
        self._running[name] = running
        self._restarts[name] = self._restarts.get(name, -1) + 1
        self._write(
            name,
            State.STARTING,
            running.identity,
            data={"instance": instance},
            restarts=self._restarts[name],
            message=action.reason,
        )
        what = "restart" if is_again else "start"
        pid = running.identity.pid
        self.ledger.emit(f"os_process.{what}", f"{name} started, pid {pid}", process=name, data={"pid": pid})

    # -- writing down ---------------------------------------------------------------------------------

    def _write(self, name: str, state: State, identity: Identity | None, **fields: Any) -> None:
        now = self.ledger.now()
        pid = identity.pid if identity is not None else None
        started = identity.started if identity is not None else None
        self.ledger.set(
            name, state=str(state), pid=pid, pid_started=started, since=now, seen_at=now, **fields
        )

    def _beat(self, now: float) -> None:
        if now < self._beat_at:
            return
        self._beat_at = now + HEARTBEAT_S
        self.ledger.set(SUPERVISOR, seen_at=self.ledger.now())
        for name in self._running:
            rotate(stray_of(self._log_folder, name))

    def _forget_unregistered(self) -> None:
        if self._stopping:
            return
        for name in [
            name for name, seen in self._seen.items() if name not in self._roster and not seen.alive
        ]:
            del self._seen[name]
            self.ledger.forget(name)

    def _reload_roster(self) -> None:
        self._reload = False
        try:
            found = dict(self._load())
            rows = self.ledger.rows()
        except (ConfigError, StoreUnavailable) as error:
            self.ledger.emit(
                "supervisor.reload", f"not reloaded, all stays as it is: {error}", severity="error"
            )
            return
        new, gone = sorted(found.keys() - self._roster.keys()), sorted(self._roster.keys() - found.keys())
        self._roster = found
        self._to_reload = set(self._running)
        self._desired = {name: want for name, want in self._desired.items() if name in found}
        self.ledger.register(found.values(), rows)
        self._take_desired(rows)
        self.ledger.emit(
            "supervisor.reload",
            f"reloaded; new: {', '.join(new) or 'none'}; gone: {', '.join(gone) or 'none'}",
            data={"new": new, "gone": gone},
        )

    def _hang_up(self) -> None:
        """Tell the processes of ours to reload; one that is just starting may not listen yet, and HUP would end it."""
        for name in list(self._to_reload):
            seen, running = self._seen.get(name), self._running.get(name)
            if seen is None or running is None or seen.state is State.RUNNING:
                self._to_reload.discard(name)
                if seen is not None and running is not None:
                    running.hang_up()

    # -- waiting --------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self._hang_up_stops:
            self._reload = True
        elif number == signal.SIGUSR1:
            self._look = True
        else:
            self._hurry = self._stopping
            self._stopping = True

    def _patience(self) -> float:
        blind = any(running.fileno() is None for running in self._running.values())
        restless = any(seen.state in RESTLESS for seen in self._seen.values())
        return RESTLESS_S if blind or restless else self._look_s

    def _descriptors(self) -> list[int]:
        found = [running.fileno() for running in self._running.values()]
        return [descriptor for descriptor in found if descriptor is not None]


def stray_of(folder: Path, name: str) -> Path:
    """Where what a process prints beside its log goes."""
    return folder / f"{name}.out"


def _code(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
