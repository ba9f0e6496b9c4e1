"""Warm sync calls through a full node, as a ratio to a bare proxy measured in the same run.

``make bench`` or ``python -m benchmarks.invoke [--seconds 5] [--callers 1 4 16 64] [--json FILE]``. Needs
wrk. The node stores every call on SQLite; the function answers at once, so that what is measured is ours.
Figures are of this machine at this time: only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FUNCTIONS = ROOT / "benchmarks" / "functions"
GOAL = 0.60
"""Of the bare proxy's throughput (issue 6)."""


def main() -> int:
    """Runs the cases and prints the table; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        print("bench: wrk is missing (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="fnb-") as name:
        folder = Path(name)
        with full_node(folder) as node, bare_proxy(folder) as proxy:
            for callers in options.callers:
                bare = load(proxy, callers, options.seconds)
                ours = load(node, callers, options.seconds)
                rows.append({"callers": callers, "bare": bare, "ours": ours})
                show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def show(row: dict[str, Any]) -> None:
    """One line a case; the ratio is what counts."""
    bare, ours = row["bare"], row["ours"]
    ratio = ours["per_second"] / bare["per_second"]
    print(
        f"{row['callers']:4} callers: bare {bare['per_second']:8.0f}/s p50 {bare['p50_ms']:6.2f} "
        f"p99 {bare['p99_ms']:6.2f} ms | node {ours['per_second']:8.0f}/s p50 {ours['p50_ms']:6.2f} "
        f"p99 {ours['p99_ms']:6.2f} ms | {ratio:5.1%} of bare (goal {GOAL:.0%}), "
        f"overhead at p50 {ours['p50_ms'] - bare['p50_ms']:+.2f} ms, errors {ours['errors']}",
        flush=True,
    )


def load(url: str, callers: int, seconds: int) -> dict[str, float]:
    """Closed-loop load by wrk: requests per second, latencies in ms, failed requests."""
    script = 'wrk.method = "POST"\nwrk.body = "x"\n'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "--latency", "-s", lua.name, url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
        "p50_ms": latency(out, "50%"),
        "p99_ms": latency(out, "99%"),
        "errors": float(failed[1]) if failed else 0,
    }


def latency(out: str, name: str) -> float:
    """A percentile of wrk's table in ms."""
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", out)
    assert found, out
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


# -- what is measured ------------------------------------------------------------------------------


@contextlib.contextmanager
def full_node(folder: Path) -> Iterator[str]:
    """A full node with the quick function deployed; yields where to invoke it."""
    port = free_port()
    environ = {
        "FN_PORT": str(port), "FN_HOST": "127.0.0.1", "FN_DRIVER": "process", "FN_LOG_LEVEL": "warn",
        "FN_PROCESS_IMAGES": str(FUNCTIONS), "FN_DB_URL": f"sqlite:///{folder}/fn.db",
        "FN_MQ_URL": f"sqlite:///{folder}/queue.db", "FN_SPOOL_PATH": f"{folder}/spool",
    }  # fmt: skip
    with process([sys.executable, "-m", "deploy", "full"], environ):
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask("GET", f"{url}/readyz") is not None)
        app = ask("POST", f"{url}/v2/apps", {"name": "bench"})
        assert app
        fn = ask("POST", f"{url}/v2/fns", {"name": "quick", "app_id": app["id"], "image": "quick"})
        assert fn
        until(lambda: ask("POST", f"{url}/invoke/{fn['id']}", {}, raw=True) is not None)
        yield f"{url}/invoke/{fn['id']}"


@contextlib.contextmanager
def bare_proxy(folder: Path, functions: int = 4) -> Iterator[str]:
    """The bare proxy before *functions* processes of the quick function; yields its address."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        folders = []
        for number in range(functions):
            sockets = folder / f"s{number}"
            sockets.mkdir()
            listener = sockets / "lsnr.sock"
            code = [sys.executable, str(FUNCTIONS / "quick" / "func.py")]
            stack.enter_context(process(code, {"FN_LISTENER": f"unix:{listener}"}))
            until(listener.exists)
            folders.append(str(sockets))
        stack.enter_context(process([sys.executable, "-m", "benchmarks.bare_proxy", str(port), *folders], {}))
        url = f"http://127.0.0.1:{port}/"
        until(lambda: ask("POST", url, {}, raw=True) is not None)
        yield url


@contextlib.contextmanager
def process(command: list[str], environ: dict[str, str]) -> Iterator[None]:
    """A process of its own group, ended with the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    child = subprocess.Popen(command, env={**clean, **environ}, cwd=ROOT, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def ask(method: str, url: str, body: object = None, *, raw: bool = False) -> Any:
    """The JSON (or bytes) of a success, else None."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read() if raw else json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


def until(condition: Any, limit: float = 60) -> None:
    """Returns when *condition* holds; fails after *limit* seconds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what is measured did not start")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
