"""Load the user's `process_context.py` from any folder, and refuse what would go wrong later.

The file is run by its path. Its folder is *appended* to `sys.path`, so that ours come first; hence a module of
theirs that is named like one of ours (`settings.py`, a package `db`) would not be what their code gets, and is
refused here by name. Nothing of a worker is imported here; `check` does that.

Read are: `process_context` (list), `timetable_context` (list), and, if there, `queue_context` (list),
`synergy_start_timeperiod` (an hour's label) and `settings` (a dictionary, below all other settings).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from scheduler.core.errors import ConfigError
from scheduler.core.process import Context, context

ROOT = Path(__file__).resolve().parent.parent
FILE = "process_context.py"
KNOWN = ("process_context", "timetable_context", "queue_context", "synergy_start_timeperiod", "settings")
MISSPELLED = {"synergy_start_timperiod": "synergy_start_timeperiod"}
HARMLESS = frozenset({"tests", "docs", "scripts", "bench", "examples"})  # folders every project has


@dataclass(frozen=True, slots=True)
class Project:
    """What a context file says, and where it stands."""

    file: Path
    folder: Path
    context: Context
    settings: Mapping[str, Any]


def find_file(where: str | Path | None) -> Path:
    """The context file that `where`, a folder or a file, means; None: the example's. Raises ConfigError."""
    if where is None or str(where) == "":
        return ROOT / FILE
    path = Path(where).expanduser().resolve()
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise ConfigError(
            f"context {str(where)!r}: there is no {path}; name a folder with a {FILE}, or a file"
        )
    return path


def load_project(where: str | Path | None, *, fresh: bool = False) -> Project:
    """Run the context file and check its definitions one by one. Raises ConfigError, one line.

    `fresh` forgets the modules of its folder first, so that a changed file is read again.
    """
    file = find_file(where)
    folder = file.parent
    _refuse_clashes(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if fresh:
        _forget_modules(folder)
    module = _run(file)
    _refuse_misspelled(module, file)
    values = {name: getattr(module, name, None) for name in KNOWN}
    if values["process_context"] is None:
        raise ConfigError(f"{file}: there is no process_context = […] in it")
    try:
        found = context(
            _list(values["process_context"], "process_context"),
            _list(values["timetable_context"], "timetable_context"),
            _list(values["queue_context"], "queue_context"),
            _start(values["synergy_start_timeperiod"]),
        )
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    settings = values["settings"]
    return Project(file, folder, found, dict(settings) if isinstance(settings, Mapping) else {})


def load_context(settings: Any, *, fresh: bool = False) -> Context:
    """The context that the settings name. Raises ConfigError."""
    return load_project(settings.context, fresh=fresh).context


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} must be a list, got {type(value).__name__}")
    return list(value)


def _start(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(
            f"synergy_start_timeperiod must be an hour's label such as '2026010100', got {value!r}"
        )
    return value


def _run(file: Path) -> ModuleType:
    """The file as a module, under its own name: functions in it can be imported by that name."""
    name = file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no answer of ours
            spec.loader.exec_module(module)
    except BaseException as error:  # the user's code: SystemExit too; the interrupt is ours
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(_where(error, file)) from error
    return module


def _where(error: BaseException, file: Path) -> str:
    """One line: the innermost place in the user's folder, and what was wrong there."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(file.parent)]
    place = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else str(file)
    text = " ".join(str(error).split()) or "no message"
    return (
        f"{place}: {text}" if isinstance(error, ConfigError) else f"{place}: {type(error).__name__}: {text}"
    )


def _refuse_misspelled(module: ModuleType, file: Path) -> None:
    for name in vars(module):
        right = MISSPELLED.get(name)
        if right is None and name.endswith(("_context", "_timeperiod")) and name not in KNOWN:
            close = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.85)
            right = close[0] if close and not hasattr(module, close[0]) else None
        if right is not None:
            raise ConfigError(f"{file}: {name!r} is not known; it is spelled {right!r}")


def _refuse_clashes(folder: Path) -> None:
    """A module of theirs that has a name of ours would never be what their code gets."""
    if folder.is_relative_to(ROOT) or ROOT.is_relative_to(folder):
        return
    ours = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/__init__.py")
    }
    ours -= {Path(FILE).stem}
    for path in sorted(folder.iterdir()):
        is_package = path.is_dir() and ((path / "__init__.py").exists() or any(path.glob("*.py")))
        if path.is_dir() and path.name in HARMLESS and not (path / "__init__.py").exists():
            continue
        if path.stem in ours and (path.suffix == ".py" or is_package):
            raise ConfigError(
                f"{path}: its name is that of a part of Synergy Scheduler, `import {path.stem}` would get ours;"
                " rename it, or put it into a package of your own"
            )


def _forget_modules(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin and name != "__main__" and _is_theirs(Path(origin), folder):
            del sys.modules[name]
    importlib.invalidate_caches()


def _is_theirs(origin: Path, folder: Path) -> bool:
    """A module of the project itself: neither installed nor a part of ours, even where those lie in its folder."""
    if folder == ROOT:
        return origin == ROOT / FILE or origin.is_relative_to(ROOT / "examples")
    is_ours = origin.is_relative_to(ROOT) and not folder.is_relative_to(ROOT)
    is_installed = "site-packages" in origin.parts or origin.is_relative_to(sys.prefix)
    return origin.is_relative_to(folder) and not is_ours and not is_installed
