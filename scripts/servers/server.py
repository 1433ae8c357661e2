"""A server as a private process: started, awaited, killed, frozen, started again, and gone in the end.

The subclasses say what its command is, when it answers, and how one gets an empty database from it. Every method
may be called from any thread, one at a time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from scripts.servers.container import contained, find_engine, get_image, remove_command
from scripts.servers.guard import MARK, born, guard, kill, marked, stat_of, sweep
from scripts.servers.life import Living
from scripts.servers.need import Need
from scripts.servers.parts import HOST, NotHere, ServerError, free_port, last_words, make_folder

UP_S = 90.0
DOWN_S = 30.0
LOOK_S = 0.05
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DOCKER_HOST", "DOCKER_CONTEXT")


class Server(Living):
    """One private server. Not started yet; as a context manager it is started, and closed in the end.

    `folder` holds its data and logs, `port` is the same for its whole life.
    """

    need: ClassVar[Need]
    setting: ClassVar[str] = ""  # the setting of ours that takes its URL: store_url or broker_url
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, inside: Path | None = None) -> None:
        self.folder = make_folder(self.need.name, inside)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_prepared = False
        self._engine: Path | None = None  # of containers, if it runs in one
        self._number = 0  # of its last container
        guard.watch(self.folder)

    # -- what a subclass says ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the server's first database, or virtual host."""

    @abstractmethod
    def fresh(self) -> str:
        """The URL of an empty one, which nobody else uses."""

    @abstractmethod
    def delete(self, url: str) -> None:
        """Delete one of them again."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Its command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it does what it is there for. May raise OSError, which is a no."""

    def _prepare(self) -> None:
        """Before the first start: make its files."""

    def _welcome(self) -> None:
        """After the first start: make its users."""

    def _environment(self) -> dict[str, str]:
        """Variables of its own."""
        return {}

    @property
    def user(self) -> str | None:
        """Who it runs as, if not as we do."""
        return None

    def logs(self) -> list[Path]:
        """Its own logs, beside what it printed."""
        return []

    # -- its life ---------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Its address, with the port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return self._process.pid if self.is_running and self._process else None

    @property
    def is_running(self) -> bool:
        """Whether its process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, and return when it answers; a second time on the same port and data. Raises ServerError."""
        self.launch()
        self.await_ready()
        return self

    def launch(self) -> None:
        """Start it and do not wait. Raises ServerError."""
        if self.is_running:
            raise ServerError(f"{self.need.title} on port {self.port} runs already")
        if not self.folder.is_dir():
            raise ServerError(f"{self.need.title} on port {self.port} was closed")
        if not self._is_prepared:
            self._prepare()
        self._process = self._spawn(self._command())
        guard.note(self.folder, self._process.pid)

    def await_ready(self) -> None:
        """Wait until it answers. Raises ServerError with its log if it ended, or did not within 90 s."""
        until = time.monotonic() + UP_S
        while not self._is_ready():
            process = self._process
            if process is None or process.poll() is not None:
                code = process.returncode if process else None
                self.kill()
                raise ServerError(f"{self.need.title} ended with exit code {code}:\n{self.said()}")
            if time.monotonic() > until:
                self.kill()
                raise ServerError(f"{self.need.title} did not answer within {UP_S:g} s:\n{self.said()}")
            time.sleep(LOOK_S)
        if not self._is_prepared:
            self._welcome()
            self._is_prepared = True

    def stop(self) -> None:
        """Ask it to end, and wait; its data stays. Does nothing if it does not run."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.resume()
            kill(process.pid, self.stop_signal)
            try:
                process.wait(DOWN_S)
            except subprocess.TimeoutExpired:
                pass  # killed below
        self.kill()

    def kill(self) -> None:
        """kill -9, with all that belongs to it; its data stays. Does nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        family = [(pid, born(pid)) for pid in self._family(process)]
        for pid, _ in family:
            kill(pid, signal.SIGKILL)
        if self._engine is not None:
            name = self._container
            subprocess.run(remove_command(self._engine, name), stdin=subprocess.DEVNULL, capture_output=True)
        process.wait()
        sweep(self.folder, family)  # its last children, orphans now, may die a moment after it

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody. Raises ServerError if it does not run, or goes on."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.need.title} on port {self.port} does not run")
        family = self._family(self._process)
        for pid in family:
            kill(pid, signal.SIGSTOP)
        until = time.monotonic() + DOWN_S
        while not all(map(stands_still, family)):  # on a busy machine its threads go on for a moment
            if time.monotonic() > until:
                raise ServerError(f"{self.need.title} on port {self.port} goes on {DOWN_S:g} s after SIGSTOP")
            time.sleep(LOOK_S)

    def resume(self) -> None:
        """SIGCONT. Does nothing if it does not run."""
        if self._process is not None:
            for pid in self._family(self._process):
                kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and delete its folder. May be called twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        guard.forget(self.folder)

    def said(self) -> str:
        """The end of what it printed and logged."""
        return last_words(self.folder / "out", *self.logs())

    # -- small parts ------------------------------------------------------------------------------------

    def _is_ready(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _setting_out(self) -> dict[str, Any]:
        """How every process of the server begins: who it is, where, and with what around it."""
        user = self._user
        return {
            "env": self._surroundings(),
            "cwd": self.folder,
            "stdin": subprocess.DEVNULL,
            "user": user,
            "group": user,
            "extra_groups": None if user is None else [],
        }

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "out").open("ab") as out:
            try:
                return subprocess.Popen(
                    self._wrapped(command),
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    **self._setting_out(),
                )
            except OSError as error:
                raise ServerError(
                    f"{self.need.title}: {command[0]} cannot be run ({error.strerror})"
                ) from error

    def _run(self, command: list[str], limit_s: float = 60.0) -> str:
        """Run a tool of the server to its end; what it printed. Raises ServerError."""
        try:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                self._wrapped(command), capture_output=True, text=True, timeout=limit_s, **self._setting_out()
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(f"{self.need.title}: {command[0]} failed: {error}") from error
        if done.returncode != 0:
            raise ServerError(
                f"{self.need.title}: {command[0]} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def _tool(self, program: str) -> str:
        """The path of one of its programs; its name, where it will run in a container. Raises NotHere."""
        if self._engine is None:
            found = self.need.find(program)
            if found is not None:
                return str(found)
            engine = find_engine()
            if engine is None or not get_image(engine, self.need.image):
                raise NotHere(self.need.title, self.need.why, self.need.command)
            self._engine = engine
        return program

    @property
    def _user(self) -> str | None:
        return None if self._engine is not None else self.user

    @property
    def _container(self) -> str:
        return f"{self.folder.name}-{self._number}"

    def _wrapped(self, command: list[str]) -> list[str]:
        """The command as it is, or in a container, which the guard then knows of."""
        if self._engine is None:
            return command
        self._number += 1
        guard.watch(self.folder, remove_command(self._engine, self._container))
        return contained(
            self._engine, self.need.image, self._container, self.folder, self._own(), self._owner(), command
        )

    def _owner(self) -> tuple[int, int]:
        """User and group in a container."""
        return os.geteuid(), os.getegid()

    def _own(self) -> dict[str, str]:
        return {"HOME": str(self.folder), **self._environment(), MARK: str(self.folder)}

    def _surroundings(self) -> dict[str, str]:
        return {**{name: os.environ[name] for name in KEPT if name in os.environ}, **self._own()}

    def _family(self, process: subprocess.Popen[bytes]) -> list[int]:
        """Its process, the descendants behind it, and whoever bears its mark."""
        try:
            first = psutil.Process(process.pid)
            found = [process.pid, *(child.pid for child in first.children(recursive=True))]
        except psutil.NoSuchProcess:
            found = []
        return [*found, *(pid for pid in marked(self.folder) if pid not in found)]


def stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped. True if it is gone, or where there is no /proc to ask."""
    for thread in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        try:
            if stat_of(thread)[0] not in "TtZX":
                return False
        except OSError:
            pass  # this thread ended
    return True
