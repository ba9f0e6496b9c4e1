"""Programs that tests need and that Debian has: installed when they are missing and may be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

LOCKED = 120
"""Seconds for which another installation is waited for."""


class Missing(Exception):
    """Something that tests need is not here; says what, and why it could not be got."""


def need(program: str, package: str) -> str:
    """The path of *program*, from Debian's *package* if it is missing; raises Missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if found := shutil.which(program, path=path):
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"{program} is not installed (Debian: apt-get install {package})")
    # Suites that run at once wait for one another.
    lock = f"DPkg::Lock::Timeout={LOCKED}"
    install = ["apt-get", "install", "-y", "-qq", "-o", lock, "--no-install-recommends", package]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(install, env=environ, capture_output=True, check=False)
    if done.returncode:
        subprocess.run(["apt-get", "update", "-qq", "-o", lock], capture_output=True, check=False)
        done = subprocess.run(install, env=environ, capture_output=True, check=False)
    found = shutil.which(program, path=path)
    if done.returncode or not found:
        raise Missing(f"apt-get install {package} failed: {done.stderr.decode()[-300:]}")
    return found


def missing(reason: str) -> NoReturn:
    """Skips a test on a laptop, and fails it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def debian() -> str:
    """The code name of the Debian release that this machine runs; raises Missing."""
    lines = Path("/etc/os-release").read_text().splitlines() if Path("/etc/os-release").exists() else []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if fields.get("ID", "").strip('"') != "debian":
        raise Missing("function images are made from Debian's packages, and this is not Debian")
    return fields["VERSION_CODENAME"].strip('"')
