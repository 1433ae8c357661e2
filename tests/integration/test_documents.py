"""What README and docs say is true: every command is typed, every block of code is run.

A fenced block tells by its language what happens with it; a comment in the line above may say more:

    bash                             each command is typed into one shell per document; it must exit with 0
    <!-- test: patient -->           as above; a command that fails is typed again for a while
    <!-- test: demo -->              played short, then ended by Ctrl-C
    <!-- test: suite -->             run on one test file: this is the suite
    python, toml  <!-- file: X -->   saved as X (`~` is a home of its own), and used by what follows
                  <!-- append: X --> put at the end of X
                  <!-- run -->       run by Python in the folder of the files
    text                             a picture; nothing to run

Another language, or Python that nobody uses, fails: nothing is left out silently.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from commands.dispatch import VERBS
from mx.routes import ROUTES
from scheduler.core.command import COMMAND_VERBS
from scripts.generate_docs import outdated
from scripts.servers import NEEDS
from scripts.servers.rabbit import API_VARIABLE
from settings import FIELDS, NO_SETTINGS
from supervisor.os_process import holder

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
SERVER_URLS = {*(need.variable for need in NEEDS), API_VARIABLE}  # of tests
PAGES = [ROOT / "README.md", *DOCS]
TYPED = ("README.md", "docs/quickstart.md")
PATIENCE_S = 60.0
LONG_S = 240.0
CLOSED_S = 360.0  # yesterday is closed so long after midnight, by its lag

pytestmark = pytest.mark.timeout(700)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, the comment above it, its text."""

    where: str
    language: str
    mark: str
    value: str
    text: str


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    above, inside, start = "", None, 0
    for number, line in enumerate(lines, start=1):
        fence = re.fullmatch(r"```(\w*)", line.strip())
        if inside is None and fence:
            inside, start = fence[1], number
        elif inside is not None and fence:
            comment = re.fullmatch(r"<!-- (\w+)(?:: (.+))? -->", above)
            mark, value = (comment[1], comment[2] or "") if comment else ("", "")
            found.append(
                Block(
                    f"{page.name}:{start}", inside, mark, value, "\n".join(lines[start : number - 1]) + "\n"
                )
            )
            inside, above = None, ""
        elif inside is None and line.strip():
            above = line.strip()
    assert inside is None, f"{page.name}:{start} is not closed"
    return found


def environment(home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SYNERGY_", "FLIGHTS_"))
    }
    here = str(Path(sys.executable).parent)
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{here}:{kept.get('PATH', os.defpath)}",
        "SYNERGY_VENV": sys.prefix,
        "SYNERGY_MX_PORT": "0",
    }


def patience_s() -> float:
    """How long a reader would wait: longer right after midnight, when yesterday is not closed yet."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return PATIENCE_S + max(0.0, CLOSED_S - (now - midnight).total_seconds())


class Shell:
    """A bash that types commands one by one, as a reader would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=ROOT,
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str) -> tuple[int, str]:
        """Exit code and output of one command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f'{command} </dev/null\necho "[done $?]"\n')
        self.process.stdin.flush()
        said: list[str] = []
        for line in self.process.stdout:
            done = re.search(r"\[done (\d+)\]$", line.rstrip("\n"))
            if done:
                said.append(line[: done.start()])
                return int(done[1]), "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended in {command!r}: {''.join(said)}")

    def must(self, command: str, where: str, patience_s: float = 0.0) -> str:
        """Type a command that has to succeed, within `patience_s`."""
        until = time.monotonic() + patience_s
        while True:
            code, said = self.type(command)
            if code == 0:
                assert "Traceback" not in said, f"{where}: {command}\n{said}"
                return said
            assert time.monotonic() < until, f"{where}: {command} → exit {code}\n{said}"
            time.sleep(0.2)

    def close(self) -> None:
        self.process.communicate()


@contextlib.contextmanager
def shell(home: Path) -> Iterator[Shell]:
    home.mkdir(exist_ok=True)
    opened = Shell(home)
    try:
        yield opened
    finally:
        opened.type("cd ~/meter 2>/dev/null && " + str(ROOT / "launch.py") + " stop")  # after a failure
        opened.close()


def commands_of(block: Block) -> list[str]:
    joined = block.text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def place(folder: Path, block: Block) -> Path:
    """Where a block's text belongs: `~` is the folder."""
    assert block.mark in ("file", "append"), (
        f"{block.where}: nobody uses this block: mark it file, append or run"
    )
    path = folder / block.value.removeprefix("~/")
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if block.mark == "append" else ""
    path.write_text(before + block.text, encoding="utf-8")
    return path


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )


# -- README and quickstart, typed -------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPED)
def test_every_block_is_of_a_kind_that_is_run(name: str) -> None:
    for block in blocks(ROOT / name):
        assert block.language in ("bash", "python", "toml", "text"), f"{block.where}: {block.language!r}"
        if block.language == "bash":
            assert (block.mark, block.value) in (
                ("", ""),
                ("test", "patient"),
                ("test", "demo"),
                ("test", "suite"),
            ), f"{block.where}: unknown mark {block.mark}: {block.value}"


def test_the_quickstart_leads_to_an_own_process_on_the_dashboard(tmp_path: Path) -> None:
    with shell(tmp_path / "home") as typist:
        seen = False
        for block in blocks(ROOT / "docs" / "quickstart.md"):
            if block.language in ("python", "toml"):
                place(typist.home, block)
            elif block.language == "bash":
                if "stop" in block.text.split():
                    is_on_the_dashboard(typist)
                    seen = True
                for command in commands_of(block):
                    typist.must(command, block.where, patience_s() if block.value == "patient" else 0.0)
        assert seen, "the quickstart never stops what it started"
        code, _said = typist.type("./launch.py status")
        assert code == 3, "something still runs after stop"


def is_on_the_dashboard(typist: Shell) -> None:
    status = json.loads(typist.must("./launch.py status --json", "dashboard"))
    assert status["all_up"], status
    day = typist.must("echo $DAY", "dashboard").strip()
    with urllib.request.urlopen(f"{status['dashboard']}/jobs/meter_peak/{day}", timeout=30) as answer:
        assert "meter_peak" in answer.read().decode()
    with urllib.request.urlopen(f"{status['dashboard']}/timetable/peaks", timeout=30) as answer:
        assert "Peaks" in answer.read().decode()


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    with shell(tmp_path / "home") as typist:
        for block in blocks(ROOT / "README.md"):
            if block.language == "bash" and not block.mark:
                for command in commands_of(block):
                    typist.must(command, block.where)


def test_the_code_of_the_readme(tmp_path: Path) -> None:
    for block in blocks(ROOT / "README.md"):
        if block.language in ("python", "toml"):
            place(tmp_path, block)
    done = launch(tmp_path, "check", "--context", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_of_the_readme_plays_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    (command,) = [
        command
        for block in blocks(ROOT / "README.md")
        if block.value == "demo"
        for command in commands_of(block)
    ]
    short = ["--from", "2013-12-31", "--live", "2013-12-31T20", "--rate", "14400", "--port", "0"]
    process = subprocess.Popen(
        [*command.split(), *short, "--state-folder", str(tmp_path / "demo")],
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "until Ctrl-C" in line:
                break
        text = "".join(said)
        assert "the totals are equal" in text, text
        assert "Traceback" not in text, text
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0, rest  # what was right was shown; ending it then is no failure
        assert "still running" not in rest
        left = [path.stem for path in (tmp_path / "demo" / "run").glob("*.pid") if holder(path) is not None]
        assert not left, f"Ctrl-C left {left} behind"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def test_the_test_command_of_the_readme() -> None:
    (command,) = [
        command
        for block in blocks(ROOT / "README.md")
        if block.value == "suite"
        for command in commands_of(block)
    ]
    done = subprocess.run(
        [*command.split(), "tests/unit/test_lifecycle.py"],
        cwd=ROOT,
        env=environment(Path.home()),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert re.search(r"\d+ passed", done.stdout), done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


def test_the_code_of_writing_workers(tmp_path: Path) -> None:
    runs = []
    for block in blocks(ROOT / "docs" / "writing-workers.md"):
        if block.language in ("python", "bash") and block.mark == "run":
            runs.append(block)
        elif block.language in ("python", "toml", "bash"):
            place(tmp_path, block).chmod(0o755)
    done = launch(tmp_path, "check", "--context", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs
    for block in runs:
        ran = subprocess.run(
            [sys.executable, "-c", block.text],
            cwd=tmp_path,
            env={**environment(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, f"{block.where}: {ran.stderr}"


# -- what can be compared with the code -------------------------------------------------------------------


def test_the_generated_pages_say_what_the_code_says() -> None:
    assert not outdated(), "run: python -m scripts.generate_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), (
                f"{page.name} links to {target}; there are {sorted(anchors(there))}"
            )


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_those_of_the_code(page: Path) -> None:
    """Verbs of launch.py, settings, addresses and files that a page speaks of are there."""
    text = page.read_text(encoding="utf-8")
    verbs = {verb for verb, _ in VERBS}
    for verb in re.findall(r"launch\.py ([a-z][a-z-]*)", text):
        assert verb in verbs, f"{page.name}: launch.py {verb}"
    for name in re.findall(r"\bSYNERGY_([A-Z_]+)\b", text):
        known = (
            name.lower() in FIELDS
            or f"SYNERGY_{name}" in NO_SETTINGS
            or f"synergy_{name.lower()}" in FIELDS
            or f"SYNERGY_{name}" in SERVER_URLS
        )
        assert known or page.name == "from-synergy.md", f"{page.name}: SYNERGY_{name}"
    if page.name == "from-synergy.md":  # speaks of their folders too
        return
    for path in re.findall(
        r"`((?:scheduler|db|mq|worker|supervisor|mx|commands|synergy|scripts|docs|tests)/[\w./-]+)`", text
    ):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_verb_and_address_of_ours_is_spoken_of() -> None:
    said = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for route in ROUTES:
        assert f"`{route.path}`" in said, f"no page speaks of the address {route.path}"
    for verb in COMMAND_VERBS:
        assert f"`{verb}`" in said, f"no page speaks of the command {verb}"
    for verb, _ in VERBS:
        assert f"{verb}" in said, f"no page speaks of launch.py {verb}"
