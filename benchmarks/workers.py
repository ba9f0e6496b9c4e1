"""A runner node of one process and of several workers (``FN_WORKERS``), in turns, under the same load.

``python -m benchmarks.workers [--workers 1 2] [--callers 1 16 64] [--rounds 5] [--seconds 3]``. Needs wrk.
CPU per call is that of the node's own processes, without functions, API node and load: on a machine that
others use it says more than throughput, and ratios of one run more than either.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.nodes import Node, node
from benchmarks.processes import ask, children, cpu, memory_mb, until
from benchmarks.wrk import load

Figures = dict[tuple[int, int], list[dict[str, float]]]
"""Rounds, by workers and callers."""


def main() -> int:
    """Prints a line a case; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="fnb-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        api = stack.enter_context(node("api", folder))
        path = api.deploy("bench").removeprefix(api.url)
        nodes = {count: stack.enter_context(workers(folder, api, count, path)) for count in options.workers}
        for callers in options.callers:
            for _ in range(options.rounds):
                for count, (url, processes) in nodes.items():
                    one = measured(url, callers, options.seconds, processes)
                    figures.setdefault((count, callers), []).append(one)
        for (count, callers), rounds in sorted(figures.items(), key=lambda each: each[0][::-1]):
            show(count, callers, rounds)
        for count, (_, processes) in nodes.items():
            print(f"{count} workers: {sum(map(memory_mb, processes)):.0f} MB, shared pages counted in part")
    return 0


def show(workers: int, callers: int, rounds: list[dict[str, float]]) -> None:
    """All calls of the rounds together; medians of their latencies."""
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    middle = {name: statistics.median(one[name] for one in rounds) for name in ("p50_ms", "p99_ms")}
    print(
        f"{callers:4} callers, {workers} workers: {total['calls'] / total['seconds']:7.0f}/s, "
        f"{total['cpu'] / total['calls'] * 1e6:6.0f} us CPU per call, "
        f"p50 {middle['p50_ms']:6.2f} ms, p99 {middle['p99_ms']:6.2f} ms, "
        f"errors {total['errors']:.0f}",
        flush=True,
    )


def measured(url: str, callers: int, seconds: int, processes: list[int]) -> dict[str, float]:
    """One run of wrk, and what the node's *processes* used meanwhile."""
    before = sum(map(cpu, processes))
    figures = load(url, callers, seconds)
    return {**figures, "seconds": float(seconds), "cpu": sum(map(cpu, processes)) - before}


@contextlib.contextmanager
def workers(folder: Path, api: Node, count: int, path: str) -> Iterator[tuple[str, list[int]]]:
    """A warm runner node; yields where to call the function at *path*, and the node's processes."""
    with node("runner", folder, api.url, FN_WORKERS=str(count)) as runner:

        def all_serve() -> bool:
            metrics = str(ask("GET", f"{runner.url}/metrics", raw=True))
            return count == 1 or len(set(re.findall(r'worker="\d+"', metrics))) == count

        until(all_serve, f"{count} workers")
        # Of a lone process, the children are functions.
        processes = [runner.pid, *(children(runner.pid) if count > 1 else ())]
        url = runner.url + path
        for _ in range(10 * count):
            runner.warm(url)
        yield url, processes


if __name__ == "__main__":
    sys.exit(main())
