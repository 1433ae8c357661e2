"""What `launch.py test` does about programs that are not there: it installs, or it says which, why, and how."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from commands import needs
from commands import test as test_command
from scripts.servers.need import Need

APT = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$(basename "$0") $*" in
  "apt-cache show --no-all-versions old-name") echo Package: old-name ;;
  *"install -y"*) ls {guards} >> {log}; : > {tools}/gadgetd; chmod +x {tools}/gadgetd ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; we are root, as far as the commands know, and may write beside it only."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (tmp_path / "guards").mkdir()
    for name in ("install", "rm", "ls", "basename", "chmod"):
        (folder / name).symlink_to(
            next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists())
        )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(needs, "_as_root", list)
    monkeypatch.setattr(
        needs, "GUARDS", ((str(tmp_path / "guards" / "policy"), "755", "#!/bin/sh\nexit 101\n"),)
    )
    return folder


def gadget(**changes: object) -> Need:
    need = {
        "name": "gadget",
        "title": "Gadget",
        "why": "for tests",
        "variable": "SYNERGY_TEST_GADGET_URL",
        "programs": ("gadgetd",),
        "places": (),
        "packages": (("new-name", "old-name"),),
        "image": "gadget:1",
    }
    return Need(**(need | changes))  # type: ignore[arg-type]


def test_what_is_missing_is_installed_and_no_service_starts(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, guards = tmp_path / "log", tmp_path / "guards"
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text(APT.format(log=log, guards=guards, tools=tools))
        (tools / name).chmod(0o755)
    assert needs.get_servers([gadget()]) == []
    said = log.read_text().splitlines()
    assert said[0].endswith("-qq update")
    assert said[1:3] == [f"apt-cache show --no-all-versions {name}" for name in ("new-name", "old-name")]
    assert said[3].endswith("install -y --no-install-recommends old-name")
    assert said[4] == "policy" and not any(guards.iterdir()), "it forbade to start services, and is gone"
    assert "Installing Gadget for the tests (apt-get install old-name) …" in capsys.readouterr().out
    assert needs.get_servers([gadget()]) == [] and len(log.read_text().splitlines()) == len(said), "once"


def test_what_an_administrator_set_stays(tools: Path, tmp_path: Path) -> None:
    policy = tmp_path / "guards" / "policy"
    policy.write_text("theirs")
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    assert [one.what for one in needs.get_servers([gadget()])] == ["Gadget"]
    assert policy.read_text() == "theirs"


def test_what_cannot_be_installed_is_named(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "_as_root", lambda: None)
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    found = needs.get_servers([gadget()])
    assert found == [
        needs.Missing(
            "Gadget", "for tests", "apt install new-name, or SYNERGY_TEST_GADGET_URL=<URL of one that runs>"
        )
    ]
    assert "for want of root or a password-less sudo: Gadget" in capsys.readouterr().out
    monkeypatch.setenv("SYNERGY_TEST_GADGET_URL", "gadget://there")
    assert needs.get_servers([gadget()]) == []


def test_a_container_engine_will_do(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tools / "docker").write_text("#!/bin/sh\n")
    (tools / "docker").chmod(0o755)
    assert needs.get_servers([gadget()]) == []
    assert capsys.readouterr().out == "In containers: Gadget.\n"


def test_openssl_is_found_installed_or_named(tools: Path, tmp_path: Path) -> None:
    log, guards = tmp_path / "log", tmp_path / "guards"
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    found = needs.get_openssl()
    assert found is not None and (found.what, found.command) == ("openssl", "apt install openssl")
    script = APT.format(log=log, guards=guards, tools=tools).replace("gadgetd", "openssl")
    (tools / "apt-get").write_text(script)
    assert needs.get_openssl() is None
    assert "install -y --no-install-recommends openssl" in log.read_text()
    log.unlink()
    assert needs.get_openssl() is None and not log.exists(), "once"


def test_the_table_comes_before_any_check_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "get_servers", lambda _: [needs.Missing("Gadget", "for tests", "get it")])
    monkeypatch.setattr(needs, "get_chromium", lambda: None)
    monkeypatch.setattr(needs, "get_openssl", lambda: None)
    monkeypatch.setattr(test_command, "_check", lambda: pytest.fail("nothing is checked before"))
    args = argparse.Namespace(pytest_arguments=[], fast=False, no_browser=True, no_servers=False)
    assert test_command.run(args) == 2
    head, _line, row, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["needed", "why", "how", "to", "get", "it"]
    assert row.split() == ["Gadget", "for", "tests", "get", "it"]
    assert rest[-1] == "Or leave out what needs servers: ./launch.py test --no-servers"


@pytest.mark.parametrize(
    ("options", "rest", "wanted"),
    [
        ({}, [], True),
        ({}, ["tests"], True),
        ({}, ["tests/conformance"], True),
        ({}, ["tests/unit", "-x"], False),
        ({"no_servers": True}, [], False),
        ({"fast": True}, [], False),
    ],
)
def test_servers_are_looked_for_where_tests_want_them(
    options: dict[str, bool], rest: list[str], wanted: bool
) -> None:
    args = argparse.Namespace(**({"fast": False, "no_servers": False} | options))
    assert bool(test_command._needed_servers(args, rest)) is wanted


def test_urls_of_servers_reach_the_tests_and_other_settings_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNERGY_TEST_MONGO_URL", "mongodb://there")
    monkeypatch.setenv("SYNERGY_STORE_URL", "mongodb://mine")
    found = test_command._environment()
    assert found["SYNERGY_TEST_MONGO_URL"] == "mongodb://there"
    assert "SYNERGY_STORE_URL" not in found and found["PATH"] == os.environ["PATH"]


def test_every_test_with_the_mark_is_in_a_folder_that_servers_are_looked_for() -> None:
    tests = Path(test_command.ROOT) / "tests"
    marked = {
        path.relative_to(tests).parts[0]
        for path in tests.rglob("test_*.py")
        if "mark.servers" in path.read_text(encoding="utf-8") and path != Path(__file__).resolve()
    }
    assert marked <= set(test_command.SERVER_FOLDERS)
