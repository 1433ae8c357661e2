"""The user's context file: found anywhere, run by its path, and every mistake named in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.context_file import load_project
from scheduler.core.errors import ConfigError

GOOD = """
from scheduler.core.process import managed, queue, tree
process_context = [managed("a_hourly", "my_work:run", "hourly")]
timetable_context = [tree("a", ["a_hourly"])]
queue_context = [queue("default", workers=2)]
synergy_start_timeperiod = "2026010100"
settings = {"box": "here"}
"""


@pytest.fixture(autouse=True)
def same_path() -> Iterator[None]:
    """What a context adds to this process is taken away again."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "process_context.py") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_project(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_or_a_file_with_any_name(tmp_path: Path) -> None:
    write(tmp_path / "with space", GOOD)
    project = load_project(tmp_path / "with space")
    assert list(project.context.processes) == ["a_hourly"]
    assert project.context.queues["default"].workers == 2
    assert project.context.start == "2026010100"
    assert project.settings == {"box": "here"}
    assert sys.path[-1] == str(project.folder), "appended, never put first"
    other = load_project(write(tmp_path / "other", GOOD, "my_context.py"))
    assert other.file.name == "my_context.py"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "process_context.py") in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = (", "process_context.py:1: "),
        ("\nimport nowhere_to_be_found", "process_context.py:2: ModuleNotFoundError"),
        ("\n\n1 / 0", "process_context.py:3: ZeroDivisionError"),
        ("x = 1", "there is no process_context"),
        ("process_context = 5", "process_context must be a list, got int"),
        ("process_context = [5]", "process_context holds 5"),
        ("process_context = []\nsynergy_start_timeperiod = 2026010100", "must be an hour's label"),
        (
            "process_context = []\nsynergy_start_timperiod = '2026010100'",
            "spelled 'synergy_start_timeperiod'",
        ),
        ("process_context = []\ntimetabel_context = []", "spelled 'timetable_context'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from scheduler.core.process import managed\nprocess_context = [managed('a', 'b:c', 'dayly')]",
            "process_context.py:2: process 'a': time_qualifier 'dayly' is unknown",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path, text)
    assert expected in refusal(tmp_path)


def test_two_processes_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("]\ntimetable", ", managed('a_hourly', 'm:r', 'hourly')]\ntimetable", 1))
    assert "two processes are named 'a_hourly'" in refusal(tmp_path)


@pytest.mark.parametrize("clash", ["settings.py", "db/__init__.py", "worker/jobs.py"])
def test_a_module_named_like_one_of_ours_is_refused(tmp_path: Path, clash: str) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, "", clash)
    assert "rename it" in refusal(tmp_path)


def test_folders_that_every_project_has_are_no_clash(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, "", "tests/test_it.py")
    load_project(tmp_path)


def test_a_reload_reads_helpers_anew(tmp_path: Path) -> None:
    write(tmp_path, "import helper_of_mine\n" + GOOD.replace('"2026010100"', "helper_of_mine.START"))
    write(tmp_path, "START = '2026010100'\n", "helper_of_mine.py")
    assert load_project(tmp_path).context.start == "2026010100"
    write(tmp_path, "START = '2025010100'  # earlier\n", "helper_of_mine.py")
    assert load_project(tmp_path, fresh=True).context.start == "2025010100"
