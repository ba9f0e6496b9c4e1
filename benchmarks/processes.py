"""Processes that are measured: begun, asked, ended, and what they use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def process(command: Sequence[str], environ: Mapping[str, str], log: Path | None = None) -> Iterator[int]:
    """A process of a group of its own, ended with the block; yields its id. What it says goes to *log*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    with open(log or os.devnull, "ab") as output:
        child = subprocess.Popen(
            command, env={**clean, **environ}, cwd=ROOT, start_new_session=True, stdout=output, stderr=output
        )
    try:
        yield child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def cpu(pid: int) -> float:
    """Seconds that a process has used by itself, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_mb(pid: int) -> float:
    """Of a process; pages that several have in common are divided among them."""
    found = re.search(r"\nPss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    """Those that it began itself, from any of its threads."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]  # fmt: skip


def ask(method: str, url: str, body: object = None, *, raw: bool = False, limit: float = 60) -> Any:
    """The JSON (or bytes) of a success, else None."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=limit) as answer:
            return answer.read() if raw else json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def until(condition: Callable[[], Any], what: str, limit: float = 60, pause: float = 0.02) -> None:
    """Returns when *condition* holds; raises TimeoutError after *limit* seconds.

    Asked every *pause* seconds.
    """
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit:.0f} s in vain: {what}")
        time.sleep(pause)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
