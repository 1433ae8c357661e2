"""Settings: where values come from, which one wins, and that every mistake is one line with the right name in it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.errors import ConfigError
from settings import FIELDS, Settings, add_options, as_options, describe, load_settings, overrides_of


def refused(tmp_path: Path, overrides: Mapping[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides, environ, tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults_follow_from_the_project_folder(tmp_path: Path) -> None:
    (tmp_path / "synergy.toml").write_text("")
    found = load_settings(environ={}, folder=tmp_path)
    assert found.state_folder == tmp_path / ".synergy"
    assert found.store_url == f"sqlite:///{tmp_path}/.synergy/synergy.sqlite"
    assert found.broker_url == f"embedded://{tmp_path}/.synergy/synergy-queue.sqlite"
    assert found.box == found.box.lower() != ""
    assert (found.lease_renew_s, found.drain_s) == (10.0, 15.0)
    assert list(tmp_path.iterdir()) == [tmp_path / "synergy.toml"], "loading makes nothing"


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "synergy.toml"
    below = {"mx_title": "context", "mx_port": 1, "sweep_s": 1, "tick_s": 1}
    file.write_text('mx_title = "context"\nmx_port = 2\nsweep_s = 2\ntick_s = 2')
    environ = {"SYNERGY_SWEEP_S": "3", "SYNERGY_TICK_S": "3", "SYNERGY_LOG_LEVEL": ""}
    found = load_settings({"tick_s": "4", "log_format": None}, environ, tmp_path, below)
    assert (found.mx_title, found.mx_port, found.sweep_s, found.tick_s) == ("context", 2, 3.0, 4.0)
    assert (found.log_level, found.log_format) == ("INFO", "text"), "empty and None mean: not set"


def test_file_of_the_context_and_file_by_name(tmp_path: Path) -> None:
    theirs, other = tmp_path / "theirs", tmp_path / "other"
    theirs.mkdir()
    other.mkdir()
    (theirs / "synergy.toml").write_text('state_folder = "state"')
    (other / "some.toml").write_text('context = "../theirs"\nlog_format = "JSON"')
    by_context = load_settings({"context": "theirs"}, {}, tmp_path)
    assert (by_context.context, by_context.state_folder) == (theirs, theirs / "state")
    by_name = load_settings({}, {"SYNERGY_SETTINGS": "other/some.toml"}, tmp_path)
    assert (by_name.context, by_name.log_format) == (theirs, "json")
    assert by_name.state_folder == theirs / ".synergy"


def test_queue_lies_beside_an_embedded_store_only(tmp_path: Path) -> None:
    beside = load_settings({"store_url": "sqlite:////data/a b.sqlite"}, {}, tmp_path)
    assert beside.broker_url == "embedded:///data/a b-queue.sqlite"
    (tmp_path / "synergy.toml").write_text("")
    server = load_settings({"store_url": "postgresql://db/synergy"}, {}, tmp_path)
    assert server.broker_url == f"embedded://{tmp_path}/.synergy/synergy-queue.sqlite"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "worker_lease_s",
            "-1",
            "SYNERGY_WORKER_LEASE_S: expected a number of seconds from 0.2 to 86400, got '-1'",
        ),
        ("grace_s", "-0.5", "SYNERGY_GRACE_S: expected a number of seconds from 0 to 86400, got '-0.5'"),
        ("tick_s", "nan", "SYNERGY_TICK_S: expected a number of seconds, got 'nan'"),
        ("mx_port", "65536", "SYNERGY_MX_PORT: expected a whole number from 0 to 65535, got '65536'"),
        ("mx_port", "http", "SYNERGY_MX_PORT: expected a whole number, got 'http'"),
        ("mx_port", "1.5", "SYNERGY_MX_PORT: expected a whole number, got '1.5'"),
        ("turn_limit", "0", "SYNERGY_TURN_LIMIT: expected a whole number from 1 to 100000, got '0'"),
        ("log_level", "loud", "SYNERGY_LOG_LEVEL: expected DEBUG or INFO or WARNING or ERROR, got 'loud'"),
        ("sqlite_synchronous", "OFF", "SYNERGY_SQLITE_SYNCHRONOUS: expected NORMAL or FULL, got 'OFF'"),
        ("store_url", "here", "SYNERGY_STORE_URL: expected a URL such as scheme://host/name, got 'here'"),
        ("mx_title", "a\nb", "SYNERGY_MX_TITLE: expected text on one line, got 'a\\nb'"),
        ("lease_renew_s", "31", "lease_renew_s: expected at most half of worker_lease_s (60), got 31"),
        ("drain_s", "21", "drain_s: expected at most grace_s (20), got 21"),
        (
            "start_timeperiod",
            "2013",
            "SYNERGY_START_TIMEPERIOD: expected the label of an hour, YYYYMMDDHH such as",
        ),
        ("mx_prot", "1", "SYNERGY_MX_PROT: there is no such setting; did you mean mx_port?"),
        (
            "start_timperiod",
            "1",
            "SYNERGY_START_TIMPERIOD: there is no such setting; did you mean synergy_start_",
        ),
        ("box_id", "a", "SYNERGY_BOX_ID: there is no such setting; did you mean box?"),
        ("qqq", "a", "SYNERGY_QQQ: there is no such setting; docs/settings.md lists them all"),
        ("settings", "no.toml", "SYNERGY_SETTINGS: there is no file"),
    ],
)
def test_mistakes_in_the_environment(tmp_path: Path, name: str, value: str, expected: str) -> None:
    assert refused(tmp_path, None, **{f"SYNERGY_{name.upper()}": value}).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mx_port = true", "expected a whole number, got True"),
        ("mx_port = 1.5", "expected a whole number, got 1.5"),
        ("mx_title = 3", "expected text on one line, got 3"),
        ("context = 3", "expected a path, got 3"),
        ('synergy_start_timperiod = "2013010100"', "did you mean synergy_start_timeperiod?"),
        ("[mx]\nport = 1", "mx (from"),
        ("mx_port =", "is not TOML"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "synergy.toml").write_text(text)
    said = refused(tmp_path)
    assert expected in said
    assert str(tmp_path / "synergy.toml") in said


def test_mistakes_on_the_command_line_and_in_the_context(tmp_path: Path) -> None:
    assert "sweep (from the command line)" in refused(tmp_path, {"sweep": "1"})
    with pytest.raises(ConfigError, match=r"sweep \(from the context file\): .* did you mean sweep_s"):
        load_settings({}, {}, tmp_path, {"sweep": "1"})


def test_start_is_an_hour(tmp_path: Path) -> None:
    found = load_settings({}, {"SYNERGY_START_TIMEPERIOD": "2013010100"}, tmp_path)
    assert found.synergy_start_timeperiod == "2013010100"


def test_secrets_are_masked_for_people_and_in_errors(tmp_path: Path) -> None:
    url = "postgresql://ann:pa@ss@db/synergy"
    found = load_settings({"store_url": url}, {}, tmp_path)
    assert found.store_url == url
    assert found.public()["store_url"] == "postgresql://ann:***@db/synergy"
    assert set(found.public()) == set(FIELDS)
    assert "pa@ss" not in refused(tmp_path, {"mx_port": url})


def test_settings_are_frozen(tmp_path: Path) -> None:
    found = load_settings({}, {}, tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.mx_port = 1  # type: ignore[misc]


def test_every_setting_is_described_and_every_number_has_a_range() -> None:
    rows = {row.name: row for row in describe()}
    assert set(rows) == set(FIELDS) == {f.name for f in dataclasses.fields(Settings)} - {"given"}
    for name, field in FIELDS.items():
        assert rows[name].doc.endswith(".")
        assert rows[name].default not in ("", "``", "`None`")
        if field.type in ("int", "float"):
            assert field.metadata["least"] is not None
            assert field.metadata["most"] is not None


def test_options_reach_the_processes_that_are_started(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    typed = ["--context", "theirs", "--box", "b1", "--set", "mx_title=a = b", "--set", "mx_port=0"]
    found = load_settings(overrides_of(parser.parse_args(typed)), {}, tmp_path)
    assert (found.box, found.mx_title, found.mx_port) == ("b1", "a = b", 0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = load_settings(overrides_of(parser.parse_args(as_options(found))), {}, elsewhere)
    assert dataclasses.asdict(again) == dataclasses.asdict(found)
    with pytest.raises(ConfigError, match="--set mx_port: expected NAME=VALUE"):
        overrides_of(parser.parse_args(["--set", "mx_port"]))


def test_state_folder_is_made_or_refused_in_one_line(tmp_path: Path) -> None:
    made = load_settings({"state_folder": "a/b"}, {}, tmp_path).ensure_state_folder()
    assert made == tmp_path / "a" / "b"
    assert list(made.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"^state_folder .*/file/x: cannot be written \(Not a directory\); name"
    ):
        load_settings({"state_folder": "file/x"}, {}, tmp_path).ensure_state_folder()
