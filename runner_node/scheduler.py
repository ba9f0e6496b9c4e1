"""Which container serves which call: slots of all functions, starts, ejections, all on one event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
from collections.abc import Coroutine, Iterator

from runner_node.calls import MIB, Target
from runner_node.drivers.contract import ContainerDriver
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.resources import Resources
from runner_node.settings import AgentSettings
from runner_node.slots import SlotQueue, Waiter, next_look, wants_container
from shared_models import errors

log = logging.getLogger(__name__)

STARTS_PER_CPU = 2
"""Containers that may be starting at once: more would only slow each other down."""
FAILURES_FOR_ALL = 2
"""Starts that fail in a row before all who wait are told, not only the first in line."""


class Scheduler:
    """Hands out containers. ``close`` removes them all."""

    def __init__(
        self, driver: ContainerDriver, settings: AgentSettings, resources: Resources, node_id: str
    ) -> None:
        if not driver.capabilities.freeze:
            settings = dataclasses.replace(settings, freeze_idle=math.inf)
        self.resources = resources
        self._driver = driver
        self._settings = settings
        self._node_id = node_id
        self._loop = asyncio.get_running_loop()
        self._queues: dict[bytes, SlotQueue] = {}
        self._starting = 0
        self._max_starting = max(STARTS_PER_CPU * (os.cpu_count() or 1), 2)
        self._tasks: set[asyncio.Task[None]] = set()
        self._owners: dict[HotContainer, SlotQueue] = {}
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._short = False
        """Somebody waits whom a start would help, and there is no room for it (or was not a moment ago)."""

    # -- for the agent -------------------------------------------------------------------------

    async def acquire(self, target: Target, *, sync: bool, patience: float) -> HotContainer:
        """A container that is the caller's until ``release``; waits at most *patience* seconds for one.

        Raises DoesNotFit, ServerBusy when patience ran out, StartFailed when a start made for this call
        failed, EngineUnavailable.
        """
        queue = self._queues.get(target.key)
        if queue is None:
            queue = self._queues[target.key] = SlotQueue(target)
        queue.superseded = False
        container = await self._next(queue, sync=sync, patience=patience)
        if await self._awoken(container):
            return container
        # One frozen container that does not wake says little of the next one.
        container = await self._next(queue, sync=sync, patience=patience)
        if await self._awoken(container):
            return container
        raise errors.EngineUnavailable("The container could not be unfrozen, try again")

    async def _next(self, queue: SlotQueue, *, sync: bool, patience: float) -> HotContainer:
        return queue.take_idle() or await self._wait(queue, sync=sync, patience=patience)

    async def _awoken(self, container: HotContainer) -> bool:
        container.target.series.idle.add(self._loop.time() - container.idle_since)
        if container.awake:
            container.take()
            return True
        try:
            await container.wake()
        except errors.FnError as exc:
            log.warning("a frozen container of %s did not wake: %s", container.target.fn_id, exc)
            return False
        except BaseException:
            container.retire()
            raise
        return True

    def release(self, container: HotContainer, seconds: float, *, keep: bool) -> None:
        """Gives a container back after a call of *seconds*; without *keep* it serves no other call."""
        container.target.series.busy.add(seconds)
        queue = self._owners.get(container)
        if queue is None:
            return  # it ended by itself
        queue.saw_service(seconds)
        if not keep or queue.superseded or self._closed or self._owed_to_another(queue):
            container.retire()
            return
        container.rest()
        self._offer(queue, container)

    def supersede(self, key: bytes) -> None:
        """The function with this slot key has changed: its containers make way for the new version's."""
        queue = self._queues.get(key)
        if queue:
            queue.superseded = True
            for container in list(queue.idle):
                container.retire()

    def idle_memory(self) -> int:
        """Bytes that idle containers hold."""
        return sum(queue.target.memory * len(queue.idle) for queue in self._queues.values())

    def busy(self) -> list[HotContainer]:
        """Containers that serve a call."""
        idle = {container for queue in self._queues.values() for container in queue.idle}
        return [container for container in self._owners if container not in idle]

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

    async def close(self) -> None:
        """Removes every container, and tells those who wait that the node stops."""
        self._closed = True
        for queue in list(self._queues.values()):
            self._fail(queue, errors.ServerBusy("The node is stopping, try again"), everybody=True)
            for container in list(queue.containers):
                container.retire()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # -- waiting -------------------------------------------------------------------------------

    async def _wait(self, queue: SlotQueue, *, sync: bool, patience: float) -> HotContainer:
        target = queue.target
        if not self.resources.ever_fits(target.memory, target.cpus):
            raise errors.DoesNotFit(
                detail=f"needs {target.memory // MIB} MB, {target.cpus} mCPU; this runner has "
                f"{self.resources.memory // MIB} MB, {self.resources.cpus} mCPU"
            )
        if self._closed:
            raise errors.ServerBusy("The node is stopping, try again")
        waiter = Waiter(self._loop.create_future(), self._loop.time(), sync=sync)
        queue.waiters.append(waiter)
        self._look(queue)
        taken = False
        try:
            async with asyncio.timeout(patience):
                container = await waiter.container
                taken = True
            return container
        except TimeoutError:
            raise errors.ServerBusy(
                detail=f"no container became free within {patience:g} s", retry_after=15
            ) from None
        finally:
            if not taken:
                self._left(queue, waiter)

    def _left(self, queue: SlotQueue, waiter: Waiter) -> None:
        """The caller is gone; a container that it was given in the same moment goes to the next one."""
        if not waiter.container.done():
            waiter.container.cancel()
        elif not waiter.container.cancelled() and waiter.container.exception() is None:
            container = waiter.container.result()
            if container.alive:
                self._offer(queue, container)

    def _offer(self, queue: SlotQueue, container: HotContainer) -> None:
        waiter = queue.next_waiter()
        if waiter:
            waiter.container.set_result(container)
        else:
            queue.idle.append(container)
            if self._short and self._starved():
                self._look_later(self._settings.eject_idle)

    def _fail(self, queue: SlotQueue, error: Exception, *, everybody: bool) -> None:
        while waiter := queue.next_waiter():
            waiter.container.set_exception(error)
            if not everybody:
                return

    # -- starting ------------------------------------------------------------------------------

    def _look(self, queue: SlotQueue) -> None:
        """Starts what is worth its start and fits; comes back when time alone may change the answer."""
        now = self._loop.time()
        while wants_container(queue.demand(now)):
            if self._closed or self._starting >= self._max_starting or not self._room_for(queue):
                self._short = True
                return  # looked at again when a start or a removal ends
            self._begin_start(queue)
        delay = next_look(queue.demand(now))
        if delay is not None and queue.timer is None:
            queue.timer = self._loop.call_later(delay, self._timer, queue)

    def _timer(self, queue: SlotQueue) -> None:
        queue.timer = None
        self._look(queue)

    def _look_at_all(self) -> None:
        self._short = False
        for queue in sorted(self._starved(), key=lambda queue: queue.waiters[0].since):
            self._look(queue)

    def _look_later(self, delay: float) -> None:
        if self._again is None and not self._closed:

            def look() -> None:
                self._again = None
                self._look_at_all()

            self._again = self._loop.call_later(delay, look)

    def _starved(self) -> list[SlotQueue]:
        """Queues in which somebody waits for whom no container is starting."""
        return [q for q in self._queues.values() if q.head() and len(q.waiters) > q.starting]

    def _begin_start(self, queue: SlotQueue) -> None:
        if head := queue.head():
            queue.target.series.wait.add(self._loop.time() - head.since)
        queue.starting += 1
        self._starting += 1
        self._spawn(self._start(queue), "start container")

    async def _start(self, queue: SlotQueue) -> None:
        target, began = queue.target, self._loop.time()
        container = HotContainer(target, self._settings, self._gone)
        try:
            await container.start(self._driver, self._node_id)
        except StartFailed as failure:
            self._start_failed(queue, failure)
        except Exception:
            log.exception("starting a container of %s", target.fn_id or target.path)
            self._start_failed(queue, StartFailed(errors.FnError(), b""))
        else:
            seconds = self._loop.time() - began
            target.series.start.add(seconds)
            queue.saw_start(seconds)
            queue.containers.add(container)
            self._owners[container] = queue
            container.idle_since = self._loop.time()
            if self._closed or queue.superseded:
                container.retire()
            else:
                self._offer_new(queue, container)
        finally:
            queue.starting -= 1
            self._starting -= 1
            self._tidy(queue)
            self._look_at_all()

    def _offer_new(self, queue: SlotQueue, container: HotContainer) -> None:
        container.take()
        container.rest()  # starts its idle clock
        self._offer(queue, container)

    def _start_failed(self, queue: SlotQueue, failure: StartFailed) -> None:
        target = queue.target
        self.resources.give(target.memory, target.cpus)
        queue.failures += 1
        log.warning("no container for %s: %s", target.fn_id or target.path, failure.error.explained)
        # A bad image or an engine that is away will not be better for the next in line; a start that
        # failed may have been bad luck, unless it happens again.
        hopeless = not isinstance(failure.error, errors.ContainerInitFailed | errors.ContainerInitTimedOut)
        self._fail(queue, failure, everybody=hopeless or queue.failures >= FAILURES_FOR_ALL)

    # -- room ----------------------------------------------------------------------------------

    def _room_for(self, queue: SlotQueue) -> bool:
        """Takes what one more container needs, or ejects idle ones that will make room; False: not yet."""
        head = queue.head()
        target, sync = queue.target, head is None or head.sync
        if self.resources.take(target.memory, target.cpus, sync=sync):
            return True
        memory, cpus = self.resources.missing(target.memory, target.cpus, sync=sync)
        now = self._loop.time()
        for container in self._ejectable(queue):
            if memory <= 0 and cpus <= 0:
                break
            if now - container.idle_since < self._settings.eject_idle:
                # Sorted by idle time: all that follow are younger still.
                self._look_later(self._settings.eject_idle - (now - container.idle_since) + 0.001)
                break
            memory -= container.target.memory
            cpus -= container.target.cpus
            log.debug("ejecting an idle container of %s", container.target.fn_id)
            container.retire()
        return False

    def _ejectable(self, wanting: SlotQueue) -> Iterator[HotContainer]:
        idle = [c for queue in self._queues.values() if queue is not wanting for c in queue.idle]
        yield from sorted(idle, key=lambda container: container.idle_since)

    def _owed_to_another(self, queue: SlotQueue) -> bool:
        """Whether a function without any container has waited long enough for one of *queue*'s several."""
        if not self._short or len(queue.containers) < 2 or not queue.waiters:
            return False
        limit = self._loop.time() - self._settings.eject_idle
        for other in self._queues.values():
            head = other.head()
            if head and not other.containers and not other.starting and head.since < limit:
                memory, cpus = self.resources.missing(other.target.memory, other.target.cpus, sync=head.sync)
                return memory > 0 or cpus > 0
        return False

    def _gone(self, container: HotContainer) -> None:
        """A container is retired: out of its queue now, its resources back once it is removed."""
        queue = self._owners.pop(container)
        queue.target.series.done += 1
        queue.containers.discard(container)
        if container in queue.idle:
            queue.idle.remove(container)
        self.resources.leave(container.target.memory, container.target.cpus)
        self._spawn(self._remove(container, queue), "remove container")

    async def _remove(self, container: HotContainer, queue: SlotQueue) -> None:
        try:
            await container.dispose()
        finally:
            self.resources.give(container.target.memory, container.target.cpus, left=True)
            self._tidy(queue)
            self._look_at_all()

    def _tidy(self, queue: SlotQueue) -> None:
        if queue.unused:
            self._queues.pop(queue.target.key, None)
            if queue.timer:
                queue.timer.cancel()
                queue.timer = None

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
