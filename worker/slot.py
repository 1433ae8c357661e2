"""One slot: a child process, its pipes, and the execution it is busy with.

The child is a fresh Python (no fork of ours: no locks, no connections, no threads come along), in a session of its
own. It is made before it is needed, reused, and replaced only after it ended or had to be ended.
Must be made in a thread that lives as long as the worker: the kernel kills the child when that thread ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import guard
from worker.capture import Capture
from worker.command_line import describe
from worker.executor import LateData, LogText, Note, Outcome, ProgressNote, Verb
from worker.wire import Inflow, Reply, send

ROOT = str(Path(__file__).resolve().parent.parent)
BOOT = (  # `synergy` is what every worker's module imports: before there is work, not during the first
    "import sys; sys.path.insert(0, sys.argv[1]); import synergy; from worker.child import main;"
    "main(*map(int, sys.argv[2:6]), sys.argv[6] or None)"
)
STOP_GRACE_S = 0.5  # between the word and the kill
LOG_EVERY_S = 0.4


@dataclass(slots=True, eq=False)
class Busy:
    """What a slot is busy with."""

    uow_id: str
    token: str
    is_script: bool
    started: float
    capture: Capture | None = None  # made when something is printed
    log_after: float = 0.0
    is_stopping: bool = False
    kill_at: float | None = None


class Slot:
    """Slot `number` of a worker whose processes carry `mark`; `folder` is the context's."""

    def __init__(self, number: int, mark: str, folder: str | None) -> None:
        self.number, self._stem, self._folder = number, f"{mark}.{number}", folder
        self.children = 0  # how many it has had
        self.busy: Busy | None = None
        self.generation = 0  # which edition of the user's code its child imports
        self._spawn()

    def _spawn(self) -> None:
        self.children += 1
        self.mark = f"{self._stem}.{self.children}"
        request_read, request_write = os.pipe()
        reply_read, reply_write = os.pipe()
        log_read, log_write = os.pipe()
        life_read, life_write = os.pipe()
        theirs = (request_read, reply_write, life_read)
        arguments = [ROOT, *map(str, theirs), str(os.getpid()), self._folder or ""]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log_write,
                stderr=log_write,
                pass_fds=theirs,
                start_new_session=True,
                env={**os.environ, guard.MARK: self.mark},
            )
        finally:
            for fd in (*theirs, log_write):
                os.close(fd)
        for fd in (log_read, reply_read):
            os.set_blocking(fd, False)
        self.spawned = time.monotonic()
        self._requests, self._life = request_write, life_write
        self.replies, self.log = reply_read, log_read
        self._inflow = Inflow(reply_read)

    def descriptors(self) -> tuple[int, int]:
        """What to wait on: replies, and output."""
        return self.replies, self.log

    def start(self, request: bytes, uow_id: str, token: str, is_script: bool) -> None:
        """Send one request to an idle child."""
        assert self.busy is None
        self.busy = Busy(uow_id, token, is_script, time.monotonic())
        with contextlib.suppress(BrokenPipeError):  # it died: noticed as its end
            send(self._requests, request)

    def read_log(self) -> bool:
        """Take what was printed; False once nobody can print any more. What comes while idle (from a thread left
        behind) belongs to no attempt and is dropped."""
        try:
            while data := os.read(self.log, 65536):
                if self.busy is not None:
                    if self.busy.capture is None:
                        self.busy.capture = Capture()
                    self.busy.capture.feed(data)
                if len(data) < 65536:
                    return True
        except BlockingIOError:
            return True
        return False

    def read(self) -> tuple[list[Note], Outcome | None, bool]:
        """What the child said: notes, an outcome if its work ended, and whether the child still lives."""
        messages, is_alive = self._inflow.ready()
        notes: list[Note] = []
        outcome = None
        for message in messages:
            busy = self.busy
            if busy is None:
                continue
            match message:
                case ("progress", done, total, note):
                    notes.append(ProgressNote(busy.token, done, total, note))
                case ("late_data", process, timeperiod, reason):
                    notes.append(LateData(busy.token, process, timeperiod, reason))
                case ("reply", *reply):
                    if busy.is_stopping and busy.is_script:  # what left its group, or is still dying
                        guard.end_all([self.process.pid], self.mark + "\0", spare=self.process.pid)
                    outcome = self._outcome(busy, Reply(*reply))
                    notes += self._rest_of_log(busy)
                    self.busy = None
        return notes, outcome, is_alive

    def bury(self) -> tuple[list[Note], Outcome | None]:
        """The child ended: end all it started, and make a new one. Its outcome, if it was busy."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()  # it may have closed its end only
        code = self.process.wait()
        guard.end_all([self.process.pid], self.mark + "\0")
        busy, notes, outcome = self.busy, [], None
        if busy is not None:
            notes = self._rest_of_log(busy)
            error = f"worker code ended its process ({describe(code)})"
            outcome = self._outcome(busy, Reply("fail", error=error))
            self.busy = None
        self._close_pipes()
        return notes, outcome

    def revive(self, generation: int) -> None:
        """A new child, after `bury` or `close`."""
        self._spawn()
        self.generation = generation

    def log_due(self, now: float) -> LogText | None:
        """A piece of the log, if it is time for one."""
        busy = self.busy
        if busy is None or busy.capture is None or not busy.capture.has_text or now < busy.log_after:
            return None
        busy.log_after = now + LOG_EVERY_S
        return LogText(busy.token, busy.capture.take())

    def next_at(self) -> float | None:
        """When something of this slot is due by itself: a kill, or a piece of the log."""
        busy = self.busy
        if busy is None:
            return None
        times = [] if busy.kill_at is None else [busy.kill_at]
        times += [busy.log_after] if busy.capture is not None and busy.capture.has_text else []
        return min(times, default=None)

    def stop(self, hard: bool) -> None:
        """End the work: by word, then by force. Python code is told through `task.is_canceled()`."""
        busy = self.busy
        if busy is None:
            return
        first, busy.is_stopping = not busy.is_stopping, True
        if hard:
            self.kill()
        elif first:
            busy.kill_at = time.monotonic() + STOP_GRACE_S
            with contextlib.suppress(BrokenPipeError):  # it died: noticed as its end
                os.write(self._life, b"c")
            if busy.is_script:
                guard.end_all([self.process.pid], self.mark + "\0", signal.SIGTERM, spare=self.process.pid)

    def kill(self) -> None:
        """End the child and all it started. Its end is noticed on its pipe, as any other."""
        if self.busy is not None:
            self.busy.kill_at = None
        guard.end_all([self.process.pid], self.mark + "\0")

    def close(self) -> None:
        """End everything."""
        self.kill()
        self.process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for fd in (self._requests, self.replies, self.log, self._life):
            os.close(fd)

    def _rest_of_log(self, busy: Busy) -> list[Note]:
        self.read_log()  # all that was printed before it ended is in the pipe
        text = "" if busy.capture is None else busy.capture.close()
        return [LogText(busy.token, text)] if text else []

    @staticmethod
    def _outcome(busy: Busy, reply: Reply) -> Outcome:
        result: Any = json.loads(reply.result) if reply.result is not None else None
        verb: Verb = "stopped" if busy.is_stopping else reply.verb  # type: ignore[assignment]
        return Outcome(
            uow_id=busy.uow_id,
            token=busy.token,
            verb=verb,
            cursor=reply.cursor,
            more=reply.more,
            result=result,
            error=reply.error,
            traceback=reply.traceback,
            permanent=reply.permanent,
            duration_s=time.monotonic() - busy.started,
        )
