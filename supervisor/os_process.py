"""OS processes: start one, know it again, signal it, bury it. It must not decide anything; `plan` does that.

The theory. A pid is a number that will be somebody else's tomorrow; three things make it trustworthy:

* A *pid file* that its process keeps locked. The lock is the kernel's: it is gone at once however the process
  died, so a file without a lock is stale, whatever it says. POSIX locks: a forked child does not keep its
  parent's (but closing any descriptor of the file gives the lock away, so nobody opens his own twice).
* The start time, compared with every use of a pid that was read somewhere. The kernel counts it from the boot;
  as wall time it moves by up to a second with each correction of the clock, hence `START_TOLERANCE_S`.
* For a child of ours the kernel keeps the pid until we reap it; and a pidfd, where the system has them, is
  the process itself. It becomes readable when the process ends, child or not.

Every process leads a session, and so a group, of its own: a terminal's Ctrl-C does not reach it, TERM goes to
the process alone, which drains, and KILL goes to the whole group. What a dead one left behind in its group is
killed before its pid is given back: after a worker is dead, nothing that it started writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from scheduler.core.errors import Refused, SchedulerError

START_TOLERANCE_S = 2.0
STRAY_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Identity:
    """One OS process, for good: a pid with its start time (seconds since 1970). `instance` names this run of it."""

    pid: int
    started: float
    instance: str = ""


def identify(pid: int, instance: str = "") -> Identity | None:
    """The identity of a living process, or None."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid, process.create_time(), instance)
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError):
        return None


def is_alive(identity: Identity) -> bool:
    """Whether this very process lives: a stranger who got its pid later does not count, nor a zombie."""
    found = identify(identity.pid)
    return found is not None and abs(found.started - identity.started) <= START_TOLERANCE_S


class PidFile:
    """The lock that says "I am this process of this box". Held from `take` until `close` or death."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def take(self, instance: str = "") -> Identity:
        """Lock the file and write this process into it. Raises Refused if somebody holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either for "somebody has it"
            pid = _content(fd).get("pid", "unknown")
            os.close(fd)
            raise Refused(f"{self.path.stem} already runs on this box (pid {pid})") from None
        self._fd = fd
        me = identify(os.getpid(), instance)
        assert me is not None, "this process lives"
        os.ftruncate(fd, 0)
        os.pwrite(fd, _line(me), 0)
        return me

    def close(self) -> None:
        """Give the lock back; may be called twice. The file stays: unlinking it would race with the next holder."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def holder(path: Path) -> Identity | None:
    """Who holds a pid file: the process of the box that runs now, or None. Not for the own file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        content = _content(fd)
    else:
        return None  # stale, whatever is written there
    finally:
        os.close(fd)
    pid = content.get("pid")
    return identify(pid, str(content.get("instance", ""))) if isinstance(pid, int) else None


def _line(me: Identity) -> bytes:
    return json.dumps({"pid": me.pid, "started": me.started, "instance": me.instance}).encode() + b"\n"


def _content(fd: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Running:
    """A process that a supervisor watches: a child of its own, or one that it found alive and adopted."""

    def __init__(self, identity: Identity, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self._child = child
        self._code: int | None = None
        self._ended = False
        self._pidfd: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # no pidfd here: who watches must poll
            self._pidfd = os.pidfd_open(identity.pid)

    @property
    def is_adopted(self) -> bool:
        """Not a child: its exit code will never be known."""
        return self._child is None

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when it ends, if the system has that."""
        return self._pidfd

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives or if it was adopted."""
        return self._code

    def has_ended(self) -> bool:
        """Whether it is dead. If so, its group is dead too, and it is reaped."""
        if not self._ended:
            if self._child is None:
                self._ended = not is_alive(self.identity)
            else:
                self._ended = self._bury_child(self._child)
            if self._ended:
                self.close()
        return self._ended

    def _bury_child(self, child: subprocess.Popen[bytes]) -> bool:
        pid = self.identity.pid
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except ChildProcessError:  # reaped by somebody else (PID 1 reaps all)
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # before it is reaped the number is still ours
        self._code = child.wait()
        return True

    def terminate(self) -> None:
        """TERM to the process alone: it drains and ends its own children."""
        if self._child is None and not is_alive(self.identity):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.identity.pid, signal.SIGTERM)
            os.kill(self.identity.pid, signal.SIGCONT)  # one that was stopped would never see the TERM

    def hang_up(self) -> None:
        """HUP to the process alone: it loads its context anew."""
        if self._child is not None or is_alive(self.identity):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.identity.pid, signal.SIGHUP)

    def kill(self) -> None:
        """KILL to its whole group, if it leads one."""
        if self._child is None and not is_alive(self.identity):
            return
        pid = self.identity.pid
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the descriptor; the process is left as it is."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def spawn(
    argv: Sequence[str], *, folder: Path, environment: Mapping[str, str], stray: Path, instance: str = ""
) -> Running:
    """Start a process in a session of its own; what it prints, beside its log, goes to `stray`.

    Raises SchedulerError if it cannot be started.
    """
    stray.parent.mkdir(parents=True, exist_ok=True)
    rotate(stray)
    try:
        with stray.open("ab") as out:
            child = subprocess.Popen(
                list(argv),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise SchedulerError(f"cannot start {argv[0]}: {error.strerror}") from error
    # a child that died at once is a zombie now and has no identity to speak of: its number is ours till reaped
    return Running(identify(child.pid, instance) or Identity(child.pid, 0.0, instance), child)


def rotate(path: Path, limit: int = STRAY_MAX_BYTES) -> None:
    """Keep one older copy of a file that grew beyond `limit` bytes. Its writer appends, so truncating is safe."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)


def reap_orphans(known: frozenset[int]) -> int:
    """As PID 1: bury the zombies that nobody else will, except our own children (`known`); how many these were."""
    count = 0
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.pid not in known and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
                count += 1
    return count


def wait_readable(descriptors: Sequence[int], timeout_s: float) -> list[int]:
    """Wait until one of the descriptors is readable; those that are."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1000)]
