"""Queued calls: pulled while there is room, and given back when the node is to have none."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runner_node.calls import MIB
from runner_node.leases import Held, Leases
from runner_node.loops import first_of, looping
from runner_node.queued import QueuedCalls
from runner_node.shares import Ask, ask, too_little
from shared_models import errors
from shared_models.background import ended
from shared_models.call import LeasedCall

if TYPE_CHECKING:
    from runner_node.agent import Agent

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Calls asked for at once at most."""
TYPICAL = 128 * MIB
"""What one call is taken to need, before it is known which function it is."""
PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between attempts to reach an API node that is away."""
LOOK = 0.5
"""Seconds between two looks whether there is room."""
PUT_OFF = 0.002
LONGEST_PUT_OFF = 0.25
"""Seconds for which a request not worth its price is put off: between two looks at it, and at most."""
STUCK = 600.0
"""Seconds after which a round that has not ended is taken to stand still."""
ALONE = 1.0
"""Seconds for which it is remembered that nobody else waited."""


class _Poll:
    """A dequeue under way."""

    def __init__(self, task: asyncio.Task[list[LeasedCall]]) -> None:
        self.task = task
        self.taken = False

    def take(self) -> list[LeasedCall]:
        """What it brought; raises what it raised."""
        self.taken = True
        return self.task.result()


class Dequeuer:
    """``running`` is its lifetime."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self.leases = Leases(agent.data, self._gone)
        self._queued = QueuedCalls(agent, self.leases)
        self._alone_until = 0.0
        self._passed_over: frozenset[str] = frozenset()
        self._freed = asyncio.Event()
        self._parting: asyncio.Task[None] | None = None
        self._pause = PAUSE
        self._refused = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On leaving: no new leases, unstarted calls go back, running ones get the drain time."""
        async with self.leases.renewed():
            try:
                async with looping(self._pull, "dequeuer"), looping(self._give_way, "drain"):
                    try:
                        yield
                    finally:
                        self._agent.health.stopping()
                        self._agent.pulse.end("dequeuer")
            finally:
                await self._begin_to_part()

    async def _give_way(self) -> None:
        """Gives unstarted calls back when the node begins to drain or to stop."""
        health = self._agent.health
        while True:
            change = health.changes.next
            if health.stops:
                self._begin_to_part()
            elif health.drains:
                await self.leases.give_back_unstarted()
            await change.wait()

    def _begin_to_part(self) -> asyncio.Task[None]:
        """The drain time begins when the node is told to stop, not when the server is done with clients."""
        if self._parting is None:
            self._parting = asyncio.create_task(self._part(), name="last queued calls")
        return self._parting

    async def _part(self) -> None:
        until = self._loop.time() + self._agent.settings.drain
        await self.leases.give_back_unstarted()
        await self.leases.finish(max(0.0, until - self._loop.time()))

    # -- pulling -------------------------------------------------------------------------------

    async def _pull(self) -> None:
        agent, leases = self._agent, self.leases
        put_off_until = 0.0
        while True:
            agent.pulse.beat("dequeuer", STUCK)
            ready, changed = agent.health.changes.next, leases.changes.next
            room = 0 if agent.ready() else self._room_now()
            if room <= 0:
                # Sync calls that end make room, too, and say nothing.
                await first_of(ready.wait(), changed.wait(), timeout=LOOK)
                continue
            alone = self._loop.time() < self._alone_until
            wanted = ask(room, leases.by_function, alone=alone, most=AT_ONCE)
            if too_little(wanted.limit, leases.unstarted, AT_ONCE):
                put_off_until = put_off_until or self._loop.time() + LONGEST_PUT_OFF
                if self._loop.time() < put_off_until:
                    await asyncio.sleep(PUT_OFF)
                    continue
            put_off_until = 0.0
            try:
                leased = await self._poll(wanted)
            except errors.Unavailable as exc:
                await self._back_off(exc)
                continue
            except errors.FnError as exc:
                if self._refused != exc.explained:  # once, not with every attempt
                    self._refused = exc.explained
                    log.error("the API node refuses to hand out calls: %s", exc.explained)
                await asyncio.sleep(LONGEST_PAUSE)
                continue
            self._pause, self._refused = PAUSE, ""
            if wanted.glance and not leased:
                self._alone_until = self._loop.time() + ALONE
            await self._take(leased)

    async def _poll(self, wanted: Ask) -> list[LeasedCall]:
        """What comes, as long as the node may take it; what comes too late goes back."""
        agent = self._agent
        self._passed_over = wanted.full
        self._freed.clear()
        try:
            async with self._asking(wanted.limit, wanted.wait, wanted.without) as poll:
                while not poll.task.done():
                    change = agent.health.changes.next
                    if agent.ready():
                        return []
                    await first_of(asyncio.wait({poll.task}), change.wait(), self._freed.wait())
                    if self._freed.is_set() and not poll.task.done():
                        self._freed.clear()
                        await self._glance()
                return poll.take()
        finally:
            self._passed_over = frozenset()

    async def _glance(self) -> None:
        """A function that is passed over may have one more: the long poll under way would not bring it."""
        full = frozenset(fn for fn in self._passed_over if self.leases.holding(fn).full)
        async with self._asking(1, 0.0, full) as glance:
            await asyncio.wait({glance.task})
            try:
                leased = glance.take()
            except errors.FnError:
                return  # the long poll will say so
        await self._take(leased)

    @asynccontextmanager
    async def _asking(self, limit: int, wait: float, without: frozenset[str]) -> AsyncIterator[_Poll]:
        """A dequeue under way; what it brings and nobody takes by the end of the block is given back."""
        asked = self._agent.data.dequeue(self._agent.node_id, limit, wait, without)
        poll = _Poll(asyncio.create_task(asked, name="dequeue"))
        try:
            yield poll
        finally:
            if not poll.taken:
                await ended(poll.task)
                if poll.task.done() and not poll.task.cancelled() and not poll.task.exception():
                    keys = [one.key for one in poll.task.result()]
                    await self.leases.give_back(keys, "they came too late")

    async def _back_off(self, exc: errors.FnError) -> None:
        if self._pause == PAUSE:
            log.warning("no API node hands out calls: %s", exc)
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _room_now(self) -> int:
        """Calls that could start now, judged by memory; those that wait for a container count."""
        scheduler, leases = self._agent.scheduler, self.leases
        limit = self._agent.settings.max_async
        room = scheduler.resources.async_room(scheduler.idle_memory()) // TYPICAL - leases.unstarted
        if not leases:
            room = max(room, 1)  # a machine that is smaller than a typical call must still take one
        if limit:
            room = min(room, limit - len(leases))
        return room

    async def _take(self, leased: list[LeasedCall]) -> None:
        """Runs what came; what is more than a function may have here goes back."""
        back = []
        for one in leased:
            fn_id = one.call.fn_id
            if self._agent.health.drains or (fn_id and self.leases.holding(fn_id).full):
                back.append(one.key)
                continue
            if one.key in self.leases:
                log.warning("call %s was handed out again while it is here", one.call.id)
                continue
            held = Held(one)
            held.task = asyncio.create_task(self._queued.run(held), name=f"call {one.call.id}")
            held.task.add_done_callback(functools.partial(self._ended, held))
            self.leases.add(held)
        if back:
            await self.leases.give_back(back, "no more of the function may run here")
            if len(back) == len(leased):
                await asyncio.sleep(random.uniform(0, PAUSE))  # not at once into the same wall

    def _gone(self, fn_id: str) -> None:
        if fn_id in self._passed_over:
            self._freed.set()

    def _ended(self, held: Held, task: asyncio.Task[None]) -> None:
        """Somebody else may have its place."""
        if task.cancelled() and not held.recorded:
            self.leases.forget(held)
        self.leases.ended(held)
