"""A runner node of one process and of several workers (``FN_WORKERS``), in turns, under the same load.

``python -m benchmarks.workers [--workers 1 2] [--callers 1 16 64] [--rounds 5] [--seconds 3]``. Needs wrk.
CPU per call is that of the node's own processes, without functions, API node and load: on a machine that
others use it says more than throughput, and ratios of one run more than either.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FUNCTIONS = ROOT / "benchmarks" / "functions"
_TICK = os.sysconf("SC_CLK_TCK")
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
        api, fn_id = stack.enter_context(api_node(folder))
        nodes = {
            count: stack.enter_context(runner_node(folder, api, count, fn_id)) for count in options.workers
        }
        for callers in options.callers:
            for _ in range(options.rounds):
                for count, (url, processes) in nodes.items():
                    one = measured(url, callers, options.seconds, processes)
                    figures.setdefault((count, callers), []).append(one)
        for (count, callers), rounds in sorted(figures.items(), key=lambda each: each[0][::-1]):
            show(count, callers, rounds)
        for count, (_, processes) in nodes.items():
            print(f"{count} workers: {memory(processes) >> 20} MB resident, shared pages counted in part")
    return 0


def show(workers: int, callers: int, rounds: list[dict[str, float]]) -> None:
    """All calls of the rounds together; medians of their latencies."""
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    middle = {name: statistics.median(one[name] for one in rounds) for name in ("p50", "p99")}
    print(
        f"{callers:4} callers, {workers} workers: {total['calls'] / total['seconds']:7.0f}/s, "
        f"{total['cpu'] / total['calls'] * 1e6:6.0f} us CPU per call, "
        f"p50 {middle['p50']:6.2f} ms, p99 {middle['p99']:6.2f} ms, "
        f"errors {total['errors']:.0f}",
        flush=True,
    )


def measured(url: str, callers: int, seconds: int, processes: list[int]) -> dict[str, float]:
    """One run of wrk, and what the node's *processes* used meanwhile."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write('wrk.method = "POST"\nwrk.body = "x"\n')
        lua.flush()
        before = cpu(processes)
        command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "--latency", "-s", lua.name, url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "calls": float(_found(r"(\d+) requests in", out)),
        "seconds": float(seconds),
        "cpu": cpu(processes) - before,
        "p50": _latency(out, "50%"),
        "p99": _latency(out, "99%"),
        "errors": float((re.search(r"Non-2xx or 3xx responses: (\d+)", out) or ["", "0"])[1]),
    }


def _found(pattern: str, out: str) -> str:
    found = re.search(pattern, out)
    assert found, out
    return found[1]


def _latency(out: str, name: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", out)
    assert found, out
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def cpu(processes: list[int]) -> float:
    """Seconds that they have used."""
    used = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / _TICK


def memory(processes: list[int]) -> int:
    """Bytes; pages that several have in common are divided among them."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in processes]
    return sum(int(_found(r"\nPss:\s+(\d+)", text)) * 1024 for text in texts)


# -- what is measured ------------------------------------------------------------------------------


@contextlib.contextmanager
def api_node(folder: Path) -> Iterator[tuple[str, str]]:
    """An API node on SQLite with the quick function; yields its address and the function's id."""
    environ = {
        "FN_DB_URL": f"sqlite:///{folder}/fn.db", "FN_MQ_URL": f"sqlite:///{folder}/queue.db",
        "FN_RUNNER_AUTH": "none",
    }  # fmt: skip
    with node("api", environ) as (url, _):
        app = ask("POST", f"{url}/v2/apps", {"name": "bench"})
        fn = ask("POST", f"{url}/v2/fns", {"name": "quick", "app_id": app["id"], "image": "quick"})
        yield url, fn["id"]


@contextlib.contextmanager
def runner_node(folder: Path, api: str, workers: int, fn_id: str) -> Iterator[tuple[str, list[int]]]:
    """A warm runner node; yields where to call the function, and the node's processes."""
    environ = {
        "FN_WORKERS": str(workers), "FN_RUNNER_API_URL": api, "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(FUNCTIONS), "FN_SPOOL_PATH": f"{folder}/spool",
    }  # fmt: skip
    with node("runner", environ) as (url, supervisor):
        processes = [supervisor]

        def all_serve() -> bool:
            # The functions are children of the workers.
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            processes[1:] = [int(pid) for pid in children] if workers > 1 else []
            metrics = str(ask("GET", f"{url}/metrics", raw=True))
            return workers == 1 or len(set(re.findall(r'worker="\d+"', metrics))) == workers

        until(all_serve)
        for _ in range(10 * workers):
            ask("POST", f"{url}/invoke/{fn_id}", {}, raw=True)
        yield f"{url}/invoke/{fn_id}", processes


@contextlib.contextmanager
def node(kind: str, environ: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A node process, ended with the block; yields its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    common = {"FN_PORT": port, "FN_HOST": "127.0.0.1", "FN_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "deploy", kind]
    child = subprocess.Popen(command, env={**clean, **common, **environ}, cwd=ROOT)
    try:
        until(lambda: ask("GET", f"http://127.0.0.1:{port}/readyz") is not None)
        yield f"http://127.0.0.1:{port}", child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


def ask(method: str, url: str, body: object = None, *, raw: bool = False) -> Any:
    """The JSON (or bytes) of a success, else None."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=data, method=method), timeout=30
        ) as answer:
            return answer.read() if raw else json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


def until(condition: Callable[[], bool], limit: float = 60.0) -> None:
    """Returns when *condition* holds; fails after *limit* seconds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what is measured did not start")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
