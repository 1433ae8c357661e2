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


def sweep(folder: str | Path) -> None:
    """Kill -9 whatever bears the mark of `folder`, and return when it is gone. Does nothing where /proc is not."""
    for _ in range(ROUNDS):
        found = marked(folder)
        if not found:
            return
        for pid in found:
            kill(pid, signal.SIGKILL)
        time.sleep(ROUND_S)


def marked(folder: str | Path) -> list[int]:
    """The processes that bear the mark of `folder`."""
    mark = b"\0" + f"{MARK}={folder}".encode() + b"\0"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in b"\0" + (entry / "environ").read_bytes() + b"\0" and not is_zombie(entry):
                found.append(int(entry.name))
        except OSError:  # not ours to read, or gone
            continue
    return found


def is_zombie(entry: Path) -> bool:
    """Whether the process of this entry of /proc has ended already."""
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"


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
    for line in lines:
        told = json.loads(line)
        if "undo" in told:
            folders[told["folder"]] = told["undo"]
        else:
            folders.pop(told["folder"], None)
    for folder, undo in folders.items():
        for command in undo:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        sweep(folder)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve(sys.stdin)
