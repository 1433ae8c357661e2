"""Who may ask, and who may change: Host names, bind addresses, CSRF tokens."""

from __future__ import annotations

import pytest

from mx.security import CONTENT_SECURITY_POLICY, Tokens, check_bind, host_allowed, refusal
from scheduler.core.errors import ConfigError

NAMES = check_bind("127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "LOCALHOST:80", "[::1]:5000", "localhost."])
def test_this_machine_by_its_names(host: str) -> None:
    assert host_allowed(host, NAMES)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost:80@evil", "[::1", "127.0.0.1:x", "0.0.0.0"],
)
def test_another_name_is_not_ours(host: str) -> None:
    assert not host_allowed(host, NAMES)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", ""])
def test_without_users_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match=r"mx_host .* needs users"):
        check_bind(host)


def test_loopback_has_more_than_one_address() -> None:
    assert "127.0.0.9" in check_bind("127.0.0.9") and "::1" in check_bind("::1")


BROWSER = {"Host": "localhost:5000", "Origin": "http://localhost:5000", "Cookie": "mx_seed=s"}


def test_a_browser_needs_the_token_of_its_cookie() -> None:
    tokens = Tokens()
    token = tokens.token("seed")
    assert refusal(tokens, BROWSER, "seed", token, is_json=True) is None
    assert "missing" in str(refusal(tokens, BROWSER, "seed", "", is_json=True))
    assert "not the one" in str(refusal(tokens, BROWSER, "other", token, is_json=True))
    assert "not the one" in str(refusal(tokens, BROWSER, "", Tokens().token(""), is_json=False))
    assert "not the one" in str(refusal(tokens, BROWSER, "seed", "ünïcode", is_json=False))
    assert "not the one" in str(refusal(Tokens(), BROWSER, "seed", token, is_json=True))


@pytest.mark.parametrize(
    "headers",
    [
        {**BROWSER, "Origin": "http://evil.example"},
        {**BROWSER, "Origin": "null"},
        {**BROWSER, "Origin": "http://localhost:5001"},
        {**BROWSER, "Sec-Fetch-Site": "cross-site"},
        {**BROWSER, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_is_refused_even_with_the_token(headers: dict[str, str]) -> None:
    tokens = Tokens()
    found = refusal(tokens, headers, "seed", tokens.token("seed"), is_json=True)
    assert found == "the request comes from another site"


def test_a_program_needs_no_token_but_must_say_json() -> None:
    tokens = Tokens()
    assert refusal(tokens, {"Host": "localhost"}, "", "", is_json=True) is None
    assert refusal(tokens, {"Host": "localhost"}, "", "", is_json=False) is not None
    assert refusal(tokens, {"Host": "localhost", "Referer": "http://x/"}, "", "", is_json=True) is not None


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none';")
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "data:" not in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
