"""The log: text or JSON, and no secret in either."""

from __future__ import annotations

import json
import logging

import pytest

from commands.logs import JsonFormatter, PrintedLines, TextFormatter, mask

URL = "mongodb://anna:s3cr:et@db.example.org/synergy"


def record(message: str, *args: object, trouble: bool = False, **extra: object) -> logging.LogRecord:
    info = None
    if trouble:
        try:
            raise ValueError(f"cannot reach {URL}")
        except ValueError as error:
            info = (ValueError, error, error.__traceback__)
    made = logging.LogRecord("synergy", logging.INFO, "x.py", 1, message, args, info)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URL, "mongodb://anna:***@db.example.org/synergy"),
        ("amqp://guest:guest@localhost", "amqp://guest:***@localhost"),
        ("password=abc, next", "password=***, next"),
        ('{"token": "abc"}', '{"token": "***"}'),
        ("https://example.org/a:b", "https://example.org/a:b"),
        ("sqlite:////var/lib/x.db at 10:30", "sqlite:////var/lib/x.db at 10:30"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize("formatter", [TextFormatter("mx"), JsonFormatter("mx")])
def test_also_in_tracebacks_and_arguments(formatter: logging.Formatter) -> None:
    line = formatter.format(record("store %s", URL, trouble=True))
    assert "s3cr" not in line and "ValueError" in line


def test_json_is_one_object_a_line_with_the_extra_fields() -> None:
    found = json.loads(JsonFormatter("mx").format(record("two\nlines", event="job.skip", seq=3)))
    assert (found["process"], found["level"], found["event"], found["seq"]) == ("mx", "info", "job.skip", 3)


def test_printed_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    printed = PrintedLines(logging.getLogger("printed"), logging.INFO)
    with caplog.at_level(logging.INFO):
        print("one", file=printed)
        print("two", end="", file=printed)
        printed.flush()
    assert caplog.messages == ["one", "two"]
