"""What the tests need of the machine beside Python packages: found, installed where that is allowed, or named.

Installed is what Debian and Ubuntu have, as root or with a password-less sudo. No service is started or left enabled,
and no database cluster is made: the tests start private servers of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.servers.container import find_engine
from scripts.servers.need import Need

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APT = ("-o", "DPkg::Lock::Timeout=300", "-qq")
CALM = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}  # nothing asks, nothing is restarted
SERVICES = ("rabbitmq-server", "postgresql", "redis-server", "epmd")
# While packages are installed; each is taken away again. The first forbids to start services, the second keeps
# PostgreSQL from making a cluster that would listen on port 5432 from the next boot on.
GUARDS = (
    ("/usr/sbin/policy-rc.d", "755", "#!/bin/sh\nexit 101\n"),
    ("/etc/postgresql-common/createcluster.d/synergy.conf", "644", "create_main_cluster = false\n"),
)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something the tests need: what, why, and the command that gets it."""

    what: str
    why: str
    command: str


def get_chromium() -> Missing | None:
    """Find Chromium or install it; what is missing if neither works."""
    if _has_chromium():
        return None
    install([("chromium",)], "Chromium for the browser tests")
    if _has_chromium():
        return None
    why = "the tests of the dashboard in tests/browser"
    return Missing("Chromium", why, "apt install chromium, or leave them out: ./launch.py test --no-browser")


def get_openssl() -> Missing | None:
    """Find openssl or install it; what is missing if neither works."""
    if shutil.which("openssl") is None:
        install([("openssl",)], "openssl for the certificates of tests")
    if shutil.which("openssl"):
        return None
    return Missing("openssl", "the certificates of the tests of servers with TLS", "apt install openssl")


def get_servers(needs: Sequence[Need]) -> list[Missing]:
    """Find the servers or install them; what is missing if neither works."""
    wanted = [need for need in needs if not (need.url or need.is_installed)]
    packages = [names for need in wanted for names in need.packages]
    if packages:
        install(packages, ", ".join(need.title for need in wanted if need.packages) + " for the tests")
    missing = [need for need in wanted if not need.is_installed]
    if missing and find_engine() is not None:
        print(f"In containers: {', '.join(need.title for need in missing)}.", flush=True)
        return []
    return [Missing(need.title, need.why, need.command) for need in missing]


def _has_chromium() -> bool:
    return any(shutil.which(name) for name in CHROMIUM)


# -- installing -------------------------------------------------------------------------------------------


def install(packages: Sequence[tuple[str, ...]], what: str) -> None:
    """Install by apt-get, of each tuple the first that is known; says what it does, also that it may not."""
    as_root = _as_root()
    if shutil.which("apt-get") is None:
        return
    if as_root is None:
        print(f"Not installed, for want of root or a password-less sudo: {what}.", flush=True)
        return
    print(f"Installing {what} (apt-get update) …", flush=True)
    _apt([*as_root, "apt-get", *APT, "update"])
    names = [next(filter(_is_known, some), some[0]) for some in packages]
    print(f"Installing {what} (apt-get install {' '.join(names)}) …", flush=True)
    before = {service for service in SERVICES if _has_service(service)}
    with _no_service_starts(as_root):
        _apt([*as_root, "apt-get", *APT, "install", "-y", "--no-install-recommends", *names])
    new = [service for service in SERVICES if service not in before and _has_service(service)]
    if new and shutil.which("systemctl"):
        _quietly([*as_root, "systemctl", "disable", *new])  # nor from the next boot on


def _apt(command: list[str]) -> None:
    done = _quietly(command)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("E:")]
        print(f"{' '.join(command)} ended with exit code {done.returncode}: {' · '.join(said)}", flush=True)


@contextmanager
def _no_service_starts(as_root: list[str]) -> Iterator[None]:
    """Services of new packages are not started, and nothing is left of that; what an administrator set, stays."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for path, mode, text in GUARDS:
            if not Path(path).exists():
                draft = Path(folder) / Path(path).name
                draft.write_text(text)
                _quietly([*as_root, "install", "-D", "-m", mode, str(draft), path])
                made.append(path)
    try:
        yield
    finally:
        if made:
            _quietly([*as_root, "rm", "-f", *made])


def _is_known(package: str) -> bool:
    """Whether apt could install it."""
    done = _quietly(["apt-cache", "show", "--no-all-versions", package])
    return done.returncode == 0 and bool(done.stdout.strip())


def _has_service(name: str) -> bool:
    return any(
        Path(folder, f"{name}.service").exists() for folder in ("/lib/systemd/system", "/etc/systemd/system")
    )


def _quietly(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **CALM}
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _as_root() -> list[str] | None:
    """What to put before a command that only root may run; None if we may not."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n", "env", *(f"{name}={value}" for name, value in CALM.items())]  # it drops ours
    return None
