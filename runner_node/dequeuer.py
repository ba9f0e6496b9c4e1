"""Async calls out of the queue: leases in, renewals, releases.

A lease is renewed from the moment it is here until the call's result is stored. What happens to a call
that got no container decides how it goes back: released when it is the runner's fault (no room, engine
away, stopping), let go when the container could not be started, so that the attempt counts and the next
one comes when the lease has run out.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from runner_node.calls import MIB, header_list
from runner_node.hot_container import StartFailed
from runner_node.job import Before, Job, route_job
from runner_node.loops import looping
from runner_node.recorder import Stored
from shared_models import async_policy, errors, times
from shared_models.call import LeasedCall

if TYPE_CHECKING:
    from runner_node.agent import Agent

log = logging.getLogger(__name__)

WAIT = 30.0
"""Seconds of one long poll."""
AT_ONCE = 32
"""Calls asked for at once at most."""
TYPICAL = 128 * MIB
"""What one call is taken to need, before it is known which function it is."""
PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between attempts to reach an API node that is away."""
RENEWALS = 3
"""Per time to live of a lease."""


class _Held:
    __slots__ = ("leased", "task")

    def __init__(self, leased: LeasedCall, task: asyncio.Task[None]) -> None:
        self.leased = leased
        self.task = task


class Dequeuer:
    """Pulls while there is room; ``running`` is its lifetime."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._held: dict[str, _Held] = {}
        self._unstarted = 0
        self._room = asyncio.Event()
        self._holding = asyncio.Event()
        self._pause = PAUSE
        self._refused = ""
        self._ttl = 30.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On leaving: no new leases, unstarted calls go back, running ones get the drain time."""
        async with looping(self._renew, "lease renewal"):
            try:
                async with looping(self._pull, "dequeuer"):
                    try:
                        yield
                    finally:
                        self._agent.health.stopping()
            finally:
                await self._drain()

    # -- pulling -------------------------------------------------------------------------------

    async def _pull(self) -> None:
        agent = self._agent
        while True:
            room = 0 if agent.ready() else self._room_now()
            if room <= 0:
                self._room.clear()
                agent.health.changed.clear()
                await _first_of(self._room.wait(), agent.health.changed.wait())
                continue
            try:
                leased = await agent.data.dequeue(agent.node_id, room, WAIT)
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
            for one in leased:
                self._take(one)

    async def _back_off(self, exc: errors.FnError) -> None:
        if self._pause == PAUSE:
            log.warning("no API node hands out calls: %s", exc)
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _room_now(self) -> int:
        """Calls that could start now, judged by memory; those that wait for a container count."""
        scheduler = self._agent.scheduler
        limit = self._agent.settings.max_async
        room = scheduler.resources.async_room(scheduler.idle_memory()) // TYPICAL - self._unstarted
        if not self._held:
            room = max(room, 1)  # a machine that is smaller than a typical call must still take one
        if limit:
            room = min(room, limit - len(self._held))
        return min(room, AT_ONCE)

    def _take(self, leased: LeasedCall) -> None:
        if leased.call.id in self._held:
            log.warning("call %s was handed out again while it is here", leased.call.id)
            return
        if leased.lease and leased.lease.ttl > 0:
            self._ttl = leased.lease.ttl
        task = asyncio.create_task(self._run(leased), name=f"call {leased.call.id}")
        self._held[leased.call.id] = _Held(leased, task)
        self._holding.set()
        self._unstarted += 1

    # -- running -------------------------------------------------------------------------------

    async def _run(self, leased: LeasedCall) -> None:
        call, agent = leased.call, self._agent
        started = False

        async def before(job: Job) -> None:
            nonlocal started
            job.started = time.time()
            # As Fn's runners do: with the configuration of a cold call, and the time that its end will name.
            running = msgspec.structs.replace(job.call, started_at=times.to_text(job.started))
            await agent.data.start(msgspec.structs.replace(leased, call=running))
            started = True
            self._unstarted -= 1
            self._room.set()

        try:
            await self._submit(leased, before)
        except asyncio.CancelledError:
            self._forget(leased)
            raise
        except errors.LeaseLost:
            log.warning("call %s: the lease was lost before the start, dropped", call.id)
            self._forget(leased)
        except StartFailed as failure:
            await self._not_started(leased, failure.error, failure.output)
        except errors.DoesNotFit as exc:
            # Another runner may be larger; the attempt counts, so that it ends when none is.
            await self._not_started(leased, exc, b"")
        except errors.Unavailable as exc:
            if started:
                log.error("call %s: %s", call.id, exc)
                self._forget(leased)
            else:
                await self._give_back(leased, exc)
        except errors.NotFound as exc:
            agent.refuse(call, exc.message, leased.key.token, b"", self._stored(leased))
        except errors.FnError as exc:
            if not started:
                agent.refuse(call, exc.message, leased.key.token, b"", self._stored(leased))
        except Exception:
            log.exception("call %s failed in the agent", call.id)
            self._forget(leased)
        finally:
            if not started:
                self._unstarted -= 1
            self._room.set()

    async def _submit(self, leased: LeasedCall, before: Before) -> None:
        call, agent = leased.call, self._agent
        target = await agent.target_of(call)
        if call.path:
            job = route_job(call, target, header_list(call), call.payload)
        else:
            job = Job(
                call=call, target=target, headers=header_list(call), body=call.payload, sync=False,
                patience=target.timeout,
            )  # fmt: skip
        job.token, job.before, job.stored = leased.key.token, before, self._stored(leased)
        await agent.run(job)

    def _stored(self, leased: LeasedCall) -> Stored:
        return lambda taken: self._forget(leased)

    async def _not_started(self, leased: LeasedCall, error: errors.FnError, output: bytes) -> None:
        call, attempt = leased.call, leased.lease.attempt if leased.lease else 1
        reason = error.explained
        if isinstance(error, errors.EngineUnavailable):
            await self._give_back(leased, error)
        elif leased.lease is None or attempt >= async_policy.max_attempts(call, async_policy.DEFAULTS):
            call = msgspec.structs.replace(call, attempt=attempt)
            self._agent.refuse(call, reason, leased.key.token, output, self._stored(leased))
        else:
            log.warning("call %s: attempt %d got no container: %s", call.id, attempt, reason)
            self._forget(leased)

    async def _give_back(self, leased: LeasedCall, why: errors.FnError) -> None:
        log.info("call %s goes back to the queue: %s", leased.call.id, why)
        self._forget(leased)
        try:
            await self._agent.data.release([leased.key])
        except errors.FnError as exc:
            log.warning("call %s could not be released, its lease will run out: %s", leased.call.id, exc)
        await asyncio.sleep(random.uniform(0, PAUSE))  # not at once into the same wall

    def _forget(self, leased: LeasedCall) -> None:
        self._held.pop(leased.call.id, None)
        self._room.set()

    # -- leases --------------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            await self._holding.wait()
            await asyncio.sleep(self._ttl / RENEWALS)
            keys = [held.leased.key for held in self._held.values() if held.leased.lease]
            if not keys:
                self._holding.clear()
                continue
            try:
                lost = await self._agent.data.extend(keys)
            except errors.FnError as exc:
                log.warning("%d leases could not be renewed: %s", len(keys), exc)
                continue
            for call_id in lost:
                held = self._held.get(call_id)
                if held and held.task.cancel():
                    log.warning("call %s: the lease was lost, the run is stopped", call_id)

    async def _drain(self) -> None:
        """Unstarted calls go back at once, running ones get their time, the rest is cut off."""
        running = {held.task for held in self._held.values() if not held.task.done()}
        if not running:
            return
        log.info("%d async calls are still here, they get %g s", len(running), self._agent.settings.drain)
        _, late = await asyncio.wait(running, timeout=self._agent.settings.drain)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d async calls were cut off; their leases will run out", len(late))
            await asyncio.wait(late)


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
