"""Calls for queues on Redis, and reserves that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from shared_models.call import Call, LeasedCall
from shared_models.ids import new_id
from shared_models.interfaces import MessageQueue

TTL = 300.0
"""Longer than any test waits: what should be waked is not helped by a lease that runs out."""


def a_call(**more: Any) -> Call:
    return Call(id=new_id(), **{"fn_id": "fn", "app_id": "app", **more})


def ids(leased: list[LeasedCall]) -> list[str]:
    return [one.call.id for one in leased]


async def waiting(
    queue: MessageQueue, wait: float = 600, without: Collection[str] = ()
) -> asyncio.Task[list[LeasedCall]]:
    """A reserve that has looked and found nothing."""
    looked = asyncio.Event()
    next_free = queue._next_free

    async def after_the_look() -> float:
        looked.set()
        return await next_free()

    queue._next_free = after_the_look
    task = asyncio.create_task(queue.reserve(1, wait, TTL, without))
    await asyncio.wait_for(looked.wait(), 60)
    return task


async def got(task: asyncio.Task[list[LeasedCall]]) -> list[str]:
    return ids(await asyncio.wait_for(task, 60))
