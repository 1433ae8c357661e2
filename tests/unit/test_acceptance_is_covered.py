"""Every acceptance scenario that is promised so far has a test that names its number.

A test names a scenario in its own name (`test_7_…`, `test_scenario_40_and_44_…`) or in its first docstring line
("Scenario 28", "Acceptance 35 and 36", "Scenarios 12-18, 20"), a trace in its first comment. What is not there yet
stands in `LATER`, some of those have tests already for the embedded pair.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# The REST API, users and the nouns; what the other systems brought.
LATER = {46, 47, 49, 50, 52, 53, 56, 57, 58}

IN_NAME = re.compile(r"^test_(?:scenarios?_)?(\d+)((?:_(?:and_)?\d+)*)(?:_|$)")
IN_TEXT = re.compile(r"\b(?:[Ss]cenarios?|[Aa]cceptance)\s+((?:\d+(?:-\d+)?(?:, | and |/)?)+)")


def numbers(text: str) -> set[int]:
    """`12-18, 20` as a set."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


def named() -> dict[int, list[str]]:
    """Scenario number -> tests that name it."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            match = IN_NAME.match(node.name)
            mine = (
                numbers(match.group(1) + match.group(2).replace("_and", "").replace("_", " "))
                if match
                else set()
            )
            for text in IN_TEXT.findall(ast.get_docstring(node) or ""):
                mine |= numbers(text)
            for number in mine:
                found.setdefault(number, []).append(f"{path.name}::{node.name}")
    for path in sorted(TESTS.glob("scenario/traces/*.txt")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        for text in IN_TEXT.findall(first):
            for number in numbers(text):
                found.setdefault(number, []).append(path.name)
    return found


def promised() -> set[int]:
    """The numbers of the list."""
    text = (TESTS / "ACCEPTANCE.md").read_text(encoding="utf-8")
    return {int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}


def test_every_scenario_is_named_by_a_test_or_is_said_to_come_later() -> None:
    everything, covered = promised(), set(named())
    assert everything == set(range(1, 74))
    missing = sorted(everything - covered - LATER)
    assert not missing, f"no test names scenarios {missing}"
