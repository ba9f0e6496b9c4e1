"""Tasks beside a block: whoever began one ends it, and waits until it has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger(__name__)

ENDS = 10.0
"""Seconds that a task gets to end when it is cancelled."""


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Runs *work* as the task *name* until the block ends; the log says at once when it breaks down."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    try:
        yield
    finally:
        await ended(task)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels *tasks* and waits until they have ended, but not for ever.

    What they raise stays theirs. A cancellation that comes out of here is always one of the caller.
    """
    for task in tasks:
        task.cancel()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=ENDS)
        for task in late:
            log.error("%s does not end within %g s and is left behind", task.get_name(), ENDS)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (bug := task.exception()):
        log.error("%s broke down", task.get_name(), exc_info=bug)
