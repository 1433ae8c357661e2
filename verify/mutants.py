"""Mutants, enumerated from the source: every guard of the core, removed alone.

* Every condition in the files that decide (`CONDITIONS`): the test of an `if`, a `while` or a choice is never true,
  an operand of `and` or `or` and the filter of a comprehension is not asked.
* Every cell of the three tables is taken out.
* Every field of a compare-and-set is not compared.

Nothing is kept by hand: a guard that is written tomorrow is a mutant tomorrow. Its name is the file, the function, the
words of the guard, and a number where the same words stand there more than once; so it stays as lines move.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONDITIONS = (
    *("decide", "act", "attempt", "open_jobs", "new_periods", "firing"),
    *("retry", "plan", "strategy"),
)
COMPARED = (
    "scheduler/core/slice.py",
    "scheduler/core/commands.py",
    "scheduler/engine.py",
    "scheduler/lease.py",
    "scheduler/outbox.py",
    "worker/changes.py",
    "db/sql.py",
)
TABLES = "scheduler/core/lifecycle.py"
WORDS = 90  # of a guard in a name


@dataclass(frozen=True)
class Mutant:
    """One guard removed: `name` says which, `module` is what is loaded instead of the shipped one."""

    name: str
    module: str
    path: str
    number: int  # of the guards of its file
    line: int


class _Guards(ast.NodeTransformer):
    """Walks a file; counts its guards, and removes the one whose number is wanted."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.found: list[tuple[str, str, int]] = []  # function, words, line
        self._function = ""
        self._in_condition = False

    def guard(self, what: ast.AST, how: str) -> bool:
        """Count one; True if it is the one to remove."""
        words = " ".join(ast.unparse(what).split())
        self.found.append((self._function, f"{how}: {words[:WORDS]}", getattr(what, "lineno", 0)))
        return len(self.found) - 1 == self.wanted

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Names carry the function."""
        outer, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = outer
        return node


class Conditions(_Guards):
    """Every condition."""

    def _never(self, test: ast.expr) -> ast.expr:
        return ast.Constant(False) if self.guard(test, "if") else test

    def visit_If(self, node: ast.If) -> ast.AST:
        """An `if` that is never true."""
        node.test = self._never(node.test)
        self.generic_visit(node)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        """A `while` that is never true; one without a condition is none."""
        if not isinstance(node.test, ast.Constant):
            node.test = self._never(node.test)
        self.generic_visit(node)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """A choice that is never taken."""
        node.test = self._never(node.test)
        self.generic_visit(node)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """A filter that is not asked."""
        node.ifs = [ast.Constant(True) if self.guard(test, "filter") else test for test in node.ifs]
        self.generic_visit(node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """An operand that is not asked; `x or default` in a value is a default and no guard."""
        if isinstance(node.op, ast.And) or all(_is_question(value) for value in node.values):
            kind = "and" if isinstance(node.op, ast.And) else "or"
            left = [value for value in node.values if not self.guard(value, kind)]
            if len(left) < len(node.values):
                return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        self.generic_visit(node)
        return node


def _is_question(value: ast.expr) -> bool:
    """It answers yes or no: a comparison, a negation, a combination, a call, an attribute `is_…`."""
    if isinstance(value, ast.Attribute):
        return value.attr.startswith(("is_", "permanent", "timed_out", "produced", "uow_open", "open"))
    return isinstance(value, ast.Compare | ast.UnaryOp | ast.BoolOp | ast.Call)


class Compared(_Guards):
    """Every field of a compare-and-set: keys of `expect`, wherever one is written."""

    def __init__(self, wanted: int = -1) -> None:
        super().__init__(wanted)
        self._named: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """What is called `expect`, or is given to a Change as such."""
        outer, self._named = (
            self._named,
            {"expect"}
            | {
                call.args[2].id
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
                and _is_change(call)
                and len(call.args) > 2
                and isinstance(call.args[2], ast.Name)
            },
        )
        super().visit_FunctionDef(node)
        self._named = outer
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A Change, with its fields written out."""
        if _is_change(node):
            if len(node.args) > 2 and isinstance(node.args[2], ast.Dict):
                self._thin(node.args[2])
            for keyword in node.keywords:
                if keyword.arg == "expect" and isinstance(keyword.value, ast.Dict):
                    self._thin(keyword.value)
        self.generic_visit(node)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`expect = {…}` and `expect["field"] = …`."""
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in self._named and isinstance(node.value, ast.Dict):
            self._thin(node.value)
        elif (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id in self._named
            and self.guard(target, "compared")
        ):
            return ast.Pass()
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """As `visit_Assign`."""
        target = node.target
        if isinstance(target, ast.Name) and target.id in self._named and isinstance(node.value, ast.Dict):
            self._thin(node.value)
        self.generic_visit(node)
        return node

    def _thin(self, fields: ast.Dict) -> None:
        kept = [
            (key, value)
            for key, value in zip(fields.keys, fields.values, strict=True)
            if key is None or not self.guard(key, "compared")
        ]
        fields.keys, fields.values = [key for key, _ in kept], [value for _, value in kept]


def _is_change(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Change"


class Cells(_Guards):
    """Every cell of a table, taken out after the table was written."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Behind each table, if a cell of it is wanted: the table without that cell."""
        tables: dict[str, Any] = {"__name__": "tables"}  # not the module: that may be the mutant being loaded
        exec((ROOT / TABLES).read_text(encoding="utf-8"), tables)  # noqa: S102 - our own source
        body: list[ast.stmt] = []
        for statement in node.body:
            body.append(statement)
            target = getattr(statement, "target", None)
            name = target.id if isinstance(target, ast.Name) else ""
            if not name.endswith("_TABLE"):
                continue
            self._function = name
            for verb, row in tables[name].items():
                for state in row:
                    if self.guard(ast.Name(f"{verb}_of_{state!s}"), "cell"):
                        body += ast.parse(
                            f"{name} = {{v: {{a: b for a, b in r.items() if (v, str(a)) != {(verb, str(state))!r}}}"
                            f" for v, r in {name}.items()}}"
                        ).body
        node.body = body
        return node


def _kinds() -> Iterator[tuple[str, Callable[[int], _Guards]]]:
    for name in CONDITIONS:
        yield f"scheduler/core/{name}.py", Conditions
    yield TABLES, Cells
    for path in COMPARED:
        yield path, Compared


def enumerated() -> list[Mutant]:
    """All mutants, in the order of the files and of the guards in them."""
    mutants: list[Mutant] = []
    for path, kind in _kinds():
        guards = kind(-1)
        guards.visit(_parsed(path))
        seen: dict[str, int] = {}
        for number, (function, words, line) in enumerate(guards.found):
            name = f"{path}:{function}: {words}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" ({seen[name]})"
            mutants.append(Mutant(name, path.removesuffix(".py").replace("/", "."), path, number, line))
    return mutants


def _parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), path)


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives out the mutated module under the shipped one's name."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As importlib asks."""
        if name != self._mutant.module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(ROOT / self._mutant.path))

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated source."""
        kind = next(kind for path, kind in _kinds() if path == self._mutant.path)
        tree = kind(self._mutant.number).visit(_parsed(self._mutant.path))
        module.__file__ = str(ROOT / self._mutant.path)
        exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), module.__dict__)  # noqa: S102 - our own source


def install(name: str) -> None:
    """From now on this process runs the mutant. Call it before anything of ours is imported."""
    mutant = next(m for m in enumerated() if m.name == name)
    for loaded in [m for m in sys.modules if m.partition(".")[0] in ("scheduler", "worker", "db")]:
        del sys.modules[loaded]
    sys.meta_path.insert(0, _Loader(mutant))
