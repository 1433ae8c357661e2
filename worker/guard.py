"""The guard: a small process beside each worker, which ends what the worker started when it cannot do so itself.

A worker that is killed, or stopped for longer than its leases, must not leave anything behind that still writes:
not its children, and not what these started. The kernel kills a child when its parent dies (PR_SET_PDEATHSIG),
but not the grandchildren, and a stopped worker is not dead. So the guard holds the end of a pipe that closes with
the worker, and a small shared table with one row per slot: the session of its child, when its lease ends, and which
child of this slot it is, so that its successor, which may be there already, is not taken for it. It runs this file with
the standard library alone, needs no message per unit of work, and looks at the table a few times per lease.

What a slot started is found by its session, or by the mark in its environment (whoever made a session of
its own still carries that). Both need Linux's /proc; elsewhere the child's process group is all that is ended.
"""

# Without pathlib it starts in a third of the time, and there is one per worker.
# ruff: noqa: PTH112, PTH123, PTH208

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable

# session id (0: none), end of its lease (0.0: none) on time.monotonic(), number of the child
ROW = struct.Struct("=qdq")
MARK = "SYNERGY_SLOT"  # environment variable: "<worker's mark>.<slot>.<number of the child>"
ROUNDS = 100


def row(table: int, slot: int) -> tuple[int, float, int]:
    """The session, the lease's end and the number of the child of one slot."""
    session, ends, number = ROW.unpack(os.pread(table, ROW.size, slot * ROW.size))
    return session, ends, number


def members(sessions: Iterable[int], mark: bytes) -> list[int]:
    """The living processes of these sessions, and those whose environment carries `mark`; never this one."""
    wanted, own = set(sessions), os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, _parent, _group, session = file.read().rpartition(b")")[2].split()[:4]
            if state in b"ZX":
                continue
            if int(session) not in wanted:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark not in file.read():
                        continue
        except (OSError, ValueError):
            continue  # it is gone, or not ours to look into
        found.append(int(name))
    return found


def end_all(sessions: Iterable[int], mark: str, sig: int = signal.SIGKILL, spare: int = 0) -> bool:
    """Send `sig` to all that these sessions, or bearers of `mark`, are made of, except `spare`.

    With SIGKILL it repeats until none is left (they may fork meanwhile) and says whether it came to that.
    """
    sessions = [session for session in sessions if session > 0]
    if not os.path.isdir("/proc/self"):
        for session in sessions:
            _send(os.killpg, session, sig)
        return True
    needle = f"{MARK}={mark}".encode()
    for attempt in range(ROUNDS):
        living = [pid for pid in members(sessions, needle) if pid != spare]
        for pid in living:
            _send(os.kill, pid, sig)
        if not living or sig != signal.SIGKILL:
            return True
        time.sleep(0.001 * min(attempt, 20))
    return False


def _send(kill: object, pid: int, sig: int) -> None:
    try:
        kill(pid, sig)  # type: ignore[operator]
    except (ProcessLookupError, PermissionError):
        pass


def main(mark: str, table: int, slots: int, poll_s: float) -> None:
    """Watch until the pipe on standard input closes; then end everything."""
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)  # it must outlive its worker
    while not select.select([0], [], [], poll_s)[0]:
        now = time.monotonic()
        for slot in range(slots):
            session, ends, number = row(table, slot)
            if session and 0.0 < ends <= now:
                end_all([session], f"{mark}.{slot}.{number}\0")
    end_all([row(table, slot)[0] for slot in range(slots)], f"{mark}.")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
