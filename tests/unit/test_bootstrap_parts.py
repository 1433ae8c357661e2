"""The parts of the installation that need no installation: where pip comes from, what is ready, what is said."""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from commands import test as test_command
from scripts import bootstrap, borrow_pip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index in a folder that pip's settings name; the page is the test's to write."""
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    page = tmp_path / "simple" / "pip"
    page.mkdir(parents=True)
    config = tmp_path / "pip.conf"
    config.write_text(
        f"[global]\nindex-url = file://{tmp_path}/nowhere\n[install]\nindex-url = file://{tmp_path}/simple/\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setattr(borrow_pip, "_fetch", lambda url, *_: _read(url))
    return page


def _read(url: str) -> bytes:
    path = Path(url.removeprefix("file://"))
    return (path / "index.html" if path.is_dir() else path).read_bytes()


WHEEL = b"a wheel"
DIGEST = hashlib.sha256(WHEEL).hexdigest()


@pytest.mark.parametrize(
    "page",
    [
        '<a href="pip-9.0.1-py3-none-any.whl">x</a>'
        f' <a class="c" href="pip-23.1-py3-none-any.whl#sha256={DIGEST}">y</a>',
        '{"files": [{"url": "pip-9.0.1-py3-none-any.whl"}, {"url": "pip-99-py3-none-any.whl", "yanked": "bad"},'
        f' {{"url": "pip-23.1-py3-none-any.whl", "hashes": {{"sha256": "{DIGEST}"}}}}]}}',
    ],
)
def test_the_newest_pip_of_the_index_is_taken(index: Path, tmp_path: Path, page: str) -> None:
    (index / "index.html").write_text(page)
    (index / "pip-23.1-py3-none-any.whl").write_bytes(WHEEL)
    wheel = borrow_pip.download_pip(tmp_path)
    assert wheel == tmp_path / "pip-23.1-py3-none-any.whl"
    assert wheel.read_bytes() == WHEEL


def test_a_pip_that_is_not_what_the_index_says_is_refused(index: Path, tmp_path: Path) -> None:
    (index / "index.html").write_text(f'<a href="pip-23.1-py3-none-any.whl#sha256={DIGEST}">y</a>')
    (index / "pip-23.1-py3-none-any.whl").write_bytes(b"another wheel")
    with pytest.raises(borrow_pip.NotFound, match="is not what the index says"):
        borrow_pip.download_pip(tmp_path)
    assert not (tmp_path / "pip-23.1-py3-none-any.whl").exists()


def test_without_an_index_the_line_says_what_to_install(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://ann:secret@mirror/simple")
    with pytest.raises(borrow_pip.NotFound) as caught:
        borrow_pip.download_pip(tmp_path)
    assert "https://***@mirror/simple gives none" in str(caught.value)
    assert "apt install python3-venv" in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert index.exists()


def test_a_folder_of_wheels_comes_before_the_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9.0", "24.2", "23.3.1"):
        (tmp_path / f"pip-{version}-py3-none-any.whl").write_bytes(b"")
    monkeypatch.setenv("PIP_FIND_LINKS", f"https://elsewhere {tmp_path}")
    assert borrow_pip.download_pip(index).name == "pip-24.2-py3-none-any.whl"


def test_a_wheel_is_unpacked_and_replaces_one_that_did_not_answer(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    (site / "pip").mkdir(parents=True)
    (site / "pip" / "old.py").write_text("")
    wheel = tmp_path / "pip-24.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr("pip/__main__.py", "")
    installer = borrow_pip._unpacked(wheel, tmp_path, "python")
    assert installer.probe == ("python", "-I", "-m", "pip", "--version")
    assert [path.name for path in (site / "pip").iterdir()] == ["__main__.py"]


def test_requirements_of_the_project_and_their_modules() -> None:
    """`_module` guesses the module from the name: true for all that we require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = bootstrap.requirements(ROOT / "pyproject.toml", ["test", "mongo"])
    assert groups[""] == project["dependencies"]
    assert list(groups) == ["", "test", "mongo"]
    for text in groups[""]:
        __import__(bootstrap._module(text))
        assert "<" in text or text.startswith("tzdata"), f"{text} has no upper bound"
    assert set(project["optional-dependencies"]) == {
        *("mongo", "rabbit", "postgres", "mysql", "celery", "rq", "data", "test", "servers")
    }


@pytest.mark.parametrize(
    ("said", "expected", "code"),
    [
        (
            "$ pip\nERROR: No matching distribution found for x\n",
            "installing failed: No matching distribution",
            1,
        ),
        ("$ pip\nbad\n\nERROR: a\nERROR: b\nhint: c\n", "installing failed: a · b (all of it: ", 1),
        ("$ pip\nsomething else\n", "installing failed: something else", 1),
        (
            "$ pip\nWARNING: Retrying … NewConnectionError(…)\nERROR: No matching",
            "cannot reach the package index",
            3,
        ),
    ],
)
def test_what_pip_said_in_one_line(tmp_path: Path, said: str, expected: str, code: int) -> None:
    log = tmp_path / "install.log"
    log.write_text(said)
    error = bootstrap._failure(log)
    assert str(error).startswith(expected)
    assert "\n" not in str(error)
    assert str(log) in str(error)
    assert error.exit_code == code


def test_a_whole_run_has_two_processes_and_what_is_looked_at_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    two = ["-n", "2", "--maxschedchunk", "1"]
    assert test_command._processes([]) == two
    assert test_command._processes(["-x", "--durations=80"]) == two
    for one in (["tests/unit"], ["-k", "settings"], ["-x", "--pdb"], ["-s"]):
        assert test_command._processes(one) == []
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert test_command._processes([]) == []


def test_pytest_arguments_keep_the_users_own_mark() -> None:
    assert test_command._selected(["-x"], []) == ["-x"]
    assert test_command._selected(["-x"], ["servers"]) == ["-x", "-m", "not servers"]
    both = test_command._selected(["-m", "a or b", "-x"], ["servers", "browser"])
    assert both == ["-m", "(a or b) and not servers and not browser", "-x"]


def test_missing_chromium_is_one_table_before_any_test(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(test_command, "_needs_browser", lambda *_: True)
    monkeypatch.setattr(test_command, "_check", lambda: pytest.fail("nothing is checked before"))
    import argparse

    assert (
        test_command.run(
            argparse.Namespace(pytest_arguments=[], fast=False, no_browser=False, no_servers=False)
        )
        == 2
    )
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == ["needed", "why", "how", "to", "get", "it"]
    assert "--no-browser" in said


def test_a_python_without_its_venv_module_lets_a_tool_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "venv", None)
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(
        bootstrap.BootstrapError, match="cannot make a virtual environment: apt install python3-venv"
    ):
        bootstrap._make(tmp_path / "venv")
    (tools / "virtualenv").write_text("#!/bin/sh\nexit 1\n")
    (tools / "uv").write_text('#!/bin/sh\nfor last; do :; done\n: > "$last/made"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    bootstrap._make(tmp_path / "venv")
    assert {path.name for path in (tmp_path / "venv").iterdir()} == {"made", bootstrap.UNFINISHED}


def test_an_outdated_pip_and_a_missing_tool_do_not_answer() -> None:
    for probe in (("/nowhere/uv", "--version"), (sys.executable, "-c", "raise SystemExit(1)")):
        assert not borrow_pip.Installer(("x",), probe).answers()
