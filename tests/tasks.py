"""Tasks that a test runs beside itself: ended by whoever began them, and heard of when they broke down."""

from __future__ import annotations

import asyncio
from typing import Any

from shared_models.background import ended


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    """Cancels *tasks*, waits until they have ended, and raises what the first of them broke down with.

    A cancellation that comes out of here is always one of the caller.
    """
    await ended(*tasks)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
