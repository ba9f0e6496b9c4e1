"""What the API nodes want ready on each runner: asked for every few seconds, and seen to.

Images of functions that were made or changed are fetched, and ``fn.hybrid/warm/min`` containers of those that
say so are kept. While no API node answers, what was wanted last goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from runner_node import metrics
from runner_node.calls import Target
from runner_node.drivers.contract import ContainerDriver
from runner_node.images_ahead import ImagesAhead, fetching_images
from runner_node.loops import looping
from shared_models import errors
from shared_models.wanted import WarmTarget, version_of

if TYPE_CHECKING:
    from runner_node.agent import Agent

log = logging.getLogger(__name__)

ASK = 3.0
"""Seconds between two questions, within a fifth at random: runners that began together drift apart."""
MORE = 0.1
"""Seconds until the next one when there is more to be asked for."""
LOOK = 1.0
"""Seconds between two looks at what is there and what is missing."""

Key = tuple[str, str, str]


class _Known:
    __slots__ = ("target", "wanted")

    def __init__(self, wanted: WarmTarget, target: Target) -> None:
        self.wanted = wanted
        self.target = target


class Warm:
    """Made by ``keeping_warm``. This is worker *number* of *count*, which share what a runner is to keep."""

    def __init__(self, agent: Agent, images: ImagesAhead, number: int, count: int) -> None:
        self._agent = agent
        self._images = images
        self._number = number
        self._count = count
        self._cursor = ""
        self._known: dict[Key, _Known] = {}

    async def ask(self) -> None:
        """For ever."""
        while True:
            more = False
            if not self._agent.health.drains:
                try:
                    more = await self._ask()
                except errors.FnError as exc:
                    # That no API node answers is for the heartbeats to say.
                    log.debug("what is to be ready is not known: %s", exc)
            await asyncio.sleep(MORE if more else ASK * random.uniform(0.8, 1.2))

    async def _ask(self) -> bool:
        """Whether there is more to be asked for."""
        wanted = await self._agent.data.wanted(self._cursor)
        if wanted is None:
            return False
        for image in wanted.images:
            self._images.want(image)
        known = self._known
        self._known = {}
        for one in wanted.warm:
            key = one.fn_id, one.app_id, one.path
            found = await self._resolved(one, known.get(key))
            if found:
                self._known[key] = found
        # Only now: what was not looked up is told again.
        self._cursor = wanted.cursor
        return wanted.more

    async def _resolved(self, wanted: WarmTarget, known: _Known | None) -> _Known | None:
        """The target of *wanted* as it is now; None for one that is gone, or cannot be kept."""
        if known and known.wanted.version == wanted.version:
            known.wanted = wanted
            return known
        try:
            return await self._looked_up(wanted)
        except errors.NotFound:
            return None
        except errors.FnError as exc:
            log.debug("%s is to be warm and cannot be looked up: %s", wanted, exc)
            return known

    async def _looked_up(self, wanted: WarmTarget) -> _Known | None:
        agent, data = self._agent, self._agent.data
        data.outdated("app", wanted.app_id)
        app = await data.app(wanted.app_id)
        if wanted.fn_id:
            data.outdated("fn", wanted.fn_id)
            fn = await data.fn(wanted.fn_id)
            found, target = version_of(fn.updated_at, app.updated_at), agent.target(fn, app)
        else:
            data.outdated("route", wanted.app_id, wanted.path)
            route = await data.route(wanted.app_id, wanted.path)
            found = version_of(route.updated_at, app.updated_at)
            target = agent.route_target(route, app, route.format)
        if target.cold:
            return None
        # One that has changed since it was told is looked up once more.
        version = wanted.version if found == wanted.version else ""
        return _Known(msgspec.structs.replace(wanted, version=version), target)

    async def look(self) -> None:
        """For ever."""
        while True:
            self._look()
            await asyncio.sleep(LOOK)

    def _look(self) -> None:
        agent = self._agent
        wanted: list[tuple[Target, int]] = []
        if agent.health.drains:
            self._images.forget()
        else:
            for known in self._known.values():
                count = part_of(known.wanted.count, self._number, self._count)
                wanted.append((agent.in_force(known.target), count))
        metrics.warm_wanted.set(sum(count for _, count in wanted))
        metrics.warm_ready.set(agent.scheduler.keep_warm(wanted))


def part_of(amount: int, number: int, count: int) -> int:
    """What worker *number* (from 0) of *count* keeps when all of them together keep *amount*."""
    return amount // count + (number < amount % count)


@asynccontextmanager
async def keeping_warm(
    agent: Agent, driver: ContainerDriver, *, number: int = 0, count: int = 1
) -> AsyncIterator[None]:
    """Sees to what is wanted, for the time of the block, as worker *number* of *count* of a runner.

    Images are for the first worker to fetch.
    """
    async with fetching_images(driver, 0 if number else agent.settings.images_ahead) as images:
        warm = Warm(agent, images, number, count)
        async with looping(warm.ask, "what is wanted"), looping(warm.look, "warm containers"):
            yield
