"""The wheel: built from this tree, installed beside the PyPI package `supervisor`, used from a stranger's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "dist")

pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path, is_calm: bool = True) -> str:
    """What a command prints; it must succeed and, if calm, say nothing on stderr."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SYNERGY_", "PYTHON"))
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert not (is_calm and done.stderr), f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built away from it."""
    source = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run(
        *pip,
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        source / "dist",
        source,
        cwd=source,
        is_calm=False,
    )
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The python of a venv with the wheel and PyPI's supervisor; our dependencies are those of this process."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.EnvBuilder(symlinks=True).create(folder)
    python = folder / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(ours))
    flags = ("--disable-pip-version-check", "--python", str(python), "install", "--quiet")
    pip = (sys.executable, "-m", "pip", *flags)
    run(*pip, "--no-deps", "--ignore-installed", wheel, cwd=folder, is_calm=False)
    run(*pip, "supervisor>=4.2.5,<5", cwd=folder, is_calm=False)
    yield python
    shutil.rmtree(folder)


def test_everything_lies_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"synergy", "synergy_scheduler-0.1.0.dist-info"}
    for wanted in (
        *("__init__.py", "__main__.py", "settings.py", "process_starter.py", "scheduler/core/decide.py"),
        *("mx/templates/base.html", "mx/static/mx.css", "examples/flights/data/flights.csv.gz"),
    ):
        assert f"synergy/{wanted}" in names
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"synergy", "scripts", "tests"}
    assert ours == {
        name.split("/")[1] for name in names if name.startswith("synergy/") and name.count("/") > 1
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_both_supervisors_and_the_public_face(python: Path, tmp_path: Path) -> None:
    for order in ("import supervisor, synergy", "import synergy, supervisor"):
        code = (
            f"{order}\nfrom synergy import Noop, managed, tree\nimport supervisor.supervisord\n"
            "assert not hasattr(supervisor, 'plan')\n"
            "print(managed.__module__, supervisor.supervisord.__name__, supervisor.__file__)"
        )
        said = run(python, "-W", "ignore", "-c", code, cwd=tmp_path).split()
        assert said[:2] == ["scheduler.core.process", "supervisor.supervisord"]
        assert "synergy" not in Path(said[2]).parent.parts[-2:]


def test_a_stranger_folder_with_our_names_does_no_harm(python: Path, tmp_path: Path) -> None:
    for name in ("scheduler", "worker", "db", "commands"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('this is not ours')")
    assert (
        run(python, "-c", "from synergy import Worker; print(Worker.__module__)", cwd=tmp_path)
        == "worker.api\n"
    )
    assert run(python, "-m", "synergy", "--version", cwd=tmp_path) == "synergy-scheduler 0.1.0\n"


def test_console_script_and_module(python: Path, tmp_path: Path) -> None:
    by_script = run(python.with_name("synergy"), "--help", cwd=tmp_path)
    assert by_script.startswith("usage: synergy COMMAND")
    assert run(python, "-m", "synergy", "--help", cwd=tmp_path) == by_script
    assert list(tmp_path.iterdir()) == []


def test_our_own_processes_get_our_own_supervisor(python: Path, tmp_path: Path) -> None:
    code = (
        "from synergy import _path; _path.put_first()\n"
        "import supervisor.plan, settings\n"
        "print(settings.load_settings({}, {}).state_folder)"
    )
    assert run(python, "-c", code, cwd=tmp_path).strip() == str(tmp_path.resolve() / ".synergy")
