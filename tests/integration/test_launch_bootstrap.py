"""`launch.py` on a fresh machine: real clones, real installations, every obstacle one line.

One clone is installed as it is, from the index. The others need two small packages only, from a folder and without a
network, so that a test can afford an installation. `list` stands for any command; it is a stand-in that says where its
packages come from.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.bootstrap import LOG, STAMP, UNFINISHED

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "launch.py",
    "pyproject.toml",
    "scripts",
    "commands/__init__.py",
    "commands/dispatch.py",
    "scheduler/__init__.py",
)
CORE = ("scheduler/core/__init__.py", "scheduler/core/errors.py")
STAND_IN = """
def add_arguments(parser):
    parser.add_argument("--raise", dest="error")

def run(args):
    import waitress
    print("listed with", waitress.__file__)
    if args.error:
        from scheduler.core.errors import ConfigError
        raise ConfigError(args.error)
"""
SMALL = ("waitress>=3.0.1,<4", "MarkupSafe>=2")
PIP = ("PIP_CONFIG_FILE", "PIP_NO_INDEX", "PIP_FIND_LINKS")
NOWHERE = "http://127.0.0.1:9/simple"  # the discard port: refused at once

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Clone:
    """A clone and how it is launched."""

    folder: Path
    wheels: Path

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def environment(self, **more: str) -> dict[str, str]:
        """As on a machine without a network, whose HOME cannot be written."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SYNERGY_", "PIP_", "PYTHON"))
        }
        offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/bin", "/bin"))
        return {**kept, "PATH": path, "HOME": "/proc/nobody", **offline, **more}

    def launch(
        self, *argv: str, python: str | Path = sys.executable, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run launch.py to its end."""
        return subprocess.run(
            [python, self.folder / "launch.py", *argv],
            cwd=self.folder.parent,
            env=env or self.environment(),
            capture_output=True,
            text=True,
        )

    def copy(self, folder: Path, *, installed: bool = True) -> Clone:
        """Another one like it, as `cp -r` makes it."""
        left_out = () if installed else (".venv", ".venv.lock")
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
        return Clone(folder, self.wheels)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said to people."""
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()


def make_clone(folder: Path, wheels: Path) -> Clone:
    for part in (*PARTS, *CORE):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, folder / part)
    (folder / "commands" / "list.py").write_text(STAND_IN)
    (folder / "commands" / "test.py").write_text(STAND_IN)
    return Clone(folder, wheels)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A small clone in a path with spaces, installed once from a folder of wheels."""
    wheels = tmp_path_factory.mktemp("wheels")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--quiet",
        "--dest",
        wheels,
    )
    subprocess.run(
        [*pip, "--no-deps", "--only-binary", ":all:", *SMALL, "pip"], check=True, capture_output=True
    )
    folder = tmp_path_factory.mktemp("boot strap") / "a clone"
    clone = make_clone(folder, wheels)
    text = (folder / "pyproject.toml").read_text()
    start, end = text.index("dependencies = ["), text.index("[project.optional-dependencies]")
    (folder / "pyproject.toml").write_text(f"{text[:start]}dependencies = {list(SMALL)}\n{text[end:]}")
    first = clone.launch("list")
    assert first.returncode == 0, first.stderr
    yield clone
    shutil.rmtree(folder.parent)
    shutil.rmtree(wheels)


def test_first_run_installs_everything_from_the_index(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "a clone", tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment = clone.environment(HOME=str(home), PIP_CONFIG_FILE="", PIP_NO_INDEX="", PIP_FIND_LINKS="")
    environment = {name: value for name, value in environment.items() if value or name not in PIP} | index
    first = clone.launch("list", env=environment)
    assert first.returncode == 0, first.stderr
    said = lines(first)
    assert len(said) == 2, said
    assert said[0].startswith("Installing 10 packages into ")
    assert said[1].startswith("Installed 10 packages into ")
    assert first.stdout.startswith(f"listed with {clone.venv}/")
    assert clone.launch("list").stderr == ""
    assert list(home.iterdir()) == [], "HOME is not ours to write to"


def test_second_run_is_silent_and_needs_no_network(cloned: Clone) -> None:
    environment = cloned.environment(PIP_INDEX_URL=NOWHERE, PIP_FIND_LINKS="", PIP_NO_INDEX="")
    before = (cloned.venv / LOG).stat().st_mtime_ns
    done = cloned.launch("list", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"listed with {cloned.venv}/")
    assert (cloned.venv / LOG).stat().st_mtime_ns == before


def test_a_symlink_and_the_venv_python_itself_work(cloned: Clone, tmp_path: Path) -> None:
    link = tmp_path / "synergy"
    link.symlink_to(cloned.folder / "launch.py")
    for command in (
        (sys.executable, link, "list"),
        (cloned.venv / "bin" / "python", "-P", cloned.folder / "launch.py", "list"),
    ):
        done = subprocess.run(command, env=cloned.environment(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"listed with {cloned.venv}/")


def test_errors_keep_their_exit_code_and_their_line(cloned: Clone) -> None:
    done = cloned.launch("list", "--raise", "mx_port: expected a number")
    assert (done.returncode, done.stderr) == (2, "launch.py: mx_port: expected a number\n")


def test_help_and_wrong_commands_need_no_installation(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    assert fresh.launch("--help").stdout.startswith("usage: launch.py COMMAND")
    assert fresh.launch("--version").stdout == "synergy-scheduler 0.1.0\n"
    wrong = fresh.launch("lsit")
    assert wrong.returncode == 2
    assert lines(wrong) == ["launch.py: there is no command 'lsit'; did you mean list? there are: list, test"]
    assert not fresh.venv.exists()


def test_first_run_without_network_is_one_line(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    environment = fresh.environment(PIP_INDEX_URL=NOWHERE, PIP_FIND_LINKS="", PIP_NO_INDEX="")
    done = fresh.launch("list", env=environment)
    assert done.returncode == 3
    assert len(lines(done)) == 2
    assert lines(done)[1].startswith(
        "launch.py: cannot reach the package index, and the first run needs it once"
    )
    assert str(fresh.venv / LOG) in done.stderr


def test_a_package_that_does_not_exist_is_named(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh")
    change(fresh, "'MarkupSafe>=2'", "'MarkupSafe>=2', 'nobody-made-this>=1'")
    done = fresh.launch("list")
    assert done.returncode == 1
    assert lines(done)[-1].startswith("launch.py: installing failed: ")
    assert "nobody-made-this" in lines(done)[-1]


def test_only_changed_requirements_are_installed_again(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh")
    change(fresh, "test = [", 'test = ["waitress"]\nother = [')
    assert fresh.launch("list").stderr == "", "the test extra concerns `test` only"
    assert lines(fresh.launch("test"))[0].startswith("Installing 1 packages into ")
    assert fresh.launch("test").stderr == ""
    change(fresh, "'MarkupSafe>=2'", "'MarkupSafe>=2.0'")
    assert lines(fresh.launch("list"))[0].startswith("Installing 2 packages into ")
    assert fresh.launch("list").stderr == ""
    unknown = fresh.launch("list", env=fresh.environment(SYNERGY_EXTRAS="mango"))
    assert unknown.returncode == 2
    assert lines(unknown)[0].startswith("launch.py: SYNERGY_EXTRAS: there is no 'mango'; there are: mongo, ")


def change(clone: Clone, old: str, new: str) -> None:
    file = clone.folder / "pyproject.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_moved_venv_is_used_as_it_is(cloned: Clone, tmp_path: Path) -> None:
    moved = cloned.copy(tmp_path / "moved")
    environment = moved.environment(PIP_FIND_LINKS="")
    done = moved.launch("list", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"listed with {moved.venv}/")
    assert json.loads((moved.venv / STAMP).read_text())["place"] == str(moved.venv)


@pytest.mark.parametrize("harm", ["python gone", "interrupted", "package gone", "no venv at all"])
def test_a_broken_venv_is_made_anew(cloned: Clone, tmp_path: Path, harm: str) -> None:
    broken = cloned.copy(tmp_path / "broken")
    match harm:
        case "python gone":
            for name in ("python", "python3"):
                (broken.venv / "bin" / name).unlink()
                (broken.venv / "bin" / name).symlink_to("/nowhere/python")
        case "interrupted":
            (broken.venv / UNFINISHED).touch()
        case "package gone":
            shutil.rmtree(next(broken.venv.glob("lib/python*/site-packages/waitress")))
        case "no venv at all":
            shutil.rmtree(broken.venv)
            broken.venv.mkdir()
            (broken.venv / "half").write_text("")
    done = broken.launch("list")
    assert done.returncode == 0, done.stderr
    assert lines(done)[0].startswith("Installing 2 packages into ")
    assert done.stdout.startswith(f"listed with {broken.venv}/")


def test_two_launches_at_once_install_once(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    command = (sys.executable, fresh.folder / "launch.py", "list")
    both = [
        subprocess.Popen(
            command, env=fresh.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(out.startswith("listed with ") for out, _ in said)
    assert sum(error.count("Installed 2 packages") for _, error in said) == 1
    assert sum(error.count("waiting for it") for _, error in said) == 1


def test_an_interrupted_installation_says_so_and_is_made_anew(cloned: Clone, tmp_path: Path) -> None:
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    command = (sys.executable, fresh.folder / "launch.py", "list")
    process = subprocess.Popen(
        command,
        env=fresh.environment(),
        stderr=subprocess.PIPE,
        text=True,
        # what a shell runs in the background ignores Ctrl-C, and all that it starts inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Installing ")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (
        130,
        "launch.py: interrupted; the next run starts the installation anew\n",
    )
    with (fresh.folder / ".venv.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it, no pip is left
    assert fresh.launch("list").returncode == 0


def test_debian_without_ensurepip_and_without_pip(cloned: Clone, tmp_path: Path) -> None:
    """A Python that has neither: pip comes from where pip's settings say."""
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util, pathlib, sys\nfound = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('ensurepip', 'pip') else found(name, *rest)\n"
        "sys.modules['ensurepip'] = None\n"
        "glob = pathlib.Path.glob\n"
        "pathlib.Path.glob = lambda self, *rest: [] if 'python-wheels' in str(self) else glob(self, *rest)\n"
    )
    path = os.pathsep.join(("/usr/bin", "/bin"))
    environment = fresh.environment(PYTHONPATH=str(hidden), PATH=path)
    done = fresh.launch("list", env=environment)
    assert done.returncode == 0, done.stderr
    nothing = cloned.copy(tmp_path / "nothing", installed=False)
    environment = nothing.environment(
        PYTHONPATH=str(hidden), PATH=path, PIP_FIND_LINKS="", PIP_NO_INDEX="", PIP_INDEX_URL=NOWHERE
    )
    done = nothing.launch("list", env=environment)
    assert done.returncode == 3
    assert lines(done)[-1].startswith(
        "launch.py: this Python has no pip and http://127.0.0.1:9/simple gives none"
    )
    assert "apt install python3-venv" in lines(done)[-1]


def test_old_python_is_replaced_or_refused_in_one_line(cloned: Clone, tmp_path: Path) -> None:
    old = old_python(tmp_path)
    done = cloned.launch("list", python=old)
    assert (done.returncode, done.stderr) == (0, ""), "the python of .venv is new enough"
    fresh = cloned.copy(tmp_path / "fresh", installed=False)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3.12").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's shims do
    (bin_folder / "python3.12").chmod(0o755)
    (bin_folder / "python3").symlink_to(old)
    environment = fresh.environment(PATH=str(bin_folder), PYENV_ROOT=str(tmp_path))
    refused = fresh.launch("list", python=old, env=environment)
    assert refused.returncode == 2
    (line,) = lines(refused)
    assert line.startswith("launch.py: needs Python 3.11 or newer, this is ")
    assert "apt install python3.11" in line
    (bin_folder / "python3.11").symlink_to(sys.executable)
    assert fresh.launch("--version", python=old, env=environment).stdout == "synergy-scheduler 0.1.0\n"


def old_python(folder: Path) -> Path:
    """A python before 3.11, or this one pretending to be 3.8."""
    for version in ("3.8", "2.7", "3.6", "3.7", "3.9", "3.10"):
        for found in sorted(Path("/root/.pyenv/versions").glob(f"{version}.*/bin/python")):
            return found
    fake = folder / "old"
    code = (
        "import sys, runpy; sys.version_info = (3, 8, 18, 'final', 0); sys.version = '3.8.18 (fake)';"
        " sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    fake.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 1\nexec {sys.executable} -c "{code}" "$@"\n')
    fake.chmod(0o755)
    return fake


def test_launch_parses_under_old_pythons() -> None:
    text = (ROOT / "launch.py").read_text()
    assert text.isascii()
    compile(text, "launch.py", "exec", dont_inherit=True)
    found = sorted(Path("/root/.pyenv/versions").glob("*/bin/python")) or [Path(sys.executable)]
    for python in found:
        done = subprocess.run(
            [python, "-c", "import sys; compile(open(sys.argv[1]).read(), 'l', 'exec')", ROOT / "launch.py"]
        )
        assert done.returncode == 0, python


def test_a_clone_that_cannot_be_written_is_one_line_and_another_folder_helps(cloned: Clone) -> None:
    """Run as an ordinary user: root may write everywhere."""
    base = Path(tempfile.mkdtemp(prefix="synergy-readonly-", dir="/tmp"))
    try:
        fresh = cloned.copy(base / "clone", installed=False)
        shutil.copytree(cloned.wheels, base / "wheels")
        (base / "wheels").chmod(0o755)
        readonly = Clone(fresh.folder, base / "wheels")
        writable = base / "writable"
        writable.mkdir()
        writable.chmod(0o777)
        base.chmod(0o755)
        readonly.folder.chmod(0o555)
        user = "nobody" if os.geteuid() == 0 else None
        python = "/usr/bin/python3" if user and is_new("/usr/bin/python3") else sys.executable

        def launch(**more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, readonly.folder / "launch.py", "list"],
                user=user,
                extra_groups=[] if user else None,
                env=readonly.environment(PYTHONDONTWRITEBYTECODE="1", **more),
                cwd=base,
                capture_output=True,
                text=True,
            )

        refused = launch()
        assert refused.returncode == 2, refused.stderr
        (line,) = lines(refused)
        assert line.startswith(f"launch.py: cannot write {readonly.folder}/.venv")
        assert line.endswith("SYNERGY_VENV=/some/folder")
        done = launch(SYNERGY_VENV=str(writable / "venv"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"listed with {writable}/venv/")
    finally:
        shutil.rmtree(base)


def is_new(python: str) -> bool:
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    return Path(python).exists() and subprocess.run([python, "-c", code]).returncode == 0


def test_a_folder_of_the_user_is_never_taken_away(cloned: Clone, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    done = cloned.launch("list", env=cloned.environment(SYNERGY_VENV=str(theirs)))
    assert done.returncode == 2
    assert lines(done) == [
        f"launch.py: SYNERGY_VENV {theirs}: is neither empty nor a venv of ours; name another folder"
    ]
    assert (theirs / "thesis.txt").read_text() == "years of work"
