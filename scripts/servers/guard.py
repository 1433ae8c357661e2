"""What keeps a server from outliving the process that started it: also after kill -9, which nobody can catch.

One helper process, in a session of its own so that no Ctrl-C reaches it, reads a pipe whose other end only its
parent has. It is told the folder of each server. When the pipe ends, the parent is gone: everything that bears the
mark of such a folder in its environment is killed, and the folder deleted. (PR_SET_PDEATHSIG would not do: it fires at
the end of the *thread* that started a server, is lost when the user changes, and a grandchild does not inherit it.)

Run as a program it is the helper: standard library only, and nothing of ours.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

MARK = "SYNERGY_SERVER"  # in the environment of every server: its folder
ROUNDS = 100
ROUND_S = 0.05


class Guard:
    """The parent's end of it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[str] | None = None
        self._owner = 0

    def watch(self, folder: Path, *undo: list[str]) -> None:
        """From now on `folder`, and who bears its mark, ends with this process; `undo` are commands run then."""
        self._tell({"folder": str(folder), "undo": undo})

    def note(self, folder: Path, pid: int) -> None:
        """This process belongs to `folder` too: some overwrite their environment to show a title in it."""
        self._tell({"folder": str(folder), "pid": pid, "born": born(pid)})

    def forget(self, folder: Path) -> None:
        """It is gone already."""
        self._tell({"folder": str(folder)})

    def _tell(self, what: object) -> None:
        with self._lock:
            if self._helper is None or self._owner != os.getpid():  # a fork has the guard of its parent
                self._helper = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
                    stdin=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                    cwd="/",
                )
                self._owner = os.getpid()
                atexit.register(self._end, self._helper, self._owner)
            stdin = self._helper.stdin
            assert stdin is not None
            stdin.write(json.dumps(what) + "\n")
            stdin.flush()

    def _end(self, helper: subprocess.Popen[str], owner: int) -> None:
        """The process ends as it should: when it is gone, everything is."""
        if os.getpid() == owner and helper.stdin is not None:
            helper.stdin.close()
            helper.wait()


guard = Guard()


def sweep(folder: str | Path, noted: Sequence[tuple[int, str]] = ()) -> None:
    """Kill -9 whatever bears the mark of `folder`, and return when it is gone. Does nothing where /proc is not.

    And what was `noted`: pids, each with when it was born, so that another process with that number is spared.
    """
    for _ in range(ROUNDS):
        found = marked(folder, [pid for pid, when in noted if when and born(pid) == when])
        if not found:
            return
        for pid in found:
            kill(pid, signal.SIGKILL)
        time.sleep(ROUND_S)


def born(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty if it is gone, or there is no /proc."""
    try:
        fields = stat_of(Path(f"/proc/{pid}"))
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def stat_of(entry: Path) -> list[str]:
    """What /proc says of a process or thread, from its state on. Raises OSError if it is gone."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def marked(folder: str | Path, others: Sequence[int] = ()) -> list[int]:
    """The processes that bear the mark of `folder`, `others`, and all their descendants."""
    mark = b"\0" + f"{MARK}={folder}".encode() + b"\0"
    parents: dict[int, int] = {}
    found = set(others)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = stat_of(entry)[:2]
            if state in "ZX":  # ended already
                continue
            parents[int(entry.name)] = int(parent)
            if mark in b"\0" + (entry / "environ").read_bytes() + b"\0":
                found.add(int(entry.name))
        except OSError:  # not ours to read, or gone
            continue
    more = found
    while more:
        more = {pid for pid, parent in parents.items() if parent in more and pid not in found}
        found |= more
    return sorted(found)


def kill(pid: int, number: int) -> None:
    """Send a signal to one that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def serve(lines: IO[str]) -> None:
    """Listen until the parent is gone, then clean up behind it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folders: dict[str, list[list[str]]] = {}
    noted: dict[str, list[tuple[int, str]]] = {}
    for line in lines:
        told = json.loads(line)
        folder = told["folder"]
        if "undo" in told:
            folders[folder] = told["undo"]
        elif "pid" in told:
            noted[folder] = [(told["pid"], told["born"])]  # one at a time
        else:
            folders.pop(folder, None)
    for folder, undo in folders.items():
        for command in undo:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        sweep(folder, noted.get(folder, ()))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve(sys.stdin)
