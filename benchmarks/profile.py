"""Where a full node spends its CPU: samples by py-spy, by room and by function.

``python -m benchmarks.profile [sync|detached|get] [--callers 16] [--seconds 10] [--into docs/benchmarks]``:
under warm sync calls, detached calls, or requests for an app. With --into it writes profile-sync.md there.
Only samples of threads at work count, and of those that wait for a core: on a busy machine threads look
dearer than they are. What a function calls in C is counted as its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.nodes import node
from benchmarks.processes import ask, cpu
from benchmarks.report import machine, sentence
from benchmarks.wrk import load

RATE = 500
"""Samples a second."""
WHAT = {"sync": "warm sync calls", "detached": "detached calls", "get": "requests for an app"}
MOST = 30
"""Functions that are shown."""
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)(:\d+)?\)$")
Stacks = Mapping[tuple[str, ...], int]
_ROOMS = ("api_node", "runner_node", "services", "hybrid_client", "shared_models", "deploy")


def main() -> int:
    """Prints the page; answers 1 where py-spy is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=tuple(WHAT), default="sync")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        print("profile: py-spy is missing (pip install py-spy)", file=sys.stderr)
        return 1
    found_on = machine()
    with tempfile.TemporaryDirectory(prefix="fnb-") as name:
        stacks, figures = sampled(program, Path(name), options.what, options.callers, options.seconds)
    text = (
        "\n".join(page(found_on, stacks, figures, f"{WHAT[options.what]}, {options.callers} callers")) + "\n"
    )
    print(text)
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / f"profile-{options.what}.md").write_text(text)
    return 0


def sampled(
    program: str, folder: Path, what: str, callers: int, seconds: int
) -> tuple[Stacks, dict[str, float]]:
    """Samples by stack, outermost frame first, and what wrk said; ``cpu_us`` is without the profiler."""
    raw = folder / "stacks"
    with node("full", folder) as full:
        url = full.warm(full.deploy("quick"))
        more: dict[str, Any] = {}
        if what == "detached":
            more = {"headers": [("Fn-Invoke-Type", "detached")]}
        elif what == "get":
            url = f"{full.url}/v2/apps/{ask('GET', f'{full.url}/v2/apps')['items'][0]['id']}"
            more = {"method": "GET", "body": 0}
        before = cpu(full.pid)
        figures = load(url, callers, seconds, **more)
        figures["cpu_us"] = (cpu(full.pid) - before) / figures["calls"] * 1e6
        command = [program, "record", "--format", "raw", "--rate", str(RATE), "--nonblocking",
                   "--duration", str(seconds), "--output", str(raw), "--pid", str(full.pid)]  # fmt: skip
        with ThreadPoolExecutor(1) as beside:
            loading = beside.submit(partial(load, url, callers, seconds + 1, **more))
            subprocess.run(command, check=True, capture_output=True)
            loading.result()
    return stacks_of(raw.read_text()), figures


def stacks_of(raw: str) -> dict[tuple[str, ...], int]:
    """py-spy's lines: frames with semicolons between them, then how often."""
    found: dict[tuple[str, ...], int] = {}
    for line in raw.splitlines():
        stack, _, times = line.rpartition(" ")
        found[tuple(stack.split(";"))] = int(times)
    return found


def page(
    found_on: Mapping[str, Any], stacks: Stacks, figures: Mapping[str, float], under: str
) -> Iterator[str]:
    """The page, in Markdown."""
    total = sum(stacks.values()) or 1
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    rooms: Counter[str] = Counter()
    for stack, times in stacks.items():
        names = [_short(frame) for frame in stack]
        own[names[-1]] += times
        rooms[_room(stack[-1])] += times
        for name in set(names):
            below[name] += times
    yield f"# Where the time goes: {under}"
    yield ""
    yield "Made by `python -m benchmarks.profile`; do not edit. Full node, SQLite, quick function:"
    yield f"{figures['per_second']:,.0f} requests/s, {figures['cpu_us']:.0f} us of CPU for each"
    yield f"without the profiler; {total:,} samples. {sentence(found_on)}"
    yield ""
    yield "`Runner.run` itself is the event loop in C: it asks the kernel what has come, and reads it."
    yield "Functions that write to sockets have the kernel's time for it in theirs."
    yield from ["", "| room | share | us each |", "|---|---:|---:|"]
    for name, times in rooms.most_common():
        yield f"| {name} | {times / total:.1%} | {times / total * figures['cpu_us']:.1f} |"
    yield from ["", "| function | itself | with what it calls |", "|---|---:|---:|"]
    for name, times in own.most_common(MOST):
        yield f"| `{name}` | {times / total:.1%} | {below[name] / total:.1%} |"


def _room(frame: str) -> str:
    """Ours by package, others by library."""
    found = _FRAME.match(frame)
    if not found:
        return "other"
    parts = Path(found["file"]).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    for part in parts:
        if part in _ROOMS:
            return part
    return "Python and its event loop"


def _short(frame: str) -> str:
    found = _FRAME.match(frame)
    return f"{'/'.join(Path(found['file']).parts[-2:])}: {found['function']}" if found else frame


if __name__ == "__main__":
    sys.exit(main())
