"""The dispatcher of `launch.py`: one table, lazy modules, errors as one line with their exit code."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import commands
from commands import dispatch
from scheduler.core import errors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make `list` a stand-in: call it with what `run` shall do."""

    def install(run: Callable[[Any], int], **attributes: Any) -> None:
        module = ModuleType("commands.list")
        vars(module).update(add_arguments=lambda parser: parser.add_argument("--x"), run=run, **attributes)
        monkeypatch.setitem(sys.modules, "commands.list", module)
        monkeypatch.setattr(dispatch, "available", lambda: {"list": "stand-in", "status": "other"})
        monkeypatch.setattr(sys, "argv", ["/some/launch.py"])

    return install


def test_the_exit_code_is_the_verbs(verb: Callable[..., None]) -> None:
    seen = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args.x)
        return 7

    verb(run)
    assert commands.main(["list", "--x", "1"]) == 7
    assert seen == ["1"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("mx_port: wrong"), 2),
        (errors.NotFound("no such job"), 4),
        (errors.Refused("no"), 5),
        (errors.StoreUnavailable("away"), 3),
        (errors.SchedulerError("some"), 1),
    ],
)
def test_refusals_are_one_line(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str], error: errors.SchedulerError, code: int
) -> None:
    def run(_: object) -> int:
        raise error

    verb(run)
    assert commands.main(["list"]) == code
    assert capsys.readouterr().err == f"launch.py: {error}\n"


def test_control_c_is_silent_and_bugs_are_not(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    def broken(_: object) -> int:
        raise ZeroDivisionError

    verb(interrupted)
    assert commands.main(["list"]) == 130
    assert capsys.readouterr() == ("", "")
    verb(broken)
    with pytest.raises(ZeroDivisionError):
        commands.main(["list"])


def test_wrong_verbs_and_arguments_are_one_line(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(lambda _: 0)
    assert commands.main(["lits"]) == 2
    said = capsys.readouterr().err
    assert said == "launch.py: there is no command 'lits'; did you mean list? there are: list, status\n"
    with pytest.raises(SystemExit) as left:
        commands.main(["list", "--y"])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "launch.py list: unrecognized arguments: --y (see launch.py list --help)\n"
    )


def test_unknown_arguments_are_collected_where_a_verb_wants_them(verb: Callable[..., None]) -> None:
    seen: list[list[str]] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args.rest)
        return 0

    verb(run, UNKNOWN_ARGUMENTS="rest")
    assert commands.main(["list", "-k", "a and b", "tests/unit"]) == 0
    assert seen == [["-k", "a and b", "tests/unit"]]


def test_help_lists_what_is_there_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, commands; commands.main([]); commands.main(['--version'])\n"
        "print(sorted({'sqlalchemy', 'rich', 'msgspec', 'transitions', 'apscheduler'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *said, version, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert version == "synergy-scheduler 0.1.0"
    for verb_name in commands.available():
        assert any(line.startswith(f"  {verb_name} ") for line in said)


def test_every_verb_has_its_parts() -> None:
    """Each module answers to --help, and is in the table once."""
    names = [name for name, _ in commands.VERBS]
    assert len(names) == len(set(names))
    for name in commands.available():
        with pytest.raises(SystemExit) as left:
            commands.main([name, "--help"])
        assert left.value.code == 0


def test_what_needs_an_installation() -> None:
    assert commands.is_answered_alone([])
    assert commands.is_answered_alone(["--help"])
    assert commands.is_answered_alone(["nonsense"])
    assert not commands.is_answered_alone(["test"])
    assert commands.extras_of(["test", "--fast"]) == ("test",)
    assert commands.extras_of(["list"]) == ()
