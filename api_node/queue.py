"""``/v2/queue``: what waits in the queue, and what runs out of it, per function."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from shared_models import errors, times
from shared_models.call_interfaces import CallControl
from shared_models.interfaces import MessageQueue, QueueDepth
from shared_models.web import json_response

AT_ONCE = 1000
"""Queued calls that one request cancels at most."""


class Queue:
    """Handlers of the queue's state, and of what waits there."""

    def __init__(self, queue: MessageQueue, control: CallControl) -> None:
        self._queue = queue
        self._control = control

    async def list(self, request: web.Request) -> web.StreamResponse:
        if fn_id := request.query.get("fn_id", ""):
            depths = [await self._queue.depth(fn_id)]
        else:
            depths = await self._queue.depths()
        return json_response({"items": [_depth(one) for one in depths]})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        fn_id = request.query.get("fn_id", "")
        if not fn_id:
            raise errors.Invalid("fn_id: must be given: whose queued calls are meant")
        cancelled = await self._control.cancel_queued(fn_id, AT_ONCE)
        return json_response({"cancelled": cancelled, "left": (await self._queue.depth(fn_id)).queued})


def _depth(one: QueueDepth) -> dict[str, Any]:
    """*oldest* is absent where nothing waits; *running* counts calls that a runner has leased."""
    body: dict[str, Any] = {"fn_id": one.fn_id, "queued": one.queued, "running": one.leased}
    if one.oldest != times.NEVER:
        body["oldest"] = one.oldest
        body["oldest_age_seconds"] = round(max(0.0, time.time() - times.seconds_of(one.oldest)), 3)
    return body
