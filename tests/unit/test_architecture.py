"""The house rules, kept by a test: who imports whom, purity of the core, size of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = (
    "scheduler",
    "db",
    "mq",
    "worker",
    "supervisor",
    "mx",
    "commands",
    "client",
    "simulation",
    "verify",
    "bench",
)
BANNED_IN_CORE = {
    "os",
    "time",
    "random",
    "threading",
    "logging",
    "socket",
    "subprocess",
    "sys",
    "pathlib",
    "asyncio",
}
BANNED_CALLS = {"now", "utcnow", "today", "sleep", "open", "print"}
DRIVERS = {
    "pymongo": ("db", "worker"),  # the worker: its sink helpers
    "sqlalchemy": ("db", "worker"),
    "pika": ("mq",),
    "sqlite3": ("db", "mq", "worker", "bench"),
}
ALLOWED = {
    "scheduler": ("scheduler",),
    "db": ("db", "scheduler.core"),
    "mq": ("mq", "scheduler.core"),
    "worker": ("worker", "scheduler.core"),
    "supervisor": ("supervisor", "scheduler.core"),
    "mx": ("mx", "scheduler.core", "scheduler.control", "scheduler.gather"),
}
FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70


def sources(folder: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_under(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_the_core_imports_nothing_but_what_it_may() -> None:
    for path, tree in sources("scheduler/core"):
        for module in imports(tree):
            top = module.split(".")[0]
            assert top not in BANNED_IN_CORE, f"{path.name} imports {module}"
            if top in OURS:
                assert is_under(module, ("scheduler.core",)), f"{path.name} imports {module}"


def test_the_core_never_asks_for_the_time_and_does_no_io() -> None:
    for path, tree in sources("scheduler/core"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                assert name not in BANNED_CALLS, f"{path.name}:{node.lineno} calls {name}()"


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_rooms_import_the_core_and_not_each_other(folder: str) -> None:
    for path, tree in sources(folder):
        for module in imports(tree):
            if module.split(".")[0] in OURS:
                assert is_under(module, ALLOWED[folder]), f"{path.relative_to(ROOT)} imports {module}"


def test_only_adapters_import_drivers() -> None:
    for folder in OURS:
        for path, tree in sources(folder):
            for module in imports(tree):
                rooms = DRIVERS.get(module.split(".")[0])
                assert rooms is None or folder in rooms, f"{path.relative_to(ROOT)} imports {module}"


def test_every_module_says_what_it_is_for() -> None:
    for folder in (*OURS, "synergy", "examples"):
        for path, tree in sources(folder):
            assert ast.get_docstring(tree), f"{path.relative_to(ROOT)} has no docstring"


def test_files_and_functions_stay_small() -> None:
    for folder in OURS:
        for path, tree in sources(folder):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= FILE_LINES_MAX, f"{path.relative_to(ROOT)} has {lines} lines"
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    assert length <= FUNCTION_LINES_MAX + 10, (
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"
                    )


def test_public_functions_and_classes_have_docstrings() -> None:
    for folder in OURS:
        for path, tree in sources(folder):
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    assert ast.get_docstring(node), f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
