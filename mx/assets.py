"""The files of `static/`: read once, known by their hash. No path from outside ever reaches the disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    body: bytes
    digest: str
    mimetype: str


@cache
def _all() -> dict[str, Asset]:
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            found[path.name] = Asset(body, hashlib.sha256(body).hexdigest()[:16], TYPES[path.suffix])
    return found


def asset(name: str) -> Asset | None:
    """The file of that name, or None."""
    return _all().get(name)


def address(name: str) -> str:
    """The address of a file, with its hash."""
    return f"/static/{name}?v={_all()[name].digest}"
