"""Whether the stores of an API node answer: looked at beside all requests, so that probes cost nothing.

Each store is asked for something that does not exist. One look that fails says little: the node is not ready
after the second one in a row, and ready again after the first that succeeds. A file that hangs is asked once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from services.stores import Stores
from shared_models.background import beside, ended
from shared_models.errors import FnError, NotFound

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two looks while all stores answer, ..."""
AGAIN = 1.0
"""... and while one does not."""
PATIENCE = 2.0
"""Seconds that a store has for its answer."""
ENOUGH = 2
"""Failures in a row after which the node is not ready."""
_NOBODY = "01AAAAAAAAAAAAAAAAAAAAAAAA"


class Readiness:
    """Made by ``watching``."""

    def __init__(self, stores: Stores) -> None:
        self._looks: dict[str, Callable[[], Awaitable[object]]] = {
            "datastore": lambda: stores.datastore.app(_NOBODY),
            "log store": lambda: stores.logstore.call(_NOBODY, app_id=_NOBODY),
            "queue": lambda: stores.queue.holds([_NOBODY]),
        }
        self._files = stores.files
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._failures = dict.fromkeys(self._looks, 0)
        self._causes: dict[str, str] = {}

    def reason(self) -> str:
        """Which stores do not answer, and why; "" when all do."""
        away = [f"{name}: {self._causes[name]}" for name, count in self._failures.items() if count >= ENOUGH]
        return "; ".join(away)

    @property
    def doubtful(self) -> bool:
        """Whether the last look at any store failed."""
        return any(self._failures.values())

    async def look(self) -> None:
        """Asks all stores at once."""
        await asyncio.gather(*(self._look(name) for name in self._looks))

    async def close(self) -> None:
        """Waits for no store any more."""
        await ended(*self._under_way.values())

    async def _look(self, name: str) -> None:
        try:
            await self._answered(name)
        except TimeoutError:
            self._failed(name, f"does not answer within {PATIENCE:g} s", "")
        except FnError as exc:
            # The detail has addresses, which are nobody's business who may probe.
            self._failed(name, exc.message, exc.detail)
        except Exception as exc:
            log.debug("the %s breaks down", name, exc_info=exc)
            self._failed(name, f"breaks down: {type(exc).__name__}", str(exc))
        else:
            if self._failures[name] >= ENOUGH:
                log.info("the %s answers again", name)
            self._failures[name] = 0

    async def _answered(self, name: str) -> None:
        """Raises what the store raises, and TimeoutError when it does not answer in time."""
        look = self._under_way.pop(name, None) or asyncio.create_task(self._ask(name), name=f"look at {name}")
        try:
            done, _ = await asyncio.wait({look}, timeout=PATIENCE)
            if done:
                return look.result()
            if name in self._files:
                # It has a thread of the store, whom nobody can call back: one more look would take one more.
                self._under_way[name] = look
            raise TimeoutError
        finally:
            if name not in self._under_way:
                look.cancel()

    async def _ask(self, name: str) -> None:
        with suppress(NotFound):
            await self._looks[name]()

    def _failed(self, name: str, cause: str, detail: str) -> None:
        self._failures[name] += 1
        self._causes[name] = cause
        if self._failures[name] == ENOUGH:
            log.error("not ready: the %s: %s%s", name, cause, f" ({detail})" if detail else "")


@asynccontextmanager
async def watching(stores: Stores, every: float = EVERY, again: float = AGAIN) -> AsyncIterator[Readiness]:
    """Looks at *stores* while the block runs, *again* so many seconds after a look that failed."""
    readiness = Readiness(stores)
    try:
        async with beside(_for_ever(readiness, every, again), "readiness"):
            yield readiness
    finally:
        await readiness.close()


async def _for_ever(readiness: Readiness, every: float, again: float) -> None:
    while True:
        await readiness.look()
        await asyncio.sleep(again if readiness.doubtful else every)
