"""From a path such as `flights.workers:Hourly` to the object, with errors that name the missing part.

Used by the child process, and by `check`, before anything starts. Importing runs the user's module; nothing is called.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from scheduler.core.errors import ConfigError


def add_folder(folder: str | Path | None) -> None:
    """Append a context's folder to `sys.path`, at the end: a user's `db/` must not shadow ours."""
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))


def resolve(path: str, what: str = "worker") -> Any:
    """The object at `package.module:name`, `package.module:Class.name` or `package.module.name`.

    Raises ConfigError: what of the path is missing, or how its module failed to import (with its cause).
    """
    module_path, colon, names = path.partition(":")
    if not colon:
        module_path, names = _split(path, what)
    if not module_path or not names:
        raise ConfigError(f"{what} {path!r} is not a path; use 'package.module:name'")
    found = _import(module_path, path, what)
    for name in names.split("."):
        if not hasattr(found, name):
            raise ConfigError(_missing(path, found, name, what))
        found = getattr(found, name)
    return found


def resolve_worker(path: str) -> Any:
    """As `resolve`, and refuse what is neither a class with `run(task)` nor callable. Raises ConfigError."""
    found = resolve(path)
    if inspect.isclass(found):
        if not callable(getattr(found, "run", None)):
            raise ConfigError(f"worker {path!r} is a class without a method run(self, task)")
    elif not callable(found):
        kind = "module" if inspect.ismodule(found) else type(found).__name__
        raise ConfigError(f"worker {path!r} is a {kind}; name a function or a class with run(self, task)")
    return found


def _split(path: str, what: str) -> tuple[str, str]:
    """Where the module ends in `a.b.C.d`: at the longest part that imports."""
    parts = path.split(".")
    if len(parts) < 2:
        raise ConfigError(f"{what} {path!r} is not a path; use 'package.module:name'")
    module_path = parts[0]
    _import(module_path, path, what)
    for count in range(2, len(parts) + 1):
        deeper = ".".join(parts[:count])
        is_taken = hasattr(sys.modules[module_path], parts[count - 1]) and deeper not in sys.modules
        if is_taken or not _is_module(deeper):
            break
        _import(deeper, path, what)
        module_path = deeper
    if module_path == path:
        raise ConfigError(f"{what} {path!r} is a module; name a function or a class in it")
    return module_path, path[len(module_path) + 1 :]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _import(name: str, path: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            parent, _dot, last = missing.rpartition(".")
            where = (
                f"package {parent!r} has no module {last!r}" if parent else f"there is no module {missing!r}"
            )
            raise ConfigError(f"{what} {path!r}: {where}") from None
        raise ConfigError(
            f"{what} {path!r}: importing {name!r} needs the missing module {missing!r}"
        ) from error
    except Exception as error:  # the user's module ran, and failed: any error may come
        raise ConfigError(
            f"{what} {path!r}: importing {name!r} raised {type(error).__name__}: {error}"
        ) from error


def _missing(path: str, holder: Any, name: str, what: str) -> str:
    kind = "module" if inspect.ismodule(holder) else "class" if inspect.isclass(holder) else "object"
    label = getattr(holder, "__name__", repr(holder))
    public = sorted(n for n, v in vars(holder).items() if callable(v) and not n.startswith("_"))
    close = difflib.get_close_matches(name, public, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(public[:8])}" if public else ""
    return f"{what} {path!r}: {kind} {label!r} has no {name!r}{hint}"
