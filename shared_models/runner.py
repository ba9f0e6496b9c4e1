"""Runner nodes as the API node knows them: what they report every few seconds, and what they are told."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

HEARTBEAT = 5.0
"""Seconds between two heartbeats; after three missed ones a runner is shown as lost."""


class RunnerState(enum.StrEnum):
    """``draining``: takes no new calls. ``lost`` is only ever shown, never stored."""

    ACTIVE = "active"
    DRAINING = "draining"
    LOST = "lost"


class RunnerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat. Memory in bytes, CPU in milli-CPUs, waits in seconds.

    *workers*: processes among which the capacity is divided evenly; no container is larger than one's part.
    *drains*: the runner has been told to drain, and takes nothing new since. *spooled*: batches of results
    that no API node has taken yet, in memory or on disk.
    """

    id: str = ""
    address: str = ""
    version: str = ""
    capacity_memory: int = 0
    capacity_cpus: int = 0
    free_memory: int = 0
    free_cpus: int = 0
    running: int = 0
    warm: list[str] = []
    oldest_wait: float = 0.0
    workers: int = 1
    drains: bool = False
    spooled: int = 0


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A registered runner; *seen_at* is wire text."""

    report: RunnerReport
    state: str = RunnerState.ACTIVE
    seen_at: str = ""

    @property
    def drained(self) -> bool:
        """Whether the runner, told to drain, has said since that nothing runs or waits, results included."""
        report = self.report
        idle = not report.running and not report.oldest_wait and not report.spooled
        return self.state == RunnerState.DRAINING and report.drains and idle

    def wire(self) -> dict[str, Any]:
        """The JSON object of ``GET /v2/runners``."""
        shown = msgspec.to_builtins(self.report)
        # ``state`` is what the runner is to do; what it has heard of that shows in ``drained``.
        del shown["drains"]
        return {**shown, "state": self.state, "drained": self.drained, "seen_at": self.seen_at}
