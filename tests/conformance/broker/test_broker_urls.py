"""URLs that name no broker: refused with what would be right, and without the password."""

from __future__ import annotations

import pytest

from mq import open_broker
from scheduler.core.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "",
        "queue",
        "kafka://host",
        "embedded://",
        "embedded:queue",
        "embedded://relative/path",
        "embedded:///tmp/",
        "embedded:////",
    ],
)
def test_a_url_that_names_no_broker(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_an_unknown_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_broker("nats://me:secret@host/x")
    assert "secret" not in str(caught.value)
