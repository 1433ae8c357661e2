"""The executor of production: slots with child processes, and the guard that outlives the worker.

One `poll` waits on everything at once: replies, output, the broker's descriptors, and the pipe behind `wake`. So an
end is noticed as soon as the child says so, with no thread in between.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from scheduler.core.ports import Clock
from scheduler.core.process import Process
from scheduler.core.uow import Uow
from worker import guard
from worker.command_line import describe
from worker.executor import Note, Outcome
from worker.slot import Slot
from worker.wire import pack_recipe, pack_request

log = logging.getLogger("synergy.worker")

OUTDATED = -1  # as the generation of a child: another one takes its place before the next work
RESPAWN_S = 1.0  # a child that dies as soon as it lives is not made again faster than this


class ProcessExecutor:
    """Executes in `slots` child processes. Make it before a store or broker is opened; then set `clock`.

    `folder` is the context's, appended to the children's `sys.path`; `lease_s` is the runner's, and says how often
    the guard looks. Seconds. It must be made, and polled, in a thread that lives as long as it does.
    """

    def __init__(self, slots: int, folder: str | Path | None = None, *, lease_s: float = 60.0) -> None:
        assert slots > 0
        self.clock: Clock | None = None
        self._mark = uuid4().hex
        self._folder = None if folder is None else str(Path(folder).resolve())
        self._tolerance_s = min(1.0, lease_s * 0.03)  # a third of the runner's margin
        self._table = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the executor
        self._table.truncate(slots * guard.ROW.size)
        self._rows_shared = mmap.mmap(self._table.fileno(), slots * guard.ROW.size)
        self._table_lock = threading.Lock()
        self._rows: dict[str, int] = {}  # token → slot
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._also: tuple[int, ...] = ()
        self._ready: set[int] = set()
        self._notes: list[Note] = []
        self._by_fd: dict[int, tuple[Slot, bool]] = {}
        self._dead: list[Slot] = []
        self._definitions: dict[str, Process] = {}
        self._recipes: dict[str, bytes] = {}  # of the definitions
        self._generation = 0
        self._closed = False
        self._guard = self._start_guard(slots)
        self._slots: list[Slot] = [Slot(number, self._mark, self._folder) for number in range(slots)]
        for slot in self._slots:
            self._enlist(slot)

    @property
    def capacity(self) -> int:
        """As `Executor.capacity`."""
        return len(self._slots)

    @property
    def pids(self) -> list[int]:
        """The children's process ids."""
        return [slot.process.pid for slot in self._slots]

    def start(self, uow: Uow, process: Process) -> None:
        """As `Executor.start`."""
        assert uow.token is not None
        self._notice(process)
        request = self._request(uow, process)
        slot = next(s for s in self._idle_first() if s.busy is None)
        if slot in self._dead:
            self._revive(slot)
        elif slot.generation != self._generation or slot.process.poll() is not None:  # it died idle, just now
            self._renew(slot)
        with self._table_lock:
            self._rows[uow.token] = slot.number
        slot.start(request, uow.id, uow.token, not isinstance(process.worker, str))

    def poll(self, timeout_s: float, also: Sequence[int] = ()) -> list[Outcome]:
        """As `Executor.poll`."""
        self._watch(tuple(also))
        outcomes: list[Outcome] = []
        self._ready.clear()
        for fd, _event in self._poll.poll(self._patience_ms(timeout_s)):
            if fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            elif fd == self._guard_fd:
                self._replace_guard()
            elif fd in self._by_fd:
                slot, is_log = self._by_fd[fd]
                if is_log:
                    if not slot.read_log():
                        self._ignore(fd)
                else:
                    self._hear(slot, outcomes)
            else:
                self._ready.add(fd)
        now = time.monotonic()
        for slot in self._slots:
            busy = slot.busy
            if busy is not None and busy.kill_at is not None and now >= busy.kill_at:
                slot.kill()
            if (piece := slot.log_due(now)) is not None:
                self._notes.append(piece)
        for slot in [s for s in self._dead if now - s.spawned >= RESPAWN_S]:
            self._try_revive(slot)
        return outcomes

    def is_ready(self, fd: int) -> bool:
        """As `Executor.is_ready`."""
        return fd in self._ready

    def notes(self) -> list[Note]:
        """As `Executor.notes`."""
        notes, self._notes = self._notes, []
        return notes

    def stop(self, token: str, *, hard: bool = False) -> None:
        """As `Executor.stop`."""
        for slot in self._slots:
            if slot.busy is not None and slot.busy.token == token:
                slot.stop(hard)

    def lease(self, token: str, seconds_left: float) -> None:
        """As `Executor.lease`; written where the guard reads it. The runner, unless it is stopped, is earlier."""
        ends = time.monotonic() + max(0.0, seconds_left) + self._tolerance_s
        with self._table_lock:
            number = self._rows.get(token)
            if number is not None and not self._closed:
                self._write_row(number, ends)

    def wake(self) -> None:
        """As `Executor.wake`."""
        if not self._closed:
            with contextlib.suppress(BlockingIOError):  # full: it is awake
                os.write(self._wake_write, b"w")

    def close(self) -> None:
        """As `Executor.close`."""
        if self._closed:
            return
        with self._table_lock:
            self._closed = True
        for slot in self._slots:
            if slot not in self._dead:
                slot.close()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        self._rows_shared.close()
        self._table.close()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    # ------------------------------------------------------------------ inside

    def _start_guard(self, slots: int) -> subprocess.Popen[bytes]:
        table = self._table.fileno()
        arguments = [self._mark, str(table), str(slots), f"{self._tolerance_s / 2:.3f}"]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(table,),
            start_new_session=True,
        )
        assert process.stdin is not None
        self._guard_fd = process.stdin.fileno()
        self._poll.register(self._guard_fd, 0)  # POLLERR alone: the guard died
        return process

    def _replace_guard(self) -> None:
        log.warning("the guard ended with %s; another one is made", describe(self._guard.wait()))
        self._poll.unregister(self._guard_fd)
        with contextlib.suppress(BrokenPipeError):  # what was written to it is read by nobody
            self._guard.stdin.close()  # type: ignore[union-attr]
        self._guard = self._start_guard(len(self._slots))

    def _idle_first(self) -> list[Slot]:
        return sorted(self._slots, key=self._dead.__contains__) if self._dead else self._slots

    def _enlist(self, slot: Slot) -> None:
        end, output = slot.descriptors()
        self._by_fd[end], self._by_fd[output] = (slot, False), (slot, True)
        for fd in (end, output):
            self._poll.register(fd, select.POLLIN)
        self._write_row(slot.number, 0.0)

    def _write_row(self, number: int, ends: float) -> None:
        slot = self._slots[number]
        at = number * guard.ROW.size
        guard.ROW.pack_into(self._rows_shared, at, slot.process.pid, ends, slot.children)

    def _hear(self, slot: Slot, outcomes: list[Outcome]) -> None:
        notes, outcome, is_alive = slot.read()
        self._take(notes, outcome, outcomes)
        if not is_alive:
            for fd in slot.descriptors():
                self._ignore(fd)
            was_busy = slot.busy is not None
            self._take(*slot.bury(), outcomes)
            self._dead.append(slot)
            if was_busy:
                self._try_revive(slot)

    def _take(self, notes: list[Note], outcome: Outcome | None, outcomes: list[Outcome]) -> None:
        self._notes += notes
        if outcome is not None:
            with self._table_lock:
                number = self._rows.pop(outcome.token)
                _, ends, _ = guard.ROW.unpack_from(self._rows_shared, number * guard.ROW.size)
                self._write_row(number, 0.0)
            if 0.0 < ends <= time.monotonic():  # the guard, which saw that, may be ending this child just now
                self._slots[number].generation = OUTDATED
            outcomes.append(outcome)

    def _notice(self, process: Process) -> None:
        """Another object under a known name means that the context was loaded anew: so is the user's code, by
        children that have not imported it yet."""
        known = self._definitions.setdefault(process.name, process)
        if known is not process:
            self._definitions = {process.name: process}
            self._recipes.clear()
            self._generation += 1

    def _request(self, uow: Uow, process: Process) -> bytes:
        recipe = self._recipes.get(process.name)
        if recipe is None:
            recipe = self._recipes[process.name] = pack_recipe(process)
        clock = self.clock
        business_at = uow.start if clock is None else clock.business()
        rate = float(getattr(getattr(clock, "mapping", None), "rate", 1.0))
        return pack_request(recipe, uow, process, business_at, rate)

    def _renew(self, slot: Slot) -> None:
        """A new child in place of an idle one."""
        for fd in slot.descriptors():
            self._ignore(fd)
        slot.close()
        self._dead.append(slot)
        self._revive(slot)

    def _try_revive(self, slot: Slot) -> None:
        try:
            self._revive(slot)
        except OSError as error:
            slot.spawned = time.monotonic()
            log.warning("a child process cannot be made, trying again: %s", error)

    def _revive(self, slot: Slot) -> None:
        slot.revive(self._generation)
        self._dead.remove(slot)
        self._enlist(slot)

    def _ignore(self, fd: int) -> None:
        """Wait for this descriptor of a slot no longer."""
        if self._by_fd.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _watch(self, also: tuple[int, ...]) -> None:
        """Have the poll object wait for `also` too."""
        if also == self._also:
            return
        for fd in self._also:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        for fd in also:
            self._poll.register(fd, select.POLLIN)
        self._also = also

    def _patience_ms(self, timeout_s: float) -> float:
        until = [at for slot in self._slots if (at := slot.next_at()) is not None]
        until += [slot.spawned + RESPAWN_S for slot in self._dead]
        if until:
            timeout_s = min(timeout_s, min(until) - time.monotonic())
        return max(0.0, timeout_s) * 1000
