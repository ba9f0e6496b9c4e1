"""Leases that come when whoever asked for them is gone: they go back, their attempt uncounted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from shared_models.call import LeasedCall, LeaseKey
from shared_models.errors import FnError

log = logging.getLogger(__name__)

RELEASE = 10.0
"""Seconds that giving back may take; then the leases run out by themselves."""


class Unclaimed:
    """Requests for leases that outlive their askers. *release* gives leases back.

    *patience*: seconds that a request goes on alone; None: until it has its answer. What was leased, and
    whose answer is on its way while the request is dropped, stays leased until that runs out.
    """

    def __init__(
        self, release: Callable[[Sequence[LeaseKey]], Awaitable[None]], patience: float | None = None
    ) -> None:
        self._release = release
        self._patience = patience
        self._returns: set[asyncio.Task[None]] = set()

    async def leased(self, lease: Coroutine[Any, Any, list[LeasedCall]]) -> list[LeasedCall]:
        """What *lease* leases; it goes on when the caller is cancelled, and what it leased is released."""
        asked = asyncio.create_task(lease, name="lease")
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            giving = asyncio.create_task(self._give_back(asked), name="give back")
            self._returns.add(giving)
            giving.add_done_callback(self._returns.discard)
            raise

    async def settle(self) -> None:
        """Returns when all that was left behind has been given back, or could not be."""
        while self._returns:
            await asyncio.wait(self._returns)

    async def _give_back(self, asked: asyncio.Task[list[LeasedCall]]) -> None:
        await asyncio.wait({asked}, timeout=self._patience)
        asked.cancel()  # as ever, one that has ended is not
        with suppress(FnError, asyncio.CancelledError, TimeoutError):
            if taken := await asked:
                log.info("%d calls that nobody waits for any more go back to the queue", len(taken))
                async with asyncio.timeout(RELEASE):
                    await self._release([one.key for one in taken])
