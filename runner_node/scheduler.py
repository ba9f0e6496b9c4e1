"""Which container serves which call: slots of all functions, starts, ejections, all on one event loop.

The parts: ``pool.py`` has the slots and who waits at them, ``starts.py`` begins containers, ``room.py`` says
who may have memory, ``fair_share.py`` what each function has and how many calls may wait, ``backoff.py`` what
follows from starts that fail, ``warm_pool.py`` what is kept ready; ``demand.py``, ``pace.py`` and
``trial.py`` say whether one more container is worth its start, by numbers alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Iterable

from runner_node.calls import MIB, Target
from runner_node.deadlines import Deadlines
from runner_node.demand import retry_after
from runner_node.drivers.contract import ContainerDriver
from runner_node.fair_share import WaitingRoom
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.pool import Pool
from runner_node.resources import Resources
from runner_node.secret_files import SecretFiles
from runner_node.settings import AgentSettings
from runner_node.slots import Left, SlotQueue, Waiter
from runner_node.starts import Starts
from runner_node.waits import Wait
from runner_node.warm_pool import WarmPool
from shared_models import errors

log = logging.getLogger(__name__)

STOPPING = "The node is stopping, try again"
TRIES = 2
"""Containers that a call is given: one frozen container that does not wake says little of the next one."""


class Scheduler:
    """Hands out containers. ``close`` removes them all."""

    def __init__(
        self, driver: ContainerDriver, settings: AgentSettings, resources: Resources, node_id: str
    ) -> None:
        if not driver.capabilities.freeze:
            settings = dataclasses.replace(settings, freeze_idle=math.inf)
        self.resources = resources
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(resources, settings.eject_idle)
        self.secrets = SecretFiles(settings.secrets_path)
        self._starts = Starts(self._pool, driver, settings, node_id, self.secrets)
        self._warm = WarmPool(self._pool, self._starts)
        self._places = WaitingRoom(settings.max_waiting_calls, settings.max_waiting_size)
        self._queues = self._pool.queues
        self.deadlines = Deadlines()
        """Of calls that wait, and of those that run without a task."""

    async def acquire(
        self,
        target: Target,
        *,
        sync: bool,
        patience: float,
        size: int = 0,
        left: Left | None = None,
        entered: HotContainer | Wait | None = None,
    ) -> HotContainer:
        """A container that is the caller's until ``release``; waits at most *patience* seconds for one.

        *size* bytes of its body are kept meanwhile. Once *left* says that the caller has gone away, the call
        gets none. *entered*: what ``enter`` has given it already. Raises DoesNotFit, ServerBusy when there is
        no place to wait or patience ran out, StartFailed when a start made for this call failed or those of
        its function go on failing, ClientGone, EngineUnavailable.
        """
        deadline = self._loop.time() + patience
        for _ in range(TRIES):
            place = entered or self.enter(target, sync=sync, until=deadline, size=size, left=left)
            entered = None
            container = await place.served() if isinstance(place, Wait) else place
            if container.awake:
                self.take(container)
                return container
            if await self._awoken(container):
                return container
        raise errors.EngineUnavailable("The container could not be unfrozen, try again")

    def enter(
        self, target: Target, *, sync: bool, until: float, size: int = 0, left: Left | None = None
    ) -> HotContainer | Wait:
        """The first step of ``acquire``, which takes no time: an idle container, or a place in the line.

        The container is the caller's to ``take`` when it is awake, else to hand to ``acquire``. *until*: in
        the loop's time. Raises DoesNotFit, ServerBusy, StartFailed.
        """
        queue = self._pool.queue(target)
        container = self._pool.take_idle(queue)
        if container is not None:
            return container
        try:
            return self._join(queue, until, sync=sync, size=size, left=left)
        except BaseException:
            self._pool.tidy(queue)
            raise

    def take(self, container: HotContainer) -> None:
        """The caller of ``enter`` begins to use a container that is awake."""
        container.target.series.idle.add(self._loop.time() - container.idle_since)
        container.take()

    async def _awoken(self, container: HotContainer) -> bool:
        container.target.series.idle.add(self._loop.time() - container.idle_since)
        try:
            await container.wake()
        except errors.FnError as exc:
            log.warning("a frozen container of %s did not wake: %s", container.target.function, exc)
            return False
        except BaseException:
            container.retire()
            raise
        return True

    def release(self, container: HotContainer, seconds: float, *, keep: bool) -> None:
        """Gives a container back after a call of *seconds*; without *keep* it serves no other call."""
        container.target.series.busy.add(seconds)
        queue = self._pool.owners.get(container)
        if queue is None:
            return  # it ended by itself
        queue.saw_service(seconds)
        keep = keep and not (container.ended or queue.superseded or self._pool.closed)
        if queue.pace.surplus(len(queue.containers)) and not self._pool.room.keeps_warm(queue):
            keep = False  # it was started in vain
        if not keep or (
            self._starts.short and self._pool.room.must_make_way(container, queue, self._loop.time())
        ):
            container.retire()
            return
        container.rest()
        self._pool.offer(queue, container)

    def supersede(self, key: bytes) -> None:
        """The function with this slot key has changed: its containers make way for the new version's."""
        queue = self._queues.get(key)
        if queue:
            queue.superseded = True
            for container in list(queue.idle):
                container.retire()

    def keep_warm(self, wanted: Iterable[tuple[Target, int]]) -> int:
        """Keeps so many containers of each target in *wanted*, and of no others; how many there are.

        To be called again every second or so: what is missing, and fits without anybody's loss, is started.
        """
        return self._warm.keep(wanted)

    def idle_memory(self) -> int:
        """Bytes that idle containers hold."""
        return sum(container.target.memory for container in self._pool.room.resting)

    def busy(self) -> list[HotContainer]:
        """Containers that serve a call."""
        return [container for container in self._pool.owners if container not in self._pool.room.resting]

    def resting(self) -> int:
        """How many containers serve no call."""
        return len(self._pool.room.resting)

    def oldest_wait(self) -> float:
        """Seconds that the call which has waited longest for a container has waited."""
        heads = [head.since for queue in self._queues.values() if (head := queue.head())]
        return self._loop.time() - min(heads) if heads else 0.0

    def waiting(self) -> int:
        """Calls that wait for a container."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    def warm(self) -> list[str]:
        """Ids of functions that have a container."""
        return sorted({queue.target.fn_id for queue in self._queues.values() if queue.containers})

    def slots(self) -> list[dict[str, object]]:
        """Of each function with a container or a caller: its containers and calls, for the debug page."""
        now = self._loop.time()
        return [
            {
                "function": queue.target.function,
                "containers": len(queue.containers),
                "idle": len(queue.idle),
                "starting": queue.starting,
                "waiting": len(queue.waiters),
                "oldest_wait_seconds": round(now - head.since, 3) if (head := queue.head()) else 0.0,
                "superseded": queue.superseded,
            }
            for queue in list(self._queues.values())
        ]

    async def close(self) -> None:
        """Removes every container, and tells those who wait that the node stops."""
        self._starts.end()
        await self._pool.close(errors.ServerBusy(STOPPING))

    # -- waiting -------------------------------------------------------------------------------

    def _join(self, queue: SlotQueue, until: float, *, sync: bool, size: int, left: Left | None) -> Wait:
        self._refuse_hopeless(queue)
        now = self._loop.time()
        # Async calls need no bound here: no more of them are pulled than there is room for.
        if sync and (full := self._places.enter(queue.share, size)):
            self._pool.sweep()
            raise errors.ServerBusy(detail=full, retry_after=retry_after(queue.demand(now)))
        waiter = Waiter(self._loop.create_future(), now, sync=sync, left=left)
        queue.join(waiter)
        wait = Wait(queue, waiter, size, until, self.deadlines, self._ended, self._expired)
        try:
            self._starts.look(queue)
        except BaseException:
            wait.end(taken=False)
            raise
        return wait

    def _expired(self, wait: Wait) -> errors.FnError:
        now = self._loop.time()
        return errors.ServerBusy(
            detail=f"no container became free within {now - wait.waiter.since:.3g} s",
            retry_after=retry_after(wait.queue.demand(now)),
        )

    def _ended(self, wait: Wait, taken: bool) -> None:
        queue, waiter = wait.queue, wait.waiter
        if waiter.sync:
            self._places.leave(queue.share, wait.size)
        if not taken:
            self._left(queue, waiter)
        queue.leave(waiter)
        if not taken:
            self._starts.someone_left()
        self._pool.tidy(queue)

    def _refuse_hopeless(self, queue: SlotQueue) -> None:
        target, has = queue.target, self.resources
        if not has.ever_fits(target.memory, target.cpus):
            raise errors.DoesNotFit(
                detail=f"needs {target.memory // MIB} MB, {target.cpus} mCPU; this runner has "
                f"{has.memory // MIB} MB, {has.cpus} mCPU"
            )
        if self._pool.closed:
            raise errors.ServerBusy(STOPPING)
        if not (queue.containers or queue.starting):
            verdict = self._starts.backoff.verdict(target.origin, self._loop.time())
            if verdict:
                raise StartFailed(verdict, b"")

    def _left(self, queue: SlotQueue, waiter: Waiter) -> None:
        """The caller is gone; a container that it was given in the same moment goes to the next one."""
        if not waiter.container.done():
            waiter.container.cancel()
        elif not waiter.container.cancelled() and waiter.container.exception() is None:
            container = waiter.container.result()
            if container.alive:
                self._pool.offer(queue, container)
