"""A node command as a process whose log a test reads as it comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def begin(folder: Path, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    """Python with *command*, in *folder* and with nothing but *environ*."""
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=dict(environ), stderr=subprocess.PIPE, text=True
    )


def until(node: subprocess.Popen[str], words: str) -> str:
    """What it has logged when *words* come; fails when it ends without them."""
    assert node.stderr
    seen = ""
    for line in node.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"ended without {words!r}: {seen}")
