"""Starts of queued calls: those that come while a request is under way go together in the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from hybrid_client import on_wire
from hybrid_client.answers import Answer, UnknownThere
from shared_models import errors
from shared_models.batches import Batches
from shared_models.call import LeasedCall, LeaseKey

log = logging.getLogger(__name__)

COMPAT_FOR = 300.0
"""Seconds until it is tried again whether the API node knows our endpoints by now."""


class Starts:
    """*post* sends a body to a path, and raises what the answer stands for."""

    def __init__(self, post: Callable[[str, object], Awaitable[Answer]]) -> None:
        self._post = post
        self._starts = Batches(self._start_all)
        self._one_by_one_until = 0.0

    async def start(self, leased: LeasedCall) -> None:
        """See ``DataAccess.start``; only for calls with a lease."""
        await self._starts.ask(leased)

    async def _start_all(self, batch: Sequence[LeasedCall]) -> list[Exception | None]:
        if len(batch) > 1 and time.monotonic() >= self._one_by_one_until:
            try:
                return await self._start_together(batch)
            except UnknownThere:
                log.info("the API node is older than this runner: calls are started one by one")
                self._one_by_one_until = time.monotonic() + COMPAT_FOR
        return list(await asyncio.gather(*map(self._start, batch)))

    async def _start_together(self, batch: Sequence[LeasedCall]) -> list[Exception | None]:
        lost: set[LeaseKey] = set()
        for some in on_wire.split(batch):
            body = {"starts": [on_wire.started_on_wire(one) for one in some]}
            lost.update((await self._post("/v1/runner/starts", body)).decode(on_wire.NotStarted).lost)
        return [errors.LeaseLost() if one.key in lost else None for one in batch]

    async def _start(self, leased: LeasedCall) -> Exception | None:
        try:
            await self._post("/v1/runner/start", on_wire.started_on_wire(leased))
        except errors.Conflict as exc:
            return errors.LeaseLost(detail=exc.detail)
        except errors.FnError as exc:
            return exc
        return None
