"""A certificate for a server of this machine, which is its own authority."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engine.packages import need


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    cert: Path
    key: Path


@contextmanager
def certificate(user: str, host: str = "127.0.0.1") -> Iterator[Certificate]:
    """Made for *host*, its key readable for *user* alone (for whoever runs the suite unless that is root)."""
    openssl = need("openssl", "openssl")
    folder = Path(tempfile.mkdtemp(prefix="cert-"))
    folder.chmod(0o755)
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    name = f"subjectAltName=IP:{host}" if host[0].isdigit() else f"subjectAltName=DNS:{host}"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run(
        [*command, "-addext", name, "-keyout", str(made.key), "-out", str(made.cert)],
        check=True,
        capture_output=True,
    )
    made.key.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(made.key, user)
    try:
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
