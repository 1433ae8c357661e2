"""What a server needs of the machine: where its programs are, or how one gets them. Starts and installs nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scripts.servers.parts import find_program


@dataclass(frozen=True, slots=True)
class Need:
    """One server: what it is for, and where it may come from, in this order.

    A URL in the environment; programs on PATH or in the usual places; a container.
    """

    name: str  # as its function here is called: mongod, rabbitmq …
    title: str  # as people call it
    why: str
    variable: str  # of the environment: the URL of one that runs
    programs: tuple[str, ...]
    places: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...]  # of Debian and Ubuntu; of each tuple the first that is known
    image: str
    places_first: bool = False  # what is on PATH is a wrapper

    def find(self, program: str) -> Path | None:
        """The path of one of its programs, if it is here."""
        return find_program(program, self.places, places_first=self.places_first)

    @property
    def url(self) -> str | None:
        """The URL of one that somebody runs for us."""
        return os.environ.get(self.variable) or None

    @property
    def is_installed(self) -> bool:
        """Whether all its programs are here."""
        return all(map(self.find, self.programs))

    @property
    def command(self) -> str:
        """How one gets it."""
        first = " ".join(names[0] for names in self.packages)
        own = f"apt install {first}" if first else "https://www.mongodb.com/docs/manual/installation"
        return f"{own}, or {self.variable}=<URL of one that runs>"
