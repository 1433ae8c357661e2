"""The box that `demo` plays on: its state folder, its settings, and a supervisor that is kept running.

The supervisor is the real one, in a session of its own; so a Ctrl-C reaches the demo alone, which stops it. A
supervisor that dies is started again and adopts what it finds at work. Nothing here knows about flights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from commands import box
from commands.logs import last_words
from commands.site import Site
from scheduler.core.errors import ConfigError, Refused, SchedulerError, StoreUnavailable, Unavailable
from settings import as_options
from supervisor.os_process import PidFile, Running, spawn
from supervisor.roster import SUPERVISOR, Registered
from supervisor.supervisor import stray_of

ROOT = Path(__file__).resolve().parent.parent
PORTS = 100  # so many are tried above the usual one
STOP_S = 20.0
MARK = "demo.pid"  # also says that this folder is ours to empty


class State:
    """The state folder of a demo, held while it runs. Raises Refused if another demo has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._refuse_strange()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = PidFile(folder / MARK)
            self._lock.take()
        except OSError as error:
            raise ConfigError(
                f"--state-folder {folder}: cannot be written ({error.strerror}); name another"
            ) from error
        except Refused:
            raise Refused(
                f"a demo runs in {folder} already; end it, or name another --state-folder"
            ) from None

    def _refuse_strange(self) -> None:
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / MARK).exists():
            raise Refused(f"--state-folder {self.folder} holds something that no demo made; name another")

    def empty(self) -> None:
        """Forget everything that an earlier demo left."""
        for path in self.folder.iterdir():
            if path.name == MARK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def close(self) -> None:
        """Let another demo have it."""
        self._lock.close()


def free_port(host: str, wanted: int, *, is_given: bool) -> int:
    """`wanted`, or the next one that is free. Raises ConfigError if it was given by name and is taken."""
    for port in range(wanted, min(wanted + (1 if is_given else PORTS), 65536)):
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise ConfigError(f"{host}:{port} cannot be served: {error.strerror}") from error
            else:
                return port
    if is_given:
        raise ConfigError(f"--port {wanted} is taken by another program; choose a free one, or 0 for any")
    return 0


class SupervisedBox:
    """The supervisor, as a child that is watched. Used by one thread."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._child: Running | None = None
        self.restarts = -1

    def start(self) -> None:
        """Start the supervisor. Raises SchedulerError."""
        argv = [sys.executable, str(ROOT / "process_starter.py"), SUPERVISOR, *as_options(self.site.settings)]
        stray = stray_of(self.site.settings.state_folder / "logs", SUPERVISOR)
        self._child = spawn(argv, folder=Path.cwd(), environment=os.environ, stray=stray)
        self.restarts += 1

    def watch(self) -> bool:
        """Start the supervisor again if it died; whether it was killed. Raises SchedulerError if it gave up by itself.

        One that found its store or broker away, as it began, is started until it finds them, as by any service manager.
        """
        child = self._child
        if child is None or not child.has_ended():
            return False
        code = child.exit_code
        if code == 0:
            raise SchedulerError("the box of the demo was stopped by somebody else")
        is_away = code == Unavailable.exit_code
        if code is not None and code > 0 and not is_away:
            raise SchedulerError(f"the supervisor ended with exit code {code}: {self.last_words()}")
        self.start()
        return not is_away

    def last_words(self) -> str:
        """The end of the supervisor's log, in one line."""
        logs = self.site.log_file(SUPERVISOR), stray_of(self.site.settings.state_folder / "logs", SUPERVISOR)
        return next(filter(None, map(last_words, logs)), f"its log is {logs[0]}")

    def stop(self, is_urged: Callable[[], bool] = lambda: False) -> list[str]:
        """Stop all of the box, also what a dead supervisor left; returns what is still there: nothing.

        When `is_urged`, nothing is waited for any more: a second Ctrl-C.
        """
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            if not box.wait_for(lambda: child.has_ended() or is_urged(), STOP_S):
                child.kill()
            elif not child.has_ended():
                child.terminate()  # the second one: it waits for nobody
                box.wait_for(child.has_ended, STOP_S)
            child.has_ended()
        return drain(self.site)


def drain(site: Site) -> list[str]:
    """Stop what an earlier demo left on this box; returns what could not be stopped."""
    found = site.supervisor()
    if found is not None:  # the demo was killed, and its supervisor was not
        os.kill(found.pid, signal.SIGTERM)
        box.wait_for(lambda: site.supervisor() is None, STOP_S)
    left = box.left_behind(site)
    if left and site.supervisor() is None:
        box.wait_for(lambda: _is_drained(site), STOP_S)
        left = box.left_behind(site)
    return left


def _is_drained(site: Site) -> bool:
    """Have a supervisor stop what another one left; False while the store is away, which says what there is."""
    import process_starter

    try:
        process_starter.run_supervisor(
            process_starter.Part(site, Registered(SUPERVISOR, SUPERVISOR)), drain=True
        )
    except StoreUnavailable:
        return False
    return True
