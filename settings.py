"""The only reader of the environment and of the settings file. Typed, frozen, validated.

Sources, the later wins: defaults < `settings` in the context file < `synergy.toml` < environment `SYNERGY_<NAME>` <
command line. Each loader returns only what was set; defaults are filled last, and some of them (paths, URLs) follow
from others. An unknown name, a value of the wrong kind or out of range is a ConfigError of one line that names the
setting and where it came from. Nothing here opens or creates anything, except `ensure_state_folder`.

All durations are seconds of real time.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re
import socket
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.core.errors import ConfigError, InvalidRequest

ROOT = Path(__file__).resolve().parent
PREFIX = "SYNERGY_"
FILE = "synergy.toml"
# Variables of ours that are no settings: read by launch.py, or handed from a process to its children.
NO_SETTINGS = frozenset(
    {"SYNERGY_VENV", "SYNERGY_EXTRAS", "SYNERGY_SETTINGS", "SYNERGY_INSTANCE", "SYNERGY_SLOT"}
)
NO_SETTINGS_PREFIXES = ("SYNERGY_TEST_", "SYNERGY_UOW_", "SYNERGY_JOB_")
# Names that other systems, or our own past, use for a setting of ours.
FORMER = {
    "synergy_start_timperiod": "synergy_start_timeperiod",
    "start_timeperiod": "synergy_start_timeperiod",
    "box_id": "box",
    "store": "store_url",
    "broker": "broker_url",
    "state": "state_folder",
}
PASSWORD = re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s]+(?=@)")


def _setting(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    shown: str = "",
) -> Any:
    """A field with what is needed to check and to describe it. `shown`: how a computed default reads."""
    meta = {"doc": doc, "least": least, "most": most, "choices": choices, "shown": shown}
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for this process. Made by `load_settings`; every field is filled and in range."""

    context: Path | None = _setting(
        None,
        "Folder with a `process_context.py`, or such a file: what is registered. A path in `synergy.toml` is relative"
        " to that file.",
        shown="the example in `examples/flights`",
    )
    state_folder: Path = _setting(
        Path(),
        "Folder of everything this installation writes: embedded store and queue, logs, pid files.",
        shown="`.synergy` in the project's folder",
    )
    store_url: str = _setting(
        "",
        "Where the state lives: `sqlite:////absolute/path`, `mongodb://host/database?replicaSet=name`,"
        " `postgresql://host/database`, `mariadb://host/database`; see docs/stores.md.",
        shown="`sqlite:///<state_folder>/synergy.sqlite`",
    )
    broker_url: str = _setting(
        "",
        "Where the queues live: `embedded:///absolute/path`, `amqp://user:password@host1,host2/vhost`, `amqps://…`; see"
        " docs/brokers.md.",
        shown="`embedded://` with a file beside the embedded store",
    )
    box: str = _setting(
        "", "Name of this machine, as processes name it in `boxes`.", shown="host name, lower case"
    )
    synergy_start_timeperiod: str | None = _setting(
        None,
        "The hour (`YYYYMMDDHH`, UTC) in which the timetable begins. A tree's or a process's own start wins.",
        shown="what the context says",
    )

    mx_host: str = _setting(
        "127.0.0.1", "Address that the dashboard serves; without users a loopback address."
    )
    mx_port: int = _setting(5000, "Port of the dashboard; 0 takes any free one.", least=0, most=65535)
    mx_title: str = _setting("Synergy Scheduler", "Title of the dashboard's pages.")

    worker_lease_s: float = _setting(
        60.0,
        "How long a worker may be silent before its unit of work is given to another (s).",
        least=0.2,
        most=86400,
    )
    lease_renew_s: float = _setting(
        0.0,
        "How often a worker renews the leases of its running units of work (s); at most half of worker_lease_s.",
        least=0.02,
        most=43200,
        shown="a sixth of worker_lease_s",
    )
    leader_lease_s: float = _setting(
        4.0, "How long a scheduler may be silent before another takes over (s).", least=0.2, most=3600
    )
    sweep_s: float = _setting(
        30.0, "How often the scheduler looks for lost leases and lost messages (s).", least=0.1, most=3600
    )
    tick_s: float = _setting(
        1.0,
        "The longest the scheduler sleeps; notices clock jumps and lost wake-ups (s).",
        least=0.01,
        most=60,
    )
    turn_limit: int = _setting(
        1000, "Jobs decided, and rows made, in one turn at most.", least=1, most=100_000
    )
    grace_s: float = _setting(
        20.0, "From TERM to KILL: what a process that is told to stop may take (s).", least=0, most=86400
    )
    drain_s: float = _setting(
        0.0,
        "How long a stopping worker lets its units of work run before it gives them back (s); at most grace_s.",
        least=0,
        most=86400,
        shown="three quarters of grace_s",
    )

    sqlite_synchronous: str = _setting(
        "NORMAL", "NORMAL survives any kill of processes, FULL also a power cut.", choices=("NORMAL", "FULL")
    )
    event_retention_days: int = _setting(
        90,
        "Age at which events are pruned (days), those of a unit of work not before it; what people did, and unfinished"
        " jobs, are kept.",
        least=1,
        most=36500,
    )
    log_retention_days: int = _setting(
        14,
        "Age at which captured logs are pruned (days); they leave with their unit of work at the latest.",
        least=1,
        most=36500,
    )
    uow_retention_days: int = _setting(
        90,
        "Age at which units of work of finished jobs are pruned (days); a freerun job goes with them.",
        least=1,
        most=36500,
    )
    log_level: str = _setting(
        "INFO", "What is written to the logs of processes.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    log_format: str = _setting("text", "`text` for people, `json` for machines.", choices=("text", "json"))

    # What the command line said; handed on to the processes that this one starts.
    given: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False, compare=False)

    def public(self) -> dict[str, object]:
        """Every setting by name, as a page or a log may show it: passwords in URLs are masked."""
        return {
            name: PASSWORD.sub(lambda found: found["keep"] + "***", str(value))
            if isinstance(value, str | Path)
            else value
            for name in FIELDS
            for value in (getattr(self, name),)
        }

    def ensure_state_folder(self) -> Path:
        """Make the state folder if it is not there. Raises ConfigError, one line, where it cannot be written."""
        try:
            self.state_folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.state_folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"state_folder {self.state_folder}: cannot be written ({error.strerror or error});"
                f" name another with {PREFIX}STATE_FOLDER"
            ) from error
        return self.state_folder


FIELDS: dict[str, dataclasses.Field[Any]] = {
    f.name: f for f in dataclasses.fields(Settings) if f.name != "given"
}
_TYPES = {name: str(f.type).removesuffix(" | None") for name, f in FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the settings' documentation."""

    name: str
    type: str
    default: str
    doc: str


def describe() -> Iterator[Row]:
    """All settings in their order, for `docs/settings.md`."""
    words = {"str": "text", "int": "number", "float": "seconds", "Path": "path"}
    for name, field in FIELDS.items():
        meta = field.metadata
        kind = " or ".join(f"`{choice}`" for choice in meta["choices"]) or words[_TYPES[name]]
        value = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        yield Row(name, kind, meta["shown"] or f"`{value}`", meta["doc"])


# -- loading ----------------------------------------------------------------------------------------------


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    context_settings: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of this process. Raises ConfigError, one line.

    `overrides` are the command line's and win; `environ` is the environment (default: this process's); `folder` is
    where relative paths begin and `synergy.toml` is looked for (default: the current one; a context's own folder
    comes first); `context_settings` is the dictionary `settings` of a context file, and loses to all others.
    """
    environ = os.environ if environ is None else environ
    folder = (folder or Path.cwd()).resolve()
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    told = _checked(given, "the command line", folder)
    outer = _checked(_from_environment(environ), "the environment", folder) | told
    file = _find_file(environ.get("SYNERGY_SETTINGS"), outer.get("context"), folder)
    found = _checked(dict(context_settings or {}), "the context file", folder)
    if file is not None:
        found |= _checked(_from_file(file), str(file), file.parent)
    found |= outer
    return _filled(found, file, folder, tuple((name, str(value)) for name, value in told.items()))


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in NO_SETTINGS or not value:
            continue
        if variable.startswith(NO_SETTINGS_PREFIXES):
            continue
        name = variable.removeprefix(PREFIX).lower()
        # `synergy_start_timeperiod` bears the prefix already
        found[variable.lower() if variable.lower() in FIELDS or variable.lower() in FORMER else name] = value
    return found


def _find_file(named: str | None, context: Path | None, folder: Path) -> Path | None:
    if named:
        path = (folder / Path(named).expanduser()).resolve()
        if not path.is_file():
            raise ConfigError(f"SYNERGY_SETTINGS: there is no file {path}")
        return path
    places = [folder] if context is None else [context if context.is_dir() else context.parent, folder]
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _checked(values: Mapping[str, Any], source: str, folder: Path) -> dict[str, Any]:
    """Known names with values of their kind and in their range."""
    found = {}
    for name, value in values.items():
        if name not in FIELDS:
            raise ConfigError(f"{_spoken(name, source)}: there is no such setting{_nearest(name)}")
        try:
            found[name] = _converted(name, value, folder)
        except ValueError as error:
            raise ConfigError(f"{_spoken(name, source)}: {error}, got {_shown(value)}") from None
    return found


def _spoken(name: str, source: str) -> str:
    if source != "the environment":
        return f"{name} (from {source})"
    return name.upper() if name.startswith("synergy_") else f"{PREFIX}{name.upper()}"


def _shown(value: object) -> str:
    return PASSWORD.sub(lambda found: found["keep"] + "***", repr(value))


def _nearest(name: str) -> str:
    close = FORMER.get(name) or next(iter(difflib.get_close_matches(name, FIELDS, n=1)), None)
    return f"; did you mean {close}?" if close else "; docs/settings.md lists them all"


def _converted(name: str, value: Any, folder: Path) -> Any:
    """`value` as the setting's own type. Raises ValueError with what was expected."""
    meta = FIELDS[name].metadata
    match _TYPES[name]:
        case "Path":
            if not isinstance(value, str | Path) or not str(value):
                raise ValueError("expected a path")
            return (folder / Path(value).expanduser()).resolve()
        case "int" | "float" as kind:
            return _number(kind, value, meta["least"], meta["most"])
    if not isinstance(value, str) or not value.strip() or any(c < " " for c in value):
        raise ValueError("expected text on one line")
    if meta["choices"]:
        return _choice(value, meta["choices"])
    if name == "synergy_start_timeperiod":
        _check_hour(value)
    if name.endswith("_url") and "://" not in value:
        raise ValueError("expected a URL such as scheme://host/name")
    return value


def _number(kind: str, value: Any, least: float | None, most: float | None) -> float | int:
    wanted = "a whole number" if kind == "int" else "a number of seconds"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected {wanted}")
    try:
        number = int(value) if kind == "int" and not isinstance(value, float) else float(value)
    except ValueError:
        raise ValueError(f"expected {wanted}") from None
    if not math.isfinite(number) or (kind == "int" and not isinstance(number, int)):
        raise ValueError(f"expected {wanted}")
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"expected {wanted} from {least:g} to {most:g}")
    return number


def _choice(value: str, choices: tuple[str, ...]) -> str:
    for choice in choices:
        if value.lower() == choice.lower():
            return choice
    raise ValueError(f"expected {' or '.join(choices)}")


def _check_hour(label: str) -> None:
    from scheduler.core.timeperiod import Qualifier, timeperiod_of

    try:
        timeperiod_of(label, Qualifier.HOURLY)
    except InvalidRequest:
        raise ValueError("expected the label of an hour, YYYYMMDDHH such as 2026010100") from None


def _filled(
    found: dict[str, Any], file: Path | None, folder: Path, given: tuple[tuple[str, str], ...]
) -> Settings:
    """Defaults, last: those that follow from other settings, and what must fit together."""
    values = dict(found)
    values.setdefault("state_folder", _project(values.get("context"), file, folder) / ".synergy")
    values.setdefault("store_url", f"sqlite:///{values['state_folder']}/synergy.sqlite")
    values.setdefault("broker_url", _beside(values["store_url"], values["state_folder"]))
    values.setdefault("box", socket.gethostname().lower() or "localhost")
    lease = values.setdefault("worker_lease_s", FIELDS["worker_lease_s"].default)
    renew = values.setdefault("lease_renew_s", lease / 6)
    grace = values.setdefault("grace_s", FIELDS["grace_s"].default)
    drain = values.setdefault("drain_s", grace * 0.75)
    if renew > lease / 2:
        raise ConfigError(
            f"lease_renew_s: expected at most half of worker_lease_s ({lease:g}), got {renew:g}"
        )
    if drain > grace:
        raise ConfigError(f"drain_s: expected at most grace_s ({grace:g}), got {drain:g}")
    return Settings(**values, given=given)


def _project(context: Path | None, file: Path | None, folder: Path) -> Path:
    """The folder of the user's project: of the context, else of synergy.toml, else the clone, else the current one."""
    if context is not None:
        return context.parent if context.suffix == ".py" else context
    if file is not None:
        return file.parent
    return ROOT if (ROOT / "synergy").is_dir() else folder


def _beside(store_url: str, state_folder: Path) -> str:
    """The embedded queue's file lies beside the embedded store's."""
    scheme, _, path = store_url.partition(":///")
    if scheme.partition("+")[0] == "sqlite" and path.startswith("/"):
        store = Path(path.partition("?")[0])
        return f"embedded://{store.with_name(store.stem + '-queue.sqlite')}"
    return f"embedded://{state_folder}/synergy-queue.sqlite"


# -- command line -----------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options by which every command takes settings: `--context`, `--box` and `--set name=value`."""
    group = parser.add_argument_group("settings")
    group.add_argument("--context", metavar="FOLDER", help="folder with a process_context.py, or such a file")
    group.add_argument("--state-folder", metavar="FOLDER", help="where store, queue, logs and pid files lie")
    group.add_argument("--box", metavar="NAME", help="the name of this machine")
    group.add_argument(
        "--set",
        dest="set_",
        metavar="NAME=VALUE",
        action="append",
        help="any other setting of docs/settings.md",
    )


def overrides_of(args: argparse.Namespace) -> dict[str, str]:
    """What `add_options` took. Raises ConfigError for a `--set` without `=`."""
    found = {
        name: getattr(args, name) for name in ("context", "state_folder", "box") if getattr(args, name, None)
    }
    for text in getattr(args, "set_", None) or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected NAME=VALUE")
        found[name.strip()] = value
    return found


def as_options(settings: Settings) -> list[str]:
    """The command line's settings again, for a process that this one starts in the same folder."""
    return [part for name, value in settings.given for part in ("--set", f"{name}={value}")]
