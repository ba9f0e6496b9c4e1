"""Images of functions that were made or changed, fetched before their first call, beside all that runs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from runner_node.drivers.contract import ContainerDriver
from runner_node.loops import Changes, looping
from shared_models import errors

log = logging.getLogger(__name__)

PAUSES = (5.0, 30.0, 120.0, 600.0)
"""Seconds between the tries at an image; after the last one it is left to its first call."""
MOST = 1000
"""Images that wait, and those that are remembered as fetched, at most."""


class _Waiting:
    __slots__ = ("due", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.due = -math.inf


class ImagesAhead:
    """Made by ``fetching_images``."""

    def __init__(self, driver: ContainerDriver) -> None:
        self._driver = driver
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._under_way: set[str] = set()
        self._done: OrderedDict[str, None] = OrderedDict()
        """Those that were fetched, or given up: they are told again and again."""
        self._changes = Changes()
        self._loop = asyncio.get_running_loop()

    def want(self, image: str) -> None:
        """*image* is needed soon. One that was fetched before is not looked for again."""
        if image in self._done:
            self._done.move_to_end(image)
        elif image not in self._waiting and len(self._waiting) < MOST:
            self._waiting[image] = _Waiting()
            self._changes.tell()

    def forget(self) -> None:
        """Nothing is needed any more; what is under way goes on."""
        self._waiting.clear()

    async def fetch(self) -> None:
        """One image after the other, for ever."""
        while True:
            change = self._changes.next
            now = self._loop.time()
            free = [
                (each.due, image) for image, each in self._waiting.items() if image not in self._under_way
            ]
            due, image = min(free, default=(math.inf, ""), key=lambda one: one[0])
            if due <= now:
                await self._fetch(image, self._waiting[image])
                continue
            try:
                async with asyncio.timeout(None if due == math.inf else due - now):
                    await change.wait()
            except TimeoutError:
                pass

    async def _fetch(self, image: str, waiting: _Waiting) -> None:
        self._under_way.add(image)
        try:
            await self._driver.ensure_image(image)
        except errors.EngineUnavailable as exc:
            log.debug("image %s is not fetched ahead yet: %s", image, exc)
            waiting.due = self._loop.time() + PAUSES[0]
            return
        except errors.FnError as exc:
            if not waiting.tries:
                log.warning("image %s, which a function that was changed needs: %s", image, exc.explained)
            if waiting.tries < len(PAUSES):
                waiting.due = self._loop.time() + PAUSES[waiting.tries]
                waiting.tries += 1
                return
            log.debug("image %s is left to its first call", image)
        finally:
            self._under_way.discard(image)
            self._changes.tell()
        self._waiting.pop(image, None)
        self._done[image] = None
        if len(self._done) > MOST:
            self._done.popitem(last=False)


@asynccontextmanager
async def fetching_images(driver: ContainerDriver, at_once: int) -> AsyncIterator[ImagesAhead]:
    """*at_once* images at a time, for the time of the block; 0: none."""
    ahead = ImagesAhead(driver)
    async with AsyncExitStack() as stack:
        for number in range(at_once):
            await stack.enter_async_context(looping(ahead.fetch, f"images ahead {number}"))
        yield ahead
