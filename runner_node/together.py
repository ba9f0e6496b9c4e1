"""What several worker processes report as one runner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shared_models.runner import RunnerReport

QUESTION = "report"


def encode(report: RunnerReport) -> bytes:
    """For siblings."""
    return msgspec.json.encode(report)


def decode(texts: Iterable[bytes]) -> list[RunnerReport]:
    """What ``encode`` made."""
    return [msgspec.json.decode(text, type=RunnerReport) for text in texts]


def summed(reports: Sequence[RunnerReport]) -> RunnerReport:
    """One report of all *reports*, of which there is at least one."""
    return msgspec.structs.replace(
        reports[0],
        capacity_memory=sum(one.capacity_memory for one in reports),
        capacity_cpus=sum(one.capacity_cpus for one in reports),
        free_memory=sum(one.free_memory for one in reports),
        free_cpus=sum(one.free_cpus for one in reports),
        running=sum(one.running for one in reports),
        warm=sorted({fn_id for one in reports for fn_id in one.warm}),
        oldest_wait=max(one.oldest_wait for one in reports),
        workers=len(reports),
        drains=all(one.drains for one in reports),
        spooled=sum(one.spooled for one in reports),
    )
