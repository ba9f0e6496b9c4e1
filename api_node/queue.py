"""``/v2/queue``: what waits in the queue, and what runs out of it, per function."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from shared_models import times
from shared_models.interfaces import MessageQueue, QueueDepth
from shared_models.web import json_response


class Queue:
    """Handlers of the queue's state."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue

    async def list(self, request: web.Request) -> web.StreamResponse:
        if fn_id := request.query.get("fn_id", ""):
            depths = [await self._queue.depth(fn_id)]
        else:
            depths = await self._queue.depths()
        return json_response({"items": [_depth(one) for one in depths]})


def _depth(one: QueueDepth) -> dict[str, Any]:
    """*oldest* is absent where nothing waits; *running* counts calls that a runner has leased."""
    body: dict[str, Any] = {"fn_id": one.fn_id, "queued": one.queued, "running": one.leased}
    if one.oldest != times.NEVER:
        body["oldest"] = one.oldest
        body["oldest_age_seconds"] = round(max(0.0, time.time() - times.seconds_of(one.oldest)), 3)
    return body
