"""Find a pip that can install into a venv which has none. Standard library only; part of `bootstrap`.

In this order, the first that answers: the venv's own pip; the wheel that Python carries for `ensurepip` (Debian takes
it out); Debian's wheels; the pip of the python at hand; uv; a pip wheel from a folder or index that pip's own settings
name, checked against the index's hash. A wheel is unpacked into the venv, which is all that installing it means, and
a few seconds faster than running it as it is.
"""

from __future__ import annotations

import configparser
import hashlib
import html
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN_WHEELS = Path("/usr/share/python-wheels")
PYPI = "https://pypi.org/simple"
PIP_WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl")
# Of the user's environment: these would send packages, or look for them, elsewhere.
MISLEADING = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV"}
    | {"PIP_PYTHON", "PIP_DRY_RUN", "PIP_NO_DEPS", "PIP_VERBOSE", "PIP_LOG", "PIP_QUIET", "PIP_REPORT"}
)
OPTIONS = (
    *("install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "1"),
    *("--no-warn-script-location", "--prefer-binary", "--no-compile"),
)


class NotFound(Exception):
    """There is no pip to be had; says what to do."""


@dataclass(frozen=True, slots=True)
class Installer:
    """A command that installs the requirements appended to it, and one that says whether it works at all."""

    command: tuple[str, ...]
    probe: tuple[str, ...]

    def answers(self) -> bool:
        """Whether it can be run: a wheel may be too old for this Python, a pip for `--python`."""
        try:
            return subprocess.run(self.probe, capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def find(venv: Path) -> Installer:
    """An installer for `venv`. Raises NotFound, one line."""
    python = str(venv / "bin" / "python")
    for installer in candidates(venv, python):
        if installer.answers():
            return installer
    return _unpacked(download_pip(venv), venv, python)


def candidates(venv: Path, python: str) -> Iterator[Installer]:
    """Every pip of this machine, the most fitting first."""
    if any(venv.glob("lib/python*/site-packages/pip/__main__.py")):
        yield _pip(python, "-I", "-m", "pip")
    for wheel in (*_bundled(), *sorted(DEBIAN_WHEELS.glob("pip-*.whl"), key=_version, reverse=True)):
        yield _unpacked(wheel, venv, python)
    if importlib.util.find_spec("pip") is not None:
        yield _pip(sys.executable, "-m", "pip", "--python", python)
    uv = shutil.which("uv")
    if uv is not None:
        install = (uv, "pip", "install", "--no-progress", "--no-cache", "--python", python)
        yield Installer(install, (uv, "--version"))


def _pip(*command: str) -> Installer:
    # without a cache folder of the user's choice there is none: HOME is not ours to write to
    options = OPTIONS if os.environ.get("PIP_CACHE_DIR") else (*OPTIONS, "--no-cache-dir")
    return Installer((*command, *options), (*command, "--version"))


def _unpacked(wheel: Path, venv: Path, python: str) -> Installer:
    """The pip of a wheel, put where the venv finds it; one that was put there before and did not answer goes."""
    for site in venv.glob("lib/python*/site-packages"):
        for old in site.glob("pip*"):
            shutil.rmtree(old)
        with zipfile.ZipFile(wheel) as content:
            content.extractall(site)
    return _pip(python, "-I", "-m", "pip")


def _bundled() -> Iterator[Path]:
    """The wheel that comes with Python."""
    spec = importlib.util.find_spec("ensurepip")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from Path(folder).glob("_bundled/pip-*.whl")


def _version(wheel: str | Path) -> tuple[int, ...]:
    found = PIP_WHEEL.search(str(wheel))
    return tuple(int(part) for part in found[1].split(".")) if found else ()


# -- from a folder or an index ----------------------------------------------------------------------------


def download_pip(venv: Path) -> Path:
    """A pip wheel of the folders or the index that pip's settings name. Raises NotFound."""
    options = settings_of_pip()
    for folder in options.get("find-links", "").split():
        wheels = Path(folder.removeprefix("file://")).glob("pip-*-py3-none-any.whl")
        for wheel in sorted(wheels, key=_version, reverse=True):
            return wheel
    index = options.get("index-url", PYPI).rstrip("/")
    try:
        context = ssl.create_default_context(cafile=options.get("cert") or None)
        url, digest = _newest(f"{index}/pip/", context)
        content = _fetch(url, context)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NotFound(
            f"this Python has no pip and {_without_password(index)} gives none ({reason}):"
            " apt install python3-venv (or connect to the network), then try again"
        ) from error
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise NotFound(f"{_without_password(url)}: its content is not what the index says; try again")
    wheel = venv / url.partition("#")[0].rpartition("/")[2]
    wheel.write_bytes(content)
    return wheel


def settings_of_pip() -> dict[str, str]:
    """What pip's files and environment say about where packages come from; the later wins, as in pip."""
    home = Path.home()
    named = os.environ.get("PIP_CONFIG_FILE")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
    ]
    found: dict[str, str] = {}
    for file in [] if named == os.devnull else [*files, *([Path(named)] if named else [])]:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip will complain of it in its own words
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    for name in ("index-url", "find-links", "cert"):
        value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            found[name] = value
    return found


def _fetch(url: str, context: ssl.SSLContext, accept: str = "*/*") -> bytes:
    if urllib.parse.urlsplit(url).scheme not in ("https", "http", "file"):
        raise ValueError(f"{url} is no address to get a package from")
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content


def _newest(page: str, context: ssl.SSLContext) -> tuple[str, str | None]:
    """Address and SHA-256 of the newest pip wheel on an index's page, JSON or HTML."""
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.2"
    text = _fetch(page, context, accept).decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        files = json.loads(text)["files"]
        links = {
            file["url"]: file.get("hashes", {}).get("sha256") for file in files if not file.get("yanked")
        }
    else:
        links = {}
        for link in re.findall(r"<a\s[^>]*href=[\"']([^\"']+)", text):
            address, _, fragment = html.unescape(link).partition("#")
            links[address] = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    wheels = {link: digest for link, digest in links.items() if PIP_WHEEL.search(link)}
    if not wheels:
        raise ValueError("no wheel of pip there")
    newest = max(wheels, key=_version)
    return urllib.parse.urljoin(page, newest), wheels[newest]


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)
