"""Who may ask and who may change: Host names, CSRF tokens, response headers. Decides, does no I/O.

The theory. Without users the server binds to loopback only, so only programs of this machine reach
it; among those are browsers, which run other people's pages. Against them stand three things.

* The Host header must name this machine: a page that re-points its own name to 127.0.0.1 (DNS
  rebinding) still sends its own name.
* A change needs a token that only a page of ours can read: an HMAC of a random cookie (double
  submit, bound to the cookie). The cookie is HttpOnly and SameSite=Strict.
* A program that is no browser needs no token: it sends JSON, and none of the headers that browsers
  cannot leave out. A browser cannot send JSON to another site without asking first (CORS), and we
  never allow it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping

from scheduler.core.errors import ConfigError

SEED_COOKIE = "mx_seed"
THEME_COOKIE = "mx_theme"
TOKEN_HEADER = "X-CSRF-Token"  # noqa: S105 - a name
TOKEN_FIELD = "csrf"  # noqa: S105 - a name
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
BROWSER_HEADERS = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Tokens:
    """Makes and checks CSRF tokens. `secret` lives as long as the server: after a restart pages ask anew."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    @staticmethod
    def new_seed() -> str:
        """A random value for the cookie."""
        return secrets.token_urlsafe(18)

    def token(self, seed: str) -> str:
        """The token that belongs to the cookie's value."""
        return hmac.new(self._secret, seed.encode(), hashlib.sha256).hexdigest()

    def check(self, seed: str, token: str) -> bool:
        """Whether `token` belongs to `seed`; an empty one never does."""
        return bool(seed) and hmac.compare_digest(self.token(seed).encode(), token.encode())


def host_name(header: str) -> str:
    """The name in a Host header, without the port, lower case; "" if it is malformed."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        return name if bracket and (not rest or rest[1:].isdigit()) else ""
    name, _, port = text.partition(":")
    return name.rstrip(".") if not port or port.isdigit() else ""


def host_allowed(header: str, names: Iterable[str]) -> bool:
    """Whether a request with this Host header is meant for us."""
    return host_name(header) in names


def is_loopback(host: str) -> bool:
    """Whether a bind address reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str) -> frozenset[str]:
    """The names to be served when bound to `host`. Raises ConfigError unless it is loopback."""
    if not is_loopback(host):
        raise ConfigError(
            f"mx_host {host!r} is reached from other machines; serving them needs users, and there are none: "
            "use 127.0.0.1 (and an ssh tunnel from afar)"
        )
    return LOOPBACK_NAMES | {host.strip("[]").lower()}


def refusal(
    tokens: Tokens, headers: Mapping[str, str], seed: str, token: str, *, is_json: bool
) -> str | None:
    """Why a change is refused, or None if it may be made. `headers` by their usual names."""
    origin = headers.get("Origin", "")
    if origin and origin.partition("://")[2].lower() != headers.get("Host", "").strip().lower():
        return "the request comes from another site"
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "the request comes from another site"
    if is_json and not any(name in headers for name in BROWSER_HEADERS):
        return None
    if not token:
        return f"the CSRF token is missing; send the one of the page in {TOKEN_HEADER}"
    if not tokens.check(seed, token):
        return "the CSRF token is not the one of this page; load the page again"
    return None
