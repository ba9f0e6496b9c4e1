"""Closed-loop load by wrk."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence

from tests.engine.packages import need

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def load(
    urls: str | Sequence[str], callers: int, seconds: int, *, method: str = "POST", body: int = 1,
    headers: Sequence[tuple[str, str]] = (), lua: str = "",
) -> dict[str, float]:  # fmt: skip
    """Requests per second, latencies in ms, requests that failed. *body* in bytes; several *urls* take turns.

    *lua* is wrk's, instead of all that. Raises Missing without wrk.
    """
    urls = [urls] if isinstance(urls, str) else urls
    paths = ", ".join(f'"/{url.split("/", 3)[3]}"' for url in urls)
    script = lua or (
        f'wrk.method = "{method}"\nwrk.body = string.rep("x", {body})\n'
        + "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers)
        + f"local paths = {{{paths}}}\nlocal turn, ready = 0, {{}}\n"
        "function init() for i, path in ipairs(paths) do ready[i] = wrk.format(nil, path) end end\n"
        "function request() turn = turn % #ready + 1 return ready[turn] end\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [
            need("wrk", "wrk"),
            "-t1",
            f"-c{callers}",
            f"-d{seconds}s",
            "--timeout",
            "60s",
            "--latency",
        ]
        out = subprocess.run(
            [*command, "-s", file.name, urls[0]], capture_output=True, text=True, check=True
        ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return {
        "per_second": float(_found(r"Requests/sec:\s+([\d.]+)", out)),
        "calls": float(_found(r"(\d+) requests in", out)),
        "p50_ms": _latency(out, "50%"),
        "p99_ms": _latency(out, "99%"),
        "errors": float(failed[1] if failed else 0) + sum(map(int, broken.groups() if broken else ())),
    }


def _found(pattern: str, out: str) -> str:
    found = re.search(pattern, out)
    assert found, out
    return found[1]


def _latency(out: str, name: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s|m)", out)
    assert found, out
    return float(found[1]) * _UNITS[found[2]]
