"""Bodies of 1 KB, 100 KB and 10 MB: each call sends one, and gets one as large back."""

from __future__ import annotations

from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import bare_proxy, node
from benchmarks.turns import in_turns

TITLE = "Bodies, both ways"
GOALS = (
    Goal("throughput at least 60 % of the bare proxy", "of_bare", least=0.60),
    Goal("no call fails", "errors", most=0),
)
_SIZES = ((1 << 10, 16), (100 << 10, 16), (10 << 20, 4))
"""Bytes, and callers."""


def run(options: Options) -> list[Row]:
    """A row per size."""
    folder, rows = options.own_folder("bodies"), []
    with node("full", folder) as full:
        for size, callers in options.of(_SIZES, _SIZES[:2]):
            config = {"ANSWER_BYTES": str(size)}
            with bare_proxy(folder, config=config) as bare:
                url = full.warm(full.deploy(f"body{size}", config=config))
                row = in_turns(options, (bare, bare.url), (full, url), callers, body=size)
            megabytes = row["per_second"] * size * 2 / 1e6
            rows.append({"body_kb": size >> 10, "callers": callers, **row, "mb_per_second": megabytes})
    return rows
