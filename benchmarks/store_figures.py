"""Figures of the stores, as lines and as a table, and the machine that they are of."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """*per_second*: of *what*, with so many concurrent *callers*, *batch* of them in one operation.

    *bare*: inserts per second of the driver alone, right before; 0 where there is none.
    """

    backend: str
    what: str
    callers: int
    batch: int
    per_second: float
    bare: float


def machine() -> dict[str, Any]:
    """Where and of what these figures are."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit,
        "load": [round(one, 1) for one in os.getloadavg()],
    }


def lines(figures: Sequence[Figure]) -> Iterator[str]:
    """One line a figure, with the multiple of the bare driver."""
    for one in figures:
        yield (
            f"{one.backend:9} {one.what:22} callers {one.callers:3} batch {one.batch:4} "
            f"{one.per_second:10,.0f} /s{multiple(one)}"
        )


def multiple(one: Figure) -> str:
    """Of the bare driver, in brackets."""
    if not one.bare:
        return ""
    ratio = one.per_second / one.bare
    return f" ({ratio:.2f})" if ratio < 10 else f" ({ratio:.0f})"


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """All figures, a column for each backend, in Markdown."""
    found = {(one.what, one.callers, one.batch, one.backend): one for one in figures}
    backends = list(dict.fromkeys(one.backend for one in figures))
    yield f"| What | Callers | Batch | {' | '.join(backends)} |"
    yield f"|---|---:|---:|{'---:|' * len(backends)}"
    bares = [[one.bare for one in figures if one.backend == backend] for backend in backends]
    cells = [
        f"{statistics.median(some):,.0f} ({min(some):,.0f} to {max(some):,.0f})" if any(some) else ""
        for some in bares
    ]
    yield f"| driver alone, median (least to most) | 1 | 1 | {' | '.join(cells)} |"
    for what, callers, batch in dict.fromkeys((one.what, one.callers, one.batch) for one in figures):
        row = [found.get((what, callers, batch, backend)) for backend in backends]
        cells = [f"{one.per_second:,.0f}{multiple(one)}" if one else "" for one in row]
        yield f"| {what} | {callers} | {batch} | {' | '.join(cells)} |"
