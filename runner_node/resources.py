"""Memory and CPU for containers, handed out as tokens."""

from __future__ import annotations

SYNC_SHARE = 0.2
"""Part of the memory that only sync calls may take."""
ASYNC_PULL = 0.8
"""Part of the rest beyond which no more async calls are pulled."""


class Resources:
    """Bytes and milli-CPUs of one event loop. ``leaving`` is what containers on their way out still hold."""

    def __init__(self, memory: int, cpus: int) -> None:
        self.memory = memory
        self.cpus = cpus
        self.free_memory = memory
        self.free_cpus = cpus
        self.leaving_memory = 0
        self.leaving_cpus = 0

    def ever_fits(self, memory: int, cpus: int) -> bool:
        """Whether the machine, all of it, is large enough."""
        return memory <= self.memory and cpus <= self.cpus

    def missing(self, memory: int, cpus: int, *, sync: bool) -> tuple[int, int]:
        """What would have to become free, beside what is leaving, before *take* succeeds; never negative."""
        keep = 0 if sync else int(self.memory * SYNC_SHARE)
        # A function that is larger than the async share may still run: alone.
        keep = min(keep, max(self.memory - memory, 0))
        return (
            max(memory + keep - self.free_memory - self.leaving_memory, 0),
            max(cpus - self.free_cpus - self.leaving_cpus, 0),
        )

    def take(self, memory: int, cpus: int, *, sync: bool) -> bool:
        """Takes both or nothing; False when there is no room now."""
        keep = 0 if sync else min(int(self.memory * SYNC_SHARE), max(self.memory - memory, 0))
        if memory + keep > self.free_memory or cpus > self.free_cpus:
            return False
        self.free_memory -= memory
        self.free_cpus -= cpus
        return True

    def leave(self, memory: int, cpus: int) -> None:
        """The container that holds them is being removed."""
        self.leaving_memory += memory
        self.leaving_cpus += cpus

    def give(self, memory: int, cpus: int, *, left: bool = False) -> None:
        """Back, after a start that failed or, with *left*, after the removal that ``leave`` announced."""
        self.free_memory += memory
        self.free_cpus += cpus
        if left:
            self.leaving_memory -= memory
            self.leaving_cpus -= cpus

    def async_room(self, idle_memory: int) -> int:
        """Bytes that async calls may still take, counting *idle_memory* of containers that do nothing."""
        limit = int(self.memory * (1 - SYNC_SHARE) * ASYNC_PULL)
        return limit - (self.memory - self.free_memory) + idle_memory
