"""Servers that somebody else runs, named by a URL in the environment: asked for empty databases, and never stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Source(Protocol):
    """Where empty databases (virtual hosts) come from; every server of ours is one."""

    @property
    def url(self) -> str:
        """The URL of the first of them."""

    def fresh(self) -> str:
        """The URL of an empty one, which nobody else uses."""

    def delete(self, url: str) -> None:
        """Delete it again."""


@dataclass(frozen=True, slots=True)
class Given:
    """One at `url`, and how a database is made and deleted there."""

    url: str
    create: Callable[[], str]
    drop: Callable[[str], None]

    def fresh(self) -> str:
        """The URL of an empty one, which nobody else uses."""
        return self.create()

    def delete(self, url: str) -> None:
        """Delete it again."""
        self.drop(url)
