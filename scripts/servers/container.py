"""The same servers in containers, for a machine without their programs but with docker or podman.

A container runs the very command line that would be run here, in the network of this machine and with the server's
folder at the same path, so nothing else needs to know. On Linux only, where the network can be shared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ENGINES = ("docker", "podman")
ANSWER_S = 10.0
PULL_S = 600.0


def find_engine() -> Path | None:
    """A container engine that answers, if there is one."""
    if sys.platform != "linux":
        return None
    for name in ENGINES:
        found = shutil.which(name)
        if found and _is_done([found, "info"], ANSWER_S):
            return Path(found)
    return None


def get_image(engine: Path, image: str) -> bool:
    """Have the image, from the registry if need be; whether it is there."""
    return _is_done([str(engine), "image", "inspect", image], ANSWER_S) or _is_done(
        [str(engine), "pull", "--quiet", image], PULL_S
    )


def contained(
    engine: Path,
    image: str,
    name: str,
    folder: Path,
    environment: dict[str, str],
    owner: tuple[int, int],
    command: list[str],
) -> list[str]:
    """The command line that runs `command` in a new container of that name, which is removed when it ends."""
    given = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    keep = ["--userns=keep-id"] if engine.name == "podman" and os.geteuid() != 0 else []
    return [
        *(str(engine), "run", "--rm", "--name", name, "--network", "host", *keep),
        *("--user", f"{owner[0]}:{owner[1]}", "--volume", f"{folder}:{folder}", "--workdir", str(folder)),
        *given,
        *("--entrypoint", command[0], image, *command[1:]),
    ]


def remove_command(engine: Path, name: str) -> list[str]:
    """The command line that ends a container of that name at once."""
    return [str(engine), "rm", "--force", name]


def _is_done(command: list[str], limit_s: float) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
