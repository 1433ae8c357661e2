"""Make .venv: the one thing that must work before anything of ours is installed. Standard library only.

The rules:

* One launch at a time sets up; the others wait (a lock file beside the folder; pip inherits the lock, so that an
  orphaned pip is waited for too).
* A stamp is written last. Without it, or with the mark of an unfinished installation, .venv is made anew. With it
  and unchanged requirements nothing is installed and no network is needed.
* pip is taken from where there is one: Python's own bundled wheel, Debian's, the python at hand, uv, or the index.
* Nothing is written to HOME. What pip says goes to a log file; people get a line of progress, and on failure its
  last words.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from scripts import borrow_pip

STAMP = "synergy-stamp.json"
UNFINISHED = "synergy-unfinished"
LOG = "install.log"
OFFLINE = re.compile(
    r"Failed to establish a new connection|Name or service not known|name resolution|Connection(Error| refused| reset)"
    r"|Network is unreachable|Max retries exceeded|ConnectTimeout|Read timed out|ProxyError|Could not resolve host"
    r"|No route to host|client error \(Connect\)|NewConnectionError"
)


class BootstrapError(Exception):
    """Why there is no .venv, in one line."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ensure(root: str | Path, extras: Sequence[str] = ()) -> str | None:
    """Have a venv with our dependencies and `extras`; its python, or None if this process runs on it already.

    Raises BootstrapError.
    """
    root = Path(root)
    named = os.environ.get("SYNERGY_VENV")
    venv = Path(named).expanduser().absolute() if named else root / ".venv"
    more = [extra.strip() for extra in os.environ.get("SYNERGY_EXTRAS", "").split(",") if extra.strip()]
    wanted = requirements(root / "pyproject.toml", [*extras, *more])
    if not is_ready(venv, wanted):
        try:
            with _lock(venv):
                if not is_ready(venv, wanted):
                    _set_up(venv, wanted, may_replace=not named)
        except OSError as error:
            raise BootstrapError(
                f"cannot write {error.filename or venv} ({error.strerror or error});"
                " name another folder for the installation: SYNERGY_VENV=/some/folder",
                2,
            ) from error
    return None if Path(sys.prefix).resolve() == venv.resolve() else str(venv / "bin" / "python")


def requirements(pyproject: Path, extras: Sequence[str]) -> dict[str, list[str]]:
    """What is to be installed, by group; the group without a name is what everybody needs. Raises BootstrapError."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    groups: dict[str, list[str]] = {"": list(project["dependencies"])}
    optional = project["optional-dependencies"]
    for extra in extras:
        if extra not in optional:
            raise BootstrapError(
                f"SYNERGY_EXTRAS: there is no {extra!r}; there are: {', '.join(optional)}", 2
            )
        groups[extra] = list(optional[extra])
    return groups


def is_ready(venv: Path, wanted: dict[str, list[str]]) -> bool:
    """Whether nothing is left to do. Costs a few file reads."""
    stamp = _read_stamp(venv)
    python = venv / "bin" / "python"
    if stamp is None or not python.exists() or (venv / UNFINISHED).exists():
        return False
    if stamp["place"] != str(venv) or stamp["python"] != str(python.resolve()):
        return False
    return not _missing(stamp, wanted)


# -- the steps --------------------------------------------------------------------------------------------


def _set_up(venv: Path, wanted: dict[str, list[str]], *, may_replace: bool) -> None:
    stamp = _read_stamp(venv)
    if not _is_usable(venv, stamp, wanted):
        _remove(venv, stamp, may_replace=may_replace)
        stamp = None
        _make(venv)
    missing = _missing(stamp, wanted)
    if missing:
        (venv / UNFINISHED).touch()
        names = [text for group in missing for text in wanted[group]]
        _install(venv, names, is_first=stamp is None)
    done = dict(stamp["installed"]) if stamp else {}
    done |= {group: _digest(texts) for group, texts in wanted.items()}
    new = {"place": str(venv), "python": str((venv / "bin" / "python").resolve()), "installed": done}
    draft = venv / (STAMP + ".new")
    draft.write_text(json.dumps(new, indent=1), encoding="utf-8")
    draft.replace(venv / STAMP)
    (venv / UNFINISHED).unlink(missing_ok=True)


def _is_usable(venv: Path, stamp: dict[str, Any] | None, wanted: dict[str, list[str]]) -> bool:
    """Whether what is there can be built upon: finished, its python runs, and it finds what was installed.

    One that was moved or copied is used as it is if it works, so that no network is needed for that either.
    """
    python = venv / "bin" / "python"
    if not python.exists() or (venv / UNFINISHED).exists():
        return False
    modules = (
        [_module(text) for text in wanted[""]] if stamp and not _missing(stamp, {"": wanted[""]}) else []
    )
    code = (
        f"import sys, importlib\nassert sys.version_info >= (3, 11) and sys.prefix != sys.base_prefix\n"
        f"for name in {modules!r}: assert importlib.import_module(name).__file__.startswith(sys.prefix)"
    )
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([python, "-I", "-c", code], capture_output=True, timeout=60).returncode == 0
    return False


def _remove(venv: Path, stamp: dict[str, Any] | None, *, may_replace: bool) -> None:
    """Take away an unusable venv, but never a folder of the user's that is none of ours."""
    if not venv.exists() and not venv.is_symlink():
        return
    ours = stamp is not None or (venv / UNFINISHED).exists() or (venv / "pyvenv.cfg").exists()
    if not ours and not may_replace and (not venv.is_dir() or any(venv.iterdir())):
        raise BootstrapError(
            f"SYNERGY_VENV {venv}: is neither empty nor a venv of ours; name another folder", 2
        )
    if venv.is_symlink() or not venv.is_dir():
        venv.unlink()
        return
    if ours or may_replace:
        shutil.rmtree(venv)


def _make(venv: Path) -> None:
    """An empty venv without pip. Raises BootstrapError where no tool can make one."""
    venv.mkdir(parents=True, exist_ok=True)
    (venv / UNFINISHED).touch()
    try:
        import venv as maker
    except ImportError:
        _make_by_tool(venv)
        return
    maker.EnvBuilder(with_pip=False, symlinks=True).create(venv)


def _make_by_tool(venv: Path) -> None:
    """This python came without its `venv` module: let another tool do it."""
    tools = {
        "virtualenv": ["virtualenv", "--quiet", "--no-seed", "--python", sys.executable, str(venv)],
        "uv": ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)],
    }
    for name, command in tools.items():
        if shutil.which(name) and subprocess.run(command, capture_output=True).returncode == 0:
            (venv / UNFINISHED).touch()
            return
    raise BootstrapError(
        f"{sys.executable} cannot make a virtual environment: apt install python3-venv"
        " (or install uv or virtualenv), then try again",
        2,
    )


def _install(venv: Path, texts: list[str], *, is_first: bool) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    what = f"{len(texts)} packages into {_short(venv)}"
    if is_first:
        what += f" (once, Python {version})"
    began = time.monotonic()
    log = venv / LOG
    with Progress(f"Installing {what}") as progress:
        try:
            installer = borrow_pip.find(venv)
        except borrow_pip.NotFound as error:
            raise BootstrapError(str(error), 3) from error
        command = [*installer.command, *texts]
        with log.open("w", encoding="utf-8") as out:
            print("$", *command, file=out, flush=True)
            code = _watched(command, out, log, progress)
    if code != 0:
        raise _failure(log)
    progress.say(f"Installed {what} in {time.monotonic() - began:.0f} s.")


def _watched(command: list[str], out: IO[str], log: Path, progress: Progress) -> int:
    """Run to the end, showing what is at work; a Ctrl-C ends it too."""
    environment = {name: value for name, value in os.environ.items() if name not in borrow_pip.MISLEADING}
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=_held,
    )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(0.25)
            progress.show(_at_work(log))
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _at_work(log: Path) -> str:
    lines = re.findall(
        r"^(Collecting|Downloading|Installing) ([\w.-]+)", log.read_text(errors="replace"), re.MULTILINE
    )
    return "" if not lines else "unpacking" if lines[-1][0] == "Installing" else str(lines[-1][1])


def _failure(log: Path) -> BootstrapError:
    """pip's last words, in a line."""
    text = log.read_text(errors="replace")
    if OFFLINE.search(text):
        return BootstrapError(
            "cannot reach the package index, and the first run needs it once (PIP_INDEX_URL, PIP_FIND_LINKS and"
            f" pip.conf are honoured); what pip said: {log}",
            3,
        )
    said = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    errors = [line for line in said if line.lower().startswith("error")] or said
    words = " · ".join(line.removeprefix("ERROR: ") for line in errors[-2:])
    return BootstrapError(f"installing failed: {words[:300]} (all of it: {log})")


# -- small parts ------------------------------------------------------------------------------------------

_held: list[int] = []  # the lock's descriptor while we have it


@contextlib.contextmanager
def _lock(venv: Path) -> Iterator[None]:
    """One launch at a time."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(venv.with_name(venv.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another launch.py sets up {_short(venv)}; waiting for it …", file=sys.stderr)
            fcntl.flock(fd, fcntl.LOCK_EX)
        _held.append(fd)
        yield
    finally:
        _held.clear()
        os.close(fd)


class Progress:
    """One calm line: on a terminal it counts seconds, elsewhere it is said once."""

    def __init__(self, text: str) -> None:
        self.text, self._began = text, time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self._live:
            self._write(f"{self.text} …")
        else:
            print(f"{self.text} …", file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def show(self, at_work: str) -> None:
        """What is at work now."""
        detail = f" · {at_work}" if at_work else ""
        self._write(f"{self.text} … {time.monotonic() - self._began:.0f} s{detail}")

    def say(self, text: str) -> None:
        """The last word."""
        print(text, file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns
            sys.stderr.write("\r\x1b[K" + text[: width - 1])
            sys.stderr.flush()


def _read_stamp(venv: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
        return {"place": stamp["place"], "python": stamp["python"], "installed": dict(stamp["installed"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _missing(stamp: dict[str, Any] | None, wanted: dict[str, list[str]]) -> list[str]:
    installed = stamp["installed"] if stamp else {}
    return [group for group, texts in wanted.items() if installed.get(group) != _digest(texts)]


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _module(requirement: str) -> str:
    """The module a requirement brings: for all of ours its name in lower case."""
    found = re.match(r"[\w-]+", requirement)
    assert found is not None, requirement
    return found[0].lower().replace("-", "_")


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
