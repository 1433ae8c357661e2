"""From a path to the user's object: what is found, and what an error says (65)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.core.errors import ConfigError
from worker.resolve import add_folder, resolve, resolve_worker

MODULE = """
class Loader:
    class Inner:
        def run(self, task): ...
    def run(self, task): ...
class NoRun: ...
def load(task): ...
TABLE = {"x": 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    package = tmp_path / "shop65" / "sales"
    package.mkdir(parents=True)
    (tmp_path / "shop65" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("class Here: run = print\n")
    (package / "jobs.py").write_text(MODULE)
    (package / "broken.py").write_text("1 / 0\n")
    (package / "needy.py").write_text("import no_such_driver\n")
    before = list(sys.path)
    add_folder(tmp_path)
    assert sys.path[-1] == str(tmp_path)  # never in front of ours
    yield tmp_path
    sys.path[:] = before
    for name in [name for name in sys.modules if name.startswith("shop65")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shop65.sales.jobs:load", "load"),
        ("shop65.sales.jobs.load", "load"),
        ("shop65.sales.jobs:Loader", "Loader"),
        ("shop65.sales.jobs.Loader", "Loader"),
        ("shop65.sales.jobs.Loader.Inner", "Inner"),
        ("shop65.sales.jobs:Loader.Inner", "Inner"),
        ("shop65.sales.Here", "Here"),
    ],
)
def test_65_class_and_function_paths(folder: Path, path: str, name: str) -> None:
    assert resolve_worker(path).__name__ == name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("shop65.sales.jobs:laod", "module 'shop65.sales.jobs' has no 'laod'; did you mean 'load'?"),
        ("shop65.sales.jobs:Loader.Iner", "class 'Loader' has no 'Iner'; did you mean 'Inner'?"),
        ("shop65.sales.jobs:zzz", "module 'shop65.sales.jobs' has no 'zzz'; it has Loader, NoRun, load"),
        ("shop65.sales.jbos:load", "package 'shop65.sales' has no module 'jbos'"),
        ("shop65.slaes.jobs:load", "package 'shop65' has no module 'slaes'"),
        ("shpo65.sales.jobs:load", "there is no module 'shpo65'"),
        ("shpo65.sales.jobs.load", "there is no module 'shpo65'"),
        ("shop65.sales.jobs.laod", "module 'shop65.sales.jobs' has no 'laod'; did you mean 'load'?"),
        (
            "shop65.sales.broken:x",
            "importing 'shop65.sales.broken' raised ZeroDivisionError: division by zero",
        ),
        ("shop65.sales.needy:x", "importing 'shop65.sales.needy' needs the missing module 'no_such_driver'"),
        ("shop65.sales.jobs:NoRun", "is a class without a method run(self, task)"),
        ("shop65.sales.jobs:TABLE", "is a dict; name a function or a class with run(self, task)"),
        ("shop65.sales.jobs", "is a module; name a function or a class in it"),
        ("shop65", "is not a path; use 'package.module:name'"),
        (":x", "is not a path; use 'package.module:name'"),
    ],
)
def test_65_a_wrong_path_says_which_part_is_missing(folder: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_worker(path)
    assert str(caught.value).startswith(f"worker {path!r}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_other_things_are_named_as_what_they_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match="readiness predicate 'shop65:x'"):
        resolve("shop65:x", "readiness predicate")
