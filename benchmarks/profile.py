"""Where a full node spends its CPU while warm sync calls come: samples by py-spy, by room and by function.

``python -m benchmarks.profile [--callers 16] [--seconds 10] [--into docs/benchmarks]``. With --into it writes
profile.md there. Only samples of threads at work count; what a function calls in C is counted as its own.
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
from pathlib import Path
from typing import Any

from benchmarks.nodes import node
from benchmarks.processes import cpu
from benchmarks.report import machine, sentence
from benchmarks.wrk import load

RATE = 500
"""Samples a second."""
MOST = 30
"""Functions that are shown."""
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)(:\d+)?\)$")
Stacks = Mapping[tuple[str, ...], int]
_ROOMS = ("api_node", "runner_node", "services", "hybrid_client", "shared_models", "deploy")


def main() -> int:
    """Prints the page; answers 1 where py-spy is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
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
        stacks, figures = sampled(program, Path(name), options.callers, options.seconds)
    text = "\n".join(page(found_on, stacks, figures, options.callers)) + "\n"
    print(text)
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / "profile.md").write_text(text)
    return 0


def sampled(program: str, folder: Path, callers: int, seconds: int) -> tuple[Stacks, dict[str, float]]:
    """Samples by stack, outermost frame first, and what wrk said; ``cpu_us`` is without the profiler."""
    raw = folder / "stacks"
    with node("full", folder) as full:
        url = full.warm(full.deploy("quick"))
        before = cpu(full.pid)
        figures = load(url, callers, seconds)
        figures["cpu_us"] = (cpu(full.pid) - before) / figures["calls"] * 1e6
        command = [program, "record", "--format", "raw", "--rate", str(RATE), "--nonblocking",
                   "--duration", str(seconds), "--output", str(raw), "--pid", str(full.pid)]  # fmt: skip
        with ThreadPoolExecutor(1) as beside:
            loading = beside.submit(load, url, callers, seconds + 1)
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
    found_on: Mapping[str, Any], stacks: Stacks, figures: Mapping[str, float], callers: int
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
    yield "# Where the time of a warm sync call goes"
    yield ""
    yield "Made by `python -m benchmarks.profile`; do not edit. Full node, SQLite, quick function,"
    yield f"{callers} callers: {figures['per_second']:,.0f} calls/s, {figures['cpu_us']:.0f} us of CPU per"
    yield f"call without the profiler; {total:,} samples. {sentence(found_on)}"
    yield ""
    yield "`Runner.run` itself is the event loop in C: it asks the kernel what has come, and reads it."
    yield "Functions that write to sockets have the kernel's time for it in theirs."
    yield from ["", "| room | share | us per call |", "|---|---:|---:|"]
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
