"""A certificate for tests of TLS, made by openssl: where that is absent the test fails, and says what to install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for localhost and 127.0.0.1, signed by itself, valid for two days; in `folder`."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "openssl makes the certificate of this test: apt install openssl"
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [openssl, *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate
