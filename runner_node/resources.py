"""Memory and CPU for containers, handed out as tokens."""

from __future__ import annotations

import os

SYNC_SHARE = 0.2
"""Part of the memory that only sync calls may take."""
ASYNC_PULL = 0.8
"""Part of the rest beyond which no more async calls are pulled."""
SMALL_CONTAINER = 128 << 20
"""What a typical container needs, in bytes: the least reserve of a node that has ``ROOMY`` bytes or more."""
ROOMY = 512 << 20


class Resources:
    """Bytes and milli-CPUs of one event loop. ``leaving`` is what containers on their way out still hold.

    *reserve* is the percentage of the memory that only functions without a container may take, so that one
    function cannot have all of a node. 0: none.
    """

    def __init__(self, memory: int, cpus: int, reserve: float = 10.0) -> None:
        self.memory = memory
        self.cpus = cpus
        self.free_memory = memory
        self.free_cpus = cpus
        self.leaving_memory = 0
        self.leaving_cpus = 0
        least = SMALL_CONTAINER if reserve and memory >= ROOMY else 0
        self._reserve = max(int(memory * reserve / 100), least)

    @property
    def cores(self) -> int:
        """On which containers run at once: those of the machine, or of this node's part of it."""
        cores = os.cpu_count() or 1
        return min(cores, -(-self.cpus // 1000)) if self.cpus else cores

    def ever_fits(self, memory: int, cpus: int) -> bool:
        """Whether the machine, all of it, is large enough."""
        return memory <= self.memory and cpus <= self.cpus

    def keep(self, memory: int, *, sync: bool, first: bool, overdue: bool) -> int:
        """Bytes that must stay free when a function gets a container of *memory* bytes.

        *first*: it has none so far; *overdue*: it has waited for that one too long, and is owed it.
        """
        if overdue and first:
            return 0
        keep = max(0 if sync else int(self.memory * SYNC_SHARE), 0 if first else self._reserve)
        # A function that is larger than what it may have beside others may still run: alone.
        return min(keep, max(self.memory - memory, 0))

    def missing(
        self, memory: int, cpus: int, *, sync: bool, first: bool = True, overdue: bool = False
    ) -> tuple[int, int]:
        """What would have to become free, beside what is leaving, before *take* succeeds; never negative."""
        keep = self.keep(memory, sync=sync, first=first, overdue=overdue)
        return (
            max(memory + keep - self.free_memory - self.leaving_memory, 0),
            max(cpus - self.free_cpus - self.leaving_cpus, 0),
        )

    def take(self, memory: int, cpus: int, *, sync: bool, first: bool = True, overdue: bool = False) -> bool:
        """Takes both or nothing; False when there is no room now."""
        keep = self.keep(memory, sync=sync, first=first, overdue=overdue)
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
