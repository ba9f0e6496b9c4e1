"""The scheduler's decision in virtual time, against Fn's and against one that knows the future.

``make simulate`` or ``python -m benchmarks.simulate [--into docs/benchmarks] [--cores 2]``. No containers and
no clock: the same figures on every machine. Sweeps how long calls take, how long starts take, who calls, and
cores; prints a table, and writes ``simulation.json``, ``simulation.svg`` and ``simulation.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.policies import Before, Fixed, Fn, Ours
from benchmarks.simulated_node import Function, Machine, Node, Outcome, Policy
from benchmarks.simulation_report import chart, report, summary
from benchmarks.traffic import Callers, Stream, Traffic

SECONDS = (0.0003, 0.003, 0.03, 0.3, 3.0, 30.0)
"""That calls take."""
STARTS = (0.05, 0.15, 1.0, 5.0)
"""Seconds that starts take."""
COMPUTES, WAITS = 1.0, 0.05
"""Part of a call on a CPU: of a function that computes, and of one that waits for others."""
CALLS = 20_000
"""Of one run at most, about."""
CLOSE = 1.05
"""Times the least wait that the oracle takes for it, with fewer containers."""
FOR_EVER = 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One cell of the sweep; *traffic* says who calls in words."""

    machine: Machine
    function: Function
    callers: Traffic
    traffic: str


def cases(cores: int, starts: tuple[float, ...]) -> Iterator[Case]:
    """All of those on so many cores."""
    for cpu, seconds, start in itertools.product((COMPUTES, WAITS), SECONDS, starts):
        if cpu < 1 and seconds < 0.003:
            continue  # what is over in 0.3 ms has not waited for anybody
        machine = Machine(cores=cores, start_time=start)
        function = Function(seconds=seconds, cpu=cpu)
        for words, busy, make in _traffics(cores, seconds, computes=cpu == COMPUTES):
            length = min(20 * start + 20 * seconds, max(4 * start, CALLS * seconds / busy))
            yield Case(machine, function, dataclasses.replace(make, seconds=length), words)


def _traffics(cores: int, seconds: float, *, computes: bool) -> Iterator[tuple[str, float, Traffic]]:
    """In words, with the containers that are busy on average."""
    some, many = (0.5 * cores, 0.8 * cores) if computes else (float(cores), 24.0)
    most = float(cores) if computes else 64.0
    yield "64 callers", most, Callers(64, 0.0)
    yield "8 callers", min(most, 8.0), Callers(8, 0.0)
    yield "some", some, Stream(some / seconds, 0.0)
    yield "many", many, Stream(many / seconds, 0.0)
    yield "bursts of 32", some / 2, Stream(some / 2 / seconds, 0.0, 32)


def run(case: Case, policy: Policy, ready: int = 0) -> Outcome:
    """One run; *ready* containers are there from the beginning."""
    node = Node(case.machine, case.function, policy)
    node.have(ready)
    case.callers.begin(node)
    return node.run()


def oracle(case: Case) -> Outcome:
    """The fewest containers, all of them ready before the first call, with about the least mean wait.

    The best of a few constant numbers, not a proven bound: one that changes its number may do a bit better.
    """
    machine = dataclasses.replace(case.machine, idle_timeout=FOR_EVER)
    lasting = dataclasses.replace(case, machine=machine)
    numbers = sorted({1, 2, 4, 8, 16, 32, 64, 2 * machine.cores}, reverse=True)
    runs = {number: run(lasting, Fixed(), number) for number in numbers[:1]}
    for number in numbers[1:]:
        runs[number] = run(lasting, Fixed(), number)
        if runs[number].mean > 2 * min(found.mean for found in runs.values()):
            break
    least = min(found.mean for found in runs.values())
    within = least * CLOSE + case.function.seconds * 0.01
    return runs[min(number for number, found in runs.items() if found.mean <= within)]


def row(case: Case) -> dict[str, object]:
    """The figures of one case, as in ``simulation.json``: seconds, containers."""
    cores = case.machine.cores
    outcomes = {
        "oracle": oracle(case),
        "ours": run(case, Ours(cores)),
        "before": run(case, Before(cores)),
        "fn": run(case, Fn()),
    }
    return {
        "cores": cores,
        "function": "computes" if case.function.cpu == COMPUTES else "waits",
        "seconds": case.function.seconds,
        "start": case.machine.start_time,
        "traffic": case.traffic,
        "calls": len(outcomes["ours"].waits),
        **{name: _figures(outcome) for name, outcome in outcomes.items()},
    }


def _figures(outcome: Outcome) -> dict[str, float]:
    return {
        "mean": float(f"{outcome.mean:.3g}"),
        "p99": float(f"{outcome.p99:.3g}"),
        "started": outcome.started,
        "most": outcome.most,
        "held": round(outcome.held, 2),
        "container_seconds": float(f"{outcome.container_seconds:.4g}"),
    }


def main() -> int:
    """Runs the sweep, prints and writes what it shows; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[2, 4, 16])
    options = parser.parse_args()
    began, least = time.monotonic(), min(options.cores)
    # All of the sweep on the least cores; on more of them, what depends on cores.
    sweep = [
        case for cores in options.cores for case in cases(cores, STARTS if cores == least else STARTS[1:2])
    ]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(row, sweep))
    print(summary(rows))
    print(f"{len(rows)} cases in {time.monotonic() - began:.0f} s")
    if options.into:
        lines = ",\n".join(json.dumps(found) for found in rows)
        (options.into / "simulation.json").write_text(f"[\n{lines}\n]\n")
        (options.into / "simulation.svg").write_text(chart(rows))
        (options.into / "simulation.md").write_text(report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
