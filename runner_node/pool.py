"""The slots of all functions and the containers in them: who owns what, who waits, what is on its way out."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine

from runner_node.calls import Target
from runner_node.fair_share import Shares
from runner_node.hot_container import HotContainer
from runner_node.pace import Paces
from runner_node.resources import Resources
from runner_node.room import Room
from runner_node.slots import SlotQueue

SWEEP = 1.0
"""Seconds between two looks for waiting calls whose callers have gone away, while there is no place."""


class Pool:
    """Of one scheduler. *eject_idle* in seconds."""

    def __init__(self, resources: Resources, eject_idle: float) -> None:
        self.resources = resources
        self.queues: dict[bytes, SlotQueue] = {}
        self.shares = Shares()
        self.cores = resources.cores
        self._paces = Paces(self.cores)
        self.room = Room(self.shares, resources, eject_idle)
        self.owners: dict[HotContainer, SlotQueue] = {}
        self.closed = False
        self.freed: Callable[[], None] = lambda: None
        """Called when a container has been removed."""
        self.rested: Callable[[], None] = lambda: None
        """Called when a container has become idle."""
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept = -math.inf

    def queue(self, target: Target) -> SlotQueue:
        """The slots of *target*, which is from now on its function's version in force."""
        queue = self.queues.get(target.key)
        if queue is None:
            pace = self._paces.take(target.key)
            queue = self.queues[target.key] = SlotQueue(target, self.shares.join(target), pace)
        queue.superseded = False
        return queue

    def take_idle(self, queue: SlotQueue) -> HotContainer | None:
        """The container that was used last; None when all are at work."""
        container = queue.take_idle()
        if container:
            self.room.resting.pop(container, None)
        return container

    def add(self, queue: SlotQueue, container: HotContainer) -> None:
        """A container has started, and serves whoever waits; one that came too late is retired."""
        queue.containers.add(container)
        queue.share.containers += 1
        self.owners[container] = queue
        container.idle_since = self.room.ready[container] = self._loop.time()
        container.kept = lambda: self.room.keeps_warm(queue)
        if queue.head():
            queue.target.series.cold += 1
        if self.closed or queue.superseded:
            container.retire()
        else:
            container.take()
            container.rest()  # starts its idle clock
            self.offer(queue, container)

    def offer(self, queue: SlotQueue, container: HotContainer) -> None:
        """Gives an idle container to the call that has waited longest, or keeps it."""
        waiter = queue.next_waiter()
        if waiter:
            queue.pace.saw_wait(waiter.since, container.idle_since)
            waiter.container.set_result(container)
        else:
            queue.idle.append(container)
            self.room.resting[container] = queue
            self.rested()

    def fail(self, queue: SlotQueue, error: Exception, *, everybody: bool) -> None:
        """Tells those who wait, or only the one who has waited longest."""
        while waiter := queue.next_waiter():
            waiter.container.set_exception(error)
            if not everybody:
                return

    def starving(self) -> bool:
        """Whether somebody waits for whom no container is starting."""
        return any(
            queue.head() and len(queue.waiters) > queue.starting
            for share in self.shares.waiting()
            for queue in list(share.lines)
        )

    def sweep(self) -> None:
        """There is no place to wait: those whose callers have gone away give theirs back."""
        now = self._loop.time()
        if now - self._swept >= SWEEP:
            self._swept = now
            for share in self.shares.waiting():
                for queue in list(share.lines):
                    queue.waiters = deque(waiter for waiter in queue.waiters if not waiter.gone)

    def gone(self, container: HotContainer) -> None:
        """A container is retired: out of its queue now, its resources back once it is removed."""
        queue = self.owners.pop(container)
        queue.target.series.done += 1
        queue.containers.discard(container)
        queue.share.containers -= 1
        queue.share.leaving += 1
        queue.share.lost = self._loop.time()
        if self.room.forget(container):
            queue.idle.remove(container)
        self.resources.leave(container.target.memory, container.target.cpus)
        self.spawn(self._remove(container, queue), "remove container")

    async def _remove(self, container: HotContainer, queue: SlotQueue) -> None:
        try:
            await container.dispose()
        finally:
            self.resources.give(container.target.memory, container.target.cpus, left=True)
            queue.share.leaving -= 1
            self.tidy(queue)
            self.freed()

    def tidy(self, queue: SlotQueue) -> None:
        """Forgets a queue in which nothing happens any more."""
        if queue.unused and self.queues.get(queue.target.key) is queue:
            del self.queues[queue.target.key]
            if not queue.target.cold:
                self._paces.keep(queue.target.key, queue.pace)
            self.shares.leave(queue.share)
            if queue.timer:
                queue.timer.cancel()
                queue.timer = None

    def spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        """Runs *work* beside; ``close`` waits for it."""
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, error: Exception) -> None:
        """Tells those who wait *error*, and removes every container."""
        self.closed = True
        for queue in list(self.queues.values()):
            self.fail(queue, error, everybody=True)
            for container in list(queue.containers):
                container.retire()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
