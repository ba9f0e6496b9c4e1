"""How fast a node is, as ratios to what cannot be faster, measured in one run and in turns.

``make bench`` or ``python -m benchmarks [CASES...] [--seconds 2] [--quick] [--into docs/benchmarks]``.
Prints a table per case; with --into it writes bench.json, README.md and the curves there. What a case needs
is installed from Debian where that may be done; a case that cannot run says why.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.measuring import Case, Options, label
from benchmarks.report import machine, show, write
from tests.engine.packages import Missing

CASES = (
    "sync", "slower", "burst", "bodies", "split", "constant", "detached", "idle_runner", "containers", "cold",
    "many_runners", "crud", "memory",
)  # fmt: skip


def main() -> int:
    """Runs the cases one after the other; answers 1 when one of them could not be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated, in turns")
    parser.add_argument("--callers", type=int, nargs="+", default=(), help="instead of those of the case")
    parser.add_argument("--quick", action="store_true", help="only whether it works: a second each")
    parser.add_argument("--into", type=Path, help="folder for the figures, the page and the pictures")
    asked = parser.parse_args()
    unknown = [name for name in asked.cases if name not in (*CASES, "all")]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    names = CASES if not asked.cases or "all" in asked.cases else tuple(asked.cases)
    # What was started is to end when this is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Before the first figure: whoever commits meanwhile changes nothing of what runs.
    found_on = machine()
    results: dict[str, Any] = {}
    modules = {name: cast("Case", importlib.import_module(f"benchmarks.cases.{name}")) for name in names}
    with tempfile.TemporaryDirectory(prefix="fnb-") as folder:
        options = Options(
            folder=Path(folder), seconds=1 if asked.quick else asked.seconds,
            rounds=1 if asked.quick else asked.rounds, callers=tuple(asked.callers), quick=asked.quick,
        )  # fmt: skip
        for name, case in modules.items():
            results[name] = outcome(case, options)
            show(case, results[name])
    if asked.into:
        write(asked.into, found_on, results)
    return int(any("failed" in result for result in results.values()))


def outcome(case: Case, options: Options) -> dict[str, Any]:
    """Rows, goals and pictures of one case, or why there are none."""
    began = time.monotonic()
    result: dict[str, Any] = {"title": case.TITLE, "rows": [], "goals": [], "charts": {}}
    try:
        rows = result["rows"] = case.run(options)
    except (Missing, TimeoutError, AssertionError, OSError) as exc:
        result["failed"] = f"{type(exc).__name__}: {exc}"
        return result
    finally:
        result["took_seconds"] = round(time.monotonic() - began, 1)
    for goal in case.GOALS:
        result["goals"] += [
            {"goal": goal.text, "of": label(row), "value": value, "met": good}
            for row, value, good in goal.check(rows)
        ]
    if hasattr(case, "charts"):
        result["charts"] = dict(case.charts(rows))
    return result


if __name__ == "__main__":
    sys.exit(main())
