"""Network namespaces that are ready before a function needs one: most of the time of a start, taken ahead.

Each is held by a container that waits (``holder``), serves one function's container, which joins it, and is
removed with it. Where none is ready, a container starts with a network of its own, as without all this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any

from runner_node.drivers.holder import Holder
from runner_node.loops import Changes
from shared_models import errors

log = logging.getLogger(__name__)

CALM = 0.2
"""Seconds without a start after which one namespace is made: those who wait for a container go first."""
PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_ROW = 8
"""Seconds after the first trouble in making one, and after many; how many are counted."""
REFUSALS = 3
"""Joins that the engine refused in a row, although the holders ran, after which no more are tried."""


class Prefork:
    """*size* of them on each of *networks*, made by *make*, ended by *end*. ``fill`` runs in the background.

    *make* gets a network's name; it returns None when there is nothing to make ready on that one, and raises
    EngineUnavailable. Neither leaves anything behind.
    """

    def __init__(
        self,
        size: int,
        networks: Sequence[str],
        make: Callable[[str], Awaitable[Holder | None]],
        end: Callable[[Holder], Coroutine[Any, Any, None]],
    ) -> None:
        self._size = size
        self._ready: dict[str, deque[Holder]] = {network: deque() for network in networks if size}
        self._make = make
        self._end = end
        self._ends: set[asyncio.Task[None]] = set()
        self._changes = Changes()
        self._starting = 0
        self._last_start = asyncio.get_running_loop().time()
        self._refused = 0
        self._failures = 0
        self._deaths = 0
        """Troubles in a row: none could be made; they ended before they were of use."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Those on which some are made."""
        return tuple(self._ready)

    def ready(self, network: str) -> int:
        """How many wait on *network*."""
        return len(self._ready.get(network, ()))

    def take(self, network: str) -> Holder | None:
        """One that runs, for one container; to be given to ``discard`` when that is gone."""
        ready = self._ready.get(network)
        if not ready or self._refused >= REFUSALS:
            return None
        holder = ready.popleft()
        holder.on_end = None
        self._changes.tell()
        return holder

    def discard(self, holder: Holder) -> None:
        """Removes *holder* in the background."""
        task = asyncio.create_task(self._end(holder), name=f"remove {holder.name}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """A function's container starts within the block: none is made meanwhile."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self._last_start = asyncio.get_running_loop().time()
            self._changes.tell()

    def joined(self) -> None:
        """A container has joined one: the engine can do it."""
        self._refused = self._deaths = 0

    async def refused(self, holder: Holder, reason: str) -> bool:
        """Whether *holder* may be why the engine refused, with *reason*, a container that was to join it."""
        if not await holder.runs():
            return True
        if "network" not in reason.lower():
            return False
        self._refused += 1
        if self._refused == REFUSALS:
            log.warning("the engine lets no container join a network that is ready; none is used: %s", reason)
        return True

    async def fill(self) -> None:
        """Makes what is missing, one after the other; endless."""
        while True:
            await self._calm()
            changed = self._changes.next
            network = self._short()
            if network is None:
                await changed.wait()
                continue
            if troubles := max(self._failures, self._deaths):
                await asyncio.sleep(min(PAUSE * 2 ** (troubles - 1), LONGEST_PAUSE))
            try:
                holder = await self._make(network)
            except errors.EngineUnavailable as exc:
                self._trouble(exc.explained)
                self._failures = min(self._failures + 1, LONGEST_ROW)
                continue
            self._failures = 0
            if holder is None:
                del self._ready[network]
            else:
                self._add(network, holder)

    def _trouble(self, reason: str) -> None:
        first = not (self._failures or self._deaths)
        log.log(
            logging.WARNING if first else logging.DEBUG, "no network namespace can be kept ready: %s", reason
        )

    def _short(self) -> str | None:
        if self._refused >= REFUSALS:
            return None
        least = min(self._ready, key=self.ready, default=None)
        return None if least is None or self.ready(least) >= self._size else least

    def _add(self, network: str, holder: Holder) -> None:
        def ended(holder: Holder) -> None:
            self._ready[network].remove(holder)
            self._trouble(f"{holder.name} ended by itself")
            self._deaths = min(self._deaths + 1, LONGEST_ROW)
            self.discard(holder)
            self._changes.tell()

        self._ready[network].append(holder)
        holder.on_end = ended
        if not holder.alive:
            ended(holder)

    async def _calm(self) -> None:
        """Returns when nothing has started for a while."""
        loop = asyncio.get_running_loop()
        while True:
            changed = self._changes.next
            if self._starting:
                await changed.wait()
            elif (rest := self._last_start + CALM - loop.time()) > 0:
                await asyncio.sleep(rest)
            else:
                return

    async def close(self) -> None:
        """Removes all that are ready, and returns when the last one that was taken is gone, too."""
        for ready in self._ready.values():
            while ready:
                holder = ready.popleft()
                holder.on_end = None
                self.discard(holder)
        while self._ends:
            await asyncio.wait(set(self._ends))
